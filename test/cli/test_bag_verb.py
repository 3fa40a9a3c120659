"""`dae-ros bag`: what it writes, that it writes the same twice, and what its options change."""

from __future__ import annotations

import json

import av
import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from dae_ros.cli import main as command_line
from test.reference.bag_runs import files_of, run, summary_of
from test.reference.mvsec_bag import HEIGHT, PACKET_NS, START_NS, WIDTH

pytestmark = pytest.mark.usefixtures("only_bag_and_convert")
OUTPUTS = {"depth", "preview.mp4", "contact_sheet.png", "summary.json", "timing.json"}


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


def test_the_default_is_what_ships_and_says_so(tmp_path, recording, capsys):
    """Without --weights the run gives metres of `micro`, and says what they are worth."""
    out = tmp_path / "out"
    assert command_line.main(["bag", str(recording), "--out", str(out)]) == 0
    assert "note: trained on simulated worlds only" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["weights"]["name"] == "micro"
    assert summary["depth"] == {"kind": "metric", "orientation": "depth"}


def test_help_teaches_with_examples(capsys):
    """--help names what is written and shows complete commands."""
    for verb in ("bag", "convert"):
        with pytest.raises(SystemExit) as ended:
            command_line.main([verb, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert text.count(f"  dae-ros {verb} ") >= 4
