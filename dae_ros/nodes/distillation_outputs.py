"""Everything that the distillation node publishes; called on the worker's thread."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from std_msgs.msg import MultiArrayDimension, MultiArrayLayout, String, UInt8MultiArray

from dae_ros.bags.messages import write_image
from dae_ros.distillation.online.reports import LiveStatus, LoopReport, LoopStatus
from dae_ros.nodes.depth_weights import CHUNK, SNAPSHOT
from dae_ros.nodes.diagnostics import OK, WARN, status
from dae_ros.nodes.distillation_worker import DistillationSnapshot
from dae_ros.nodes.qos import latched_qos, output_qos
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.snapshot_chunks import chunks, comes_again

LONGEST_REST_NS = 3600 * 10**9
# What is no trouble: it passes by itself, or somebody asked for it.
QUIET_HOLDS = frozenset({"inactive", "stopped", "few_clips", "small_gain"})
METRICS_DEPTH, VERDICTS_DEPTH = 100, 10


class DistillationOutputs:
    """The publishers of a distillation node.

    Args:
        node: that owns them.
        send_chunks: whether weights are sent in pieces as well.

    Attributes:
        active: whether anything but the status is published; the lifecycle sets it.
    """

    def __init__(self, node: LifecycleNode, *, send_chunks: bool) -> None:
        self._node = node
        self._send_chunks = send_chunks
        self.active = False
        make = node.create_publisher
        self._snapshot = make(String, SNAPSHOT, latched_qos())
        self._verdicts = make(String, "distill/verdict", latched_qos(VERDICTS_DEPTH))
        self._status = make(DiagnosticArray, "distill/status", latched_qos())
        self._metrics = make(DiagnosticArray, "distill/metrics", output_qos(METRICS_DEPTH))
        self._label = make(Image, "distill/pseudo_label", output_qos())
        self._chunks: Any = None
        self._sent: Announcement | None = None

    def announce(self, announcement: Announcement) -> None:
        """Tell depth which version it should have, and send its pieces where that is wanted."""
        if not self.active:
            return
        self._snapshot.publish(String(data=announcement.to_json()))
        self._node.get_logger().info(
            f"weights version {announcement.version} ({announcement.sha256[:12]}) announced"
            + (", as a way back" if announcement.rollback else "")
        )
        if self._send_chunks:
            self._send(announcement)

    def report(self, report: LoopReport, steps: int) -> None:
        """Publish what a piece of work gave."""
        if not self.active:
            return
        stamp = self._node.get_clock().now().to_msg()
        numbers = report.numbers()
        array = DiagnosticArray(status=[status(report.action, OK, "", {"steps": steps, **numbers})])
        array.header.stamp = stamp
        self._metrics.publish(array)
        if report.verdict is not None:
            self._verdicts.publish(String(data=verdict_text(report)))
            words = "; ".join(f"{r.reason}: {r.detail}" for r in report.verdict.refusals)
            reset = f"; learning begins anew from the {report.reset}" if report.reset else ""
            self._node.get_logger().info(f"candidate {words or 'accepted'}{reset}")
        label = report.label
        if label is None or label.clip is None or label.frame is None:
            return
        if self._label.get_subscription_count():
            depth = label.clip.depth[-1].astype(np.float32)
            frame = label.frame
            self._label.publish(write_image(depth, frame.stamp_ns, frame.frame_id))

    def tell(self, snapshot: DistillationSnapshot) -> None:
        """Publish how learning is doing, while the node is inactive too: that is what it says."""
        array = DiagnosticArray(status=live_statuses(snapshot))
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._status.publish(array)

    def destroy(self) -> None:
        """Take the topics back; the worker must have stopped."""
        self.active = False
        for publisher in (
            self._snapshot,
            self._verdicts,
            self._status,
            self._metrics,
            self._label,
            self._chunks,
        ):
            if publisher is not None:
                self._node.destroy_publisher(publisher)
        self._chunks = None

    def _send(self, announcement: Announcement) -> None:
        before, self._sent = self._sent, announcement
        if not comes_again(announcement, before) or (
            before is not None
            and before.sha256 == announcement.sha256
            and self._chunks is not None
            and not self._chunks.wait_for_all_acked(Duration())
        ):
            # In use already; or still on its way: a slow link would never see the end of a file
            # that begins anew each time.
            return
        try:
            pieces = list(chunks(announcement.path, announcement.version))
        except OSError as error:
            self._node.get_logger().error(f"version {announcement.version} cannot be sent: {error}")
            return
        # Late subscribers must get the whole file, and nothing of the one before it.
        if self._chunks is not None:
            self._node.destroy_publisher(self._chunks)
        self._chunks = self._node.create_publisher(UInt8MultiArray, CHUNK, latched_qos(len(pieces)))
        for label, data in pieces:
            layout = MultiArrayLayout(dim=[MultiArrayDimension(label=label)])
            self._chunks.publish(UInt8MultiArray(layout=layout, data=data))


def verdict_text(report: LoopReport) -> str:
    """Return a judgement as the JSON of `distill/verdict`; what is no number becomes null."""
    verdict = report.verdict
    if verdict is None:
        raise ValueError("the report is of no judgement")
    return json.dumps(
        {
            "accepted": verdict.accepted,
            "version": None if report.announcement is None else report.announcement.version,
            "refusals": {refusal.reason: refusal.detail for refusal in verdict.refusals},
            "part": report.part,
            "reset": report.reset,
            "numbers": {
                name: value if math.isfinite(value) else None
                for name, value in verdict.numbers.items()
            },
        }
    )


def live_statuses(snapshot: DistillationSnapshot) -> list[DiagnosticStatus]:
    """Return what `distill/status` and `/diagnostics` say."""
    live = snapshot.live
    found = [_learning(live), _budget(live), _depth(live)]
    counts: dict[str, object] = {
        **{f"received.{name}": count for name, count in snapshot.received.items()},
        **{f"error.{name}": count for name, count in snapshot.errors.items()},
        "inbox_dropped": snapshot.inbox_dropped,
        **live.counts,
    }
    if live.loop is not None:
        counts |= live.loop.counts
    level = WARN if snapshot.errors or snapshot.inbox_dropped else OK
    return [*found, status("counts", level, "", counts)]


def _learning(live: LiveStatus) -> DiagnosticStatus:
    health, loop = live.health, live.loop
    quiet = health.state == "active" or health.reason in QUIET_HOLDS
    values: dict[str, object] = {"state": health.text, "detail": health.detail}
    level = OK if quiet and (loop is None or not loop.problem) else WARN
    if loop is not None:
        values |= _values(loop)
    text = f"{health.text}: {health.detail}" if health.detail else health.text
    return status("learning", level, text, values)


def _values(loop: LoopStatus) -> dict[str, object]:
    values = loop.to_dict()
    for name in ("health", "detail", "counts"):
        del values[name]
    return {name: "" if value is None else value for name, value in values.items()}


def _budget(live: LiveStatus) -> DiagnosticStatus:
    # At the present share, which grows while learning rests: a long rest says nothing.
    rest_ns = live.rest_ns
    rest = "" if rest_ns is None or rest_ns > LONGEST_REST_NS else f"{rest_ns / 1e9:.2f}"
    text = f"{live.duty:.1%} of the time"
    return status("budget", OK, text, {"duty": f"{live.duty:.4f}", "rest_s": rest})


def _depth(live: LiveStatus) -> DiagnosticStatus:
    version = "" if live.depth_version is None else live.depth_version
    text = live.depth_verdict or "depth has said nothing about its weights"
    return status("depth", OK, text, {"version": version})
