"""E2Depth (Hidalgo-Carrio et al. 2020, arXiv:2010.08350): a recurrent UNet on voxel grids.

Key names, shapes and arithmetic follow the published network, so that its checkpoints load:
github.com/uzh-rpg/rpg_e2depth at 17d453c175d94a6e4e666b4dafb64b072eb2df5d, e2depth/model/
(model.py, unet.py, submodules.py); settings: e2depth/configs/train_e2depth_si_grad_loss_mixed.json.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dae_ros.errors import ConfigurationError
from dae_ros.model.configuration import LARGEST_COUNT, MOST_BLOCKS, InputFormat, check_fields
from dae_ros.model.conv_lstm import ConvLSTM
from dae_ros.model.dpt_head import State
from dae_ros.model.extractor import check_image
from dae_ros.model.log_depth import MAX_DEPTH_M, to_depth


@dataclass(frozen=True, kw_only=True)
class E2DepthConfig:
    """Sizes of an E2Depth network; the defaults are the published ones.

    Attributes:
        bins: of the voxel grid, the input's channels.
        levels: recurrent encoders, each of which halves the size and doubles the channels.
        channels: of the first layer.
        residual_blocks: at the coarsest level.
        max_depth_m: depth where the sigmoid is 1.
    """

    network: ClassVar[str] = "e2depth"

    bins: int = 5
    levels: int = 3
    channels: int = 32
    residual_blocks: int = 2
    max_depth_m: float = MAX_DEPTH_M

    def __post_init__(self) -> None:
        if self.bins < 2 or min(self.levels, self.channels) < 1 or self.residual_blocks < 0:
            raise ConfigurationError(
                "E2Depth needs at least 2 bins, 1 level and 1 channel; given are "
                f"{self.bins}, {self.levels}, {self.channels}",
                config=dataclasses.asdict(self),
            )
        blocks = max(self.levels, self.residual_blocks)
        if blocks > MOST_BLOCKS or max(self.bins, self.channels << self.levels) > LARGEST_COUNT:
            raise ConfigurationError(
                f"E2Depth of {self.bins} bins, {self.levels} levels from {self.channels} channels, "
                f"and {self.residual_blocks} blocks is too large: at most {LARGEST_COUNT} bins and "
                f"channels at any level, and {MOST_BLOCKS} levels and blocks",
                config=dataclasses.asdict(self),
            )
        if not 0 < self.max_depth_m < float("inf"):
            raise ConfigurationError(f"max_depth_m must be positive, not {self.max_depth_m}")

    @property
    def input_format(self) -> InputFormat:
        """The grid at the sensor's size, padded by reflection, as published.

        The normalisation, over the voxels that hold something, belongs to the voxel grid.
        """
        return InputFormat(self.bins, (0.0,) * self.bins, (1.0,) * self.bins, None)

    def summary(self) -> dict[str, str]:
        """Return what a user should read about it, one text per row."""
        return {
            "encoder": f"{self.levels} levels from {self.channels} channels, {self.bins} bins",
            "recurrence": "convlstm",
            "activation": f"sigmoid, logarithmic depth up to {self.max_depth_m:g} m",
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> E2DepthConfig:
        """Build from what `to_dict` gave.

        Raises:
            ConfigurationError: for a field that is unknown or out of range.
        """
        check_fields(cls, values)
        return cls(**values)


class _Convolution(nn.Module):
    """A convolution with bias under the key that the published files use."""

    def __init__(self, given: int, wanted: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(given, wanted, kernel, stride, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, wanted, h / stride, w / stride)."""
        out: Tensor = self.conv2d(x)
        return out


class _RecurrentEncoder(nn.Module):
    """Halves the size, doubles the channels, and remembers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _Convolution(channels, 2 * channels, 5, stride=2)
        self.recurrent_block = ConvLSTM(2 * channels)

    def forward(self, x: Tensor, state: State) -> State:
        """Return the new hidden state, which is the level's feature, and the new cell."""
        new: State = self.recurrent_block(torch.relu(self.conv(x)), state)
        return new


class _ResidualBlock(nn.Module):
    """relu(x + conv(relu(conv(x)))), 3x3, same size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


class _RecurrentUNet(nn.Module):
    def __init__(self, config: E2DepthConfig) -> None:
        super().__init__()
        widths = [config.channels * 2**level for level in range(config.levels + 1)]
        self.head = _Convolution(config.bins, config.channels, 5)
        self.encoders = nn.ModuleList(_RecurrentEncoder(width) for width in widths[:-1])
        self.resblocks = nn.ModuleList(
            _ResidualBlock(widths[-1]) for _ in range(config.residual_blocks)
        )
        self.decoders = nn.ModuleList(
            _Convolution(width, width // 2, 5) for width in reversed(widths[1:])
        )
        self.pred = _Convolution(config.channels, 1, 1)

    def forward(self, voxels: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the logits (B, 1, H, W) and the new state."""
        x = head = torch.relu(self.head(voxels))
        features, new_state = [], []
        for level, encoder in enumerate(self.encoders):
            hidden, cell = encoder(x, state[2 * level : 2 * level + 2])
            new_state += [hidden, cell]
            x = hidden.to(head.dtype)
            features.append(x)
        for block in self.resblocks:
            x = block(x)
        # Skip connections add; decoders upsample first and then convolve.
        for decoder, feature in zip(self.decoders, reversed(features), strict=True):
            x = F.interpolate(x + feature, scale_factor=2, mode="bilinear", align_corners=False)
            x = torch.relu(decoder(x))
        return self.pred(x + head), tuple(new_state)


class E2Depth(nn.Module):
    """Depth from normalised voxel grids, with memory."""

    def __init__(self, config: E2DepthConfig) -> None:
        super().__init__()
        self.config = config
        self.multiple = 2**config.levels
        self.unetrecurrent = _RecurrentUNet(config)

    def initial_state(self, batch: int, height: int, width: int) -> State:
        """Return zeros: hidden and cell of each level, finest first (h1, c1, h2, c2, ...).

        Each is (batch, channels 2^k, height / 2^k, width / 2^k), float32 also where the weights
        are of half precision.

        Raises:
            ConfigurationError: unless both sides are multiples of 2^levels.
        """
        weight = self.unetrecurrent.pred.conv2d.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        check_image(weight.new_empty(0, self.config.bins, height, width), self.config.bins,
                    self.multiple)  # fmt: skip
        return tuple(
            torch.zeros(batch, self.config.channels * step, height // step, width // step,
                        dtype=dtype, device=weight.device)
            for step in (2**level for level in range(1, self.config.levels + 1))
            for _ in ("hidden", "cell")
        )  # fmt: skip

    def forward(self, voxels: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one step.

        Args:
            voxels: (B, bins, H, W), a voxel grid whose non-zero voxels have mean 0, deviation 1.
            state: what the step before returned, or `initial_state(B, H, W)`.

        Returns:
            Depth (B, 1, H, W) in metres, between 1.97 and 80 with the published settings and at
            least float32, and the state for the next step.

        Raises:
            ConfigurationError: for a size or a state that does not fit.
        """
        check_image(voxels, self.config.bins, self.multiple)
        if len(state) != 2 * self.config.levels:
            raise ConfigurationError(
                f"the state has {len(state)} tensors; this network keeps "
                f"{2 * self.config.levels}. Begin with initial_state(batch, height, width)",
                tensors=len(state),
            )
        logits, new_state = self.unetrecurrent(voxels, state)
        return to_depth(logits, self.config.max_depth_m), new_state
