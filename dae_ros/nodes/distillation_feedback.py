"""What the depth node says of itself, for the budget and the versions of the learner."""

from __future__ import annotations

import math
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from std_msgs.msg import String

from dae_ros.errors import WeightsError
from dae_ros.nodes.depth_weights import VERDICTS, read_verdict
from dae_ros.nodes.distillation_worker import DepthImage, DroppedWindows, Feedback
from dae_ros.nodes.qos import MatchedSubscription, offer_of
from dae_ros.runtime.weight_stages import Verdict

STATUS = "depth/status"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
# The reader's history: a status that is lost here is a latency less, no more.
STATUS_DEPTH = 200
# Part of depth's report -> its counters of what was lost. A window fails where learning has taken
# the GPU's memory; messages are shed at the inbox where it has taken the processor.
LOSSES = {"windows": ("skipped", "failed"), "events": ("inbox_dropped", "inbox_late")}


class DepthFeedback:
    """The subscriptions `depth/status`, `depth/weights` and `/diagnostics`.

    Args:
        node: that owns them.
        feedback: called with latencies and losses.
        judged: called with what depth says about a version.
    """

    def __init__(
        self,
        node: Node,
        feedback: Callable[[Feedback], None],
        judged: Callable[[Verdict], None],
    ) -> None:
        self._node = node
        self._feedback = feedback
        self._judged = judged
        self._lost: dict[str, int] = {}
        # All nodes of a machine share `/diagnostics`; the graph says which of them is depth.
        self._depth = ""
        self._subscriptions = [
            MatchedSubscription(
                node, STATUS, [DIAGNOSTICS], self._image, raw=False, depth=STATUS_DEPTH
            ),
            MatchedSubscription(
                node, VERDICTS, ["std_msgs/msg/String"], self._verdict, raw=False, depth=10
            ),
            MatchedSubscription(
                node, "/diagnostics", [DIAGNOSTICS], self._report, raw=False, depth=STATUS_DEPTH
            ),
        ]

    def look(self) -> None:
        """Look at the graph."""
        for subscription in self._subscriptions:
            subscription.refresh()
        offer = offer_of(self._node, STATUS)
        if offer is not None and offer.publishers:
            self._depth = offer.publishers[0]

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            subscription.destroy()

    def _image(self, message: DiagnosticArray, _: str) -> None:
        values = {item.key: item.value for status in message.status[:1] for item in status.values}
        latency_ms = _number(values.get("latency_ms"))
        if latency_ms is not None:
            self._feedback(DepthImage(latency_ms))

    def _report(self, message: DiagnosticArray, _: str) -> None:
        for status in message.status:
            node, _, part = status.name.partition(": ")
            if not self._depth or node != self._depth or part not in LOSSES:
                continue
            values = {item.key: _number(item.value) for item in status.values}
            counts = [count for name in LOSSES[part] if (count := values.get(name)) is not None]
            if len(counts) < len(LOSSES[part]):
                continue
            before, lost = self._lost.get(part), int(sum(counts))
            self._lost[part] = lost
            # Fewer than before: depth was started again.
            if before is not None and lost > before:
                self._feedback(DroppedWindows(lost - before if part == "windows" else 1))

    def _verdict(self, message: String, _: str) -> None:
        try:
            self._judged(read_verdict(message.data))
        except WeightsError as error:
            self._node.get_logger().warning(str(error), throttle_duration_sec=5.0)


def _number(text: str | None) -> float | None:
    """Return a finite number; None where it is none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
