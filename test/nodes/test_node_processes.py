"""Nodes as processes: their own start, their signals, their exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from event_camera_msgs.msg import EventPacket
from sensor_msgs.msg import Image

from dae_ros.events.cdr import write_packet

TINY = ("-p", "weights:=untrained:tiny", "-p", "device:=cpu", "-p", "threads:=1")


@pytest.fixture
def node(tmp_path):
    """Start a node module as a process; it is killed at the end if it still runs."""
    started = []

    def start(module, *arguments):
        with (tmp_path / "log").open("w", encoding="utf-8") as log:
            child = subprocess.Popen(
                [sys.executable, "-u", "-m", f"dae_ros.nodes.{module}", "--ros-args", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ},
            )
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
            child.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_the_depth_node_starts_itself_works_and_ends_with_zero(
    graph, camera, node, tmp_path, number
):
    """autostart reaches active, remapped topics carry depth, a signal ends with exit code 0."""
    images = graph.listen(Image, "/robot/depth/relative")
    publisher = graph.publisher(EventPacket, "/camera/events")
    child = node("depth_node", *TINY, "-r", "events:=/camera/events", "-r", "__ns:=/robot")
    graph.until(lambda: publisher.get_subscription_count() == 1 or child.poll() is not None, 60.0)
    while len(images) < 3:
        assert child.poll() is None, (tmp_path / "log").read_text(encoding="utf-8")
        publisher.publish(write_packet(camera.packet()))
        graph.spin(0.005)
    child.send_signal(number)
    assert child.wait(10.0) == 0
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert "untrained:tiny" in log


def test_a_bad_parameter_ends_the_process_with_one_and_the_sentence(graph, node, tmp_path):
    """A value out of range on the command line is refused before anything starts."""
    child = node("depth_node", *TINY, "-p", "hop_s:=9.0")
    assert child.wait(30.0) == 1
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "'hop_s' must be at most 2, not 9" in log
    assert "Traceback" not in log
