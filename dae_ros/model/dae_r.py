"""DepthAnyEvent-R and DepthAnyEvent (Bartolomei et al. 2025, arXiv:2509.15224)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dae_ros.errors import ConfigurationError
from dae_ros.model.configuration import ModelConfig
from dae_ros.model.dpt_head import DPTHead, State
from dae_ros.model.extractor import Encoder, build_encoder, check_image


class DepthAnyEventR(nn.Module):
    """Depth from a stream of event images, with memory.

    Args:
        config: must name a recurrence.
        encoder: used in place of the one that `config.encoder` names; any `Encoder` module.
    """

    def __init__(self, config: ModelConfig, encoder: Encoder | None = None) -> None:
        super().__init__()
        if config.recurrence is None:
            raise ConfigurationError(
                "DepthAnyEventR needs a recurrence; use DepthAnyEvent for a network without state"
            )
        self.config = config
        self.pretrained = build_encoder(config) if encoder is None else encoder
        self.multiple = self.pretrained.multiple
        self.depth_head = DPTHead(config, self.pretrained.channels, self.pretrained.strides)

    def initial_state(self, batch: int, height: int, width: int) -> State:
        """Return the state before the first step: zeros on the device of the weights.

        Args:
            batch: number of independent streams.
            height, width: of the network's input in px.

        Returns:
            A flat tuple of tensors, coarsest level first: (h4, c4, h3, c3, h2, c2, h1, c1) for
            convlstm, (h4, h3, h2, h1) for convgru, each (batch, F, rows, columns); flat, so
            that exported graphs have plain inputs and outputs. float32 also where the weights
            are of half precision.

        Raises:
            ConfigurationError: for an input that is too small.
        """
        weight = self.depth_head.scratch.output_conv1.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return tuple(
            torch.zeros(batch, *shape, dtype=dtype, device=weight.device)
            for shape in self.depth_head.state_shapes(height, width)
        )

    def forward(self, image: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one step.

        Args:
            image: (B, C, H, W), normalised as `config.input_format` says.
            state: what the step before returned, or `initial_state(B, H, W)`.

        Returns:
            The prediction (B, 1, H, W), never negative, and the state for the next step.

        Raises:
            ConfigurationError: for a size or a state that does not fit.
        """
        check_image(image, self.config.input_channels, self.multiple)
        size = (image.shape[2], image.shape[3])
        prediction, state = self.depth_head(self.pretrained(image), size, state)
        return prediction, state


class DepthAnyEvent(nn.Module):
    """Depth from one image: the same encoder, head and interface, without memory.

    Args:
        config: must not name a recurrence.
        encoder: used in place of the one that `config.encoder` names; any `Encoder` module.
    """

    def __init__(self, config: ModelConfig, encoder: Encoder | None = None) -> None:
        super().__init__()
        if config.recurrence is not None:
            raise ConfigurationError(
                f"{type(self).__name__} has no recurrence; use DepthAnyEventR for "
                f"{config.recurrence}"
            )
        self.config = config
        self.pretrained = build_encoder(config) if encoder is None else encoder
        self.multiple = self.pretrained.multiple
        self.depth_head = DPTHead(config, self.pretrained.channels, self.pretrained.strides)

    def initial_state(self, batch: int, height: int, width: int) -> State:  # noqa: ARG002
        """Return (): there is none."""
        return ()

    def forward(self, image: Tensor, state: State = ()) -> tuple[Tensor, State]:
        """Predict from one image.

        Args:
            image: (B, C, H, W), normalised as `config.input_format` says.
            state: nothing, as `initial_state` gives.

        Returns:
            The prediction (B, 1, H, W), never negative, and ().

        Raises:
            ConfigurationError: for a size that does not fit, or the state of another network.
        """
        check_image(image, self.config.input_channels, self.multiple)
        size = (image.shape[2], image.shape[3])
        prediction, state = self.depth_head(self.pretrained(image), size, state)
        return prediction, state
