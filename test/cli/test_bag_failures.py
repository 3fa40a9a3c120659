"""`dae-ros bag`: how it fails, ends early, and passes over what is damaged."""

from __future__ import annotations

import signal

import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer

from dae_ros.bags.message_types import EVENT_PACKET
from dae_ros.bags.writer import BagWriter
from dae_ros.cli import main as command_line
from dae_ros.cli.progress import ProgressBar
from dae_ros.events.cdr import write_packet
from dae_ros.events.packet import EventPacket
from test.reference.bag_runs import files_of, run, summary_of
from test.reference.mvsec_bag import HEIGHT, PACKET_NS, ROS1, START_NS, WIDTH, event_array_bytes

pytestmark = pytest.mark.usefixtures("only_bag_and_convert")


def test_a_start_past_the_end_is_refused(tmp_path, recording, capsys):
    """Nothing to run is exit code 1 and a sentence with the length, not an empty result."""
    out = tmp_path / "out"
    assert run(recording, "--out", out, "--start", "100") == 1
    assert "the start at 100 s lies past the end" in capsys.readouterr().err
    assert not out.exists()


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


def test_an_earlier_run_outlives_a_refused_one(tmp_path, recording, capsys):
    """A wrong topic and a recording of which nothing can be read cost no result."""
    out = tmp_path / "out"
    assert run(recording, "--out", out) == 0
    before = files_of(out)
    assert run(recording, "--out", out, "--overwrite", "--events", "/nope") == 1
    assert "there is no topic /nope" in capsys.readouterr().err
    assert files_of(out) == before
    # Cut before a window ends.
    data = recording.read_bytes()
    (tmp_path / "cut.bag").write_bytes(data[: int(len(data) * 0.1)])
    assert run(tmp_path / "cut.bag", "--out", out, "--overwrite") == 1
    assert "was cut" in capsys.readouterr().err
    left = files_of(out)
    assert {name: left[name] for name in before} == before
    assert all(name.startswith("unfinished") for name in left.keys() - before.keys())


@pytest.mark.parametrize("place", ["file/out", "file/deep/out", "/proc/out"])
def test_where_nothing_can_be_written_is_explained(tmp_path, recording, capsys, place):
    """A file in the way, or a read-only place, is a sentence and exit code 1."""
    (tmp_path / "file").write_text("")
    assert run(recording, "--out", tmp_path / place) == 1
    assert "cannot be written: " in capsys.readouterr().err


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
