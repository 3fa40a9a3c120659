"""`dae-ros simulate`: a recording with everything in it, the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from dae_ros.bags.recording import open_recording
from dae_ros.cli.main import main

SMALL = ["--height", "48", "--width", "64", "--duration", "0.2"]


def simulate(path: Path, *more: str) -> int:
    return main(["simulate", "--out", str(path), *SMALL, *more])


def test_it_records_every_topic_and_repeats_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events, frames, depth and calibrations are in the bag; a second run gives equal files."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        assert simulate(tmp_path / name / "walk") == 0
    assert "messages ->" in capsys.readouterr().out
    with open_recording([tmp_path / "first" / "walk"]) as recording:
        found = {name: (info.type, info.count) for name, info in recording.topics.items()}
    assert found.pop("/events")[0] == "event_camera_msgs/msg/EventPacket"
    assert found == {
        "/image_raw": ("sensor_msgs/msg/Image", 3),
        "/camera_info": ("sensor_msgs/msg/CameraInfo", 3),
        "/depth_truth": ("sensor_msgs/msg/Image", 5),
        "/depth_truth/camera_info": ("sensor_msgs/msg/CameraInfo", 5),
    }
    for name in ("walk.mcap", "metadata.yaml"):
        first, second = (tmp_path / run / "walk" / name for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_event_arrays_are_recorded_on_demand(tmp_path: Path) -> None:
    """--encoding dvs_msgs records dvs_msgs/EventArray with absolute times."""
    assert simulate(tmp_path / "walk", "--encoding", "dvs_msgs") == 0
    with open_recording([tmp_path / "walk"]) as recording:
        assert recording.topics["/events"].type == "dvs_msgs/msg/EventArray"
        packet = next(iter(recording.event_packets()))
    assert packet.encoding == "event_array_cdr"


def test_an_existing_folder_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording is replaced only with --overwrite, and what is no recording never."""
    assert simulate(tmp_path / "walk") == 0
    before = (tmp_path / "walk" / "walk.mcap").read_bytes()
    assert simulate(tmp_path / "walk", "--seed", "1") == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "walk" / "walk.mcap").read_bytes() == before
    assert simulate(tmp_path / "walk", "--seed", "1", "--overwrite") == 0
    assert (tmp_path / "walk" / "walk.mcap").read_bytes() != before
    (tmp_path / "notes").mkdir()
    assert simulate(tmp_path / "notes", "--overwrite") == 1
    assert (tmp_path / "notes").is_dir()


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--contrast-threshold", "9"), "'contrast_threshold' must be at most 2"),
        (("--duration", "0"), "a recording needs an end"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str], sentence: str
) -> None:
    """An option out of range ends with exit code 1, a sentence, and no folder."""
    assert simulate(tmp_path / "walk", *option) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "walk").exists()
