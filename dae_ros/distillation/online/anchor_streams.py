"""Places from before adaptation, gone along a few windows at a time with the state carried.

What a recurrent student forgets grows along a place: clips of a second, each from a zero state, do
not hold what its state has become after ten. So anchors are replayed as a recording would be, as
truncated backpropagation through time does (Williams and Peng 1990): every visit goes on where the
last one of its stream ended, with the state that the weights of then had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

# A pass is 2^0 to 2^5 visits, each as likely: half of all visits are of the longest, which end
# where windows of 50 ms are ten seconds and more, and a tenth begin with a zero state.
LARGEST_POWER = 5
_DRAW = 10  # stream of random numbers beside (seed, stream, pass)


@dataclass(eq=False)
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
    states: tuple[State, ...] = ()


@dataclass(frozen=True, eq=False)
class Excerpt:
    """The next windows of a stream.

    Attributes:
        clip: they, `unroll` of them.
        states: before the first of them: of the network that learns, and of the original; () for
            zero states.
        stream: takes the states behind the last of them.
    """

    clip: LabelledClip
    states: tuple[State, ...]
    stream: Stream = field(repr=False)

    def carry(self, learning: State, original: State) -> None:
        """Say which states follow; without, the stream goes on with zero states.

        Args:
            learning: of the network that learns.
            original: of the original.
        """
        states = tuple(
            tuple(tensor.detach().to(torch.float16) for tensor in state)
            for state in (learning, original)
        )
        # Rounded as on disk, so that a learner that was killed goes on with the same bits.
        if all(bool(torch.isfinite(tensor).all()) for state in states for tensor in state):
            self.stream.states = states


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
        self._unroll = parameters.unroll
        self._seed = parameters.seed
        self._runs = [
            (sequence, first, last)
            for sequence in sequences
            for first, last in sequence.runs()
            if last - first >= self._unroll
        ]
        self._streams = [Stream() for _ in range(parameters.anchor_streams)]
        self._turn = 0

    def __len__(self) -> int:
        """Return the number of stretches that may be visited."""
        return len(self._runs)

    def visit(self) -> Excerpt:
        """Go on along the stream whose turn it is."""
        index = self._turn % len(self._streams)
        self._turn += 1
        stream = self._streams[index]
        if stream.first >= stream.last:
            self._begin(stream, index)
        first, states = stream.first, stream.states
        stream.first, stream.states = first + self._unroll, ()
        sequence = self._runs[stream.run][0]
        return Excerpt(stored_clip(sequence, first, self._unroll, self._digest), states, stream)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {
            "digest": self._digest,
            "unroll": self._unroll,
            "turn": self._turn,
            "streams": [
                [s.passes, s.run, s.first, s.last, list(map(list, s.states))] for s in self._streams
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; of another store, or cut otherwise, begin anew."""
        own = (self._digest, self._unroll, len(self._streams))
        if (state["digest"], state["unroll"], len(state["streams"])) != own:
            return
        self._turn = state["turn"]
        for stream, (passes, run, first, last, states) in zip(
            self._streams, state["streams"], strict=True
        ):
            stream.passes, stream.run, stream.first, stream.last = passes, run, first, last
            stream.states = tuple(map(tuple, states))

    def _begin(self, stream: Stream, index: int) -> None:
        """Draw the next pass of a stream; everything depends on seed, stream and pass alone."""
        random = np.random.default_rng([self._seed, index, stream.passes, _DRAW])
        stream.passes += 1
        stream.run = int(random.integers(len(self._runs)))
        _, first, last = self._runs[stream.run]
        visits = min(2 ** int(random.integers(LARGEST_POWER + 1)), (last - first) // self._unroll)
        length = visits * self._unroll
        stream.first = int(random.integers(first, last - length + 1))
        stream.last = stream.first + length
        stream.states = ()
