"""Compares depth with ground truth while both are published.

Everything happens on the executor's thread: scoring a map of 346x260 px takes a few ms.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from dae_ros.bags.message_types import IMAGE
from dae_ros.bags.messages import DepthTruthImage, read_depth
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.evaluation.report import EvaluationReport, ScoreTable, write_report
from dae_ros.evaluation.scoring import Scoring
from dae_ros.evaluation.sequence_scorer import TableChoice, default_scorings, require_scorable
from dae_ros.evaluation.stamp_matcher import LIMIT
from dae_ros.evaluation.truth_comparison import ComparedFrame, Prediction, TruthComparison
from dae_ros.evaluation.uncompared import why_nothing_was_compared
from dae_ros.nodes.command_line import Usage
from dae_ros.nodes.conversions import header
from dae_ros.nodes.diagnostics import OK, WARN, status
from dae_ros.nodes.entry import run
from dae_ros.nodes.parameter_binding import declare
from dae_ros.nodes.processes import NOTHING_COMPARED
from dae_ros.nodes.qos import MatchedSubscription, output_qos
from dae_ros.parameters import GroundTruthParameters
from dae_ros.paths import named_path

STATUS = "diagnostic_msgs/msg/DiagnosticArray"
GRAPH_PERIOD_S = 0.1
NOTICE_PERIOD_S = 60.0
# Networks and recordings take their time to load.
QUIET_S = 20.0
QUEUE_DEPTH = 200
NO_STATUS = (
    "no 'depth/status' came before the last depth image, and only that says what the number of "
    "'depth/relative' grows with; set 'orientation' to depth if it grows with depth"
)
SHOWN = ("abs_rel", "rmse", "delta_1", "best_constant_abs_rel")


USAGE = Usage(
    "gt_node",
    "Compares depth with ground truth while both are published: `depth/image` or\n"
    "`depth/relative` against `ground_truth`, onto `metrics`.",
    main="report",
    examples=(
        "--ros-args -r ground_truth:=/depth_truth",
        "--ros-args -r ground_truth:=/davis/left/depth_image_raw -p report:=result",
    ),
)


class GroundTruthNode(Node):
    """Node `gt`: `depth/image` or `depth/relative`, and `depth/status`, against `ground_truth`.

    Each pair gives a `metrics` message (diagnostic_msgs/DiagnosticArray) with the stamp of the
    truth: a status `frame` of this pair, and a status `running` of all since the start; metres are
    scored after least squares as well, in a status `running_lstsq`. When the node ends it logs the
    means or why there are none, and writes a report where one is wanted.

    Raises:
        ConfigurationError: a parameter is out of range.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__("gt", **arguments)
        self.exit_code: int | None = None
        self._parameters = declare(self, GroundTruthParameters)
        self._kind: str | None = None
        self._comparison: TruthComparison | None = None
        # Truths that came before the first depth image said what is scored.
        self._early: deque[DepthTruthImage] = deque(maxlen=LIMIT)
        self._status: dict[str, str] = {}
        self._unreadable = self._truths = self._depths = 0
        # Why what is published cannot be scored, None where it can.
        self._refusal: str | None = None
        self._quiet_until_s = time.monotonic() + QUIET_S
        self._frame_id = ""
        self._metrics = self.create_publisher(DiagnosticArray, "metrics", output_qos(100))
        inputs: tuple[tuple[str, str, Callable[[Any, str], None], bool], ...] = (
            ("ground_truth", IMAGE, self._truth, True),
            ("depth/image", IMAGE, lambda data, _: self._depth("metric", data), True),
            ("depth/relative", IMAGE, lambda data, _: self._depth("relative", data), True),
            ("depth/status", STATUS, self._take_status, False),
        )
        self._inputs = {
            name: MatchedSubscription(self, name, (kind,), received, raw=raw, depth=QUEUE_DEPTH)
            for name, kind, received, raw in inputs
        }
        self.create_timer(GRAPH_PERIOD_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Unsubscribe, score what waits, log the means or why there are none, write the report."""
        if not self._inputs:
            return
        for subscription in self._inputs.values():
            subscription.destroy()
        self._inputs = {}
        comparison = self._comparison
        if comparison is not None:
            self._publish(comparison, comparison.flush())
        if comparison is None or not comparison.counts["matched"]:
            self.get_logger().warning(f"{NOTHING_COMPARED}{self._reason(comparison)}")
            return
        self.get_logger().info(f"depth against ground truth: {_in_words(comparison)}")
        if self._parameters.report:
            self._write_report(comparison)

    def _reason(self, comparison: TruthComparison | None) -> str:
        reason = why_nothing_was_compared(
            depths=self._depths,
            truths=self._truths,
            refusal=self._refusal,
            wrong_size=0 if comparison is None else comparison.counts["wrong_size"],
            tolerance_s=self._parameters.tolerance_s,
        )
        return f"{reason}; {self._unreadable} could not be read" if self._unreadable else reason

    def _look(self) -> None:
        for subscription in self._inputs.values():
            subscription.refresh()
        if time.monotonic() < self._quiet_until_s:
            return
        truth = self._inputs["ground_truth"]
        depths = [self._inputs[name] for name in ("depth/image", "depth/relative")]
        # Where something has come, its end is that of a recording or a simulation.
        if truth.problem is not None and not self._truths:
            self._notice(truth.problem)
        elif not self._depths and all(subscription.type_name is None for subscription in depths):
            self._notice(depths[0].problem or "")

    def _notice(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=NOTICE_PERIOD_S)

    def _take_status(self, message: DiagnosticArray, _type_name: str) -> None:
        if message.status:
            self._status = {item.key: item.value for item in message.status[0].values}

    def _read(self, data: bytes) -> DepthTruthImage | None:
        try:
            return read_depth(data)
        except RecordingError as error:
            self._unreadable += 1
            self._notice(f"an image is left out: {error}")
            return None

    def _truth(self, data: bytes, _type_name: str) -> None:
        image = self._read(data)
        if image is None:
            return
        self._truths += 1
        if self._comparison is None:
            self._early.append(image)
        else:
            found = self._comparison.add_truth(image.stamp_ns, image.depth)
            self._publish(self._comparison, found)

    def _depth(self, kind: str, data: bytes) -> None:
        image = self._read(data)
        if image is None:
            return
        self._depths += 1
        if self._comparison is None or kind != self._kind:
            self._begin(kind)
        if self._comparison is None:
            return
        self._frame_id = image.frame_id
        found = self._comparison.add_prediction(image.stamp_ns, Prediction(image.depth))
        self._publish(self._comparison, found)

    def _begin(self, kind: str) -> None:
        """Start to compare, as soon as it is known what the number means."""
        parameters = self._parameters
        orientation = parameters.orientation
        if orientation == "status":
            if kind == "relative" and "orientation" not in self._status:
                # It is published after the image that it belongs to.
                self._refusal = NO_STATUS
                return
            orientation = self._status.get("orientation", "unknown")
        scorings = self._scorings(kind)
        try:
            require_scorable(kind, orientation, scorings)
        except ConfigurationError as error:
            if error.message != self._refusal:  # once, not with every image
                self.get_logger().warning(error.message)
            self._refusal = error.message
            return
        if self._comparison is not None:
            found = self._comparison
            until_now = _in_words(found) if found.counts["matched"] else self._reason(found)
            self.get_logger().info(f"depth is {kind} from here on; until now {until_now}")
        self._refusal = None
        self._kind = kind
        self._comparison = TruthComparison(
            "live",
            [TableChoice("all", scoring) for scoring in scorings],
            round(parameters.tolerance_s * 1e9),
        )
        for truth in self._early:
            self._comparison.add_truth(truth.stamp_ns, truth.depth)
        self._early.clear()

    def _scorings(self, kind: str) -> tuple[Scoring, ...]:
        """Return how depth is scored; the first is that of each frame."""
        parameters = self._parameters
        chosen: Any = parameters.alignment
        scorings = (
            default_scorings(kind, published=False)
            if chosen == "auto"
            else (Scoring(alignment=chosen),)
        )
        return tuple(
            dataclasses.replace(
                scoring,
                clip_distance_m=parameters.clip_distance_m,
                minimum_depth_m=parameters.minimum_depth_m,
            )
            for scoring in scorings
        )

    def _publish(self, comparison: TruthComparison, frames: list[ComparedFrame]) -> None:
        for frame in frames:
            message = DiagnosticArray(
                header=header(frame.stamp_ns, self._frame_id),
                status=[self._frame_status(frame), *self._running_statuses(comparison)],
            )
            self._metrics.publish(message)
        if comparison.counts["wrong_size"]:
            self._notice(
                f"{comparison.counts['wrong_size']} pairs were left out: depth and ground truth "
                "have different sizes; compare with the depth of the event camera's pixels"
            )

    def _frame_status(self, frame: ComparedFrame) -> DiagnosticStatus:
        fit = frame.score.alignment
        values: dict[str, object] = {
            "alignment": fit.method,
            "scale": fit.scale,
            "shift": fit.shift,
            "coverage": frame.score.coverage,
            "offset_ms": frame.offset_ns / 1e6,
            "weight_version": self._status.get("weight_version", ""),
            **frame.score.metrics,
        }
        scored = frame.score.metrics["valid_pixels"] > 0
        text = f"Abs Rel {frame.score.metrics['abs_rel']:.3f}" if scored else "no pixel counts"
        return status("frame", OK if scored else WARN, text, values, self._frame_id)

    def _running_statuses(self, comparison: TruthComparison) -> list[DiagnosticStatus]:
        """Return the means of every scoring, the first as `running`."""
        statuses = []
        for table in comparison.tables():
            score = table.sequences[0]
            alignment = table.scoring.alignment
            values: dict[str, object] = {
                "alignment": alignment,
                "frames": score.frames,
                "frames_without_pixels": score.frames_without_pixels,
                "positive_scale": score.positive_scale,
                "coverage": score.coverage,
                "largest_offset_ms": comparison.largest_offset_ns / 1e6,
                "depth_without_truth": comparison.unmatched_predictions,
                "truth_without_depth": comparison.unmatched_truths,
                "wrong_size": comparison.counts["wrong_size"],
                "unreadable": self._unreadable,
                **score.metrics,
            }
            name = f"running_{alignment}" if statuses else "running"
            statuses.append(status(name, OK, _means_in_words(table), values, self._frame_id))
        return statuses

    def _write_report(self, comparison: TruthComparison) -> None:
        digest = self._status.get("sha256", "")
        report = EvaluationReport(
            dataset="live ground truth",
            network=f"sha256 {digest[:12]}" if digest else "depth",
            tables=comparison.tables(),
            facts={
                "output": str(self._kind),
                "largest offset": f"{comparison.largest_offset_ns / 1e6:g} ms",
                "truths without depth": str(comparison.unmatched_truths),
                "depth without truth": str(comparison.unmatched_predictions),
            },
        )
        try:
            written = write_report(report, named_path(self._parameters.report))
        except (OSError, ConfigurationError, RecordingError) as error:
            self.get_logger().error(f"the report cannot be written: {error}")
            return
        self.get_logger().info(f"report in {written[1]}")


def _in_words(comparison: TruthComparison) -> str:
    tables = comparison.tables()
    frames = tables[0].sequences[0].frames
    return f"{frames} frames, " + "; ".join(_means_in_words(table) for table in tables)


def _means_in_words(table: ScoreTable) -> str:
    metrics = table.sequences[0].metrics
    shown = ", ".join(f"{name} {metrics[name]:.3f}" for name in SHOWN if name in metrics)
    return f"alignment {table.scoring.alignment}: {shown}"


def main(args: list[str] | None = None) -> int:
    """Compare until it is interrupted; returns the exit code."""
    return run(GroundTruthNode, USAGE, args)


if __name__ == "__main__":
    sys.exit(main())
