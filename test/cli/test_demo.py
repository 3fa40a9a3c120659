"""The demo: its folder, its pictures, and its words about an untrained network."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dae_ros.bags.recording import open_recording
from dae_ros.cli.main import main
from test.reference.recordings import recording as recording_folder


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


def test_in_process_demo_makes_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without ROS the same chain runs in one process, says so, and says 'untrained'."""
    arguments = ["demo", "--in-process", "--duration", "0.4", "--weights", "untrained:tiny"]
    assert main([*arguments, "--out", str(tmp_path / "demo")]) == 0
    said = capsys.readouterr().out
    assert "without ROS 2" in said and "UNTRAINED" in said
    assert (tmp_path / "demo" / "preview.mp4").stat().st_size > 1000
    assert (tmp_path / "demo" / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--out", str(tmp_path / "demo")]) == 0  # a second run replaces it


@pytest.mark.ros
def test_demo_on_ros_records_every_window(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulator, depth node and recorder as processes: one depth image per closed window."""
    pytest.importorskip("rclpy", reason="this machine has no ROS; the demo runs in process")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    out = tmp_path / "demo"
    code = main(["demo", "--duration", "0.6", "--weights", "untrained:tiny", "--out", str(out)])
    assert code == 0, capsys.readouterr()
    facts = json.loads((out / "demo.json").read_text())
    assert facts["ros"] and facts["windows"] == 10
    with open_recording(out / "topics") as recording:
        counts = {name: info.count for name, info in recording.topics.items()}
    for topic in ("/depth/relative", "/depth/color", "/depth/status", "/events/image"):
        assert counts[topic] == facts["windows"], counts
    assert (out / "contact_sheet.png").stat().st_size > 1000


@pytest.mark.ros
@pytest.mark.recordings
def test_demo_of_a_recording_keeps_every_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording of three camera frames, the first ahead of its events, ends up with three."""
    pytest.importorskip("rclpy", reason="this machine has no ROS; the demo runs in process")
    pytest.importorskip("aedat", reason="aedat is not installed")
    path = recording_folder("davis346_lab") / "davis.aedat4"
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    out = tmp_path / "demo"
    code = main(["demo", "--bag", str(path), "--weights", "untrained:tiny", "--out", str(out)])
    assert code == 0, capsys.readouterr()
    assert json.loads((out / "demo.json").read_text())["messages"]["/image_raw"] == 3
