"""`dae-ros simulate`: a recording with everything in it, the same every time."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import numpy as np
import pytest

from dae_ros.bags.recording import open_recording
from dae_ros.cli.main import main
from dae_ros.cli.progress import ProgressBar
from test.reference import rgbd_folder
from test.reference.full_disk import no_room_beyond

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
    assert "packets, frames and depth maps ->" in capsys.readouterr().out
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
        (("--preset", "moon"), "no preset 'moon'"),
        (("--format", "raw", "--encoding", "mono"), "has an encoding of its own"),
        (("--scene", "room", "--motion", "car"), "does not fit into the room"),
        (("--contrast-threshold", "9"), "'contrast_threshold' must be at most 2"),
        (("--duration", "0"), "a recording needs an end"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str], sentence: str
) -> None:
    """An option out of range is wrong usage: exit code 2, a sentence, and no folder."""
    assert simulate(tmp_path / "walk", *option) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "walk").exists()


# Barrel distortion so strong that the lens cannot be built.
FOLDED = ("--distortion-k1", "-0.5", "--distortion-k2", "-0.5", "--field-of-view-deg", "120")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("form", "options", "sentence"),
    [
        ("rosbag2", FOLDED, "folds the picture"),
        ("mvsec", FOLDED, "folds the picture"),
        ("raw", FOLDED, "folds the picture"),
        ("dsec", ("--distortion-k1", "-0.1"), "without distortion"),
    ],
)
def test_a_refused_run_leaves_everything_as_it_was(
    tmp_path: Path,
    form: str,
    options: tuple[str, ...],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A lens that cannot be built gives no empty recording, and costs no earlier one."""
    command = ("--format", form, *options)
    assert simulate(tmp_path / "drive", *command) == 1
    assert sentence in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    assert simulate(tmp_path / "drive", "--format", form) == 0
    before = contents(tmp_path)
    assert simulate(tmp_path / "drive", *command, "--overwrite") == 1
    assert sentence in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("form", ["rosbag2", "mvsec", "dsec", "raw"])
def test_the_folder_in_which_one_is_is_no_name(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--out . ends in a sentence, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    assert simulate(Path(), "--format", form, "--overwrite") == 1
    assert ". has no name of its own" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["rosbag2", "mvsec", "dsec", "raw"])
def test_an_earlier_recording_outlives_a_full_disk(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What did not fit keeps its .partial, and what was to be replaced is as it was."""
    assert simulate(tmp_path / "drive", "--format", form) == 0
    before = contents(tmp_path)
    with no_room_beyond(4_000):
        assert simulate(tmp_path / "drive", "--format", form, "--overwrite") == 1
    assert "File too large" in capsys.readouterr().err
    left = contents(tmp_path)
    assert {name: left.pop(name) for name in before} == before
    assert all(".partial" in name for name in left)


@pytest.mark.parametrize("form", ["rosbag2", "mvsec", "dsec", "raw"])
def test_an_error_on_the_way_gives_no_final_name(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C in the middle leaves .partial files only."""

    def interrupt(_: ProgressBar, fraction: float, __: str) -> None:
        if fraction > 0.0:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "update", interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        simulate(tmp_path / "drive", "--format", form)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left
    assert all(name.endswith(".partial") for name in left)


def test_what_an_ended_run_left_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence says what is in the way of the next run, and nothing of it is touched."""
    left = tmp_path / "walk.partial"
    left.mkdir()
    assert simulate(tmp_path / "walk", "--overwrite") == 1
    assert f"{left} is what a run left that did not end" in capsys.readouterr().err
    left.rename(tmp_path / "walk.replaced")
    assert simulate(tmp_path / "walk", "--overwrite") == 1
    assert f"walk.replaced is what {tmp_path / 'walk'} was before" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["walk.replaced"]


def test_options_change_a_preset(tmp_path: Path) -> None:
    """A preset with its own seed said again gives equal bytes, with another one it does not."""
    for name, options in (("a", ()), ("b", ("--seed", "0")), ("c", ("--seed", "1"))):
        (tmp_path / name).mkdir()
        assert simulate(tmp_path / name / "walk", "--preset", "warehouse", *options) == 0
    first, same, other = ((tmp_path / name / "walk" / "walk.mcap").read_bytes() for name in "abc")
    assert first == same != other


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("mvsec", ["drive_data.bag", "drive_gt.bag"]),
        ("dsec", ["drive"]),
        ("raw", ["drive"]),
    ],
)
def test_every_format_is_written_and_replaced_on_demand(
    tmp_path: Path, form: str, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A format gives its files, which open as recordings and are replaced with --overwrite."""
    assert simulate(tmp_path / "drive", "--format", form) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    with open_recording([tmp_path / name for name in names], size=(48, 64)) as recording:
        assert any("events" in topic for topic in recording.topics)
    assert simulate(tmp_path / "drive", "--format", form) == 1
    assert "exists already" in capsys.readouterr().err
    assert simulate(tmp_path / "drive", "--format", form, "--overwrite") == 0


@pytest.mark.parametrize("place", ["file/pictures", "/proc/pictures", "/proc"])
def test_a_preview_without_a_place_costs_no_recording(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names the preview, before anything of the recording is written."""
    (tmp_path / "file").touch()
    assert simulate(tmp_path / "walk", "--preview", str(tmp_path / place)) == 1
    said = capsys.readouterr().err
    assert f"pictures cannot be written in {tmp_path / place}: " in said
    assert "choose another --preview" in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("file", ["preview.mp4.partial", "contact_sheet.png"])
def test_a_preview_without_room_does_not_hide_the_recording(
    tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names the picture's file as what does not fit, and the recording as whole."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / file).symlink_to("/dev/full")
    assert simulate(tmp_path / "walk", "--preview", str(pictures)) == 1
    said = capsys.readouterr().err
    assert f"{pictures / file.removesuffix('.partial')} cannot be written" in said
    assert f"The recording itself is whole: {tmp_path / 'walk'}" in said
    with open_recording(tmp_path / "walk") as recording:
        assert all(info.count for info in recording.topics.values())


def test_a_preview_is_written(tmp_path: Path) -> None:
    """--preview gives a video and a sheet of events, frame and depth."""
    assert simulate(tmp_path / "walk", "--preview", str(tmp_path / "pictures")) == 0
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "contact_sheet.png",
        "preview.mp4",
    ]


@pytest.mark.parametrize(
    ("form", "names", "depth"),
    [
        ("rosbag2", ["walk"], "/depth_truth"),
        ("mvsec", ["walk_data.bag", "walk_gt.bag"], "/davis/left/depth_image_raw"),
        ("dsec", ["walk"], "/dsec/left_rect/depth_truth"),
        ("raw", ["walk"], None),
    ],
)
def test_a_filmed_sequence_is_simulated(
    tmp_path: Path, form: str, names: list[str], depth: str | None
) -> None:
    """--rgbd takes size and end from the folder, and the sensor from the options."""
    film = tmp_path / "film"
    frames = []
    for number in range(4):
        radiance = np.tile(np.linspace(0.1, 0.9, 40), (36, 1))
        radiance[:, 12 + number : 20 + number] = 0.02
        frames.append((radiance, np.full((36, 40), 2.0), np.eye(3), np.zeros(3)))
    rgbd_folder.write(film, frames, [[30.0, 0.0, 19.5], [0.0, 30.0, 17.5], [0.0, 0.0, 1.0]])
    code = main(
        [
            "simulate",
            "--out",
            str(tmp_path / "walk"),
            "--rgbd",
            str(film),
            "--rgbd-hz",
            "25",
            "--noise-hz",
            "0",
            "--format",
            form,
        ]
    )
    assert code == 0
    with open_recording([tmp_path / name for name in names]) as recording:
        packets = list(recording.event_packets())
        if depth is not None:
            # 3 / 25 s, at 20 Hz from the beginning on.
            assert recording.topics[depth].count == 3
    assert {(packet.height, packet.width) for packet in packets} == {(36, 40)}


def test_a_film_that_is_damaged_gives_what_was_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the file, what is whole and how long it is; that recording can be read."""
    film = tmp_path / "film"
    frames = [(np.full((36, 40), 0.5), np.full((36, 40), 2.0), np.eye(3), np.zeros(3))] * 5
    rgbd_folder.write(film, frames, [[30.0, 0.0, 19.5], [0.0, 30.0, 17.5], [0.0, 0.0, 1.0]])
    (film / "frame-000003.depth.png").write_bytes(b"")
    command = ["simulate", "--out", str(tmp_path / "walk"), "--rgbd", str(film)]
    assert main([*command, "--rgbd-hz", "20"]) == 1
    error = capsys.readouterr().err
    assert "frame-000003.depth.png is missing or unreadable" in error
    assert f"of 0.20 s, is whole: {tmp_path / 'walk'}" in error
    with open_recording(tmp_path / "walk") as recording:
        # From 0.1 s on frame 3 would have been needed.
        assert recording.topics["/depth_truth"].count == 2


def test_a_film_that_is_damaged_from_the_start_costs_no_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where not even the first instant can be simulated, the earlier recording stays."""
    assert simulate(tmp_path / "walk") == 0
    before = contents(tmp_path / "walk")
    film = tmp_path / "film"
    frames = [(np.full((36, 40), 0.5), np.full((36, 40), 2.0), np.eye(3), np.zeros(3))] * 3
    rgbd_folder.write(film, frames, [[30.0, 0.0, 19.5], [0.0, 30.0, 17.5], [0.0, 0.0, 1.0]])
    (film / "frame-000001.depth.png").write_bytes(b"")
    command = ["simulate", "--out", str(tmp_path / "walk"), "--rgbd", str(film), "--overwrite"]
    assert main([*command, "--rgbd-hz", "20"]) == 1
    assert "missing or unreadable" in capsys.readouterr().err
    assert contents(tmp_path / "walk") == before


def test_ctrl_c_says_how_far_it_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first Ctrl-C ends it with a readable recording, exit code 130 and the time reached."""
    fractions = []

    def interrupt(_: ProgressBar, fraction: float, __: str) -> None:
        fractions.append(fraction)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressBar, "update", interrupt)
    assert simulate(tmp_path / "walk") == 130
    assert fractions == [0.0]
    assert "interrupted after 0.00 s of 0.20 s; " in capsys.readouterr().out
    with open_recording(tmp_path / "walk") as recording:
        assert recording.topics["/depth_truth"].count == 1
