"""A scene that needs no simulator: a box before a tilted wall, and what a camera sees of it.

Depth is exact; the event image marks the box's edges and rows of a pattern on the wall, so that
it says where things are; grey is a function of depth, so that a frame says all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.distillation.clip_build import build_clips
from dae_ros.distillation.clip_recipe import Recipe
from dae_ros.distillation.clip_sources import VOXEL_BINS, Sample


def depth_of_grey(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return metres of a grey level in 0..255; the inverse of how frames are painted."""
    return 1.0 + grey / 32.0


@dataclass(frozen=True)
class WedgeSource:
    """A clip source; see `clip_sources.py`.

    Attributes:
        seed: where the box begins and how fast it moves.
        height, width: px.
        windows: how many.
        restart_at: a window before which continuity breaks; 0 for none.
        broken_at: a window whose voxel grid holds NaN; -1 for none.
        frames, depth: whether there are.
    """

    seed: int
    height: int = 56
    width: int = 84
    windows: int = 8
    restart_at: int = 0
    broken_at: int = -1
    frames: bool = True
    depth: bool = True

    @property
    def label(self) -> str:
        return f"wedge_{self.seed}"

    @property
    def place(self) -> str:
        return self.label

    def facts(self) -> dict[str, Any]:
        return {"wedge": [self.seed, self.height, self.width, self.windows, self.broken_at]}

    def samples(
        self, event_encoder: str, window_ns: int, left_out: Counter[str]
    ) -> Iterator[Sample]:
        random = np.random.default_rng(self.seed)
        left, top = random.integers(2, self.width // 3), random.integers(2, self.height // 3)
        speed = 1 + self.seed % 3
        for index in range(self.windows):
            grey = self.grey(int(left) + speed * index, int(top))
            image = self.events(grey)
            if event_encoder == "voxel_grid":
                image = np.repeat(image[:1] - image[2:], VOXEL_BINS, axis=0)
                if index == self.broken_at:
                    image[0, 0, 0] = np.nan
            yield Sample(
                image,
                depth_of_grey(grey).astype(np.float32) if self.depth else None,
                grey.astype(np.uint8) if self.frames else None,
                0,
                (index + 1) * window_ns,
                index in (0, self.restart_at),
            )

    def grey(self, left: int, top: int) -> NDArray[np.float32]:
        grey = np.linspace(120, 250, self.width, dtype=np.float32) * np.ones((self.height, 1))
        grey = grey.astype(np.float32).round()
        side = self.height // 3
        grey[top : top + side, left : left + side] = 40.0
        return grey

    def events(self, grey: NDArray[np.float32]) -> NDArray[np.float32]:
        change = np.diff(grey, axis=1, prepend=grey[:, :1])
        image = np.zeros((3, *grey.shape), np.float32)
        image[0], image[2] = change > 20, change < -20
        image[0, ::7] = np.maximum(image[0, ::7], 1 - image[2, ::7])
        image[1] = (image[0] + image[2]) * np.linspace(0, 1, grey.shape[1], dtype=np.float32)
        return image


def wedge_clips(
    folder: Any, train: list[WedgeSource], heldout: list[WedgeSource], encoder: str = "tencode"
) -> str:
    """Build a store of wedges; return its folder as text."""
    sources = {
        **{f"train/{i:04d}_{s.label}": s for i, s in enumerate(train)},
        **{f"heldout/{i:04d}_{s.label}": s for i, s in enumerate(heldout)},
    }
    build_clips(Recipe(encoder, 50_000_000, sources), folder)
    return str(folder)
