"""Which windows from before adaptation look like the deployment, to the encoder that never changes.

They are lost first: what decodes features of the new place decodes theirs as well. Visits that are
spread evenly over all places come too late for them. So anchor streams are led to them before they
are lost; replay that looks for what a step would disturb (MIR: Aljundi et al. 2019,
arXiv:1908.04742) needs a trial step for each candidate, and this one pass of the encoder in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.distillation.online.anchor_streams import Place, Spot
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.observation import LabelledClip

# Of the windows that were looked at, these are near.
NEAR_SHARE = 0.2
# A window is as near as so many of the deployment's clips that are nearest to it, on average.
NEIGHBOURS = 10
# Windows that are looked at, spread evenly over all places, at most; and with each step.
LARGEST_COUNT, BATCH = 4096, 32
_DRAW = 12  # stream of random numbers beside the seed


class Lookalikes:
    """Compares windows of places with clips.

    A window is described by mean and standard deviation over the image of every map that the
    encoder makes of it, in units of their spread over the places.

    Args:
        network: from before adaptation.
        places: from before adaptation, all of one size.
        spacing: from one window that is looked at to the next; more where there would be too many.
        seed: of the order in which they are looked at.
    """

    def __init__(
        self, network: ClipNetwork, places: Sequence[Place], spacing: int, seed: int
    ) -> None:
        self._network = network
        self._places = places
        spacing = max(spacing, -(-sum(map(len, places)) // LARGEST_COUNT))
        spots = [
            Spot(number, window)
            for number, place in enumerate(places)
            for window in range(0, len(place), spacing)
        ]
        # Few of them are of all places as well.
        order = np.random.default_rng([seed, _DRAW]).permutation(len(spots))
        self._spots = [spots[index] for index in order.tolist()]
        self._described: list[Tensor] = []  # of the first of them, float32 (d,) each
        # The clip is kept with its description, so that its id stays its own.
        self._of_clips: dict[int, tuple[LabelledClip, Tensor]] = {}

    def look(self, step: int, pause: Callable[[], None] = lambda: None) -> None:
        """Look at a few more windows.

        Args:
            step: its number, from 0 on; what is known then depends on it alone, also where learning
                goes on from disk and all has to be looked at again.
            pause: called after each batch; after what it raises the next call goes on.
        """
        while len(self._described) < min(len(self._spots), (step + 1) * BATCH):
            begin = len(self._described)
            batch = self._spots[begin : begin + BATCH]
            windows = [np.array(self._places[spot.place][spot.window]) for spot in batch]
            self._described.extend(self._describe(np.stack(windows)))
            pause()

    def nearest(self, clips: Iterable[LabelledClip]) -> tuple[Spot, ...]:
        """Return the windows that look most like clips, of those that were looked at.

        Args:
            clips: of the deployment, each described by its last window; without any none is near.
        """
        clips = tuple(clips)
        known = self._of_clips
        self._of_clips = {
            id(clip): known[id(clip)]
            if id(clip) in known
            else (clip, self._describe(clip.observation.windows[-1:])[0])
            for clip in clips
        }
        if not clips or not self._described:
            return ()
        spots = torch.stack(self._described)
        unit = spots.std(dim=0, correction=0) + torch.finfo(spots.dtype).eps
        others = torch.stack([description for _, description in self._of_clips.values()])
        squares = torch.cdist(spots / unit, others / unit).square()
        neighbours = min(NEIGHBOURS, len(others))
        distances = squares.topk(neighbours, dim=1, largest=False).values.mean(dim=1)
        count = max(1, round(NEAR_SHARE * len(spots)))
        chosen = distances.argsort(stable=True)[:count]
        return tuple(self._spots[index] for index in chosen.tolist())

    @torch.no_grad()
    def _describe(self, windows: NDArray[np.uint8]) -> Tensor:
        """Return float32 (T, d) of windows [T, H, W]."""
        levels = [maps[0].float().flatten(2) for maps in self._network.features_of(windows[None])]
        parts = [part for level in levels for part in (level.mean(2), level.std(2, correction=0))]
        return torch.cat(parts, dim=1).cpu()
