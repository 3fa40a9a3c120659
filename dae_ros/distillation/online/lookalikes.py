"""What looks alike before adaptation and in the deployment, to the encoder that never changes.

There one place is learned at the cost of the other: what decodes features of the new place decodes
those of the old one as well. So clips that look like old places are not learned from, as long as
there are others: they would teach little that others do not, and make rooms forgotten. And windows
of old places that look like the deployment are lost first, where visits that are spread evenly over
all places come too late; so anchor streams are led to them. Replay that looks for what a step would
disturb (MIR: Aljundi et al. 2019, arXiv:1908.04742) needs a trial step for each candidate, and this
one pass of the encoder in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.distillation.online.anchor_streams import Place, Spot
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.observation import LabelledClip

# Of the windows that were looked at, these are near; and of the clips, these are far.
NEAR_SHARE, FAR_SHARE = 0.2, 0.5
# What is near and far is measured by the mean over so many of the others that are nearest.
NEIGHBOURS = 10
# Windows that are looked at, spread evenly over all places, at most; and with each step.
LARGEST_COUNT, BATCH = 4096, 32
# Least spread of a number, as a share of the mean spread of all.
LEAST_SPREAD = 0.01
_DRAW = 12  # stream of random numbers beside the seed


@dataclass(frozen=True, eq=False)
class _Seen:
    """A clip that was described.

    Attributes:
        clip: kept, so that its id stays its own.
        description: float32 (d,).
        distance: to the windows that are nearest.
        known: of how many windows that were looked at by then.
    """

    clip: LabelledClip
    description: Tensor
    distance: float
    known: int


class Lookalikes:
    """Compares windows of places with clips.

    A window is described by mean and standard deviation over the image of every map that the
    encoder makes of it, in units of their spread over the places. What hardly changes there counts
    little: a map that no place excites would else be all that tells clips apart.

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
        # Of the first n spots, float32 (n, d), and their spread.
        self._described = self._unit = torch.zeros(0)
        self._seen: dict[int, _Seen] = {}

    def look(self, step: int, pause: Callable[[], None] = lambda: None) -> None:
        """Look at a few more windows.

        Args:
            step: its number, from 0 on; what is known then depends on it alone, also where learning
                goes on from disk and all has to be looked at again.
            pause: called after each batch; after what it raises the next call goes on.
        """
        while (begin := len(self._described)) < min(len(self._spots), (step + 1) * BATCH):
            batch = self._spots[begin : begin + BATCH]
            windows = [np.array(self._places[spot.place][spot.window]) for spot in batch]
            described = self._describe(np.stack(windows))
            self._described = torch.cat([self._described, described]) if begin else described
            spread = self._described.std(dim=0, correction=0)
            least = LEAST_SPREAD * spread.mean() + torch.finfo(spread.dtype).eps
            self._unit = spread.clamp(min=float(least))
            pause()

    def nearest(self, clips: Iterable[LabelledClip]) -> tuple[Spot, ...]:
        """Return the windows that look most like clips, of those that were looked at.

        Args:
            clips: of the deployment, each described by its last window; without any none are near.
        """
        seen = self._compare(clips)
        if not seen or not len(self._described):
            return ()
        others = torch.stack([one.description for one in seen])
        distances = _distances(self._described / self._unit, others / self._unit)
        count = max(1, round(NEAR_SHARE * len(distances)))
        chosen = distances.argsort(stable=True)[:count]
        return tuple(self._spots[index] for index in chosen.tolist())

    def farthest(self, clips: Iterable[LabelledClip], least: int) -> tuple[LabelledClip, ...]:
        """Return the half of clips that looks least like windows that were looked at, in order.

        Args:
            clips: of the deployment; all are far where nothing was looked at.
            least: how many at least, as long as there are so many.
        """
        seen = self._compare(clips)
        share = FAR_SHARE if len(self._described) else 1.0
        count = max(math.ceil(share * len(seen)), least)
        ranks = sorted(range(len(seen)), key=lambda index: -seen[index].distance)
        return tuple(seen[index].clip for index in sorted(ranks[:count]))

    def _compare(self, clips: Iterable[LabelledClip]) -> list[_Seen]:
        """Describe clips that are new, and forget those that are gone."""
        before, known = self._seen, len(self._described)
        self._seen = {}
        for clip in clips:
            one = before.get(id(clip))
            if one is None or one.known != known:
                description = (
                    self._describe(clip.observation.windows[-1:])[0]
                    if one is None
                    else one.description
                )
                distance = 0.0
                if known:
                    own = description[None] / self._unit
                    distance = float(_distances(own, self._described / self._unit)[0])
                one = _Seen(clip, description, distance, known)
            self._seen[id(clip)] = one
        return list(self._seen.values())

    @torch.no_grad()
    def _describe(self, windows: NDArray[np.uint8]) -> Tensor:
        """Return float32 (T, d) of windows [T, H, W]."""
        levels = [maps[0].float().flatten(2) for maps in self._network.features_of(windows[None])]
        parts = [part for level in levels for part in (level.mean(2), level.std(2, correction=0))]
        return torch.cat(parts, dim=1).cpu()


def _distances(ones: Tensor, others: Tensor) -> Tensor:
    """Return for each of `ones` the mean of its squared distances to the nearest of `others`."""
    squares = torch.cdist(ones, others).square()
    return squares.topk(min(NEIGHBOURS, len(others)), dim=1, largest=False).values.mean(dim=1)
