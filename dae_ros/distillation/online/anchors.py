"""Clips from before adaptation: half of them are replayed, the other half measures forgetting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from dae_ros.distillation.clip_store import (
    END_NS,
    FRAME_OFFSET_US,
    ClipSequence,
    ClipStore,
)
from dae_ros.distillation.labels import OUTDOOR
from dae_ros.distillation.online.observation import GROUND_TRUTH, LabelledClip, Observation, Refusal
from dae_ros.errors import ConfigurationError
from dae_ros.parameters.distillation import OnlineParameters

Half: TypeAlias = Literal["replayed", "measured"]

# The halves of a deployment's own clips must not be neighbours in time.
PIN_SPACING_NS = 10_000_000_000
_DRAW = 8  # stream of random numbers beside (seed, step)


@dataclass(frozen=True, slots=True)
class Pinned:
    """A clip of the deployment became an anchor.

    Attributes:
        key: its number, 0, 1, 2, ...
        half: what it is for.
    """

    key: int
    half: Half


class AnchorSet:
    """The anchors of one deployment.

    Args:
        replayed, measured: from before adaptation, of different places.
        parameters: pinned_clips and seed.
    """

    def __init__(
        self,
        replayed: Sequence[LabelledClip],
        measured: Sequence[LabelledClip],
        parameters: OnlineParameters,
    ) -> None:
        self._parameters = parameters
        self._chosen: dict[Half, tuple[LabelledClip, ...]] = {
            "replayed": tuple(replayed),
            "measured": tuple(measured),
        }
        self._pinned: list[LabelledClip] = []

    @property
    def replayed(self) -> tuple[LabelledClip, ...]:
        """Clips to learn from beside those of the deployment."""
        return (*self._chosen["replayed"], *self._pinned[0::2])

    @property
    def measured(self) -> tuple[LabelledClip, ...]:
        """Clips that nothing is learned from."""
        return (*self._chosen["measured"], *self._pinned[1::2])

    def pin(self, clip: LabelledClip) -> Pinned | Refusal:
        """Make a verified clip of the deployment an anchor, by turns for either half.

        Returns:
            A refusal with reason `anchors_full`, or `near_anchor` less than 10 s after the last.
        """
        count = len(self._pinned)
        if count >= self._parameters.pinned_clips:
            return Refusal("anchors_full", f"{count} clips are pinned, as 'pinned_clips' says")
        if self._pinned:
            gap_ns = clip.observation.start_ns - self._pinned[-1].observation.end_ns
            if gap_ns < PIN_SPACING_NS:
                return Refusal("near_anchor", f"{gap_ns / 1e9:.1f} s after the last pinned clip")
        self._pinned.append(clip)
        return Pinned(count, "measured" if count % 2 else "replayed")

    def draw(self, step: int, count: int) -> tuple[LabelledClip, ...]:
        """Draw clips to replay, all different; fewer where fewer are there.

        One at most where only pinned clips are there: they are few, and of the place that the
        other clips of a step show anyway.

        Args:
            step: the draw depends on it, the seed and the contents alone.
            count: how many.
        """
        clips = self.replayed
        random = np.random.default_rng([self._parameters.seed, step, _DRAW])
        order = random.permutation(len(clips))
        if not self._chosen["replayed"]:
            count = min(count, 1)
        return tuple(clips[int(index)] for index in order[:count])

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside the clips themselves."""
        return {"pinned": len(self._pinned)}

    def restore(self, state: Mapping[str, Any], clips: Mapping[int, LabelledClip]) -> int:
        """Go on from what `state` gave.

        Args:
            state: of `state`.
            clips: pinned ones by key.

        Returns:
            How many are missing; those behind a missing one are given up as well, since the half
            that a clip belongs to follows from its number.
        """
        count = int(state["pinned"])
        self._pinned = []
        while len(self._pinned) < count and len(self._pinned) in clips:
            self._pinned.append(clips[len(self._pinned)])
        return count - len(self._pinned)


def anchors_of_store(
    store: ClipStore, event_encoder: str, parameters: OnlineParameters
) -> AnchorSet:
    """Choose anchors, evenly over the sequences and the time of a store of clips.

    Its `train` sequences are replayed and its `heldout` ones measure; a sequence is a place, so
    that the halves share none. Sequences without depth hold the student at what the original says.

    Args:
        store: of `dae-ros clips`.
        event_encoder: of the student.
        parameters: replayed_anchors, measured_anchors, lead, burn_in, unroll.

    Raises:
        ConfigurationError: windows of another encoder, or a split that has no clip.
    """
    if store.event_encoder != event_encoder:
        raise ConfigurationError(
            f"the student takes {event_encoder} and the anchors in {store.folder} are "
            f"{store.event_encoder}; make clips with event_encoder: {event_encoder}",
            folder=str(store.folder),
        )
    halves = []
    for split, wanted in (
        ("train", parameters.replayed_anchors),
        ("heldout", parameters.measured_anchors),
    ):
        places = [
            place
            for sequence in store.split(split)
            for place in _places(sequence, parameters.windows_per_clip)
        ]
        if not places:
            raise ConfigurationError(
                f"{store.folder} has no sequence in '{split}' with "
                f"{parameters.windows_per_clip} windows in a row ('lead' + 'burn_in' + 'unroll'), "
                "and anchors need both splits; make longer clips",
                folder=str(store.folder),
                split=split,
            )
        count = min(len(places), wanted)
        chosen = (np.arange(count) * len(places)) // count
        halves.append(
            [
                _clip(*places[int(index)], parameters.windows_per_clip, store.digest)
                for index in chosen
            ]
        )
    return AnchorSet(halves[0], halves[1], parameters)


def _places(sequence: ClipSequence, length: int) -> Iterator[tuple[ClipSequence, int]]:
    """Yield where clips can begin without sharing a window."""
    for first, last in sequence.runs():
        for begin in range(first, last - length + 1, length):
            yield sequence, begin


def _clip(sequence: ClipSequence, first: int, length: int, digest: str) -> LabelledClip:
    last = first + length
    windows = np.array(sequence.windows[first:last])
    size = windows.shape
    ends_ns = sequence.times[first:last, END_NS]
    window_ns = int(ends_ns[-1] - ends_ns[-2]) if length > 1 else int(ends_ns[0])
    has_frame = np.array(sequence.has_frame(first, last))
    offsets_ns = np.where(has_frame, sequence.times[first:last, FRAME_OFFSET_US] * 1000, 0)
    # An observation ends at a frame. Here it stands for the depth that is known at every end.
    has_frame[-1] = True
    frames = (
        np.zeros(size, np.uint8)
        if sequence.frames is None
        else np.array(sequence.frames[first:last])
    )
    active = (windows != 0).sum(axis=(1, 2), dtype=np.int64)
    observation = Observation(
        end_ns=int(ends_ns[-1]),
        window_ns=window_ns,
        windows=windows,
        frames=frames,
        has_frame=has_frame,
        frame_ns=ends_ns + offsets_ns,
        masks=np.broadcast_to(has_frame[:, None, None], size).copy(),
        sharp=np.ones(length, np.bool_),  # depth that was measured has no motion blur
        supported=np.ones(length, np.bool_),
        event_counts=active,  # at least so many: a window keeps one event of each pixel
        luminance=float(frames[-1].mean()),
        event_rate_hz=float(active.sum() / (length * window_ns * 1e-9)),
        image_speed_px_s=float("nan"),
    )
    depth = (
        np.full(size, np.nan, np.float16)
        if sequence.depth is None
        else np.array(sequence.depth[first:last])
    )
    return LabelledClip(
        observation=observation,
        depth=depth,
        # NaN compares as False. The student was not trained beyond either.
        weight=np.where((depth > 0) & (depth <= OUTDOOR.maximum_m), 255, 0).astype(np.uint8),
        label_metric=True,
        teacher=GROUND_TRUTH,
        teacher_digest=digest,
    )
