"""`dae-ros bag`: what ends its windows, why there may be none, and which images are calibrated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from dae_ros.bags.message_types import CAMERA_INFO, EVENT_PACKET, IMAGE
from dae_ros.bags.messages import CameraInfo, write_camera_info, write_image
from dae_ros.bags.recording import open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.events.cdr import write_packet
from dae_ros.events.packet import EventPacket, Events, Triggers
from dae_ros.simulation.encoders import create_encoder
from test.reference.bag_runs import run, summary_of
from test.reference.mvsec_bag import START_NS

pytestmark = pytest.mark.usefixtures("only_bag_and_convert")
K = (22.0, 0.0, 17.0, 0.0, 22.5, 13.0, 0.0, 0.0, 1.0)
P = (22.0, 0.0, 17.0, 0.0, 0.0, 22.5, 13.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def evt3_bag(path, *, triggers=(), sizes=((26, 34),)):
    """Write 60 ms of evt3 events for each (height, width), with rising edges at given ms."""
    seq = 0
    with BagWriter(path) as bag:
        for part, (height, width) in enumerate(sizes):
            encoder = create_encoder("evt3", width, height)
            for number in range(part * 12, part * 12 + 12):
                begin_ms = 1000 + 5 * number
                t = np.arange(begin_ms * 10**6, (begin_ms + 5) * 10**6, 100_000, dtype=np.int64)
                events = Events(
                    t,
                    (np.arange(len(t)) % width).astype(np.uint16),
                    (np.arange(len(t)) % height).astype(np.uint16),
                    np.ones(len(t), np.uint8),
                )
                edges = [ms * 10**6 for ms in triggers if begin_ms <= ms < begin_ms + 5]
                payload, base_ns = encoder.encode(
                    events,
                    Triggers(
                        np.array(edges, np.int64),
                        np.ones(len(edges), np.uint8),
                        np.zeros(len(edges), np.uint16),
                    ),
                )
                seq += 1
                stamp_ns = START_NS + int(t[0])
                packet = EventPacket("evt3", height, width, payload, base_ns, stamp_ns, seq)
                bag.write("/camera/events", EVENT_PACKET, stamp_ns, write_packet(packet))
                if number == 0:
                    info = CameraInfo(26, 34, "plumb_bob", (0.0,) * 5, K, (0.0,) * 9, P)
                    data = write_camera_info(info, stamp_ns, "camera")
                    bag.write("/camera/camera_info", CAMERA_INFO, stamp_ns, data)


def test_windows_can_end_at_camera_frames(tmp_path, recording):
    """With --window frame each frame ends a window, but the first, before which no event lies."""
    out = tmp_path / "out"
    assert run(recording, "--out", out, "--window", "frame", "--window-s", "0.02") == 0
    windows = summary_of(out)["windows"]
    assert (windows["stepped"], windows["skipped"], windows["unreached"]) == (9, 1, 0)


def test_frames_after_the_last_event_are_counted(tmp_path, recording):
    """Every frame of the selected part ended a window, was skipped, or was not reached."""
    topics = "/davis/left/image_raw"
    with open_recording(recording) as opened, BagWriter(tmp_path / "bag") as bag:
        for message in opened.messages():
            if message.topic == topics or (
                message.topic == "/davis/left/events" and message.time_ns < START_NS + 200_000_000
            ):
                bag.write(
                    message.topic, message.type, message.time_ns, bytes(opened.to_cdr(message))
                )
    out = tmp_path / "out"
    assert run(tmp_path / "bag", "--out", out, "--window", "frame", "--window-s", "0.02") == 0
    windows = summary_of(out)["windows"]
    assert windows["stepped"] + windows["skipped"] + windows["unreached"] == 10
    assert windows["unreached"] == 3


def test_trigger_windows_of_event_arrays_are_refused(tmp_path, recording, capsys):
    """What carries no triggers is named before anything runs, with what to choose instead."""
    out = tmp_path / "out"
    assert run(recording, "--out", out, "--window", "trigger") == 1
    said = capsys.readouterr().err
    assert "event arrays carry none, only evt3, evt2, evt2.1 do" in said
    assert "choose the window time, count or frame" in said
    assert not out.exists()


def test_a_recording_without_trigger_edges_says_so(tmp_path, capsys):
    """evt3 could carry triggers: no window, and the reason in the summary and once on the way."""
    evt3_bag(tmp_path / "bag")
    options = ("--window", "trigger", "--window-s", "0.02")
    assert run(tmp_path / "bag", "--out", tmp_path / "out", *options) == 0
    assert capsys.readouterr().err.count("without a rising edge of a trigger") == 1
    summary = summary_of(tmp_path / "out")
    assert summary["windows"]["stepped"] == 0
    assert "connect the camera's trigger input" in summary["no_windows_because"]
    evt3_bag(tmp_path / "edges", triggers=(1030, 1040))
    assert run(tmp_path / "edges", "--out", tmp_path / "two", *options) == 0
    assert "rising edge" not in capsys.readouterr().err
    summary = summary_of(tmp_path / "two")
    assert (summary["windows"]["stepped"], summary["no_windows_because"]) == (2, None)
    assert summary["sensor_time_because"] is None


def test_frames_of_another_clock_are_named(tmp_path, recording, capsys):
    """Where no frame lies inside of the events, the reason is said instead of '0 windows'."""
    with open_recording(recording) as opened, BagWriter(tmp_path / "bag") as bag:
        for message in opened.messages(["/davis/left/events"]):
            bag.write(message.topic, message.type, message.time_ns, bytes(opened.to_cdr(message)))
            image = write_image(np.zeros((26, 34), np.uint8), 2 * 10**18, "camera")
            bag.write("/davis/left/image_raw", IMAGE, message.time_ns, image)
    assert run(tmp_path / "bag", "--out", tmp_path / "out", "--window", "frame") == 0
    assert "no camera frame lies inside of the events" in capsys.readouterr().err
    summary = summary_of(tmp_path / "out")
    assert (summary["windows"]["stepped"], summary["windows"]["unreached"]) == (0, 30)


def test_a_calibration_outlives_a_change_of_resolution(tmp_path, capsys):
    """Images of the calibration's size have it, before and after; the others are noted once."""
    evt3_bag(tmp_path / "bag", sizes=((26, 34), (26, 30), (26, 34), (26, 30), (26, 34)))
    out = tmp_path / "out"
    assert run(tmp_path / "bag", "--out", out, "--window-s", "0.01", "--hop-s", "0.01") == 0
    with AnyReader([out / "depth"]) as reader:
        infos = [
            reader.deserialize(data, connection.msgtype)
            for connection, _, data in reader.messages()
            if connection.topic == "/depth/camera_info"
        ]
    changes = [infos[0]] + [b for a, b in itertools.pairwise(infos) if a.width != b.width]
    assert [info.width for info in changes] == [34, 30, 34, 30, 34]
    for info in infos:
        assert tuple(info.k) == (K if info.width == 34 else (0.0,) * 9)
    assert capsys.readouterr().err.count("left uncalibrated") == 1
    assert summary_of(out)["calibrated"] is False


def test_a_calibration_that_was_given_fits_the_first_images(tmp_path, capsys):
    """A wrong one is refused; a right one stays through a change of resolution later."""
    evt3_bag(tmp_path / "bag", sizes=((26, 34), (26, 30)))
    topic = ("--camera-info", "/camera/camera_info", "--window-s", "0.01", "--hop-s", "0.01")
    assert run(tmp_path / "bag", "--out", tmp_path / "a", *topic) == 0
    assert "left uncalibrated" in capsys.readouterr().err
    evt3_bag(tmp_path / "other", sizes=((26, 30), (26, 34)))
    assert run(tmp_path / "other", "--out", tmp_path / "b", *topic) == 1
    assert "is of a sensor of 34x26 px, but the events come from 30x26" in capsys.readouterr().err


def test_a_parameter_file_may_name_the_calibration(tmp_path, capsys):
    """It wins over a recorded camera_info, as in the node, and options win over it."""
    evt3_bag(tmp_path / "bag", sizes=((26, 34),))
    chain, parameters = tmp_path / "chain.yaml", tmp_path / "depth.yaml"
    chain.write_text(
        "cam0: {intrinsics: [9, 9, 20, 20], distortion_model: radtan, distortion_coeffs: [],"
        " resolution: [40, 40]}"
    )
    parameters.write_text(f"/**/depth: {{ros__parameters: {{calibration: {chain}}}}}")
    assert run(tmp_path / "bag", "--out", tmp_path / "out", "--params", parameters) == 1
    assert "is of a sensor of 40x40 px, but the events come from 34x26" in capsys.readouterr().err
    topic = ("--camera-info", "/camera/camera_info")
    options = ("--params", parameters, "--window-s", "0.01", "--hop-s", "0.01", *topic)
    assert run(tmp_path / "bag", "--out", tmp_path / "recorded", *options) == 0
    assert summary_of(tmp_path / "recorded")["calibrated"] is True
