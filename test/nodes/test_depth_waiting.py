"""Windows that wait for frames or triggers which do not come: the node says so, and what to do."""

from __future__ import annotations

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from dvs_msgs.msg import EventArray
from event_camera_msgs.msg import EventPacket
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image

from dae_ros.bags.messages import write_image
from dae_ros.events.cdr import write_event_array, write_packet
from dae_ros.nodes import rate_report


@pytest.fixture
def waiting(graph, depth, monkeypatch):
    """Start a node that waits for `window`, with events; return reports and how to send more."""
    monkeypatch.setattr(rate_report, "PATIENCE_S", 0.5)

    def start(window, kind, message):
        node = depth(window=window)
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        publisher = graph.publisher(kind, "events")
        graph.until(lambda: publisher.get_subscription_count() == 1)
        for _ in range(20):
            publisher.publish(message())
        return graph.listen(DiagnosticArray, "/diagnostics"), publisher

    return start


def windows_of(reports):
    """Return the newest status of the windows, None before the first."""
    found = [s for report in reports for s in report.status if s.name.endswith(": windows")]
    return found[-1] if found else None


def test_triggers_of_event_arrays_are_missed_aloud(graph, camera, waiting, capfd):
    """dvs_msgs carries none: diagnostics warn, and the log says once what to choose instead."""

    def message():
        events = camera.events()
        stamp_ns = int(events.t[0])
        return write_event_array(events, camera.height, camera.width, stamp_ns, "camera")

    reports, _ = waiting("trigger", EventArray, message)
    text = "event arrays carry none, only evt3, evt2, evt2.1 do; choose the window time"
    graph.until(lambda: reports and windows_of(reports) and text in windows_of(reports).message)
    assert windows_of(reports).level == b"\x01"
    log = ""

    def logged():
        nonlocal log
        log += capfd.readouterr().err
        return text in log

    graph.until(logged)
    graph.spin(2.5)
    log += capfd.readouterr().err
    assert log.count(text) == 1


def test_missing_frames_are_named_with_their_topic(graph, camera, waiting, capfd):
    """Nobody publishes images: the log says so as it does for events; with frames all is well."""
    reports, publisher = waiting("frame", EventPacket, lambda: write_packet(camera.packet()))
    text = "no camera frame lies inside of the events"
    graph.until(lambda: reports and windows_of(reports) and text in windows_of(reports).message)
    assert "nobody publishes '/image' yet" in capfd.readouterr().err
    depths = graph.listen(Image, "depth/relative")
    images = graph.publisher(Image, "image")
    graph.until(lambda: images.get_subscription_count() == 1)
    stamp_ns = 1_700_000_000_000_000_000 + camera.time_us * 1000 - 10_000_000
    frame = write_image(np.zeros((camera.height, camera.width), np.uint8), stamp_ns, "camera")
    images.publish(frame)
    for _ in range(20):
        publisher.publish(write_packet(camera.packet()))
    graph.until(lambda: depths)
    reports.clear()
    graph.until(lambda: windows_of(reports) and windows_of(reports).level == b"\x00")
