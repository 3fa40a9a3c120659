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
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dae_ros.distillation.clip_store import ClipSequence
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.stored_clips import stored_clip
from dae_ros.parameters.distillation import OnlineParameters

State: TypeAlias = tuple[Tensor, ...]
# Of the network that learns and of the original; () for zero states.
States: TypeAlias = tuple[State, ...]

# Lengths of a pass, each as likely: most windows are of the longest, which end where windows of
# 50 ms are ten seconds and more, and one visit of seven is the first of its pass. Without much
# evidence in a state an old place and a new one look alike: what is said then is soonest forgotten.
PASS_WINDOWS = (8, 8, 8, 16, 32, 64, 256)
_DRAW = 10  # stream of random numbers beside (seed, stream, pass)


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

    def visit(self, count: int) -> tuple[Excerpt, ...]:
        """Return what comes next of the streams whose turn it is, one excerpt of each.

        Args:
            count: how many; fewer where there are fewer streams.
        """
        turns = range(self._turn, self._turn + min(count, len(self._streams)))
        return tuple(self._excerpt(turn % len(self._streams)) for turn in turns)

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

    def _excerpt(self, index: int) -> Excerpt:
        stream = self._streams[index]
        if stream.first >= stream.last:
            stream = self._next_pass(index, stream.passes)

        def go_on(states: States) -> None:
            self._streams[index] = dataclasses.replace(
                stream, first=stream.first + self._length, states=_kept(states)
            )
            self._turn += 1

        sequence = self._runs[stream.run][0]
        clip = stored_clip(sequence, stream.first, self._length, self._digest)
        return Excerpt(clip, stream.states, go_on)

    def _next_pass(self, index: int, passes: int) -> Stream:
        """Draw a pass of a stream; it depends on seed, stream and how many there were alone."""
        random = np.random.default_rng([self._seed, index, passes, _DRAW])
        run = int(random.integers(len(self._runs)))
        _, first, last = self._runs[run]
        wanted = min(PASS_WINDOWS[int(random.integers(len(PASS_WINDOWS)))], last - first)
        length = max(1, wanted // self._length) * self._length
        begin = int(random.integers(first, last - length + 1))
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
