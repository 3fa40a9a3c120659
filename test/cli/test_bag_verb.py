"""`dae-ros bag`: what it writes, that it writes the same twice, and how it fails."""

from __future__ import annotations

import itertools
import json
import signal

import av
import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer

from dae_ros.bags.message_types import CAMERA_INFO, EVENT_PACKET, IMAGE
from dae_ros.bags.messages import CameraInfo, write_camera_info, write_image
from dae_ros.bags.recording import open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.cli import main as command_line
from dae_ros.cli.progress import ProgressBar
from dae_ros.events.cdr import write_packet
from dae_ros.events.packet import EventPacket, Events, Triggers
from dae_ros.simulation.encoders import create_encoder
from test.reference.mvsec_bag import (
    HEIGHT,
    PACKET_NS,
    ROS1,
    START_NS,
    WIDTH,
    event_array_bytes,
    write_data_bag,
)

OUTPUTS = {"depth", "preview.mp4", "contact_sheet.png", "summary.json", "timing.json"}


@pytest.fixture(autouse=True)
def only_these_verbs(monkeypatch):
    """Import no other verb than those under test."""
    monkeypatch.setattr(command_line, "VERBS", ("bag", "convert"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """An MVSEC-like bag of 0.3 s."""
    path = tmp_path_factory.mktemp("recording") / "data.bag"
    write_data_bag(path)
    return path


def run(*arguments):
    """Run `dae-ros bag` with the tiny untrained network on one thread; return its exit code."""
    return command_line.main(
        [
            "bag",
            *map(str, arguments),
            "--weights",
            "untrained:tiny",
            "--device",
            "cpu",
            "--threads",
            "1",
        ]
    )


def files_of(folder):
    """Relative path -> content of every file."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_a_run_leaves_depth_calibration_and_previews(tmp_path, recording, capsys):
    """Every closed window has a depth image and a calibration of its stamp, and a picture."""
    out = tmp_path / "out"
    assert run(recording, "--out", out) == 0
    assert {item.name for item in out.iterdir()} == OUTPUTS
    summary = summary_of(out)
    # 0.3 s of events on a grid of 50 ms, from the first whole window to the last closed one.
    first_ns = min(
        end for end in range(0, 10**9, 50_000_000) if end - 50_000_000 >= START_NS % 10**9
    )
    count = len(range(first_ns, START_NS % 10**9 + 30 * PACKET_NS - PACKET_NS // 2, 50_000_000))
    assert summary["windows"] == {
        "stepped": count,
        "empty": 0,
        "skipped": 0,
        "silent": 0,
        "unreached": 0,
    }
    assert (summary["events"], summary["packets"]) == (6000, 30)
    assert summary["topics"] == {"events": "/davis/left/events", "image": "/davis/left/image_raw"}
    assert summary["calibrated"] is True
    assert set(summary["drops_mean"]) == set(summary["drops"])
    with AnyReader([out / "depth"]) as reader:
        messages = [
            (connection.topic, time_ns, reader.deserialize(data, connection.msgtype))
            for connection, time_ns, data in reader.messages()
        ]
    depths = [item for item in messages if item[0] == "/depth/relative"]
    infos = [item for item in messages if item[0] == "/depth/camera_info"]
    ends = [START_NS // 10**9 * 10**9 + first_ns + n * 50_000_000 for n in range(count)]
    for topic in (depths, infos):
        assert [time_ns for _, time_ns, _ in topic] == ends
        stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, _, m in topic]
        assert stamps == ends
    for _, _, depth in depths:
        assert (depth.encoding, depth.height, depth.width) == ("32FC1", HEIGHT, WIDTH)
        values = depth.data.view(np.float32)
        assert np.isfinite(values).all()
        assert values.std() > 0
    assert {tuple(info.k) for _, _, info in infos} == {(22.0, 0, 17, 0, 22.5, 13, 0, 0, 1)}
    with av.open(str(out / "preview.mp4")) as video:
        assert len(list(video.decode(video=0))) == count
    assert cv2.imread(str(out / "contact_sheet.png")) is not None
    timing = json.loads((out / "timing.json").read_text())
    assert timing["mev_per_s"] > 0
    assert 0 < timing["closing_s"] < timing["wall_s"]
    assert set(timing["stages"]) == {"decode", "close", "encode", "infer", "publish", "total"}
    printed = capsys.readouterr()
    assert f"{count} windows from 6000 events" in printed.out
    assert "untrained" in printed.out
    assert "100 %" in printed.err


def test_everything_but_the_timing_is_the_same_twice(tmp_path, recording):
    """Two runs of one recording give the same files, bit for bit; --overwrite replaces them."""
    out = tmp_path / "out"
    assert run(recording, "--out", out) == 0
    before = files_of(out)
    assert run(recording, "--out", out) == 1
    assert run(recording, "--out", out, "--overwrite") == 0
    after = files_of(out)
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == ["timing.json"]


def test_folders_with_other_content_are_never_touched(tmp_path, recording, capsys):
    """Not even --overwrite removes what no run has written."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for options in ([], ["--overwrite"]):
        assert run(recording, "--out", out, *options) == 1
    assert "thesis.tex" in capsys.readouterr().err
    assert files_of(out) == {"thesis.tex": b"years of work"}


def test_a_part_can_be_run(tmp_path, recording):
    """--start and --duration take the messages recorded in between."""
    out = tmp_path / "out"
    assert run(recording, "--out", out, "--start", "0.1", "--duration", "0.15") == 0
    summary = summary_of(out)
    assert summary["packets"] in {15, 16}
    assert summary["windows"]["stepped"] == 2


def test_a_start_past_the_end_is_refused(tmp_path, recording, capsys):
    """Nothing to run is exit code 1 and a sentence with the length, not an empty result."""
    out = tmp_path / "out"
    assert run(recording, "--out", out, "--start", "100") == 1
    assert "the start at 100 s lies past the end" in capsys.readouterr().err
    assert not out.exists()


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


K = (22.0, 0.0, 17.0, 0.0, 22.5, 13.0, 0.0, 0.0, 1.0)
P = (22.0, 0.0, 17.0, 0.0, 0.0, 22.5, 13.0, 0.0, 0.0, 0.0, 1.0, 0.0)


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


def test_scale_gives_metres(tmp_path, recording):
    """With a scale and an orientation the depth is metric and says so."""
    out = tmp_path / "out"
    assert (
        run(recording, "--out", out, "--scale", "2", "--shift", "1", "--orientation", "depth") == 0
    )
    assert summary_of(out)["depth"] == {"kind": "metric", "orientation": "depth"}
    with AnyReader([out / "depth"]) as reader:
        assert {item.topic for item in reader.connections} == {"/depth/image", "/depth/camera_info"}


def test_parameters_come_from_the_nodes_file(tmp_path, recording, capsys):
    """A ROS parameter file is read, options win over it, and a wrong name is explained."""
    file = tmp_path / "depth.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    use_sim_time: true\n"
        "/**/depth:\n  ros__parameters:\n    hop_s: 0.1\n    window_s: 0.1\n"
        "    overload: latest\n"
    )
    out = tmp_path / "out"
    assert run(recording, "--out", out, "--params", file, "--window-s", "0.05") == 0
    parameters = summary_of(out)["parameters"]
    assert (parameters["hop_s"], parameters["window_s"]) == (0.1, 0.05)
    # Offline nothing is skipped, whatever the live node would do.
    assert parameters["overload"] == "queue"
    file.write_text("/**/depth:\n  ros__parameters:\n    hopp_s: 0.1\n")
    assert run(recording, "--out", tmp_path / "b", "--params", file) == 2
    assert "no parameter 'hopp_s'" in capsys.readouterr().err
    file.write_text("other: {}")
    assert run(recording, "--out", tmp_path / "b", "--params", file) == 2
    assert "needs a section" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["{missing}", "--out", "{out}"], 1, "no readable recording"),
        (["{bag}", "--out", "{out}", "--size", "10x10"], 1, "data.bag says the sensor's size in"),
        (["{bag}", "--out", "{out}", "--size", "34x26"], 1, "leave --size out"),
        (["{bag}", "--out", "{out}", "--events", "/nope"], 1, "/davis/left/events (dvs_msgs"),
        (["{bag}", "--out", "{out}", "--image", "/nope"], 1, "there is no topic /nope"),
        (["{bag}", "--out", "{out}", "--image", "/davis/left/camera_info"], 1, "not sensor_msgs"),
        (["{bag}", "--out", "{out}", "--truth", "/visensor/cust_imu"], 1, "not sensor_msgs"),
        (["{bag}", "--out", "{out}", "--camera-info", "/visensor/cust_imu"], 1, "not sensor_msgs"),
        (["{bag}", "--out", "{out}", "--window-s", "9"], 2, "'window_s' must be at most 2"),
        (["{bag}", "--out", "{out}", "--device", "cuda:99"], 1, "cuda"),
        (["{bag}", "--out", "{out}", "--calibration", "{missing}"], 1, "Kalibr"),
    ],
)
def test_what_cannot_be_run_is_explained(tmp_path, recording, capsys, arguments, code, text):
    """Each mistake has its own sentence and exit code, and leaves no outputs."""
    places = {
        "{missing}": str(tmp_path / "missing"),
        "{bag}": str(recording),
        "{out}": str(tmp_path / "out"),
    }
    arguments = [places.get(argument, argument) for argument in arguments]
    assert command_line.main(["bag", "--weights", "untrained:tiny", *arguments]) == code
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_failed_run_removes_only_folders_that_it_made(tmp_path, recording):
    """Folders made on the way to --out go again; one that was there before stays."""
    out = tmp_path / "a" / "b" / "out"
    (tmp_path / "a").mkdir()
    assert run(recording, "--out", out, "--events", "/nope") == 1
    assert list((tmp_path / "a").iterdir()) == []
    out.mkdir(parents=True)
    assert run(recording, "--out", out, "--events", "/nope") == 1
    assert out.is_dir()


@pytest.mark.parametrize("place", ["file/out", "file/deep/out", "/proc/out"])
def test_where_nothing_can_be_written_is_explained(tmp_path, recording, capsys, place):
    """A file in the way, or a read-only place, is a sentence and exit code 1."""
    (tmp_path / "file").write_text("")
    assert run(recording, "--out", tmp_path / place) == 1
    assert "cannot be written: " in capsys.readouterr().err


def test_the_default_is_what_ships_and_says_so(tmp_path, recording, capsys):
    """Without --weights the run gives metres of `micro`, and says what they are worth."""
    out = tmp_path / "out"
    assert command_line.main(["bag", str(recording), "--out", str(out)]) == 0
    assert "note: trained on simulated worlds only" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["weights"]["name"] == "micro"
    assert summary["depth"] == {"kind": "metric", "orientation": "depth"}


def test_missing_weights_and_wrong_usage_are_explained(tmp_path, recording, capsys):
    """Without weights the sentence says what to give; unknown options are exit code 2."""
    out = str(tmp_path / "out")
    assert command_line.main(["bag", str(recording), "--out", out, "--weights", ""]) == 1
    assert "no weights" in capsys.readouterr().err
    for wrong in (["--wat"], ["--size", "big"], ["--start", "-1"], ["--window", "moon"]):
        with pytest.raises(SystemExit) as ended:
            run(recording, "--out", tmp_path / "out", *wrong)
        assert ended.value.code == 2


def test_ctrl_c_leaves_whole_files(tmp_path, recording, monkeypatch, capsys):
    """The first Ctrl-C ends the run with every file finished and exit code 130."""
    calls = []

    def interrupt(bar, fraction, detail):
        calls.append((bar, fraction, detail))
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressBar, "update", interrupt)
    out = tmp_path / "out"
    assert run(recording, "--out", out) == 130
    assert summary_of(out)["interrupted"] is True
    assert summary_of(out)["packets"] < 30
    with AnyReader([out / "depth"]) as reader:
        assert {item.topic for item in reader.connections} == {
            "/depth/relative",
            "/depth/camera_info",
        }
    assert not list(tmp_path.rglob("*.partial"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "interrupted after 0.00 s of 0.29 s; " in capsys.readouterr().out
    # Nobody is told that everything is done.
    assert all(fraction < 1.0 for _, fraction, _ in calls)


def test_a_cut_recording_is_run_up_to_the_cut(tmp_path, recording, capsys):
    """Outputs are whole up to the cut; the error says where it was, with exit code 1."""
    data = recording.read_bytes()
    (tmp_path / "cut.bag").write_bytes(data[: int(len(data) * 0.7)])
    out = tmp_path / "out"
    assert run(tmp_path / "cut.bag", "--out", out) == 1
    assert "was cut" in capsys.readouterr().err
    summary = summary_of(out)
    assert "was cut" in summary["damage"]
    assert summary["windows"]["stepped"] >= 2
    with AnyReader([out / "depth"]) as reader:
        assert reader.message_count == 2 * summary["windows"]["stepped"]


def test_damaged_messages_are_counted_and_passed_over(tmp_path, capsys):
    """A truncated array, a wrong size and garbage cost nothing but themselves."""
    path = tmp_path / "odd.bag"
    with Writer(path) as writer:
        topic = writer.add_connection("/dvs/events", "dvs_msgs/msg/EventArray", typestore=ROS1)
        for number in range(40):
            begin_ns = START_NS + number * PACKET_NS
            good = event_array_bytes(
                [(begin_ns + n * 1000, n % WIDTH, n % HEIGHT, n % 2) for n in range(50)],
                number,
                begin_ns,
            )
            data = {11: good[:-3], 12: b"", 13: good[:20] + b"\xff" * 30}.get(number, good)
            writer.write(topic, begin_ns + PACKET_NS, data)
    out = tmp_path / "out"
    assert run(path, "--out", out) == 0
    summary = summary_of(out)
    assert summary["unreadable_messages"] == {"malformed_packet": 3}
    assert summary["events"] == 37 * 50
    assert "further ones are only counted" in capsys.readouterr().err


def test_an_unknown_encoding_is_explained(tmp_path, capsys):
    """Packets that no decoder reads are counted, and the first one is explained."""
    with BagWriter(tmp_path / "bag") as bag:
        for number in range(3):
            packet = EventPacket("evt9", 26, 34, b"1234", 0, number, number)
            bag.write("/events", EVENT_PACKET, number, write_packet(packet))
    assert run(tmp_path / "bag", "--out", tmp_path / "out") == 0
    assert summary_of(tmp_path / "out")["errors"] == {"unsupported_encoding": 3}
    assert summary_of(tmp_path / "out")["windows"]["stepped"] == 0
    printed = capsys.readouterr()
    assert printed.err.count("evt9") == 1
    assert "0 windows" in printed.out


def test_help_teaches_with_examples(capsys):
    """--help names what is written and shows complete commands."""
    for verb in ("bag", "convert"):
        with pytest.raises(SystemExit) as ended:
            command_line.main([verb, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert text.count(f"  dae-ros {verb} ") >= 4


def test_convert_reports_what_it_did(tmp_path, recording, capsys):
    """Conversion ends with 0 and a line of what was written; an existing target is refused."""
    arguments = ["convert", str(recording), str(tmp_path / "out"), "--event-packets", "evt3"]
    assert command_line.main(arguments) == 0
    assert "81 messages on 5 topics" in capsys.readouterr().out
    assert command_line.main(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    one = ["convert", str(recording), str(tmp_path / "one"), "--topics", "/davis/left/events"]
    assert command_line.main(one) == 0
    assert "30 messages on 1 topic in" in capsys.readouterr().out
    # What was converted runs like the source.
    assert run(tmp_path / "out", "--out", tmp_path / "depth") == 0
    assert summary_of(tmp_path / "depth")["events"] == 6000


def test_convert_stops_whole_at_ctrl_c(tmp_path, recording, monkeypatch):
    """The first Ctrl-C leaves a readable folder with what was converted, and exit code 130."""
    monkeypatch.setattr(ProgressBar, "update", lambda *_: signal.raise_signal(signal.SIGINT))
    assert command_line.main(["convert", str(recording), str(tmp_path / "out")]) == 130
    with AnyReader([tmp_path / "out"]) as reader:
        assert reader.message_count == 1
