"""Places that forgetting is measured by: some of all, and those that look like the deployment.

Most of what is forgotten is in few places, which a camera could take for the deployment: a wall of
bricks that fills the image, where streets are learned. A sample of all places holds one or two of
them; so half of what measures is chosen by likeness (`lookalikes.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dae_ros.distillation.clip_store import ClipSequence
from dae_ros.distillation.online.anchor_streams import Place, Spot
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.stored_clips import stored_clip

# Of what measures, so much is what looks most like the deployment.
LED_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Stretch:
    """Windows of one place in a row.

    Attributes:
        place: its number.
        windows: uint8[T, H, W], on disk.
        load: gives all that is known of them.
    """

    place: int
    windows: Place
    load: Callable[[], LabelledClip]


class MeasuredPlaces:
    """Chooses stretches to measure with.

    Args:
        stretches: that share no window; those of a place one after the other.
        wanted: how many measure at a time.
    """

    def __init__(self, stretches: Sequence[Stretch], wanted: int) -> None:
        self._stretches = tuple(stretches)
        self._wanted = wanted
        # The same object as long as it is chosen: others know clips by their ids.
        self._loaded: dict[int, LabelledClip] = {}

    def __len__(self) -> int:
        """Return how many measure at a time."""
        return min(self._wanted, len(self._stretches))

    def places(self) -> list[Place]:
        """Return the windows of every stretch that may measure."""
        return [stretch.windows for stretch in self._stretches]

    def choose(self, near: Sequence[Spot] = ()) -> tuple[LabelledClip, ...]:
        """Return stretches to measure with, by turns of all places, and half of them near ones.

        Args:
            near: windows of `places` that look like the deployment, the most alike first; where
                they are of too few stretches, or none, more of all places are taken.
        """
        led = [spot.place for spot in near]
        base = self._spread(len(self) - int(LED_SHARE * len(self))) if led else []
        ordered = dict.fromkeys([*base, *led, *self._spread(len(self))])
        chosen = sorted(itertools.islice(ordered, len(self)))
        self._loaded = {
            index: self._loaded.get(index) or self._stretches[index].load() for index in chosen
        }
        return tuple(self._loaded.values())

    def _spread(self, count: int) -> list[int]:
        """Choose stretches of as many places as there are, then of their time.

        One begins at the first window of its place, that of the next later, and so on by turns.
        """
        grouped = itertools.groupby(
            range(len(self._stretches)), key=lambda index: self._stretches[index].place
        )
        places = [list(indices) for _, indices in grouped]
        counts, left = [0] * len(places), count
        while left:
            free = [at for at, own in enumerate(places) if counts[at] < len(own)]
            taken = min(left, len(free))
            for turn in range(taken):
                counts[free[turn * len(free) // taken]] += 1
            left -= taken
        return [
            own[(at + turn * len(own) // number) % len(own)]
            for at, (own, number) in enumerate(zip(places, counts, strict=True))
            for turn in range(number)
        ]


def measured_places(
    sequences: Sequence[ClipSequence], digest: str, length: int, wanted: int
) -> MeasuredPlaces:
    """Make what measures of sequences of a store.

    Args:
        sequences: each a place.
        digest: of their store.
        length: of a stretch, windows.
        wanted: how many stretches measure at a time.
    """

    def loading(sequence: ClipSequence, first: int) -> Callable[[], LabelledClip]:
        return lambda: stored_clip(sequence, first, length, digest)

    return MeasuredPlaces(
        [
            Stretch(number, sequence.windows[begin : begin + length], loading(sequence, begin))
            for number, sequence in enumerate(sequences)
            for first, last in sequence.runs()
            for begin in range(first, last - length + 1, length)
        ],
        wanted,
    )
