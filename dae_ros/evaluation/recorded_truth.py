"""Metrics of a bag run whose recording has ground truth: an observer of `runtime.bag_runner`."""

from __future__ import annotations

import dataclasses
from collections import deque

from dae_ros.bags.container import RecordedMessage
from dae_ros.bags.messages import read_depth
from dae_ros.bags.recording import Recording
from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.report import null_for_nan
from dae_ros.evaluation.sequence_scorer import (
    PIXELS,
    TableChoice,
    default_scorings,
    require_scorable,
)
from dae_ros.evaluation.stamp_matcher import LIMIT
from dae_ros.evaluation.truth_comparison import (
    DEFAULT_TOLERANCE_NS,
    Prediction,
    TruthComparison,
)
from dae_ros.representation.render import FloatImage
from dae_ros.runtime.depth_frame import DepthFrame


class RecordedTruth:
    """Compares every window with the truth that was recorded closest to its end.

    Args:
        topic: depth images of the events' pixels.

    Attributes:
        topics: for the runner.
    """

    def __init__(self, topic: str) -> None:
        self.topics: tuple[str, ...] = (topic,)
        self._comparison: TruthComparison | None = None
        self._refusal: str | None = None
        # Truths that were recorded before the first window closed.
        self._early: deque[tuple[int, FloatImage]] = deque(maxlen=LIMIT)

    def add_message(self, recording: Recording, message: RecordedMessage) -> FloatImage:
        """Take a depth image and return it; see `bag_runner.Observer`."""
        truth = read_depth(recording.to_cdr(message))
        if self._comparison is None:
            self._early.append((truth.stamp_ns, truth.depth))
        else:
            self._comparison.add_truth(truth.stamp_ns, truth.depth)
        return truth.depth

    def add_window(self, frame: DepthFrame) -> None:
        """Take a result; the first one says how results can be scored."""
        if self._comparison is None and self._refusal is None:
            self._begin(frame)
        if self._comparison is not None:
            prediction = Prediction(frame.depth, frame.image, frame.event_count)
            self._comparison.add_prediction(frame.stamp_ns, prediction)

    def _begin(self, frame: DepthFrame) -> None:
        scorings = default_scorings(frame.kind, published=False)
        try:
            require_scorable(frame.kind, frame.orientation, scorings)
        except ConfigurationError as error:
            self._refusal = error.message
            return
        choices = [TableChoice(pixels, scoring) for scoring in scorings for pixels in PIXELS]
        self._comparison = TruthComparison(self.topics[0], choices)
        for stamp_ns, depth in self._early:
            self._comparison.add_truth(stamp_ns, depth)
        self._early.clear()

    def summary(self) -> dict[str, object]:
        """Return the means as JSON content, or why there are none."""
        content: dict[str, object] = {
            "truth": self.topics[0],
            "not_scored_because": self._refusal,
            "tolerance_s": DEFAULT_TOLERANCE_NS / 1e9,
        }
        comparison = self._comparison
        if comparison is None:
            return content
        comparison.flush()
        tables = [
            {
                "pixels": table.pixels,
                "scoring": dataclasses.asdict(table.scoring),
                **dataclasses.asdict(table.sequences[0]),
            }
            for table in comparison.tables()
        ]
        content |= {
            "windows": comparison.counts["matched"],
            "wrong_size": comparison.counts["wrong_size"],
            "windows_without_truth": comparison.unmatched_predictions,
            "truths_without_window": comparison.unmatched_truths,
            "largest_offset_s": comparison.largest_offset_ns / 1e9,
            "tables": null_for_nan(tables),
        }
        return content
