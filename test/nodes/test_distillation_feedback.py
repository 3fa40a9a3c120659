"""What the learner hears of the depth node: latencies, losses, verdicts."""

from __future__ import annotations

import math

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from event_camera_msgs.msg import EventPacket
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import String

from dae_ros.errors import WeightsError
from dae_ros.events.cdr import write_packet
from dae_ros.nodes.depth_weights import read_verdict, verdict_text
from dae_ros.nodes.diagnostics import OK, status
from dae_ros.nodes.distillation_feedback import DepthFeedback
from dae_ros.nodes.distillation_worker import DepthImage, DroppedWindows
from dae_ros.nodes.qos import latched_qos
from dae_ros.runtime.weight_stages import Verdict
from test.nodes.conftest import Camera

pytestmark = pytest.mark.ros
VERDICT = Verdict(3, "a" * 64, "refused", "missing", "no file", 2, "b" * 64, {"scale_step": 0.5})


def test_a_verdict_is_read_as_it_was_written() -> None:
    """Numbers that are none come back as such; what is no verdict is refused with a sentence."""
    assert read_verdict(verdict_text(VERDICT)) == VERDICT
    unknown = Verdict(1, "", "kept", "start", "", 1, "", {"pairs": math.nan})
    assert math.isnan(read_verdict(verdict_text(unknown)).numbers["pairs"])
    for text in (
        "no json",
        "[]",
        "{}",
        verdict_text(VERDICT).replace('"version": 3', '"version": 3.5'),
    ):
        with pytest.raises(WeightsError, match="no verdict on weights"):
            read_verdict(text)


def test_latencies_losses_and_verdicts_reach_the_learner(graph) -> None:
    """Windows that were skipped or failed count from the first report on, also over restarts.

    Of messages that were shed nobody knows how many windows they were: at least one.
    """
    heard, verdicts = [], []
    feedback = DepthFeedback(graph.peer, heard.append, verdicts.append)
    images = graph.publisher(DiagnosticArray, "depth/status")
    reports = graph.publisher(DiagnosticArray, "/diagnostics")
    answers = graph.peer.create_publisher(String, "depth/weights", latched_qos())

    def found() -> bool:
        feedback.look()
        return all(p.get_subscription_count() for p in (images, reports, answers))

    graph.until(found)
    for latency in ("12.5", "nan", "late"):
        values = {"latency_ms": latency}
        images.publish(DiagnosticArray(status=[status("depth", OK, "metric", values)]))
    for name, skipped, failed in (
        ("/peer: windows", 4, 2), ("/other: windows", 90, 0), ("/peer: windows", 5, 4),
        ("/peer: windows", 0, 0), ("/peer: windows", 0, 2),
    ):  # fmt: skip
        values = {"skipped": skipped, "failed": failed}
        reports.publish(DiagnosticArray(status=[status(name, OK, "", values)]))
        graph.spin(0.02)
    for name, dropped, late in (
        ("/peer: events", 7, 0), ("/other: events", 90, 0), ("/peer: events", 7, 40),
        ("/peer: events", 7, 40), ("/peer: events", 8, 41), ("/peer: events", 0, 0),
    ):  # fmt: skip
        values = {"inbox_dropped": dropped, "inbox_late": late}
        reports.publish(DiagnosticArray(status=[status(name, OK, "", values)]))
        graph.spin(0.02)
    answers.publish(String(data="no json"))
    answers.publish(String(data=verdict_text(VERDICT)))
    graph.until(lambda: verdicts and len(heard) >= 3)
    graph.spin(0.1)
    lost = [DroppedWindows(3), DroppedWindows(2), DroppedWindows(1), DroppedWindows(1)]
    assert heard == [DepthImage(12.5), *lost]
    assert verdicts == [VERDICT]
    feedback.destroy()


def test_what_a_depth_node_sheds_at_its_inbox_reaches_the_learner(graph, depth) -> None:
    """Large messages come faster than they are decoded; no window ever closes, or is skipped."""
    node = depth(inbox_mb=1, window="trigger")
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    heard = []
    feedback = DepthFeedback(graph.peer, heard.append, lambda _: None)
    reports = graph.listen(DiagnosticArray, "/diagnostics")
    events = graph.publisher(EventPacket, "events")
    camera = Camera(events_per_packet=250_000)
    messages = [write_packet(camera.packet()) for _ in range(8)]
    assert min(map(len, messages)) > 500_000

    def counted() -> dict[str, str]:
        found = {one.name: one.values for report in reports for one in report.status}
        return {item.key: item.value for item in found.get("/depth: events", ())}

    graph.until(lambda: feedback.look() or (events.get_subscription_count() and counted()))
    assert not heard

    def flooded() -> bool:
        for message in messages:
            events.publish(message)
        return bool(heard)

    graph.until(flooded)
    assert set(heard) == {DroppedWindows(1)}
    graph.until(lambda: int(counted()["inbox_dropped"]) + int(counted()["inbox_late"]) > 0)
    feedback.destroy()
