"""Places from before adaptation, gone along a few windows at a time with the state carried.

What a recurrent student forgets grows along a place: clips of a second, each from a zero state, do
not hold what its state has become after ten. So anchors are replayed as a recording would be, as
truncated backpropagation through time does (Williams and Peng 1990): every visit goes on where the
last one of its stream ended, with the state that the weights of then had.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.distillation.clip_store import ClipSequence
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.stored_clips import stored_clip
from dae_ros.parameters.distillation import OnlineParameters

State: TypeAlias = tuple[Tensor, ...]
# Of the network that learns and of the original; () for zero states.
States: TypeAlias = tuple[State, ...]
# Windows of a stretch, uint8[T, H, W], on disk.
Place: TypeAlias = NDArray[np.uint8]

# Lengths of a pass, each as likely: most windows are of the longest, which end where windows of
# 50 ms are ten seconds and more, and one visit of seven is the first of its pass. Without much
# evidence in a state an old place and a new one look alike: what is said then is soonest forgotten.
PASS_WINDOWS = (8, 8, 8, 16, 32, 64, 256)
# Of passes that are led to what the deployment may make forgotten soonest; see `lookalikes.py`.
LED_SHARE = 0.5
_DRAW = 10  # stream of random numbers beside (seed, stream, pass)


class Spot(NamedTuple):
    """A window of a place.

    Attributes:
        place: its number among those of `AnchorStreams.places`.
        window: its number in the place.
    """

    place: int
    window: int


@dataclass(frozen=True, eq=False)
class Stream:
    """Where one stream is.

    Attributes:
        passes: begun so far.
        run: of which stretch of the store.
        first, last: the windows of the pass that were not visited yet are [first, last).
        states: of the network that learns and of the original before `first`, float16; () for
            zero states.
    """

    passes: int = 0
    run: int = 0
    first: int = 0
    last: int = 0
    states: States = ()


@dataclass(frozen=True, eq=False)
class Excerpt:
    """The next windows of a stream, which goes on behind them once it is told to.

    Attributes:
        clip: they, `unroll` of them.
        states: before the first of them: of the network that learns, and of the original; () for
            zero states.
        go_on: to be called with both states behind the last of them, or with () where there are
            none; without, the same windows come again.
    """

    clip: LabelledClip
    states: States
    go_on: Callable[[States], None] = field(repr=False)


class AnchorStreams:
    """Streams through the sequences of a store.

    Args:
        sequences: places to replay.
        digest: of their store.
        parameters: anchor_streams, unroll and seed.
    """

    def __init__(
        self, sequences: Sequence[ClipSequence], digest: str, parameters: OnlineParameters
    ) -> None:
        self._digest = digest
        self._length = parameters.unroll
        self._seed = parameters.seed
        self._runs = [
            (sequence, first, last)
            for sequence in sequences
            for first, last in sequence.runs()
            if last - first >= self._length
        ]
        self._streams = [Stream() for _ in range(parameters.anchor_streams)]
        self._turn = 0

    def __len__(self) -> int:
        """Return the number of stretches that may be visited."""
        return len(self._runs)

    def places(self) -> list[Place]:
        """Return the windows of every stretch that may be visited."""
        return [sequence.windows[first:last] for sequence, first, last in self._runs]

    def visit(self, count: int, near: Callable[[], Sequence[Spot]] = tuple) -> tuple[Excerpt, ...]:
        """Return what comes next of the streams whose turn it is, one excerpt of each.

        Args:
            count: how many; fewer where there are fewer streams.
            near: gives windows of which half of the passes that begin have one, each as likely;
                asked where such a pass begins. Where it gives none all passes are alike.
        """
        turns = range(self._turn, self._turn + min(count, len(self._streams)))
        return tuple(self._excerpt(turn % len(self._streams), near) for turn in turns)

    def stretches(self, count: int, windows: int) -> Iterator[LabelledClip]:
        """Yield the beginnings of places, spread over all of them.

        Args:
            count: how many; fewer where there are fewer.
            windows: of each, fewer where a place has fewer.
        """
        count = min(count, len(self._runs))
        for index in range(count):
            sequence, first, last = self._runs[index * len(self._runs) // count]
            yield stored_clip(sequence, first, min(windows, last - first), self._digest)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {
            "digest": self._digest,
            "length": self._length,
            "turn": self._turn,
            "streams": [
                [s.passes, s.run, s.first, s.last, list(map(list, s.states))] for s in self._streams
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; of another store, or cut otherwise, begin anew."""
        own = (self._digest, self._length, len(self._streams))
        if (state["digest"], state["length"], len(state["streams"])) != own:
            return
        self._turn = state["turn"]
        self._streams = [
            Stream(passes, run, first, last, tuple(map(tuple, states)))
            for passes, run, first, last, states in state["streams"]
        ]

    def _excerpt(self, index: int, near: Callable[[], Sequence[Spot]]) -> Excerpt:
        stream = self._streams[index]
        if stream.first >= stream.last:
            stream = self._next_pass(index, stream.passes, near)

        def go_on(states: States) -> None:
            self._streams[index] = dataclasses.replace(
                stream, first=stream.first + self._length, states=_kept(states)
            )
            self._turn += 1

        sequence = self._runs[stream.run][0]
        clip = stored_clip(sequence, stream.first, self._length, self._digest)
        return Excerpt(clip, stream.states, go_on)

    def _next_pass(self, index: int, passes: int, near: Callable[[], Sequence[Spot]]) -> Stream:
        """Draw a pass of a stream.

        It depends on seed, stream, how many there were, and on what is near, alone.
        """
        random = np.random.default_rng([self._seed, index, passes, _DRAW])
        spots = near() if random.random() < LED_SHARE else ()
        spot = spots[int(random.integers(len(spots)))] if spots else None
        run = int(random.integers(len(self._runs))) if spot is None else spot.place
        _, first, last = self._runs[run]
        wanted = min(PASS_WINDOWS[int(random.integers(len(PASS_WINDOWS)))], last - first)
        length = max(1, wanted // self._length) * self._length
        low, high = first, last - length
        if spot is not None:
            low = max(low, first + spot.window - length + 1)
            high = min(high, first + spot.window)
        begin = int(random.integers(low, high + 1))
        return Stream(passes + 1, run, begin, begin + length)


def _kept(states: States) -> States:
    """Return states as a file holds them, so that a learner that was killed has the same bits.

    None where one is not finite any more in float16.
    """
    rounded = tuple(
        tuple(tensor.detach().to(torch.float16) for tensor in state) for state in states
    )
    finite = all(bool(torch.isfinite(tensor).all()) for state in rounded for tensor in state)
    return rounded if finite else ()
