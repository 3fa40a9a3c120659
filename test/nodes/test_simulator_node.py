"""The simulated camera over real DDS: everything arrives, and equals what runs offline."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvs_msgs.msg import EventArray
from event_camera_msgs.msg import EventPacket as EventPacketMessage
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from dae_ros.bags.messages import read_camera_info, read_depth, read_frame
from dae_ros.events.cdr import read_packet
from dae_ros.events.codecs import create_decoder
from dae_ros.events.frame import Frame
from dae_ros.events.packet import Events
from dae_ros.nodes.simulator_node import SimulatorNode
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.simulation import DepthTruth, Simulation

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parents[2]
SMALL = {"height": 48, "width": 64, "duration_s": 0.5, "rate": 100.0}


def start(graph: Any, **changes: object) -> SimulatorNode:
    values = {**SMALL, **changes}
    return graph.add(
        SimulatorNode(
            cli_args=["--ros-args"],
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
    )


def listen_raw(graph: Any, kind: type, topic: str) -> list[bytes]:
    received: list[bytes] = []
    graph.peer.create_subscription(
        kind,
        topic,
        received.append,
        QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE),
        raw=True,
    )
    return received


@pytest.mark.parametrize("encoding", ["evt3", "dvs_msgs"])
def test_what_arrives_equals_the_offline_run(graph: Any, encoding: str) -> None:
    """Every event, frame, depth and calibration arrives once, equal to Simulation's."""
    kind = EventArray if encoding == "dvs_msgs" else EventPacketMessage
    packets = listen_raw(graph, kind, "events")
    frames, depths = listen_raw(graph, Image, "image_raw"), listen_raw(graph, Image, "depth_truth")
    infos = listen_raw(graph, CameraInfo, "camera_info")
    truth_infos = listen_raw(graph, CameraInfo, "depth_truth/camera_info")
    node = start(graph, encoding=encoding)
    graph.until(lambda: node.exit_code is not None)
    assert node.exit_code == 0
    graph.spin(0.1)

    simulation = Simulation(
        SimulatorParameters(height=48, width=64, duration_s=0.5, encoding=encoding)
    )
    expected = list(simulation.run())
    expected_events = Events.concatenate(list(simulation.events()))
    type_name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
    decoder = None
    decoded = []
    for data in packets:
        packet = read_packet(type_name, bytes(data))
        decoder = decoder or create_decoder(packet.encoding, packet.width, packet.height)
        decoded.append(decoder.decode(packet.payload, packet.time_base_ns))
    events = Events.concatenate(decoded)
    for name in ("t", "x", "y", "p"):
        np.testing.assert_array_equal(getattr(events, name), getattr(expected_events, name))
    grey = [item for item in expected if isinstance(item, Frame)]
    assert len(frames) == len(infos) == len(grey) == 9
    for data, info, frame in zip(frames, infos, grey, strict=True):
        received = read_frame(bytes(data))
        np.testing.assert_array_equal(received.image, frame.image)
        assert (received.stamp_ns, received.frame_id) == (frame.stamp_ns, frame.frame_id)
        camera = read_camera_info(bytes(info))
        assert camera.k == tuple(simulation.camera.matrix().ravel())
        assert (camera.height, camera.width, camera.d) == (48, 64, (0.0,) * 5)
    truths = [item for item in expected if isinstance(item, DepthTruth)]
    assert len(depths) == len(truth_infos) == len(truths) == 11
    for data, truth in zip(depths, truths, strict=True):
        depth = read_depth(bytes(data))
        np.testing.assert_array_equal(depth.depth, truth.depth)
        assert depth.stamp_ns == truth.stamp_ns


def test_it_waits_for_subscribers_and_publishes_the_clock(graph: Any) -> None:
    """Nothing is sent before the events topic is subscribed; /clock then never runs back."""
    clock: list[Clock] = graph.listen(Clock, "/clock")
    node = start(graph, duration_s=0.1, publish_clock=True)
    graph.spin(2.0)
    assert node.exit_code is None
    assert not clock
    packets = listen_raw(graph, EventPacketMessage, "events")
    graph.until(lambda: node.exit_code is not None)
    assert len(packets) > 5
    times = [item.clock.sec * 1_000_000_000 + item.clock.nanosec for item in clock]
    assert times
    assert times == sorted(times)


def test_it_runs_no_faster_than_its_rate(graph: Any) -> None:
    """0.5 simulated seconds at rate 0.25 take at least two seconds."""
    began_s = time.monotonic()
    node = start(graph, rate=0.25)
    graph.until(lambda: node.exit_code is not None)
    assert time.monotonic() - began_s > 1.99


@pytest.mark.parametrize("wanted", [signal.SIGINT, signal.SIGTERM])
def test_the_process_ends_cleanly_on_a_signal(wanted: signal.Signals) -> None:
    """An endless simulation stops on SIGINT or SIGTERM with exit code 0 and no traceback."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "dae_ros.nodes.simulator_node",
            "--ros-args",
            "-p",
            "height:=48",
            "-p",
            "width:=64",
            "-p",
            "wait_subscribers:=0",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "simulating the room" in process.stdout.readline()
        process.send_signal(wanted)
        output, _ = process.communicate(timeout=120.0)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "Traceback" not in output, output


def test_a_bad_parameter_ends_the_process_with_a_sentence() -> None:
    """An unknown scene is refused before anything is published, exit code 1."""
    done = subprocess.run(
        [sys.executable, "-m", "dae_ros.nodes.simulator_node", "--ros-args", "-p", "scene:=moon"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120.0,
        check=False,
    )
    assert done.returncode == 1
    assert (
        "'scene' must be one of room, corridor, street, warehouse, park, yard, not 'moon'"
        in done.stderr
    )


def test_a_lens_that_cannot_be_ends_the_process_with_a_sentence() -> None:
    """What only the simulation itself refuses is a sentence too, and no traceback."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dae_ros.nodes.simulator_node",
            "--ros-args",
            "-p",
            "distortion_k1:=-0.5",
            "-p",
            "wait_subscribers:=0",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120.0,
        check=False,
    )
    assert done.returncode == 1
    assert "distortion" in done.stderr
    assert "[configuration]" in done.stderr
    assert "Traceback" not in done.stderr
