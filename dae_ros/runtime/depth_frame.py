"""The result of one window: a depth map and everything needed to know what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from dae_ros.errors import ConfigurationError
from dae_ros.representation.event_image import EventImage
from dae_ros.runtime.estimator import DepthEstimator, FloatImage, OutputMeaning
from dae_ros.runtime.stage_times import StageTimes

DepthKind: TypeAlias = Literal["metric", "relative"]


@dataclass(frozen=True, slots=True, eq=False)
class DepthFrame:
    """One window's depth.

    Attributes:
        index: number of the window since the last reset of the window grid, skipped ones counted.
        start_ns, end_ns: the window [start, end) in decoded event time.
        stamp_ns: the window's end in the declared clock (`stamp_clock`).
        depth: float32[H, W]. `metric`: metres along the optical axis, NaN invalid (REP 118).
            `relative`: the network's number as it is.
        kind: `metric` or `relative`.
        orientation: `depth`, `inverse_depth` or `unknown`: what a relative map grows with.
        image: Tencode of the window, uint16[H, W] or float32[3, H, W] in 0..1 (`tencode_voxel`).
        event_count: events in the window.
        state_age: steps since the recurrent state was last reset, this one included.
        weight_version, digest: which weights made it.
        frame_id: the optical frame.
        times: when each stage was done.
        warming: whether this is one of the first after a change of weights that cost the state.
    """

    index: int
    start_ns: int
    end_ns: int
    stamp_ns: int
    depth: FloatImage
    kind: DepthKind
    orientation: str
    image: EventImage
    event_count: int
    state_age: int
    weight_version: int
    digest: str
    frame_id: str
    times: StageTimes
    warming: bool = False

    @property
    def latency_ns(self) -> int:
        """From the arrival of what closed the window to the result; publishing comes after it."""
        return self.times.done_ns - self.times.arrival_ns


@dataclass(frozen=True, slots=True)
class DepthScale:
    """How the network's number becomes metres, or why it cannot.

    Attributes:
        orientation: `depth`, `inverse_depth` or `unknown`.
        metric: whether `scale` and `shift` give metres.
        scale, shift: metres = scale p + shift, or 1 / (scale p + shift) for inverse depth.
    """

    orientation: str
    metric: bool
    scale: float
    shift: float

    @staticmethod
    def choose(meaning: OutputMeaning, orientation: str, scale: float, shift: float) -> DepthScale:
        """Combine what the weights say with what the user says.

        Args:
            meaning: of the weights.
            orientation: `checkpoint` or the user's word.
            scale, shift: the user's, scale 0 where not given.

        Scale and shift of the user win: they are a measurement, and cameras differ. An orientation
        of the user is for weights that do not know their own: which way the number grows is a
        fact about the weights, and the wrong one looks plausible.

        A user's scale with an orientation that nobody knows stays relative: whether the number
        grows or shrinks with distance is never guessed.

        Raises:
            ConfigurationError: the user contradicts weights that know their orientation.
        """
        chosen = meaning.orientation if orientation == "checkpoint" else orientation
        if meaning.orientation not in ("unknown", chosen):
            raise ConfigurationError(
                f"'orientation' is {orientation}, but these weights say that their number grows "
                f"with {meaning.orientation}; leave 'orientation' at checkpoint, or, if what the "
                "weights say is wrong, save them anew with the right meaning (docs/model.md)",
                parameter="orientation",
                meaning=meaning.orientation,
            )
        if scale > 0.0:
            return DepthScale(chosen, chosen != "unknown", scale, shift)
        metric = meaning.metric and chosen != "unknown"
        return DepthScale(chosen, metric, meaning.scale, meaning.shift)

    @property
    def kind(self) -> DepthKind:
        """Whether the result is metres or the network's number."""
        return "metric" if self.metric else "relative"

    def apply(self, prediction: FloatImage) -> FloatImage:
        """Turn the network's number into metres, NaN where that gives no positive depth.

        Args:
            prediction: float32[H, W].

        Returns:
            float32[H, W]: metres, or the number unchanged where it is relative. It is `prediction`
            itself where nothing had to change.
        """
        if not self.metric:
            return prediction
        metres = prediction
        # What no float32 holds is no depth either.
        with np.errstate(divide="ignore", over="ignore"):
            if self.scale != 1.0 or self.shift != 0.0:
                metres = prediction * np.float32(self.scale) + np.float32(self.shift)
            if self.orientation == "inverse_depth":
                metres = np.float32(1.0) / metres
        # NaN compares false. Two passes for every window, and the others for those that need them.
        if metres.min() > 0.0 and metres.max() < np.inf:
            return metres
        if metres is prediction:
            metres = prediction.copy()
        metres[~((metres > 0.0) & (metres < np.inf))] = np.nan
        return metres


def scale_of(estimator: DepthEstimator, orientation: str, scale: float, shift: float) -> DepthScale:
    """Return the scale that holds for the estimator's present weights; see `DepthScale.choose`."""
    return DepthScale.choose(estimator.meaning, orientation, scale, shift)
