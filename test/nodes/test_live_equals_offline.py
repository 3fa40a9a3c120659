"""The same recording live (replay_node, depth_node) and offline (`dae-ros bag`): the same depth."""

from __future__ import annotations

import dataclasses

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo as CameraInfoMessage
from sensor_msgs.msg import Image

from dae_ros.bags.message_types import CAMERA_INFO, EVENT_PACKET, IMAGE
from dae_ros.bags.messages import (
    CameraInfo,
    read_camera_info,
    read_depth,
    write_camera_info,
    write_image,
)
from dae_ros.bags.recording import open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.events.cdr import write_packet
from dae_ros.nodes.process_harness import ProcessHarness
from dae_ros.nodes.processes import launch_plan
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.bag_runner import BagSelection, run_bag

START_NS = 1_700_000_000_000_000_000
PARAMETERS = DepthParameters(
    weights="untrained:tiny",
    device="cpu",
    threads=1,
    overload="queue",
    orientation="depth",
    scale=2.0,
    shift=1.0,
)


def write_recording(path, camera):
    """Write two seconds of events with a loss, a silence and a restart, and a calibration."""
    calibration = CameraInfo(
        48,
        64,
        "plumb_bob",
        (0.0,) * 5,
        (45.0, 0.0, 31.5, 0.0, 45.0, 23.5, 0.0, 0.0, 1.0),
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        (45.0, 0.0, 31.5, 0.0, 0.0, 45.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0),
    )
    with BagWriter(path) as bag:
        bag.write(
            "/camera/camera_info",
            CAMERA_INFO,
            START_NS,
            write_camera_info(calibration, START_NS, "camera"),
        )
        for index in range(400):
            if index == 100:
                camera.packet()
            if index == 200:
                camera.time_us += 300_000
            if index == 300:
                camera.seq = 1
            bag.write(
                "/camera/events",
                EVENT_PACKET,
                START_NS + camera.time_us * 1000,
                write_packet(camera.packet()),
            )


def test_live_equals_offline_for_every_window(graph, camera, tmp_path):
    """Depth, stamps and calibration of every window agree to the bit between both ways."""
    write_recording(tmp_path / "bag", camera)
    with open_recording(tmp_path / "bag") as recording:
        run_bag(
            recording,
            PARAMETERS,
            tmp_path / "out",
            BagSelection(),
            report=lambda _: None,
            note=lambda _: None,
            stopped=lambda: False,
        )
    offline = {}
    with open_recording(tmp_path / "out" / "depth") as made:
        for message in made.messages():
            offline.setdefault(message.topic, []).append(message)

    images = graph.listen(Image, "/depth/image")
    infos = graph.listen(CameraInfoMessage, "/depth/camera_info")
    statuses = graph.listen(DiagnosticArray, "/depth/status")
    settings = tmp_path / "depth.yaml"
    settings.write_text("/**/depth:\n  ros__parameters:\n    threads: 1\n", encoding="utf-8")
    plan = launch_plan(
        {
            "source": "bag",
            "bag": str(tmp_path / "bag"),
            "rate": "0.0",
            "weights": "untrained:tiny",
            "device": "cpu",
            "orientation": "depth",
            "scale": "2.0",
            "shift": "1.0",
            "params_file": str(settings),
            "camera_info": "/camera/camera_info",
        }
    )
    expected = offline["/depth/image"]
    assert len(expected) > 25
    with ProcessHarness(plan) as processes:
        try:
            graph.until(lambda: min(map(len, (images, infos, statuses))) >= len(expected))
        except AssertionError as error:
            raise AssertionError(
                "\n".join(item.output for item in processes.running.values())
            ) from error
        assert processes["replay"].wait(120.0) == 0
        graph.spin(0.3)
    check_depth(images, statuses, tmp_path)
    assert len(infos) == len(expected)
    assert infos[0].header == images[0].header
    assert (infos[0].height, infos[0].width) == (48, 64)
    first = read_camera_info(offline["/depth/camera_info"][0].data)
    assert (first.height, first.width) == (48, 64)
    np.testing.assert_array_equal(infos[0].k, first.k)


def check_depth(images, statuses, folder):
    """Compare received images with the depth bag, and the status with the windows."""
    with open_recording(folder / "out" / "depth") as made:
        maps = [read_depth(message.data) for message in made.messages(["/depth/image"])]
    assert len(images) == len(maps) == len(statuses)
    for image, truth, status in zip(images, maps, statuses, strict=True):
        stamp = image.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == truth.stamp_ns
        depth = np.frombuffer(image.data, np.float32).reshape(image.height, image.width)
        np.testing.assert_array_equal(depth, truth.depth)
        assert status.header == image.header
    assert len({truth.depth.tobytes() for truth in maps}) == len(maps)


def test_a_calibration_file_and_frame_windows_are_the_same_live_and_offline(
    graph, camera, tmp_path
):
    """MVSEC's layout: the Kalibr file gives camera_info, and each frame ends a window, both ways.

    The names are MVSEC's, so nothing but the calibration is said; no frame may be lost, though
    only the parameter file says that frames are needed.
    """
    chain = tmp_path / "camchain.yaml"
    chain.write_text(
        "cam0:\n  distortion_coeffs: [-0.05, 0.01, -0.02, 0.005]\n"
        "  distortion_model: equidistant\n  intrinsics: [45.0, 46.0, 31.0, 24.0]\n"
        "  resolution: [64, 48]\n  rostopic: /davis/left/image_raw\n",
        encoding="utf-8",
    )
    with BagWriter(tmp_path / "bag") as bag:
        for index in range(100):
            packet = camera.packet()
            bag.write("/davis/left/events", EVENT_PACKET, packet.stamp_ns, write_packet(packet))
            if index % 5 == 4:
                image = write_image(np.zeros((48, 64), np.uint8), packet.stamp_ns, "camera")
                bag.write("/davis/left/image_raw", IMAGE, packet.stamp_ns, image)
    with open_recording(tmp_path / "bag") as recording:
        run_bag(
            recording,
            dataclasses.replace(PARAMETERS, window="frame"),
            tmp_path / "out",
            BagSelection(calibration=chain),
            report=lambda _: None,
            note=lambda _: None,
            stopped=lambda: False,
        )
    with open_recording(tmp_path / "out" / "depth") as made:
        expected = [
            read_camera_info(message.data) for message in made.messages(["/depth/camera_info"])
        ]
    assert len(expected) > 15
    images = graph.listen(Image, "/depth/image")
    infos = graph.listen(CameraInfoMessage, "/depth/camera_info")
    statuses = graph.listen(DiagnosticArray, "/depth/status")
    settings = tmp_path / "depth.yaml"
    settings.write_text(
        "/**/depth:\n  ros__parameters:\n    threads: 1\n    window: frame\n", encoding="utf-8"
    )
    plan = launch_plan(
        {
            "source": "bag",
            "bag": str(tmp_path / "bag"),
            "calibration": str(chain),
            "rate": "0.0",
            "weights": "untrained:tiny",
            "device": "cpu",
            "orientation": "depth",
            "scale": "2.0",
            "shift": "1.0",
            "params_file": str(settings),
        }
    )
    with ProcessHarness(plan) as processes:
        try:
            graph.until(lambda: min(map(len, (images, infos, statuses))) >= len(expected))
        except AssertionError as error:
            raise AssertionError(
                "\n".join(item.output for item in processes.running.values())
            ) from error
        graph.spin(0.3)
    check_depth(images, statuses, tmp_path)
    assert len(infos) == len(expected)
    for info, offline in zip(infos, expected, strict=True):
        assert (info.height, info.width) == (offline.height, offline.width) == (48, 64)
        assert info.distortion_model == offline.distortion_model == "equidistant"
        np.testing.assert_array_equal(info.d, offline.d)
        np.testing.assert_array_equal(info.k, offline.k)
        assert info.k[0] == 45.0
