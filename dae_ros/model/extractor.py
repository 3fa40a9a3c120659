"""What a network may use as its encoder, and how timm's feature extractors become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dae_ros.errors import ConfigurationError
from dae_ros.model.backbone import VisionTransformer
from dae_ros.model.compact import MicroEncoder
from dae_ros.model.configuration import TIMM_PREFIX, TRANSFORMERS, ModelConfig


class Encoder(Protocol):
    """Any module that turns (B, C, H, W) into four feature maps; C is 3 but for grey frames.

    `strides` are px of the image per cell, finest first; a map has ceil(H / stride) rows. H and
    W must be multiples of `multiple`. Four equal strides (a plain transformer) are spread to a
    pyramid by the head; maps that already form one are only projected.
    """

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the four maps."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the four maps in px."""

    @property
    def multiple(self) -> int:
        """What both sides of the image must be multiples of, in px."""

    def __call__(self, image: Tensor) -> Sequence[Tensor]:
        """Return the four maps (B, channels[k], ceil(H / strides[k]), ceil(W / strides[k]))."""


class TimmEncoder(nn.Module):
    """The last four feature maps of a model of timm (extra `timm`), without weights.

    Args:
        name: a model of timm that supports `features_only`.

    Raises:
        ConfigurationError: if timm cannot be imported, does not know the name, or the model
            has fewer than four feature maps.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            import timm
        except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
            raise ConfigurationError(
                f"encoder {TIMM_PREFIX}{name} needs timm, which cannot be imported ({error}). "
                "Install the extra `timm` on a machine whose torchvision fits its torch",
                encoder=name,
            ) from error
        if not timm.is_model(name):
            raise ConfigurationError(f"timm has no model '{name}'", encoder=name)
        probe, options = _flexible(timm.create_model, name)
        levels = len(probe.feature_info)
        if levels < 4:
            raise ConfigurationError(
                f"timm's {name} has {levels} feature maps; four are needed", encoder=name
            )
        self.body = timm.create_model(
            name,
            pretrained=False,
            features_only=True,
            out_indices=tuple(range(levels - 4, levels)),
            **options,
        )
        self.name = name
        self.channels = tuple(int(count) for count in self.body.feature_info.channels())
        self._channels_last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"
        self.strides = tuple(int(stride) for stride in self.body.feature_info.reduction())
        self.multiple = max(self.strides)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return four maps (B, channels[k], H / strides[k], W / strides[k]).

        Raises:
            ConfigurationError: some models of timm take no image but of their own sizes.
        """
        try:
            maps = self.body(image)
        except AssertionError as error:
            height, width = image.shape[2:]
            raise ConfigurationError(
                f"timm's {self.name} does not take an input of {height}x{width} ({error}); choose "
                "another input_height and input_width, or another encoder",
                encoder=self.name,
                height=height,
                width=width,
            ) from error
        return [level.permute(0, 3, 1, 2) for level in maps] if self._channels_last else list(maps)


def _flexible(create_model: Callable[..., Any], name: str) -> tuple[Any, dict[str, bool]]:
    """Return a model of timm for images of any size, and the options that make it so.

    Transformers with positions or masks of one size have an option for it, each family its own.
    """
    for options in ({"dynamic_img_size": True}, {"strict_img_size": False}):
        try:
            return create_model(name, pretrained=False, features_only=True, **options), options
        except TypeError:  # the family has no such option
            continue
    return create_model(name, pretrained=False, features_only=True), {}


def build_encoder(config: ModelConfig) -> VisionTransformer | MicroEncoder | TimmEncoder:
    """Return the encoder that a configuration names, with untrained weights.

    Raises:
        ConfigurationError: for a name that timm does not know.
    """
    if config.encoder in TRANSFORMERS:
        return VisionTransformer(TRANSFORMERS[config.encoder])
    if config.encoder == "micro":
        return MicroEncoder(config.input_channels)
    return TimmEncoder(config.encoder.removeprefix(TIMM_PREFIX))


def check_image(image: Tensor, channels: int, multiple: int) -> None:
    """Refuse an input that an encoder would misread or crop silently.

    Raises:
        ConfigurationError: unless image is (B, channels, H, W) of floats and H and W are
            multiples of `multiple`.
    """
    if image.dim() != 4 or image.shape[1] != channels or not torch.is_floating_point(image):
        raise ConfigurationError(
            f"the network's input is {tuple(image.shape)} {image.dtype}; give floats of shape "
            f"(batch, {channels}, height, width)",
            shape=tuple(image.shape),
        )
    height, width = image.shape[2:]
    if height % multiple or width % multiple:
        raise ConfigurationError(
            f"the network's input is {height}x{width}; both sides must be multiples of "
            f"{multiple}. Resize it to the size that `network_size` gives",
            height=height,
            width=width,
        )
