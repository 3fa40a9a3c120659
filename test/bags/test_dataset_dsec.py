"""DSEC's sequence folders: events, rectification, disparity, frames and calibration."""

from __future__ import annotations

import math
import re
import shutil

import h5py
import numpy as np
import pytest

from dae_ros.bags.labelled import open_labelled
from dae_ros.bags.messages import read_camera_info, read_depth
from dae_ros.bags.recording import open_recording
from dae_ros.errors import RecordingError
from test.reference.dataset_layouts import mono_rows, png_bytes, until_error, write_dsec
from test.reference.dsec_protocol import dsec_tencode, dsec_voxel_grid

SIZE = (48, 64)
RAW, RECTIFIED = "/dsec/left", "/dsec/left_rect"


@pytest.fixture
def sequence(tmp_path):
    """A sequence of a small sensor and what is in it."""
    return write_dsec(tmp_path / "zurich_city_99_a")


def test_raw_events_are_on_the_clock_of_the_images(sequence, monkeypatch):
    """Blosc-compressed columns come out whole, with t_offset added, over several chunks."""
    monkeypatch.setattr("dae_ros.bags.datasets.dsec.CHUNK", 1000)
    with open_recording(sequence.path, SIZE) as recording:
        assert mono_rows(recording.event_packets(f"{RAW}/events")) == sequence.events


def test_rectified_events_are_cut_towards_zero_and_dropped_outside(sequence):
    """The map is looked up at [y, x]; -0.4 px is outside, 62.6 px is column 62."""
    expected = []
    for t, x, y, p in sequence.events:
        u, v = (float(np.float32(value)) for value in sequence.rectify_map[y, x])
        if 0 <= u < 64 and 0 <= v < 48:
            expected.append((t, math.floor(u), math.floor(v), p))
    with open_recording(sequence.path, SIZE) as recording:
        assert mono_rows(recording.event_packets(f"{RECTIFIED}/events")) == expected
    assert 0 < len(expected) < len(sequence.events)


def test_the_oracle_of_the_protocol_by_hand():
    """Three events 0, 40 and 100 us after the start; the first and the last leave the image."""
    rectify_map = np.zeros((2, 3, 2))
    rectify_map[..., 0], rectify_map[..., 1] = [[-0.4, 1.9, 3.0]] * 2, [[0.0] * 3, [1.0] * 3]
    events = [(5_000, 0, 0, 1), (45_000, 1, 1, 1), (105_000, 2, 0, 0), (106_000, 1, 0, 1)]
    image = dsec_tencode(events, rectify_map, 5_000, 106_000)
    assert image[:, 1, 1].tolist() == [1.0, 0.6, 0.0]
    assert np.count_nonzero(image) == 2


@pytest.mark.parametrize("keep_one_in", [1, 60])
def test_ages_count_from_events_that_left_the_image_too(tmp_path, keep_one_in):
    """Windows are the published ones to the last bit but rounding, also where few events stay."""
    sequence = write_dsec(tmp_path / "zurich_city_99_a")
    if keep_one_in > 1:
        # Only some columns stay on the image, so that first and last events mostly leave it.
        sequence.rectify_map[:, np.arange(64) % keep_one_in != 5, 0] = -9
        with h5py.File(sequence.path / "events/left/rectify_map.h5", "r+") as file:
            file["rectify_map"][:] = sequence.rectify_map
    with open_labelled(sequence.path, size=SIZE) as windows:
        found = list(windows)
    assert len(found) == 5
    moved = 0
    for window in found:
        expected = dsec_tencode(
            sequence.events, sequence.rectify_map, window.start_ns, window.end_ns
        )
        np.testing.assert_allclose(window.encode("tencode"), expected, atol=1e-6)
        moved += window.extent_ns != (int(window.events.t[0]), int(window.events.t[-1]))
    assert moved > 0
    assert moved == 5 or keep_one_in == 1


def test_the_reference_shares_two_events_as_by_hand():
    """An ON event between pixels in the first bin, an OFF event in the last; the rest is empty."""
    maps = np.zeros((2, 3, 2), np.float32)
    maps[0, 0], maps[1, 2] = (0.25, 0.5), (2.0, -0.25)
    grid = dsec_voxel_grid([(0, 0, 0, 1), (8, 2, 1, 0)], maps, 0, 9, bins=2)
    expected = np.zeros((2, 2, 3))
    expected[0, 0, :2] = expected[0, 1, :2] = 0.375, 0.125
    expected[1, 0, 2], expected[1, 1, 2] = -0.75, 0.25  # row 1 is 1.25 px away: 1 - 1.25, OFF
    np.testing.assert_array_equal(grid, expected)


def test_voxel_grids_share_events_between_pixels(sequence):
    """The baselines' grids are the published ones: rectified places are not cut to whole pixels."""
    with open_labelled(sequence.path, size=SIZE) as windows:
        found = list(windows)
    for window in found:
        grid = dsec_voxel_grid(
            sequence.events, sequence.rectify_map, window.start_ns, window.end_ns
        )
        held = grid != 0
        expected = np.where(held, (grid - grid[held].mean()) / grid[held].std(), 0)
        np.testing.assert_allclose(window.encode("voxel_grid"), expected, atol=2e-4)


def test_disparity_becomes_depth_in_metres(sequence):
    """Depth is f B / disparity with f and B from Q; zero disparity is NaN; stamps are kept."""
    with open_recording(sequence.path, SIZE) as recording:
        depths = [read_depth(m.data) for m in recording.messages([f"{RECTIFIED}/depth_truth"])]
    for depth, (stamp_ns, expected) in zip(depths, sequence.depths, strict=True):
        assert depth.stamp_ns == stamp_ns
        np.testing.assert_allclose(depth.depth, expected, rtol=1e-6)
    assert np.isnan(depths[0].depth[:10]).all()


def test_frames_have_their_stamps_and_exposure(sequence):
    """Colour frames become grey under their own namespace, with the exposure of the text file."""
    with open_recording(sequence.path, SIZE) as recording:
        frames = list(recording.frames("/dsec/frame_left/image_raw"))
    for frame, (stamp_ns, picture) in zip(frames, sequence.frames, strict=True):
        assert (frame.stamp_ns, frame.exposure_ns) == (stamp_ns, 5_000_000)
        np.testing.assert_array_equal(frame.image, picture)


def test_both_calibrations_belong_to_their_pixels(sequence):
    """Raw pixels have the distortion and the rotation, rectified ones are a pinhole camera."""
    with open_recording(sequence.path, SIZE) as recording:
        raw, rectified = (
            read_camera_info(recording.first(f"{name}/camera_info").data)
            for name in (RAW, RECTIFIED)
        )
    assert raw.k == (55.5, 0, 31.5, 0, 56.5, 23.5, 0, 0, 1)
    assert (raw.distortion_model, raw.d) == ("plumb_bob", (-0.09, 0.19, -0.001, 0.002, 0))
    assert raw.r == (1, 0, 0, 0, 0, -1, 0, 1, 0)
    assert rectified.k == (50.0, 0, 30.0, 0, 51.0, 20.0, 0, 0, 1)
    assert rectified.d == (0, 0, 0, 0, 0)
    assert raw.p == rectified.p == (50.0, 0, 30.0, 0, 0, 51.0, 20.0, 0, 0, 0, 1, 0)


@pytest.mark.parametrize("row", [0, 777, 2500, 5999])
def test_a_start_time_gives_the_same_messages_from_there_on(sequence, monkeypatch, row):
    """Starting at any event, the first of a chunk too, yields those messages of the whole."""
    monkeypatch.setattr("dae_ros.bags.datasets.dsec.CHUNK", 500)
    start_ns = sequence.events[row][0]
    with open_recording(sequence.path, SIZE) as recording:
        whole = [(m.topic, m.time_ns) for m in recording.messages() if m.time_ns >= start_ns]
        assert [(m.topic, m.time_ns) for m in recording.messages(None, start_ns)] == whole
        assert recording.start_ns == sequence.depths[0][0]


def test_the_rectify_map_says_the_size(sequence):
    """Without a size that of the map is taken; another one that is given is refused."""
    with open_recording(sequence.path) as found, open_recording(sequence.path, SIZE) as given:
        assert [bytes(m.data) for m in found.messages()] == [
            bytes(m.data) for m in given.messages()
        ]
    with pytest.raises(RecordingError, match=r"rectify_map in .* expected \(47, 64, 2\)"):
        open_recording(sequence.path, (47, 64))


def test_a_test_sequence_has_no_depth(sequence):
    """Without disparity and images the events are read all the same."""
    shutil.rmtree(sequence.path / "disparity")
    shutil.rmtree(sequence.path / "images")
    with open_recording(sequence.path, SIZE) as recording:
        assert sorted(recording.topics) == [
            f"{RAW}/camera_info", f"{RAW}/events", f"{RECTIFIED}/camera_info",
            f"{RECTIFIED}/events",
        ]  # fmt: skip


def test_frames_warped_onto_the_events_lie_beside_them(sequence):
    """Images that a user has warped (ev_inf) are a topic of the rectified event camera."""
    folder = sequence.path / "images" / "left"
    shutil.copytree(folder / "rectified", folder / "ev_inf")
    with open_recording(sequence.path, SIZE) as recording:
        assert recording.topics[f"{RECTIFIED}/image_raw"].count == 11


def _remove(name):
    return lambda path: (path / name).unlink()


def _write(name, data):
    return lambda path: (path / name).write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_remove("calibration/cam_to_cam.yaml"), "disparity but no calibration/cam_to_cam.yaml"),
        (_remove("events/left/rectify_map.h5"), "disparity but no events/left/rectify_map.h5"),
        (_remove("disparity/event/000004.png"), "5 files .*png, but there are 6 time stamps"),
        (_remove("disparity/timestamps.txt"), "time stamps .* cannot be read"),
        (_write("disparity/timestamps.txt", b"1\n2 3\n"), "line 2 of .*1 columns"),
        (_write("disparity/timestamps.txt", b"1\n2\n2\n"), "stamp 2 of .* not later"),
        (_write("disparity/timestamps.txt", b"# none\n"), "no time stamps"),
        (_write("calibration/cam_to_cam.yaml", b"intrinsics: {}"), "KeyError: 'cam0'"),
        (_write("events/left/rectify_map.h5", b"HDF?"), "no readable HDF5"),
        (_write("images/left/exposure_timestamps.txt", b"1, 2\n"), "1 lines for 11 images"),
    ],
)
def test_an_incomplete_sequence_says_what_is_missing(sequence, damage, problem):
    """Missing and damaged files are found on opening, by name."""
    damage(sequence.path)
    with pytest.raises(RecordingError, match=problem):
        open_recording(sequence.path, SIZE)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"no image", "missing or damaged"),
        (png_bytes(np.zeros(SIZE, np.uint8)), r"uint8\[48, 64\], expected a 16-bit PNG of 64x48"),
        (png_bytes(np.zeros((4, 5), np.uint16)), r"uint16\[4, 5\], expected"),
    ],
)
def test_a_wrong_disparity_map_names_the_file(sequence, data, problem):
    """The maps before the damaged one come out, then the error names it."""
    (sequence.path / "disparity" / "event" / "000006.png").write_bytes(data)
    with open_recording(sequence.path, SIZE) as recording:
        read, error = until_error(recording.messages([f"{RECTIFIED}/depth_truth"]))
    assert len(read) == 3
    assert isinstance(error, RecordingError)
    assert re.search(f"000006.png is {problem}", str(error))


def test_events_outside_the_sensor_are_an_error(sequence):
    """A column of another sensor is not read as if it were DSEC's."""
    with h5py.File(sequence.path / "events" / "left" / "events.h5", "r+") as file:
        file["events/x"][77] = 64
    with (
        open_recording(sequence.path, SIZE) as recording,
        pytest.raises(RecordingError, match=r"event 77 of .*events.h5 .* outside the sensor"),
    ):
        list(recording.event_packets(f"{RAW}/events"))


def test_time_that_runs_back_between_chunks_is_found(sequence, monkeypatch):
    """The first event of a chunk may not be older than the last one before."""
    monkeypatch.setattr("dae_ros.bags.datasets.dsec.CHUNK", 500)
    with h5py.File(sequence.path / "events" / "left" / "events.h5", "r+") as file:
        file["events/t"][1000] = file["events/t"][999] - 5
    with open_recording(sequence.path, SIZE) as recording:
        packets, error = until_error(recording.event_packets(f"{RAW}/events"))
    assert mono_rows(packets) == sequence.events[:1000]
    assert "time runs back at" in str(error) and "row 1000" in str(error)
