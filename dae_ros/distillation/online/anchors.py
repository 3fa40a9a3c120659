"""What must not be forgotten: places from before adaptation, and first clips of the deployment.

Half of them are replayed, the other half measures what was forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from dae_ros.distillation.clip_store import ClipStore
from dae_ros.distillation.online.anchor_streams import AnchorStreams, Excerpt, Place, Spot
from dae_ros.distillation.online.measured_places import MeasuredPlaces, measured_places
from dae_ros.distillation.online.observation import LabelledClip, Refusal
from dae_ros.errors import ConfigurationError
from dae_ros.parameters.distillation import OnlineParameters

Half: TypeAlias = Literal["replayed", "measured"]

# The halves of a deployment's own clips must not be neighbours in time.
PIN_SPACING_NS = 10_000_000_000
# What layers see is measured on so many places, and windows of each (`known_inputs.py`).
KNOWN_PLACES, KNOWN_WINDOWS = 24, 32
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
        streams: through places from before adaptation, to replay; None without.
        measured: from before adaptation as well, of other places; None without.
        parameters: pinned_clips and seed.
    """

    def __init__(
        self,
        streams: AnchorStreams | None,
        measured: MeasuredPlaces | None,
        parameters: OnlineParameters,
    ) -> None:
        self._parameters = parameters
        self._streams = streams
        self._measured = measured
        self._pinned: list[LabelledClip] = []

    def __len__(self) -> int:
        """Return how many places and clips there are."""
        return len(self._streams or ()) + len(self._measured or ()) + len(self._pinned)

    def measured(self, near: Sequence[Spot] = ()) -> tuple[LabelledClip, ...]:
        """Return clips that nothing is learned from.

        Args:
            near: windows of `measured_places` that look like the deployment.
        """
        places = () if self._measured is None else self._measured.choose(near)
        return (*places, *self._pinned[1::2])

    def measured_places(self) -> list[Place]:
        """Return the windows of every stretch that may measure."""
        return [] if self._measured is None else self._measured.places()

    def known(self) -> Iterable[LabelledClip]:
        """Return stretches of places that are replayed, made when they are asked for."""
        if self._streams is None:
            return ()
        return self._streams.stretches(KNOWN_PLACES, KNOWN_WINDOWS)

    def places(self) -> list[Place]:
        """Return the windows of every place that is replayed."""
        return [] if self._streams is None else self._streams.places()

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

    def draw(
        self, step: int, count: int, near: Callable[[], Sequence[Spot]] = tuple
    ) -> tuple[LabelledClip | Excerpt, ...]:
        """Return anchors to replay, a pinned clip as often as a place.

        One pinned clip at most where nothing else is there: they are few, and of the place that
        the other clips of a step show anyway.

        Args:
            step: which pinned clips are drawn depends on it, the seed and the contents alone.
            count: how many; fewer where fewer are there. Excerpts come again until they are told
                to go on, unless one begins a pass and something else is near by then.
            near: see `AnchorStreams.visit`.
        """
        pinned = self._pinned[0::2]
        random = np.random.default_rng([self._parameters.seed, step, _DRAW])
        order = [pinned[int(index)] for index in random.permutation(len(pinned))]
        if self._streams is None:
            return tuple(order[: min(count, 1)])
        share = len(pinned) / (len(pinned) + len(self._streams))
        chosen = int((random.random(count) < share).sum())
        return (*self._streams.visit(count - min(chosen, len(order)), near), *order[:chosen])

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside the clips themselves."""
        streams = None if self._streams is None else self._streams.state()
        return {"pinned": len(self._pinned), "streams": streams}

    def restore(self, state: Mapping[str, Any], clips: Mapping[int, LabelledClip]) -> int:
        """Go on from what `state` gave.

        Args:
            state: of `state`.
            clips: pinned ones by key.

        Returns:
            How many are missing; those behind a missing one are given up as well, since the half
            that a clip belongs to follows from its number.
        """
        if self._streams is not None and state["streams"] is not None:
            self._streams.restore(state["streams"])
        count = int(state["pinned"])
        self._pinned = []
        while len(self._pinned) < count and len(self._pinned) in clips:
            self._pinned.append(clips[len(self._pinned)])
        return count - len(self._pinned)


def anchors_of_store(
    store: ClipStore, event_encoder: str, parameters: OnlineParameters
) -> AnchorSet:
    """Make anchors of a store of clips.

    Its `train` sequences are replayed and its `heldout` ones measure; a sequence is a place, so
    that the halves share none. Sequences without depth hold the student at what the original says.

    Args:
        store: of `dae-ros clips`.
        event_encoder: of the student.
        parameters: anchor_streams, unroll, measured_anchors, measured_windows, seed.

    Raises:
        ConfigurationError: windows of another encoder, or a split without a sequence that is long
            enough.
    """
    if store.event_encoder != event_encoder:
        raise ConfigurationError(
            f"the student takes {event_encoder} and the anchors in {store.folder} are "
            f"{store.event_encoder}; make clips with event_encoder: {event_encoder}",
            folder=str(store.folder),
        )
    streams = AnchorStreams(store.split("train"), store.digest, parameters)
    length = parameters.measured_windows
    measured = measured_places(
        store.split("heldout"), store.digest, length, parameters.measured_anchors
    )
    for split, found, windows, why in (
        ("train", len(streams), parameters.unroll, "unroll"),
        ("heldout", len(measured), length, "measured_windows"),
    ):
        if not found:
            raise ConfigurationError(
                f"{store.folder} has no sequence in '{split}' with {windows} windows in a row "
                f"('{why}'), and anchors need both splits; make longer clips",
                folder=str(store.folder),
                split=split,
            )
    return AnchorSet(streams, measured, parameters)
