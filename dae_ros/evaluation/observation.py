"""Predictions of the depth pipeline beside the ground truth of their instants."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.labelled_recording import AFTER_LAST_EVENT_NS
from dae_ros.bags.messages import DepthTruthImage
from dae_ros.errors import RecordingError
from dae_ros.evaluation.protocols import DatasetProtocol
from dae_ros.evaluation.stamp_matcher import Match, StampMatcher
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket
from dae_ros.parameters import DepthParameters
from dae_ros.representation.event_image import EventImage, size_of
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.estimator import DepthEstimator, FloatImage, OutputMeaning
from dae_ros.runtime.pipeline import DepthPipeline

ResetPolicy: TypeAlias = Literal["carry", "every_window"]
Input: TypeAlias = "EventPacket | Frame | DepthTruthImage"

# A window ends at its truth's stamp, floored to 1 us and sent through the clock estimator and back.
TOLERANCE_NS = 2_000_000
# Camera frames that wait for the truth that they are shown beside.
_MOST_FRAMES = 100
_NO_IMAGE = np.zeros((0, 0), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One window with what was true at its end.

    Attributes:
        stamp_ns: of the ground truth.
        offset_ns: end of the window minus that stamp.
        prediction: float32[H, W], what the pipeline put out: metres, or the network's number.
        depth: float32[H, W], metres; 0, negative and not finite is unknown.
        image: Tencode, uint16[H, W] or float32[3, H, W] in 0..1, for people and for masks of pixels
            with events.
        frame: uint8[H', W'], the newest camera frame, None without one.
        event_count: events of the window.
    """

    stamp_ns: int
    offset_ns: int
    prediction: FloatImage
    depth: FloatImage
    image: EventImage
    frame: NDArray[np.uint8] | None
    event_count: int


@dataclass(frozen=True, slots=True)
class ObservationRules:
    """What is run and what is left out; the same for all sequences of an evaluation.

    Attributes:
        reset: `carry` keeps the recurrent state through a sequence; `every_window` clears it
            before each step, which shows what memory is worth.
        protocol: whose rows are used and whose first frames are skipped; None uses everything.
        most: end a sequence after so many truths, None for all.
    """

    reset: ResetPolicy = "carry"
    protocol: DatasetProtocol | None = None
    most: int | None = None


class CroppedEstimator:
    """Shows the network some rows only, as published protocols do; the others become NaN.

    Args:
        estimator: takes images of so many rows.
        rows: the first, and one past the last.
    """

    def __init__(self, estimator: DepthEstimator, rows: tuple[int, int]) -> None:
        self._estimator = estimator
        self._rows = slice(*rows)
        self.name = estimator.name
        self.digest = estimator.digest
        self.notes = estimator.notes
        self.weight_version = estimator.weight_version
        self.meaning: OutputMeaning = estimator.meaning
        self.input_channels = estimator.input_channels
        self.state_age = 0
        self.warming = False

    def estimate(self, image: EventImage) -> FloatImage:
        """See `DepthEstimator.estimate`; float32[H, W] with NaN outside the rows."""
        prediction = np.full(size_of(image), np.nan, np.float32)
        inside = cast("EventImage", np.ascontiguousarray(image[..., self._rows, :]))
        prediction[self._rows] = self._estimator.estimate(inside)
        self.state_age = self._estimator.state_age
        return prediction

    def reset(self) -> None:
        """Forget the recurrent state."""
        self._estimator.reset()
        self.state_age = 0


def cropped(estimator: DepthEstimator, protocol: DatasetProtocol | None) -> DepthEstimator:
    """Return the estimator as a protocol uses it."""
    if protocol is None or protocol.rows == (0, protocol.height):
        return estimator
    return CroppedEstimator(estimator, protocol.rows)


def observe(
    inputs: Iterable[Input],
    parameters: DepthParameters,
    estimator: DepthEstimator,
    rules: ObservationRules,
    skipped: Counter[str],
) -> Generator[Observation, None, None]:
    """Run one sequence through the depth pipeline, a window ending at every ground truth.

    Args:
        inputs: packets, frames and truths in the order of their recording.
        parameters: of the pipeline; windows end at stamps (`window: frame`).
        estimator: its state is cleared first.
        rules: see there.
        skipped: counts truths without a window: `skipped_by_protocol`, and `without_window`
            (the window would begin before the first event, or end after the last one, or its
            events had left the ring before the truth was read).

    Raises:
        RecordingError: ground truth is of another size than the events.
        InferenceError: the backend failed.
    """
    return _Pass(parameters, cropped(estimator, rules.protocol), rules, skipped).run(inputs)


class _Pass:
    """One sequence."""

    def __init__(
        self,
        parameters: DepthParameters,
        estimator: DepthEstimator,
        rules: ObservationRules,
        skipped: Counter[str],
    ) -> None:
        estimator.reset()
        self._pipeline = DepthPipeline(parameters, estimator)
        self._matcher: StampMatcher[DepthFrame, DepthTruthImage] = StampMatcher(TOLERANCE_NS)
        self._rules = rules
        self._skipped = skipped
        self._frames: deque[Frame] = deque(maxlen=_MOST_FRAMES)
        self._truths = 0

    def run(self, inputs: Iterable[Input]) -> Generator[Observation, None, None]:
        most = self._rules.most
        for count, observation in enumerate(self._observations(inputs), 1):
            yield observation
            if count == most:
                return
        self._skipped["without_window"] += self._matcher.unmatched_truths

    def _observations(self, inputs: Iterable[Input]) -> Iterator[Observation]:
        for item in inputs:
            if isinstance(item, EventPacket):
                self._pipeline.feed(item)
            elif isinstance(item, Frame):
                self._frames.append(item)
            else:
                yield from self._take(item)
            yield from self._steps()
        self._pipeline.finish(AFTER_LAST_EVENT_NS)
        yield from self._steps()
        yield from self._matched(self._matcher.flush())

    def _take(self, truth: DepthTruthImage) -> Iterator[Observation]:
        """Let a window end at this truth."""
        self._truths += 1
        protocol = self._rules.protocol
        if protocol is not None and self._truths <= protocol.skipped_frames:
            self._skipped["skipped_by_protocol"] += 1
            return
        self._pipeline.add_frame(Frame(truth.stamp_ns, _NO_IMAGE))
        yield from self._matched(self._matcher.add_truth(truth.stamp_ns, truth))

    def _steps(self) -> Iterator[Observation]:
        while True:
            if self._rules.reset == "every_window":
                self._pipeline.estimator.reset()
            frame = self._pipeline.step()
            if frame is None:
                return
            yield from self._matched(self._matcher.add_prediction(frame.stamp_ns, frame))

    def _matched(self, matches: list[Match[DepthFrame, DepthTruthImage]]) -> Iterator[Observation]:
        for match in matches:
            predicted, truth = match.prediction, match.truth
            if predicted.depth.shape != truth.depth.shape:
                (height, width), (rows, columns) = truth.depth.shape, predicted.depth.shape
                raise RecordingError(
                    f"ground truth has {width}x{height} px and the events {columns}x{rows}; choose "
                    "the depth that belongs to the events (--truth)",
                    truth=truth.depth.shape,
                    events=predicted.depth.shape,
                )
            yield Observation(
                stamp_ns=truth.stamp_ns,
                offset_ns=match.offset_ns,
                prediction=predicted.depth,
                depth=truth.depth,
                image=predicted.image,
                frame=self._frame_at(truth.stamp_ns),
                event_count=predicted.event_count,
            )

    def _frame_at(self, stamp_ns: int) -> NDArray[np.uint8] | None:
        """Return the newest frame that is not later, and forget those before it."""
        while len(self._frames) > 1 and self._frames[1].stamp_ns <= stamp_ns:
            self._frames.popleft()
        if not self._frames or self._frames[0].stamp_ns > stamp_ns:
            return None
        return self._frames[0].image
