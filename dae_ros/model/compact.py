"""The convolutional encoder of `micro`, this project's own, for processors without a GPU.

Inverted residual blocks (Sandler et al. 2018, arXiv:1801.04381) with 5x5 depthwise kernels and
group normalisation (Wu and He 2018, arXiv:1803.08494). No batch normalisation: running
statistics would be a second, hidden state beside the weights, wrong for the one stream that a
robot distils from, and outside of what a candidate's guard and averaging see.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEM_CHANNELS = 24
CHANNELS = (48, 80, 128, 224)
BLOCKS = (2, 3, 4, 2)
EXPANSION = 3
GROUP_CHANNELS = 8


def _normalisation(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP_CHANNELS, channels)


class InvertedResidual(nn.Module):
    """x + scale * project(relu(expand(norm(depthwise(x))))), same size and channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False)
        self.norm = _normalisation(channels)
        self.expand = nn.Conv2d(channels, EXPANSION * channels, 1)
        self.project = nn.Conv2d(EXPANSION * channels, channels, 1)
        # Begins small, so that a deep stack begins close to the identity.
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        out: Tensor = x + self.scale * self.project(
            torch.relu(self.expand(self.norm(self.depthwise(x))))
        )
        return out


class Halving(nn.Module):
    """(B, given, h, w) -> (B, wanted, ceil(h / 2), ceil(w / 2)): depthwise, pointwise, norm."""

    def __init__(self, given: int, wanted: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(given, given, 3, stride=2, padding=1, groups=given, bias=False)
        self.pointwise = nn.Conv2d(given, wanted, 1, bias=False)
        self.norm = _normalisation(wanted)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map at half the size."""
        out: Tensor = self.norm(self.pointwise(self.depthwise(x)))
        return out


class MicroEncoder(nn.Module):
    """(B, C, H, W) -> four maps at strides 4, 8, 16 and 32, 1.2 M weights.

    Every halving rounds up, so no size needs padding. Sizes are multiples of 14 all the same:
    126x168 and 266x350 are then the very grids of the published networks, and a transformer as
    teacher labels the student's own pixels.

    Args:
        input_channels: 3 for Tencode, 1 for grey frames.

    Attributes:
        channels, strides, multiple: see `extractor.Encoder`.
    """

    def __init__(self, input_channels: int) -> None:
        super().__init__()
        self.channels = CHANNELS
        self.strides = (4, 8, 16, 32)
        self.multiple = 14
        self.stem = nn.Sequential(
            nn.Conv2d(input_channels, STEM_CHANNELS, 3, stride=2, padding=1, bias=False),
            _normalisation(STEM_CHANNELS),
            nn.ReLU(),
        )
        given = (STEM_CHANNELS, *CHANNELS)
        self.stages = nn.ModuleList(
            nn.Sequential(
                Halving(given[stage], CHANNELS[stage]),
                *(InvertedResidual(CHANNELS[stage]) for _ in range(BLOCKS[stage])),
            )
            for stage in range(4)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return four maps (B, channels[k], ceil(H / strides[k]), ceil(W / strides[k]))."""
        level: Tensor = self.stem(image)
        maps = []
        for stage in self.stages:
            level = stage(level)
            maps.append(level)
        return maps
