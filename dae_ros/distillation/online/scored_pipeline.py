"""Depth of recordings beside their true depth, while weights change and afterwards."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dae_ros.bags.messages import read_depth
from dae_ros.bags.recording import Recording
from dae_ros.distillation.online.adaptation_topics import Topics
from dae_ros.distillation.online.stamps import LARGEST_FORWARD_NS
from dae_ros.errors import InferenceError, NonFiniteState, PacketError
from dae_ros.evaluation.sequence_scorer import TableChoice, default_scorings
from dae_ros.evaluation.truth_comparison import ComparedFrame, Prediction, TruthComparison
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.pipeline import DepthPipeline

BIN_S = 10.0


@dataclass(slots=True)
class ErrorCurve:
    """Mean Abs Rel and delta_1 in bins of time.

    Attributes:
        bins: number of the bin -> sum of Abs Rel, sum of delta_1, windows.
    """

    bins: dict[int, list[float]] = field(default_factory=dict)

    def add(self, time_s: float, abs_rel: float, delta_1: float) -> None:
        """Add a window; one whose error is no number is left out."""
        if math.isfinite(abs_rel):
            entry = self.bins.setdefault(int(time_s // BIN_S), [0.0, 0.0, 0])
            entry[:] = entry[0] + abs_rel, entry[1] + delta_1, entry[2] + 1

    def rows(self) -> list[dict[str, float]]:
        """Return begin of the bin in s, means, number of windows."""
        return [
            {
                "from_s": number * BIN_S,
                "abs_rel": abs_rel / windows,
                "delta_1": delta_1 / windows,
                "windows": int(windows),
            }
            for number, (abs_rel, delta_1, windows) in sorted(self.bins.items())
        ]

    def mean(self) -> dict[str, float] | None:
        """Return the means over all windows; None without one."""
        windows = sum(entry[2] for entry in self.bins.values())
        if not windows:
            return None
        sums = [sum(entry[index] for entry in self.bins.values()) for index in (0, 1)]
        return {
            "abs_rel": sums[0] / windows,
            "delta_1": sums[1] / windows,
            "windows": int(windows),
        }


class ScoredPipeline:
    """A pipeline whose windows are compared with true depth.

    Attributes:
        unreadable: event messages that were no packets, by error code.
    """

    def __init__(self, pipeline: DepthPipeline, curve: ErrorCurve) -> None:
        self.pipeline = pipeline
        self._curve = curve
        self._choice = TableChoice("all", default_scorings(pipeline.kind, published=False)[0])
        self.unreadable: Counter[str] = Counter()
        self.begin(0, 0.0)

    def begin(self, start_ns: int, elapsed_s: float) -> None:
        """Begin another recording: when that was begun, and the time before it."""
        self._start_ns, self._elapsed_s = start_ns, elapsed_s
        self._recorded_ns = start_ns
        # Stamps less the times at which they were recorded; the first window says it.
        self._apart_ns: int | None = None
        self._comparison = TruthComparison("adapt", [self._choice])

    def recorded(self, time_ns: int) -> None:
        """Take when the last message was recorded."""
        self._recorded_ns = time_ns

    def truth(self, stamp_ns: int, depth: Any) -> None:
        """Take a true depth."""
        self._score(self._comparison.add_truth(stamp_ns, depth))

    def step(self) -> Iterator[DepthFrame]:
        """Step every window that is closed."""
        while (frame := self.pipeline.step()) is not None:
            if self._apart_ns is None:
                # Far apart are those of a replay that was recorded again.
                apart_ns = frame.stamp_ns - self._recorded_ns
                self._apart_ns = apart_ns if abs(apart_ns) > LARGEST_FORWARD_NS else 0
            prediction = Prediction(frame.depth, frame.image, frame.event_count)
            self._score(self._comparison.add_prediction(frame.stamp_ns, prediction))
            yield frame

    def end(self) -> None:
        """Score what is left of a recording."""
        self._score(self._comparison.flush())

    @property
    def packet_errors(self) -> Counter[str]:
        """Event messages that could not be used, by error code."""
        errors = Counter(self.pipeline.statistics().errors)
        for code in (InferenceError.code, NonFiniteState.code):  # of windows
            del errors[code]
        return self.unreadable + errors

    def _score(self, found: list[ComparedFrame]) -> None:
        for frame in found:
            began_ns = self._start_ns + (self._apart_ns or 0)
            time_s = self._elapsed_s + (frame.stamp_ns - began_ns) / 1e9
            metrics = frame.score.metrics
            self._curve.add(time_s, metrics["abs_rel"], metrics["delta_1"])


def score_elsewhere(
    recording: Recording, depth: DepthParameters, stopped: Callable[[], bool] = lambda: False
) -> Mapping[str, Any] | None:
    """Return the error of weights on a recording with true depth; None where no window has any.

    Args:
        recording: opened.
        depth: parameters, with the weights.
        stopped: asked between messages; where it says True the recording ends there.

    Returns:
        Means of `abs_rel` and `delta_1` over so many `windows`, and `packet_errors`, the event
        messages that could not be used, by error code.

    Raises:
        RecordingError: no events or no true depth, or the recording is damaged.
        InferenceError: depth failed.
    """
    topics = Topics.to_score(recording)
    depth = dataclasses.replace(depth, overload="queue")
    curve = ErrorCurve()
    scored = ScoredPipeline(DepthPipeline(depth, create_estimator(depth)), curve)
    for message in recording.messages(topics.all):
        if stopped():
            break
        if message.topic == topics.truth:
            truth = read_depth(recording.to_cdr(message))
            scored.truth(truth.stamp_ns, truth.depth)
            continue
        try:
            scored.pipeline.feed(recording.read_packet(message))
        except PacketError as error:
            scored.unreadable[error.code] += 1
            continue
        for _ in scored.step():
            pass
    scored.end()
    mean = curve.mean()
    return None if mean is None else {**mean, "packet_errors": dict(scored.packet_errors)}
