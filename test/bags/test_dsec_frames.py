"""DSEC's frames on the pixels of the events: the geometry, the files, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from dae_ros.bags.datasets.dsec_frames import read_frames_to_events, warp_frames
from dae_ros.bags.recording import open_recording
from dae_ros.cli.main import main
from dae_ros.distillation.clip_recipe import read_recipe
from dae_ros.errors import RecordingError
from dae_ros.evaluation.protocols import DSEC
from test.reference.dataset_layouts import png_bytes, write_dsec

EVENT_K, FRAME_K = (50.0, 51.0, 30.0, 20.0), (90.0, 88.0, 66.0, 52.0)
FRAME_SIZE = (108, 144)
OFFSET_M = (0.03, -0.04, 0.0)


def turned(*angles_rad: float) -> np.ndarray:
    """Return the rotation about x, then y, then z."""
    rotation = np.eye(3)
    for axis, angle in enumerate(angles_rad):
        sine, cosine, step = np.sin(angle), np.cos(angle), np.eye(3)
        first, second = [index for index in range(3) if index != axis]
        step[first, first] = step[second, second] = cosine
        step[first, second], step[second, first] = -sine, sine
        rotation = step @ rotation
    return rotation


RECT_EVENTS, RECT_FRAMES = turned(0.02, -0.03, 0.01), turned(-0.01, 0.02, 0.03)
BETWEEN = turned(0.01, 0.04, -0.02)


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    """A sequence whose cameras are turned against each other, with frames that are ramps."""
    path = write_dsec(tmp_path / "DSEC" / "train" / "zurich_city_04_a").path
    file = path / "calibration" / "cam_to_cam.yaml"
    content = yaml.safe_load(file.read_text())
    content["intrinsics"] |= {
        "cam1": {"resolution": [FRAME_SIZE[1], FRAME_SIZE[0]]},
        "camRect1": {"camera_matrix": list(FRAME_K)},
    }
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = BETWEEN, OFFSET_M
    content["extrinsics"] |= {
        "T_10": transform.tolist(),
        "R_rect0": RECT_EVENTS.tolist(),
        "R_rect1": RECT_FRAMES.tolist(),
    }
    file.write_text(yaml.safe_dump(content))
    rows, columns = np.mgrid[: FRAME_SIZE[0], : FRAME_SIZE[1]]
    for k, frame in enumerate(sorted((path / "images" / "left" / "rectified").glob("*.png"))):
        ramp = np.stack([columns + k, rows + k, rows + columns - k], axis=-1).astype(np.uint8)
        frame.write_bytes(png_bytes(ramp))
    return path


def seen_by_frames(column: float, row: float, depth_m: float) -> tuple[float, float]:
    """Follow a point from the rectified event camera through all four frames of reference."""
    fx, fy, cx, cy = EVENT_K
    point = depth_m * np.array([(column - cx) / fx, (row - cy) / fy, 1.0])
    point = np.linalg.solve(RECT_EVENTS, point)
    point = RECT_FRAMES @ (BETWEEN @ point + OFFSET_M)
    fx, fy, cx, cy = FRAME_K
    return fx * point[0] / point[2] + cx, fy * point[1] / point[2] + cy


def test_what_is_far_away_comes_onto_its_pixel(sequence: Path) -> None:
    """The homography agrees with a point a thousand kilometres away; near ones are off as said."""
    found = read_frames_to_events(sequence / "calibration" / "cam_to_cam.yaml")
    assert (found.height, found.width) == (48, 64)
    assert found.parallax_px_m == pytest.approx(50.0 * 0.05)
    for column, row in ((0, 0), (63, 0), (20, 41), (63, 47)):
        x, y, w = found.homography @ (column, row, 1.0)
        far = seen_by_frames(column, row, 1e6)
        assert (x / w, y / w) == pytest.approx(far, abs=1e-4)
        near = np.subtract(seen_by_frames(column, row, 5.0), far)
        # In the pixels of frames, whose focal length is 90 px.
        assert 0 < np.linalg.norm(near) < 1.2 * found.parallax_px_m / 5.0 * 90 / 50


def test_warped_frames_lie_beside_the_events(sequence: Path) -> None:
    """Each pixel has the value that its point has in the frame; outside of it is black."""
    assert main(["clips", "--warp-dsec", str(sequence.parents[1])]) == 0
    warped = cv2.imread(str(sequence / "images/left/ev_inf/000003.png"))
    assert warped.shape == (48, 64, 3)
    inside = 0
    for row in range(0, 48, 5):
        for column in range(0, 64, 5):
            x, y = seen_by_frames(column, row, 1e6)
            if 2 <= x < FRAME_SIZE[1] - 3 and 2 <= y < FRAME_SIZE[0] - 3:
                expected = (x + 3, y + 3, x + y - 3)
                # cv2 gives blue first.
                assert warped[row, column, ::-1] == pytest.approx(expected, abs=1.1)
                inside += 1
            elif x < -2 or y < -2:
                assert not warped[row, column].any()
    assert inside > 60
    with open_recording(sequence) as recording:
        frames = list(recording.frames("/dsec/left_rect/image_raw"))
    assert len(frames) == 11 and frames[0].image.shape == (48, 64)


def test_a_recipe_ends_windows_at_warped_frames(
    sequence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them the recipe says how they are made; with them windows end at frames."""
    small = dataclasses.replace(DSEC, rows=(8, 40), splits={"train": {"zurich_city_04_a": 6}})
    monkeypatch.setattr("dae_ros.distillation.clip_recipe.PROTOCOLS", {"dsec": small})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train: [{dataset: dsec, ends: frame}]")
    with pytest.raises(RecordingError, match=f"dae-ros clips --warp-dsec {sequence}"):
        read_recipe(recipe, tmp_path / "DSEC")
    assert list(warp_frames(sequence))[-1] == 1.0
    (source,) = read_recipe(recipe, tmp_path / "DSEC").sources.values()
    left_out: Counter[str] = Counter()
    samples = list(source.samples("tencode", 50_000_000, left_out))
    # The first event comes 30 us after the first frame, so two windows would begin before it.
    assert len(samples) == 9 and left_out == {"before_events": 2}
    for sample in samples:
        assert sample.frame is not None and sample.frame.shape == (32, 64)
        assert sample.image.shape == (3, 32, 64) and sample.depth is None


def test_a_half_folder_is_made_anew_and_a_whole_one_is_kept(sequence: Path) -> None:
    """What a kill left is no sequence's frames; a second run changes nothing."""
    half = warp_frames(sequence)
    assert 0 < next(half) < 1
    half.close()
    assert not (sequence / "images/left/ev_inf").exists()
    list(warp_frames(sequence))
    assert not (sequence / "images/left/ev_inf.partial").exists()
    before = (sequence / "images/left/ev_inf/000000.png").stat().st_mtime_ns
    assert list(warp_frames(sequence)) == [1.0]
    assert (sequence / "images/left/ev_inf/000000.png").stat().st_mtime_ns == before


def test_what_cannot_be_warped_is_said(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames of another size, a calibration without the frame camera, and no sequence at all."""
    frame = sequence / "images/left/rectified/000002.png"
    frame.write_bytes(png_bytes(np.zeros((54, 72, 3), np.uint8)))
    with pytest.raises(RecordingError, match=r"000002.png is 72x54 px, .* for 144x108 px"):
        list(warp_frames(sequence))
    frame.write_bytes(b"no image")
    with pytest.raises(RecordingError, match=r"000002.png is missing or damaged"):
        list(warp_frames(sequence))
    (sequence / "calibration/cam_to_cam.yaml").write_text("intrinsics: {cam0: {}}")
    with pytest.raises(RecordingError, match="does not say how the left frame camera stands"):
        list(warp_frames(sequence))
    shutil.rmtree(sequence / "images")
    assert main(["clips", "--warp-dsec", str(tmp_path)]) == 1
    assert "neither is nor holds a sequence" in capsys.readouterr().err
