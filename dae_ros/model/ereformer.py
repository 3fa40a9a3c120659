"""EReFormer (Liu et al. 2022, arXiv:2212.02791): a Swin UNet with recurrent attention gates.

Architecture after github.com/liuxu0303/EReFormer at 22a6e1b748c596914ca4d99371f9d6284654fd36
(model/EReFormer.py, model/submodules.py, model/swin.py). Its authors publish no weights, so the
key names here are our own. Left out: dropout and stochastic depth, which act in training only.
Sizes are multiples of 32, where the published padding and cutting between stages does nothing.
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
from dae_ros.model.dpt_head import State
from dae_ros.model.extractor import check_image
from dae_ros.model.log_depth import MAX_DEPTH_M, to_depth
from dae_ros.model.swin import SwinStage

PATCH_PX = 4
# Positions are learned for an image of this side and resized to others.
_POSITIONS_PX = 224
_LARGEST_WINDOW = 256


@dataclass(frozen=True, kw_only=True)
class EReFormerConfig:
    """Sizes of an EReFormer network; the defaults are the published ones.

    Attributes:
        input_channels: 5 bins of a voxel grid, as in the comparison of Bartolomei et al. 2025
            (arXiv:2509.15224); the authors themselves feed pictures of events (3).
        width: channels of the first stage; each stage doubles them.
        depths: Swin blocks of the four stages of the encoder.
        heads: attention heads of the four stages.
        window: side of an attention window in cells.
        max_depth_m: depth where the sigmoid is 1.
        input_height, input_width: lower bounds of the network's input in px.
    """

    network: ClassVar[str] = "ereformer"

    input_channels: int = 5
    width: int = 96
    depths: tuple[int, int, int, int] = (2, 2, 18, 2)
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window: int = 7
    max_depth_m: float = MAX_DEPTH_M
    input_height: int = 256
    input_width: int = 320

    def __post_init__(self) -> None:
        problems = []
        if len(self.depths) != 4 or not 1 <= min(self.depths) <= max(self.depths) <= MOST_BLOCKS:
            problems.append(
                f"depths must be four numbers of blocks, up to {MOST_BLOCKS}, not {self.depths}"
            )
        if len(self.heads) != 4 or min(self.heads, default=0) < 1:
            problems.append(f"heads must be four numbers of heads, not {self.heads}")
        elif any(self.width * 2**k % count for k, count in enumerate(self.heads)):
            problems.append(f"heads {self.heads} do not divide the stages' channels evenly")
        counts = (self.input_channels, self.width, self.input_height, self.input_width)
        if not 1 <= min(counts) <= max(counts) <= LARGEST_COUNT:
            problems.append(f"channels, width and input size must be from 1 to {LARGEST_COUNT}")
        if not 2 <= self.window <= _LARGEST_WINDOW:
            problems.append(f"window must be from 2 to {_LARGEST_WINDOW}, not {self.window}")
        if not 0 < self.max_depth_m < float("inf"):
            problems.append(f"max_depth_m must be positive, not {self.max_depth_m}")
        if problems:
            raise ConfigurationError("; ".join(problems), problems=problems)

    @property
    def input_format(self) -> InputFormat:
        """Scaled to the input size; not normalised beyond what the representation does."""
        count = self.input_channels
        size = (self.input_height, self.input_width)
        return InputFormat(count, (0.0,) * count, (1.0,) * count, size)

    def summary(self) -> dict[str, str]:
        """Return what a user should read about it, one text per row."""
        return {
            "encoder": f"swin, {self.width} channels, {sum(self.depths)} blocks",
            "recurrence": "attention with gates",
            "activation": f"sigmoid, logarithmic depth up to {self.max_depth_m:g} m",
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            **dataclasses.asdict(self), "depths": list(self.depths), "heads": list(self.heads)
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EReFormerConfig:
        """Build from what `to_dict` gave.

        Raises:
            ConfigurationError: for a field that is unknown or out of range.
        """
        check_fields(cls, values)
        lists = {key: tuple(values[key]) for key in ("depths", "heads") if key in values}
        return cls(**{**values, **lists})


def _grid(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """(B, rows * columns, C) -> (B, C, rows, columns)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], rows, columns)


def _tokens(grid: Tensor) -> Tensor:
    """(B, C, rows, columns) -> (B, rows * columns, C)."""
    return grid.flatten(2).transpose(1, 2)


class RecurrentAttention(nn.Module):
    """The GRViT unit: attention over tokens and state, and a gate for what the state takes in.

    The attention is linear, phi(q) phi(k)^T v with phi = elu + 1 and no denominator, as
    published; it is summed keys first, which takes N C^2 steps instead of N^2 C.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_input = nn.LayerNorm(channels)
        self.norm_state = nn.LayerNorm(channels)
        self.qkv_input = nn.Linear(channels, 3 * channels, bias=False)
        self.qkv_state = nn.Linear(channels, 3 * channels, bias=False)
        self.project = nn.Linear(channels, channels)
        self.update = nn.Linear(2 * channels, channels)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor, state: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Advance by one step.

        Args:
            x: (B, N, C), tokens of this step.
            state: (B, N, C).
            positions: (1, N, C), added to the tokens.

        Returns:
            The tokens, and the new state in the dtype of `state`.
        """
        before = state.to(x.dtype)
        placed = x + positions
        qkv = self.qkv_input(self.norm_input(placed)) + self.qkv_state(self.norm_state(before))
        batch, count, channels = x.shape
        split = qkv.reshape(batch, count, 3, self.heads, channels // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        # Sums over thousands of tokens: in float32 or wider, whatever the weights are.
        wide = state.dtype
        with torch.autocast(x.device.type, enabled=False):
            content = (F.elu(k.to(wide)) + 1.0).transpose(2, 3) @ v.to(wide)
            mixed = (F.elu(q.to(wide)) + 1.0) @ content
        weight = self.project.weight.dtype
        found = self.project(mixed.transpose(1, 2).flatten(2).to(weight))
        update = torch.sigmoid(self.update(torch.cat([x, before], dim=2))).to(wide)
        new_state = state * (1.0 - update) + found.to(wide) * update
        out = placed + found
        return out + self.mlp(self.norm_mlp(out)), new_state


class EReFormer(nn.Module):
    """Depth from event images or voxel grids, with memory."""

    def __init__(self, config: EReFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.multiple = 8 * PATCH_PX
        window = config.window
        self.widths = tuple(config.width * 2**k for k in range(4))
        sizes = list(zip(self.widths, config.heads, strict=True))
        self.patches = nn.Conv2d(config.input_channels, config.width, PATCH_PX, stride=PATCH_PX)
        self.norm_patches = nn.LayerNorm(config.width)
        self.stages = nn.ModuleList(
            SwinStage(width, heads, window, depth, 4)
            for (width, heads), depth in zip(sizes, config.depths, strict=True)
        )
        self.norm_stages = nn.ModuleList(nn.LayerNorm(width) for width in self.widths)
        self.norm_merges = nn.ModuleList(nn.LayerNorm(4 * width) for width in self.widths[:-1])
        self.merges = nn.ModuleList(
            nn.Linear(4 * width, 2 * width, bias=False) for width in self.widths[:-1]
        )
        self.positions = nn.ParameterList(
            nn.Parameter(0.02 * torch.randn(1, width, side, side))
            for width, side in zip(
                self.widths, (_POSITIONS_PX // PATCH_PX // 2**k for k in range(4)), strict=True
            )
        )
        self.memories = nn.ModuleList(RecurrentAttention(width, heads) for width, heads in sizes)
        self.bottom = SwinStage(*sizes[3], window, 2, 2)
        # Decoder blocks, coarsest first; the coarsest is narrower inside and has no skip.
        self.decoders = nn.ModuleList(
            SwinStage(*sizes[k], window, 2, 2 if k == 3 else 4) for k in (3, 2, 1, 0)
        )
        self.skips = nn.ModuleList(
            SwinStage(*sizes[k], window, 2, 4, cross=True) for k in (2, 1, 0)
        )
        self.splits = nn.ModuleList(
            nn.Linear(self.widths[k], 2 * self.widths[k], bias=False) for k in (3, 2, 1)
        )
        self.norm_splits = nn.ModuleList(nn.LayerNorm(self.widths[k]) for k in (2, 1, 0))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.conv = nn.Conv2d(config.width, 96, 3, padding=1)
        self.head = nn.Sequential(nn.Conv2d(96, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1))

    def initial_state(self, batch: int, height: int, width: int) -> State:
        """Return zeros: (h1, h2, h3, h4), finest stage first, each (batch, cells, channels).

        float32 also where the weights are of half precision.

        Raises:
            ConfigurationError: unless both sides are multiples of 32.
        """
        weight = self.conv.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        count = self.config.input_channels
        check_image(weight.new_empty(0, count, height, width), count, self.multiple)
        return tuple(
            torch.zeros(batch, height * width // stride**2, channels, dtype=dtype,
                        device=weight.device)
            for stride, channels in zip(self._strides(), self.widths, strict=True)
        )  # fmt: skip

    @staticmethod
    def _strides() -> list[int]:
        return [PATCH_PX * 2**stage for stage in range(4)]

    def forward(self, image: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one step.

        Args:
            image: (B, C, H, W), a normalised voxel grid or an event image in 0..1.
            state: what the step before returned, or `initial_state(B, H, W)`.

        Returns:
            Depth (B, 1, H, W) in metres, between 1.97 and 80 with the published settings and at
            least float32, and the state for the next step.

        Raises:
            ConfigurationError: for a size or a state that does not fit.
        """
        check_image(image, self.config.input_channels, self.multiple)
        if len(state) != 4:
            raise ConfigurationError(
                f"the state has {len(state)} tensors; this network keeps 4. Begin with "
                "initial_state(batch, height, width)",
                tensors=len(state),
            )
        height, width = image.shape[2:]
        cells = [(height // stride, width // stride) for stride in self._strides()]
        remembered, new_state = [], []
        for stage, tokens in enumerate(self._encode(image, cells)):
            positions = _tokens(
                F.interpolate(self.positions[stage].float(), cells[stage], mode="bicubic")
            ).to(tokens.dtype)
            tokens, kept = self.memories[stage](tokens, state[stage], positions)
            remembered.append(tokens)
            new_state.append(kept)
        return to_depth(self._decode(remembered, cells, (height, width)),
                        self.config.max_depth_m), tuple(new_state)  # fmt: skip

    def _encode(self, image: Tensor, cells: list[tuple[int, int]]) -> list[Tensor]:
        x = self.norm_patches(_tokens(self.patches(image)))
        maps = []
        for stage, blocks in enumerate(self.stages):
            if stage > 0:
                merged = F.pixel_unshuffle(_grid(x, *cells[stage - 1]), 2)
                x = self.merges[stage - 1](self.norm_merges[stage - 1](_tokens(merged)))
            x = blocks(x, None, *cells[stage])
            maps.append(self.norm_stages[stage](x))
        return maps

    def _decode(
        self, maps: list[Tensor], cells: list[tuple[int, int]], size: tuple[int, int]
    ) -> Tensor:
        x = maps[3] + self.bottom(maps[3], None, *cells[3])
        for step, stage in enumerate((3, 2, 1, 0)):
            if stage < 3:
                split = F.pixel_shuffle(_grid(self.splits[step - 1](x), *cells[stage + 1]), 2)
                x = self.norm_splits[step - 1](_tokens(split))
                x = x + self.skips[step - 1](x, maps[stage], *cells[stage])
            x = self.decoders[step](x, None, *cells[stage])
        features = self.conv(_grid(self.norm(x), *cells[0]))
        features = F.interpolate(features, size, mode="bicubic", align_corners=True)
        logits: Tensor = self.head(features)
        return logits
