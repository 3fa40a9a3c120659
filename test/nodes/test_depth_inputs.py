"""Inputs that stop, are wrong or are missing: the depth node says which, why, and what to do."""

from __future__ import annotations

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from event_camera_msgs.msg import EventPacket
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from dae_ros.events.cdr import write_packet
from dae_ros.nodes import rate_report

OK, WARN = b"\x00", b"\x01"


class Reports:
    """The `/diagnostics` of an active depth node, and what it has logged."""

    def __init__(self, graph, capfd):
        self._graph, self._capfd = graph, capfd
        self._reports = graph.listen(DiagnosticArray, "/diagnostics")
        self.log = ""

    def wait(self, name, level, *parts):
        """Spin until the newest report has this status; return its message."""

        def newest():
            self.log += self._capfd.readouterr().err
            found = [s for r in self._reports[-1:] for s in r.status if s.name == f"/depth: {name}"]
            return [
                s.message
                for s in found
                if s.level == level and all(part in s.message for part in parts)
            ]

        self._reports.clear()
        self._graph.until(newest)
        return newest()[0]


@pytest.fixture
def reports(graph, depth, capfd, monkeypatch):
    """Start an active depth node and listen to it."""
    monkeypatch.setattr(rate_report, "PATIENCE_S", 0.5)
    node = depth(max_silence_s=0.5)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    return Reports(graph, capfd)


def test_a_camera_that_falls_silent_is_told_from_one_that_has_gone(graph, camera, reports):
    """Messages stop: a warning with the publisher's name; it vanishes: another; it is back: OK."""

    def driver():
        node = graph.add(Node("driver"))
        publisher = node.create_publisher(EventPacket, "events", 1000)

        def publish():
            publisher.publish(write_packet(camera.packet()))

        return node, node.create_timer(0.02, publish), publisher

    node, timer, _ = driver()
    reports.wait("events", OK, "receiving")
    timer.cancel()
    text = reports.wait("events", WARN, "no message on '/events' for")
    assert "though its publisher /driver is still there: see its log" in text
    graph.until(lambda: reports.wait("events", WARN, "no message on") and text[:24] in reports.log)
    timer.reset()
    reports.wait("events", OK, "receiving")
    graph.remove(node)
    text = reports.wait("events", WARN, "nobody publishes '/events' any more")
    assert "/driver is gone. Unless it was meant to end, see why it did and start it again" in text
    graph.until(lambda: reports.wait("events", WARN) and text in reports.log)
    _kept = driver()
    reports.wait("events", OK, "receiving")


def test_a_missing_calibration_is_no_error_and_its_consequence_is_told(graph, reports):
    """OK in diagnostics and one line in the log: what depth/camera_info is without it."""
    text = reports.wait("calibration", OK, "nobody publishes '/camera_info' yet")
    assert "depth images need none, and depth/camera_info goes with them all zero" in text
    assert "remap 'camera_info', or set 'calibration' to the camera's file" in text
    graph.until(lambda: reports.wait("calibration", OK) and "no calibration; " in reports.log)
    publisher = graph.publisher(CameraInfo, "camera_info")
    graph.until(lambda: publisher.get_subscription_count() == 1)
    reports.wait("calibration", OK, "no message on '/camera_info' yet")
    publisher.publish(CameraInfo(height=48, width=64))
    assert reports.wait("calibration", OK, "64x48") == "64x48 px"
    assert reports.log.count("no calibration; ") == 1


def test_a_calibration_of_a_wrong_type_is_a_warning(graph, reports):
    """Both types, the publisher and the remapping are named, and the log has it once."""
    graph.publisher(String, "camera_info")
    text = reports.wait("calibration", WARN, "std_msgs/msg/String (from /peer)")
    assert "none of sensor_msgs/msg/CameraInfo; remap the topic to one that does" in text
    graph.until(lambda: reports.wait("calibration", WARN) and text in reports.log)
    reports.wait("calibration", WARN)
    assert reports.log.count(text) == 1


def test_a_calibration_of_another_camera_is_a_warning(graph, camera, reports):
    """Where it cannot be of the event camera, diagnostics say so with both sizes."""
    calibration = graph.publisher(CameraInfo, "camera_info")
    publisher = graph.publisher(EventPacket, "events")
    graph.until(
        lambda: calibration.get_subscription_count() == publisher.get_subscription_count() == 1
    )
    calibration.publish(CameraInfo(height=480, width=480))
    reports.wait("calibration", OK, "480x480 px")
    for _ in range(30):
        publisher.publish(write_packet(camera.packet()))
    text = reports.wait("calibration", WARN, "cannot be of the event camera of 64x48 px")
    assert text.endswith("remap 'camera_info', or give 'calibration' the camera's own file")


def test_a_calibration_file_stands_in_for_camera_info(graph, depth, camera, tmp_path):
    """Of the cameras of the file the events' own is taken, scaled; the topic is left alone."""
    chain = tmp_path / "camchain.yaml"
    chain.write_text(
        "".join(
            f"cam{index}:\n  distortion_coeffs: [0.1, 0.2, 0.3, 0.4]\n  distortion_model: radtan\n"
            f"  intrinsics: [{focal}, {focal}, 63.5, 47.5]\n  resolution: [128, 96]\n"
            f"  rostopic: /{side}/image_raw\n"
            for index, (side, focal) in enumerate([("left", 90.0), ("right", 100.0)])
        ),
        encoding="utf-8",
    )
    images = graph.listen(Image, "depth/relative")
    infos = graph.listen(CameraInfo, "depth/camera_info")
    reports = graph.listen(DiagnosticArray, "/diagnostics")
    unheard = graph.publisher(CameraInfo, "camera_info")
    node = depth(remap=("events:=/right/events",), calibration=str(chain))
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    publisher = graph.publisher(EventPacket, "/right/events")
    graph.until(lambda: publisher.get_subscription_count() == 1)
    for _ in range(30):
        publisher.publish(write_packet(camera.packet()))
    graph.until(lambda: images and infos)
    assert infos[0].header == images[0].header
    assert (infos[0].height, infos[0].width, infos[0].distortion_model) == (48, 64, "plumb_bob")
    np.testing.assert_allclose(infos[0].k, [50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1])
    assert unheard.get_subscription_count() == 0
    reports.clear()
    graph.until(lambda: reports)
    (status,) = (item for item in reports[0].status if item.name == "/depth: calibration")
    assert (status.level, status.message) == (b"\x00", "128x96 px")
    assert {item.key: item.value for item in status.values}["file"] == str(chain)
