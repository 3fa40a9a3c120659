"""Which clips an update learns from: drawn from (seed, step) alone, so that a run can go on.

Every start inside of a run of windows is as likely as any other; a clip never crosses a place
where the state must restart. All processes draw the same global batch and take their part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dae_ros.distillation.clip_store import ClipSequence, ClipStore
from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.errors import ConfigurationError

# Streams of random numbers beside (seed, step).
_CLIPS, _CROPS = 1, 2


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """Clips as they lie on disk, at the sensor's size; T windows, the last U to learn from.

    Attributes:
        windows: uint8 codes (B, T, H, W), or float16 voxel grids (B, T, bins, H, W).
        depth: float16 (B, U, H, W), metres, NaN unknown.
        frames: uint8 (B, T, H, W), of use where `has_frame`.
        has_frame: bool (B, T), whether a window ends at its frame.
        mirrored: bool (B,).
        place: (B, 2) in 0..1: where to crop, as a share of the room there is; None: no crop.
        unroll: U.
    """

    windows: Tensor
    depth: Tensor
    frames: Tensor
    has_frame: Tensor
    mirrored: Tensor
    place: Tensor | None
    unroll: int


class ClipSampler:
    """Draws batches.

    Args:
        stores: with one encoder; a batch is of one store, since sizes may differ.
        settings: batch, burn_in, unroll, cold_start, flip, crop and seed.
        part: (index, count) of this process.
        memory: whether the network has a state; without, there is no burn-in.

    Raises:
        ConfigurationError: no run is long enough, or a batch that cannot be divided.
    """

    def __init__(
        self,
        stores: tuple[ClipStore, ...],
        settings: TrainingParameters,
        part: tuple[int, int] = (0, 1),
        memory: bool = True,
    ) -> None:
        index, count = part
        if settings.batch % count:
            raise ConfigurationError(
                f"a batch of {settings.batch} clips cannot be divided among {count} processes",
                batch=settings.batch,
                processes=count,
            )
        self._settings = settings
        size = settings.batch // count
        self._mine = slice(index * size, (index + 1) * size)
        self._burn_in = settings.burn_in if memory else 0
        length = self._burn_in + settings.unroll
        # Per store: the sequence, the first window and the number of starts of each run.
        self._runs: list[list[tuple[ClipSequence, int, int]]] = []
        for store in stores:
            self._runs.append(
                [
                    (sequence, first, last - first - length + 1)
                    for sequence in store.split("train")
                    for first, last in sequence.runs()
                    if last - first >= length
                ]
            )
        self._starts = np.array([sum(run[2] for run in runs) for runs in self._runs])
        if self._starts.sum() == 0:
            raise ConfigurationError(
                f"no training sequence has {length} windows in a row ('burn_in' + 'unroll'); "
                "make longer clips, or shorten these",
                length=length,
            )

    @property
    def clips(self) -> int:
        """The number of different clips."""
        return int(self._starts.sum())

    def batch(self, step: int) -> ClipBatch:
        """Return this process' part of an update's batch."""
        settings = self._settings
        random = np.random.default_rng([settings.seed, step, _CLIPS])
        chosen = int(random.choice(len(self._runs), p=self._starts / self._starts.sum()))
        starts = random.integers(self._starts[chosen], size=settings.batch)
        mirrored = random.random(settings.batch) < settings.flip
        cold = random.random() < settings.cold_start
        cropped = random.random() < settings.crop_share and settings.crop_height > 0
        place = np.random.default_rng([settings.seed, step, _CROPS]).random((settings.batch, 2))
        bounds = np.cumsum([run[2] for run in self._runs[chosen]])
        clips = []
        for start in starts[self._mine]:
            which = int(np.searchsorted(bounds, start, side="right"))
            sequence, first, count = self._runs[chosen][which]
            first += int(start) - int(bounds[which] - count)
            # A cold start begins where learning does.
            clips.append((sequence, first + (self._burn_in if cold else 0), first + self._burn_in))
        return self._read(clips, mirrored[self._mine], place[self._mine] if cropped else None)

    def _read(
        self,
        clips: list[tuple[ClipSequence, int, int]],
        mirrored: np.ndarray[tuple[int], np.dtype[np.bool_]],
        place: np.ndarray[tuple[int, int], np.dtype[np.float64]] | None,
    ) -> ClipBatch:
        unroll = self._settings.unroll
        windows, depth, frames, has_frame = [], [], [], []
        for sequence, first, learned in clips:
            last = learned + unroll
            windows.append(sequence.windows[first:last])
            has_frame.append(sequence.has_frame(first, last))
            size = sequence.windows.shape[-2:]
            # A sequence without labels is as one whose labels are all unknown.
            depth.append(
                np.full((unroll, *size), np.nan, np.float16)
                if sequence.depth is None
                else sequence.depth[learned:last]
            )
            frames.append(
                np.zeros((last - first, *size), np.uint8)
                if sequence.frames is None
                else sequence.frames[first:last]
            )
        return ClipBatch(
            windows=torch.from_numpy(np.stack(windows)),
            depth=torch.from_numpy(np.stack(depth)),
            frames=torch.from_numpy(np.stack(frames)),
            has_frame=torch.from_numpy(np.stack(has_frame)),
            mirrored=torch.from_numpy(mirrored),
            place=None if place is None else torch.from_numpy(place),
            unroll=unroll,
        )
