"""The demo: its folder, its pictures, and what it says about its depth."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from dae_ros.bags.recording import open_recording
from dae_ros.cli.main import main
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.configuration import Meaning
from dae_ros.model.untrained import untrained
from test.reference.recordings import recording as recording_folder


def on_ros(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that uses ROS in this process as well.

    The parser of its message generator imports a module that Python deprecates.
    """
    ignored = "ignore:module 'sre_:DeprecationWarning"
    return cast("Callable[..., None]", pytest.mark.filterwarnings(ignored)(pytest.mark.ros(test)))


def test_a_folder_that_is_not_a_demo_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever no demo has written stays, and so does a result of `dae-ros bag`."""
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "demo.json").write_text("{}")
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert "thesis.txt, which no demo writes" in capsys.readouterr().err
    other = tmp_path / "bag_result"
    other.mkdir()
    (other / "preview.mp4").write_bytes(b"video")
    assert main(["demo", "--out", str(other)]) == 1
    assert (other / "preview.mp4").read_bytes() == b"video"


def test_the_folder_in_which_one_is_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--out . ends in a sentence before anything is computed."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["demo", "--in-process", "--out", "."]) == 1
    assert ". has no name of its own" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return weights that say metres, as trained ones do; what they say is random."""
    path = tmp_path_factory.mktemp("weights") / "metres.safetensors"
    meaning = Meaning(orientation="depth", scale="metric")
    save_checkpoint(path, untrained("tiny").network, meaning, notes=["made for a test"])
    return path


def test_in_process_demo_makes_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without ROS the same chain runs in one process, says so, and says 'untrained'."""
    arguments = ["demo", "--in-process", "--duration", "0.4", "--weights", "untrained:tiny"]
    assert main([*arguments, "--out", str(tmp_path / "demo")]) == 0
    said = capsys.readouterr().out
    assert "without ROS 2" in said and "note: the network is untrained" in said
    facts = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert (facts["scores"], "the weights do not say which" in facts["uncompared"]) == ([], True)
    assert f"not compared with the simulator's exact depth: {facts['uncompared']}\n" in said
    assert facts["unreadable_messages"] == {} and "could not be read" not in said
    assert (tmp_path / "demo" / "preview.mp4").stat().st_size > 1000
    assert (tmp_path / "demo" / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--out", str(tmp_path / "demo")]) == 0  # a second run replaces it


def test_in_process_demo_says_how_right_it_is(
    tmp_path: Path, metric: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Metres are compared with the simulator's: the printed numbers are those of the bag run."""
    out = tmp_path / "demo"
    command = ["demo", "--in-process", "--duration", "0.4", "--weights", str(metric)]
    assert main([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    summary = json.loads((out / "result" / "summary.json").read_text())
    wanted = [table for table in summary["metrics"]["tables"] if "events" not in table["pixels"]]
    facts = json.loads((out / "demo.json").read_text())
    assert [row["alignment"] for row in facts["scores"]] == ["none", "lstsq"]
    for row, table in zip(facts["scores"], wanted, strict=True):
        assert row["windows"] == facts["windows"] == 6
        for name in ("abs_rel", "delta_1", "best_constant_abs_rel"):
            assert row[name] == table["metrics"][name]
        assert f"Abs Rel {row['abs_rel']:.3f}   delta_1 {row['delta_1']:.3f}" in said
    assert f"best constant of each frame  Abs Rel {row['best_constant_abs_rel']:.3f}" in said
    assert facts["notes"] == ["made for a test"] and "note: made for a test" in said


def test_wrong_weights_are_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that does not exist ends the demo at once and leaves no folder."""
    assert main(["demo", "--weights", "nothing", "--out", str(tmp_path / "demo")]) == 1
    assert "there is no model 'nothing'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@on_ros
def test_demo_on_ros_records_every_window(
    tmp_path: Path,
    metric: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Simulator, depth, gt and recorder as processes: an image and a score per closed window."""
    pytest.importorskip("rclpy", reason="this machine has no ROS; the demo runs in process")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    out = tmp_path / "demo"
    code = main(["demo", "--duration", "0.6", "--weights", str(metric), "--out", str(out)])
    captured = capsys.readouterr()
    assert code == 0, captured
    facts = json.loads((out / "demo.json").read_text())
    assert facts["ros"] and facts["windows"] == 10
    with open_recording(out / "topics") as recording:
        counts = {name: info.count for name, info in recording.topics.items()}
    for topic in ("/depth/image", "/depth/color", "/depth/status", "/events/image"):
        assert counts[topic] == facts["windows"], counts
    assert (out / "contact_sheet.png").stat().st_size > 1000
    # The truth of a window's end has the window's stamp, so that every window is scored.
    document = json.loads((out / "metrics" / "evaluation.json").read_text())
    (sequence,) = document["tables"][0]["sequences"]
    assert [row["windows"] for row in facts["scores"]] == [10, 10]
    assert facts["scores"][0]["abs_rel"] == sequence["metrics"]["abs_rel"]
    assert f"Abs Rel {sequence['metrics']['abs_rel']:.3f}" in captured.out
    assert facts["uncompared"] is None
    assert "100 %" not in captured.err and "80 %  10 of about 12 windows are depth" in captured.err


@on_ros
def test_demo_on_ros_says_why_nothing_was_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained network: the last line is gt_node's one reason, and no other."""
    pytest.importorskip("rclpy", reason="this machine has no ROS; the demo runs in process")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    out = tmp_path / "demo"
    command = ["demo", "--duration", "0.3", "--weights", "untrained:tiny", "--out", str(out)]
    assert main(command) == 0
    captured = capsys.readouterr()
    reason = json.loads((out / "demo.json").read_text())["uncompared"]
    assert "the weights do not say which" in reason
    assert f"It was not compared with the simulator's exact depth: {reason}\n" in captured.out
    assert captured.err.count(reason) == 2, captured.err  # as it began, and at its end


@on_ros
@pytest.mark.recordings
def test_demo_of_a_recording_keeps_every_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording without truth and with three camera frames: all three, and that nobody knows."""
    pytest.importorskip("rclpy", reason="this machine has no ROS; the demo runs in process")
    pytest.importorskip("aedat", reason="aedat is not installed")
    path = recording_folder("davis346_lab") / "davis.aedat4"
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    out = tmp_path / "demo"
    code = main(["demo", "--bag", str(path), "--weights", "untrained:tiny", "--out", str(out)])
    captured = capsys.readouterr()
    assert code == 0, captured
    facts = json.loads((out / "demo.json").read_text())
    assert facts["messages"]["/image_raw"] == 3
    assert facts["truth"] is None and facts["scores"] == []
    assert "there is no truth to compare with" in captured.out
