"""The clips of a deployment: most to learn from, some time blocks held out to judge by.

Event time is cut into blocks; every k-th is held out, with a guard band on both sides, and a clip
belongs to a side with ALL of its windows, those that only bring up the state included. Clips to
learn from are a reservoir within strata of event rate and luminance, so that a stop at a red light
replaces clips of its own kind and no others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dae_ros.distillation.online.density import density_map, map_correlation
from dae_ros.distillation.online.observation import EventClip, LabelledClip, Refusal
from dae_ros.parameters.distillation import OnlineParameters

Split: TypeAlias = Literal["train", "heldout"]
Stratum: TypeAlias = tuple[int, int]

SPLITS: tuple[Split, ...] = ("train", "heldout")
# Of the capacity in clips and bytes that held-out clips may take, or more where fewer blocks than a
# judgement needs would fit.
HELDOUT_SHARE = 0.25
# Clips of one held-out block; more of the same two seconds tell a guard little. Where there is
# no room, the fullest block gives way until there are so many blocks, then the oldest.
CLIPS_PER_BLOCK, HELDOUT_BLOCKS = 3, 12
# Streams of random numbers beside the seed.
_PRIORITY, _DRAW = 6, 7


@dataclass(frozen=True, slots=True)
class Admitted:
    """A clip was taken in.

    Attributes:
        key: its number, 0, 1, 2, ... in the order of admission.
        split: its side.
    """

    key: int
    split: Split


@dataclass(frozen=True, slots=True)
class HeldoutBlock:
    """The held-out clips of one time block, which depend on each other.

    Attributes:
        index: of the block, event time divided by its length.
        clips: in order of time.
        strata: of the clips.
    """

    index: int
    clips: tuple[LabelledClip, ...]
    strata: tuple[Stratum, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    key: int
    split: Split
    clip: LabelledClip
    priority: float
    byte_count: int


class ReplayBuffer:
    """Takes in labelled clips of one camera in order of time, and draws batches.

    Args:
        parameters: replay_clips, replay_mb, replay_horizon_s, largest_similarity, block_s,
            heldout_every, guard_band_s, judged_blocks and seed.

    Attributes:
        no_room: why clips of this camera cannot be kept, and what to set; None where they can.
    """

    def __init__(self, parameters: OnlineParameters) -> None:
        self._parameters = parameters
        self._stored: dict[Split, list[_Stored]] = {split: [] for split in SPLITS}
        self._last: dict[Split, tuple[int, NDArray[np.float32]] | None] = dict.fromkeys(SPLITS)
        self._next_key = 0
        self.no_room: Refusal | None = None

    def __len__(self) -> int:
        """Return the number of clips to learn from."""
        return len(self._stored["train"])

    @property
    def clips(self) -> tuple[LabelledClip, ...]:
        """The clips to learn from."""
        return tuple(item.clip for item in self._stored["train"])

    @property
    def byte_count(self) -> int:
        """Memory of all clips, held-out ones included."""
        return sum(item.byte_count for split in SPLITS for item in self._stored[split])

    @property
    def keys(self) -> tuple[int, ...]:
        """Keys of all clips that are held, ascending."""
        return tuple(sorted(item.key for split in SPLITS for item in self._stored[split]))

    def admit(self, clip: LabelledClip) -> Admitted | Refusal:
        """Take in a clip, or say why not.

        Returns:
            A refusal with reason `split_border` (it touches a guard band, or both sides),
            `redundant` (too similar to the last one of its side), `block_full`, `crowded` (drawn
            out at once: its stratum is full of others) or `too_large`.
        """
        observation = clip.observation
        density = density_map(observation)
        found = self._side(observation, density)
        if isinstance(found, Refusal):
            return found
        split = found
        item = self._item(self._next_key, split, clip)
        room = self._room(item.byte_count)
        self.no_room = room if isinstance(room, Refusal) else None
        if isinstance(room, Refusal):
            return room
        clips_limit, bytes_limit = room[split]
        stored = [*self._stored[split], item]
        size = sum(other.byte_count for other in stored)
        while len(stored) > clips_limit or size > bytes_limit:
            leaving = self._leaving(split, stored)
            stored.remove(leaving)
            size -= leaving.byte_count
        if item not in stored:
            return Refusal("crowded", "its stratum is full of clips that were drawn before it")
        self._stored[split] = stored
        self._last[split] = (observation.end_ns, density)
        self._next_key += 1
        return Admitted(item.key, split)

    def foresee(self, observation: EventClip) -> Refusal | None:
        """Say why a clip would not be taken in, whatever its label; None where it might be.

        Returns:
            `split_border`, `redundant` or `block_full`, as from `admit`.
        """
        found = self._side(observation, density_map(observation))
        return found if isinstance(found, Refusal) else None

    def split_of(self, start_ns: int, end_ns: int) -> Split | None:
        """Return the side of the time from start to end; None where it belongs to neither."""
        parameters = self._parameters
        if parameters.heldout_every == 0:
            return "train"
        block_ns = round(parameters.block_s * 1e9)
        band_ns = round(parameters.guard_band_s * 1e9)
        period_ns = block_ns * parameters.heldout_every
        # The held-out block is the last one of its period.
        held_ns = start_ns // period_ns * period_ns + period_ns - block_ns
        if held_ns <= start_ns and end_ns <= held_ns + block_ns:
            return "heldout"
        # The band behind the held-out block of the period before reaches into this one.
        free_ns = held_ns + block_ns - period_ns + band_ns
        return "train" if free_ns <= start_ns and end_ns <= held_ns - band_ns else None

    def lacks(self, start_ns: int, end_ns: int) -> bool:
        """Return whether a clip from start to end would be the first of its held-out block.

        Without one in every block there would be nothing to judge by where labels are seldom.
        """
        if self.split_of(start_ns, end_ns) != "heldout":
            return False
        block = self._block_at(end_ns)
        return all(self._block(item.clip.observation) != block for item in self._stored["heldout"])

    def draw(
        self, step: int, count: int, among: Collection[LabelledClip] | None = None
    ) -> tuple[LabelledClip, ...]:
        """Draw clips to learn from: a stratum, each as likely, then one of its clips.

        Args:
            step: the draw depends on it, the seed and the contents alone.
            count: how many; all different as long as there are so many.
            among: the clips to draw from; None for all.

        Returns:
            Fewer than `count` where fewer are there.
        """
        random = np.random.default_rng([self._parameters.seed, step, _DRAW])
        chosen = None if among is None else {id(clip) for clip in among}
        left = [item for item in self._stored["train"] if chosen is None or id(item.clip) in chosen]
        drawn: list[LabelledClip] = []
        strata = dict(zip((item.key for item in left), self._strata(left), strict=True))
        while left and len(drawn) < count:
            kinds = sorted({strata[item.key] for item in left})
            kind = kinds[int(random.integers(len(kinds)))]
            same = [item for item in left if strata[item.key] == kind]
            item = same[int(random.integers(len(same)))]
            left.remove(item)
            drawn.append(item.clip)
        return tuple(drawn)

    def heldout(self) -> tuple[HeldoutBlock, ...]:
        """Return the held-out blocks, oldest first."""
        stored = self._stored["heldout"]
        strata = self._strata(stored)
        blocks: dict[int, list[int]] = {}
        for position, item in enumerate(stored):
            blocks.setdefault(self._block(item.clip.observation), []).append(position)
        return tuple(
            HeldoutBlock(
                index,
                tuple(stored[position].clip for position in positions),
                tuple(strata[position] for position in positions),
            )
            for index, positions in sorted(blocks.items())
        )

    def clear(self) -> None:
        """Forget all clips, as after a change of the camera's size; keys go on."""
        self._stored = {split: [] for split in SPLITS}
        self._last = dict.fromkeys(SPLITS)
        self.no_room = None

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside the clips themselves; plain values."""
        return {
            "next_key": self._next_key,
            "keys": {split: [item.key for item in self._stored[split]] for split in SPLITS},
            "last": {
                split: None if last is None else [last[0], last[1].tolist()]
                for split, last in self._last.items()
            },
        }

    def restore(self, state: Mapping[str, Any], clips: Mapping[int, LabelledClip]) -> int:
        """Go on from what `state` gave.

        Args:
            state: of `state`.
            clips: by key; others than the state names are ignored.

        Returns:
            How many clips are missing.
        """
        self.clear()
        missing = 0
        for split in SPLITS:
            for key in state["keys"][split]:
                if key not in clips:
                    missing += 1
                    continue
                self._stored[split].append(self._item(key, split, clips[key]))
            last = state["last"][split]
            if last is not None:
                self._last[split] = (last[0], np.array(last[1], np.float32))
        self._next_key = state["next_key"]
        return missing

    def _item(self, key: int, split: Split, clip: LabelledClip) -> _Stored:
        return _Stored(key, split, clip, self._priority(clip.observation), clip.byte_count)

    def _side(self, observation: EventClip, density: NDArray[np.float32]) -> Split | Refusal:
        """Return the side that a clip goes to, or why it goes to none."""
        split = self.split_of(observation.start_ns, observation.end_ns)
        if split is None:
            return Refusal(
                "split_border",
                f"{observation.start_ns} ns to {observation.end_ns} ns touches what lies between "
                "learning and judging",
            )
        refusal = self._too_similar(split, observation, density) or self._block_full(
            split, observation
        )
        return split if refusal is None else refusal

    def _too_similar(
        self, split: Split, observation: EventClip, density: NDArray[np.float32]
    ) -> Refusal | None:
        last = self._last[split]
        if last is None:
            return None
        if split == "heldout" and self._block_at(last[0]) != self._block(observation):
            return None  # every block gets a clip, or there would be nothing to judge by
        similarity = map_correlation(last[1], density)
        if similarity <= self._parameters.largest_similarity:
            return None
        return Refusal(
            "redundant",
            f"where its events are is like in the last clip, correlation {similarity:.3f} above "
            f"{self._parameters.largest_similarity:g}",
        )

    def _block_full(self, split: Split, observation: EventClip) -> Refusal | None:
        if split == "train":
            return None
        block = self._block(observation)
        count = sum(self._block(item.clip.observation) == block for item in self._stored[split])
        if count < CLIPS_PER_BLOCK:
            return None
        return Refusal("block_full", f"block {block} has {count} clips already")

    def _leaving(self, split: Split, stored: list[_Stored]) -> _Stored:
        """Return which clip has to go."""
        if split == "heldout":
            return self._leaving_heldout(stored)
        strata = self._strata(stored)
        counts = Counter(strata)
        fullest = max(sorted(counts), key=counts.__getitem__)
        same = [item for item, stratum in zip(stored, strata, strict=True) if stratum == fullest]
        return min(same, key=lambda item: item.priority)

    def _leaving_heldout(self, stored: list[_Stored]) -> _Stored:
        blocks: dict[int, list[_Stored]] = {}
        for item in stored:
            blocks.setdefault(self._block(item.clip.observation), []).append(item)
        if len(blocks) > max(HELDOUT_BLOCKS, self._parameters.judged_blocks):
            return blocks[min(blocks)][0]
        return max((blocks[index] for index in sorted(blocks)), key=len)[0]

    def _strata(self, items: list[_Stored]) -> list[Stratum]:
        """Return event-rate tercile and luminance tercile of items, by what is learned from."""
        reference = self._stored["train"] or items
        columns = [
            _terciles(
                [_fact(item, name) for item in reference], [_fact(item, name) for item in items]
            )
            for name in ("event_rate_hz", "luminance")
        ]
        return list(zip(*columns, strict=True))

    def _priority(self, observation: EventClip) -> float:
        """Return the key of a reservoir in which a clip weighs w = exp(time / horizon).

        The largest keys stay. With u uniform, ln w - ln(-ln u) orders as u^(1/w) does (Efraimidis
        and Spirakis 2006), and -ln(-ln u) has Gumbel's distribution.
        """
        random = np.random.default_rng([self._parameters.seed, observation.end_ns, _PRIORITY])
        return observation.end_ns * 1e-9 / self._parameters.replay_horizon_s + random.gumbel()

    def _room(self, clip_bytes: int) -> dict[Split, tuple[int, int]] | Refusal:
        """Return the most clips and bytes of each side, or that clips of this size have no room."""
        parameters = self._parameters
        clips, size = parameters.replay_clips, parameters.replay_mb * 1_000_000
        judged = parameters.judged_blocks if parameters.heldout_every else 0
        # As many again to learn from; without one of every block nothing is ever judged.
        needed = max(2 * judged, 1) * clip_bytes
        if needed > size:
            return Refusal(
                "too_large",
                f"{max(2 * judged, 1)} clips of {clip_bytes / 1e6:.1f} MB do not fit into "
                f"{size / 1e6:.0f} MB, and half of them are what is judged by; set 'replay_mb' to "
                f"{math.ceil(needed / 1e6)} or more, and 'memory_mb' above it",
            )
        if not judged:
            return {"train": (clips, size), "heldout": (0, 0)}
        heldout_clips = max(judged, round(HELDOUT_SHARE * clips))
        heldout_bytes = max(judged * clip_bytes, round(HELDOUT_SHARE * size))
        return {
            "train": (clips - heldout_clips, size - heldout_bytes),
            "heldout": (heldout_clips, heldout_bytes),
        }

    def _block(self, observation: EventClip) -> int:
        return self._block_at(observation.end_ns)

    def _block_at(self, end_ns: int) -> int:
        # The end itself belongs to the block that it closes.
        return (end_ns - 1) // round(self._parameters.block_s * 1e9)


def _fact(item: _Stored, name: str) -> float:
    return float(getattr(item.clip.observation, name))


def _terciles(reference: list[float], values: list[float]) -> list[int]:
    """Return 0, 1 or 2 for each value: in which third of the reference it lies."""
    if not values:
        return []
    limits = np.quantile(reference, (1 / 3, 2 / 3))
    thirds: list[int] = np.searchsorted(limits, values, side="left").tolist()
    return thirds
