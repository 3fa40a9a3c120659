"""Labelled windows: exactly the events before each label, from every kind of source."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from dae_ros.bags.labelled import open_labelled
from dae_ros.bags.message_types import EVENT_PACKET, IMAGE
from dae_ros.bags.messages import write_image
from dae_ros.bags.recording import open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.cli import main as command_line
from dae_ros.errors import ConfigurationError
from dae_ros.events.cdr import write_packet
from dae_ros.events.frame import middle_of_exposure
from dae_ros.events.packet import EventPacket, Events
from dae_ros.simulation.encoders import create_encoder
from test.reference.dataset_layouts import (
    events_between,
    mono_rows,
    write_dsec,
    write_eventscape,
    write_mvsec,
    write_voxel_folder,
)
from test.reference.mvsec_bag import write_data_bag, write_truth_bag
from test.reference.tencode_pixels import tencode_pixels

MS = 1_000_000


def rows(window):
    """The events of a window as tuples."""
    e = window.events
    return list(zip(e.t.tolist(), e.x.tolist(), e.y.tolist(), e.p.tolist(), strict=True))


def check(windows, written, length_ns):
    """Compare windows with a filter over all events and with the depth as written."""
    expected = []
    for stamp_ns, depth in written.depths:
        end_ns = stamp_ns // 1000 * 1000
        covered = end_ns - length_ns >= written.events[0][0]
        if covered and end_ns <= written.events[-1][0] + MS:
            expected.append((stamp_ns, end_ns, depth))
    assert [w.stamp_ns for w in windows] == [stamp for stamp, _, _ in expected]
    for window, (_, end_ns, depth) in zip(windows, expected, strict=True):
        assert (window.start_ns, window.end_ns) == (end_ns - length_ns, end_ns)
        assert rows(window) == events_between(written.events, end_ns - length_ns, end_ns)
        np.testing.assert_allclose(window.depth, depth, rtol=1e-6)
        assert window.voxels is None
    assert [w.restarts for w in windows] == [True] + [False] * (len(windows) - 1)
    return expected


@pytest.mark.parametrize("length_ms", [50, 7])
def test_mvsec_files_give_the_windows_before_each_depth(tmp_path, length_ms):
    """HDF5 windows are half-open, end at the depth stamps and have the frame before them."""
    written = write_mvsec(tmp_path)
    paths = [tmp_path / f"outdoor_day1_{kind}.hdf5" for kind in ("data", "gt")]
    with open_labelled(paths, window_ns=length_ms * MS) as sequence:
        windows = list(sequence)
        expected = check(windows, written, length_ms * MS)
        assert sequence.skipped["before_events"] == len(written.depths) - len(expected)
        assert [w.end_ns for w in sequence] == [w.end_ns for w in windows]
    for window in windows:
        earlier = [(t, image) for t, image in written.frames if t <= window.stamp_ns]
        assert window.frame.stamp_ns == earlier[-1][0]
        np.testing.assert_array_equal(window.frame.image, earlier[-1][1])


def test_an_event_at_the_start_belongs_and_one_at_the_end_does_not(tmp_path):
    """Hand-made: events at start - 1 us, start, end - 1 us and end give two."""
    written = write_mvsec(
        tmp_path,
    )
    stamp_us = written.depths[4][0] // 1000
    with h5py.File(tmp_path / "outdoor_day1_data.hdf5", "r+") as file:
        del file["davis/left/events"]
        times_us = [stamp_us - 80_000, stamp_us - 50_001, stamp_us - 50_000, stamp_us - 1, stamp_us]
        table = [[k, 1, t / 1e6, -1] for k, t in enumerate(times_us)]
        file["davis/left/events"] = np.array(table, np.float64)
    paths = [tmp_path / f"outdoor_day1_{kind}.hdf5" for kind in ("data", "gt")]
    with open_labelled(paths) as sequence:
        (window,) = sequence
        assert rows(window) == [
            ((stamp_us - 50_000) * 1000, 2, 1, 0),
            ((stamp_us - 1) * 1000, 3, 1, 0),
        ]
        assert sequence.skipped == {"before_events": 4, "after_events": 4}


def test_bags_give_the_windows_of_their_event_arrays(tmp_path):
    """The pair of ROS 1 bags is labelled as is, nanoseconds included."""
    written = write_data_bag(tmp_path / "data.bag")
    truth = write_truth_bag(tmp_path / "gt.bag", images=6)
    with open_labelled([tmp_path / "data.bag", tmp_path / "gt.bag"], window_ns=20 * MS) as sequence:
        windows = list(sequence)
    assert len(windows) == 5
    for window, (stamp_ns, depth) in zip(windows, truth.depths[1:], strict=True):
        end_ns = stamp_ns // 1000 * 1000
        assert (window.start_ns, window.end_ns) == (end_ns - 20 * MS, end_ns) and end_ns < stamp_ns
        assert rows(window) == events_between(written.all_events, end_ns - 20 * MS, end_ns)
        np.testing.assert_array_equal(window.depth, depth)


def test_dsec_takes_the_rectified_events_for_its_depth(tmp_path):
    """Disparity belongs to the rectified camera, so its events are chosen, and not the first."""
    written = write_dsec(tmp_path / "sequence")
    with open_recording(written.path, (48, 64)) as recording:
        written.events = mono_rows(recording.event_packets("/dsec/left_rect/events"))
    with open_labelled(written.path, size=(48, 64)) as sequence:
        windows = list(sequence)
        check(windows, written, 50 * MS)
        # No events come before the first map, as the published loaders know.
        assert sequence.skipped == {"before_events": 1}
    assert all(window.frame is None for window in windows)
    assert len(windows) == 5


def test_eventscape_is_labelled_to_its_last_map(tmp_path):
    """The last window ends just after the last event and is not lost."""
    written = write_eventscape(tmp_path / "sequence_1")
    with open_labelled(written.path, size=(24, 40), window_ns=40 * MS) as sequence:
        windows = list(sequence)
    assert check(windows, written, 40 * MS)[-1][0] == written.depths[-1][0]


def test_windows_can_end_at_frames(tmp_path):
    """For a frame teacher each window ends at a frame and carries it; no depth is needed."""
    written = write_mvsec(tmp_path)
    with open_labelled(tmp_path / "outdoor_day1_data.hdf5", ends="frame") as sequence:
        windows = list(sequence)
    frames = [(t, image) for t, image in written.frames if t - 50 * MS >= written.events[0][0]]
    for window, (stamp_ns, image) in zip(windows, frames, strict=True):
        assert window.stamp_ns == window.frame.stamp_ns == stamp_ns
        assert rows(window) == events_between(written.events, stamp_ns - 50 * MS, stamp_ns)
        np.testing.assert_array_equal(window.frame.image, image)
        assert window.depth is None


@pytest.mark.parametrize(("image_stamp", "shift_ms"), [("start", 10), ("mid", 0), ("end", -10)])
def test_frames_count_at_the_middle_of_their_exposure(tmp_path, image_stamp, shift_ms):
    """What a stamp marks is told as to the live node, for windows that end at frames or beside."""
    offsets_ms = (0, 0, 3)  # of a depth image after the middle of the newest frame
    with BagWriter(tmp_path / "frames") as bag:
        for topic, kind in (("events", EVENT_PACKET), ("depth_truth", IMAGE), ("image_raw", IMAGE)):
            bag.add_topic(f"/davis/{topic}", kind)
        encoder = create_encoder("mono", 64, 48)
        for k in range(40):
            t = (np.arange(10, dtype=np.int64) + 1000 + 10 * k) * MS
            x = np.zeros(10, np.uint16)
            payload, base_ns = encoder.encode(Events(t, x, x.copy(), np.ones(10, np.uint8)))
            packet = EventPacket("mono", 48, 64, payload, base_ns, int(t[-1]), k)
            bag.write("/davis/events", EVENT_PACKET, int(t[-1]), write_packet(packet))
            if k in (10, 20, 30):
                middle_ms = 1000 + 10 * k - 35
                stamp_ns = (middle_ms - shift_ms) * MS
                frame = write_image(np.full((48, 64), k, np.uint8), stamp_ns, "")
                bag.write("/davis/image_raw", IMAGE, int(t[-1]), frame)
                depth_ns = (middle_ms + offsets_ms[k // 10 - 1]) * MS
                depth = write_image(np.ones((48, 64), np.float32), depth_ns, "")
                bag.write("/davis/depth_truth", IMAGE, int(t[-1]) + 1, depth)
    marks = {"image_stamp": image_stamp, "exposure_s": 0.02}
    with open_labelled(tmp_path / "frames", ends="frame", **marks) as sequence:
        ends = [(window.end_ns // MS, window.frame.stamp_ns // MS) for window in sequence]
    assert ends == [(1065, 1065), (1165, 1165), (1265, 1265)]
    with open_labelled(tmp_path / "frames", **marks) as sequence:
        beside = [(w.end_ns // MS, w.frame.stamp_ns // MS, w.frame.image[0, 0]) for w in sequence]
    assert beside == [(1065, 1065, 10), (1165, 1165, 20), (1268, 1265, 30)]


def test_the_exposure_of_a_frame_goes_before_the_setting():
    """Half of it, in whole nanoseconds; a setting is for frames that do not tell."""
    assert middle_of_exposure(100, 9, "start", 1.0) == 104
    assert middle_of_exposure(100, 9, "end", 1.0) == 96
    assert middle_of_exposure(100, 0, "end", 1e-8) == 95
    assert middle_of_exposure(100, 9, "mid", 1.0) == middle_of_exposure(100, 0, "end", 0.0) == 100


def test_voxel_folders_pair_grids_and_maps_by_index(tmp_path):
    """As many grids as maps: paired by index, however far their stamps lie apart."""
    written = write_voxel_folder(tmp_path / "mvsec_outdoor_day1")
    with open_labelled(written.path) as sequence:
        windows = list(sequence)
        assert len(sequence) == len(windows) == 6
    for k, (window, (stamp_ns, depth)) in enumerate(zip(windows, written.depths, strict=True)):
        assert (window.stamp_ns, window.end_ns) == (stamp_ns, stamp_ns - 3 * MS)
        assert window.start_ns == window.end_ns - 50 * MS
        np.testing.assert_array_equal(window.depth, depth)
        file = written.path / "events" / "voxels" / f"event_tensor_{k:010d}.npy"
        np.testing.assert_array_equal(window.voxels, np.load(file))
        earlier = [frame for frame in written.frames if frame[0] <= stamp_ns]
        assert (window.frame is None) == (earlier == [])
        if earlier:
            assert window.frame.stamp_ns == earlier[-1][0]
            np.testing.assert_array_equal(window.frame.image, earlier[-1][1])
        assert window.restarts == (k == 0)


def test_voxel_folders_with_more_maps_take_the_closest(tmp_path):
    """More maps than grids: each grid has the map whose stamp is closest, as published."""
    written = write_voxel_folder(tmp_path / "day1", grids=5, depths=8)
    lines = [f"{k} {1504645200 + 0.1 * k + 0.028:.6f}" for k in range(5)]
    (written.path / "events" / "voxels" / "timestamps.txt").write_text("\n".join(lines))
    with open_labelled(written.path) as sequence:
        stamps = [window.stamp_ns for window in sequence]
    # Grids at 28, 128, ... ms; maps at 3, 53, ... 353 ms: 25 ms back and ahead, the earlier wins.
    assert stamps == [written.depths[k][0] for k in (0, 2, 4, 6, 7)]


def test_a_window_is_encoded_by_name(tmp_path):
    """Events encode as themselves and through voxels, voxel folders through voxels only."""
    written = write_mvsec(tmp_path)
    paths = [tmp_path / f"outdoor_day1_{kind}.hdf5" for kind in ("data", "gt")]
    with open_labelled(paths) as sequence:
        window = next(iter(sequence))
    events = events_between(written.events, window.start_ns, window.end_ns)
    columns = [[event[k] for event in events] for k in range(4)]
    expected = tencode_pixels(*columns, 26, 34)
    np.testing.assert_allclose(window.encode("tencode"), expected, atol=1e-6)
    voxels = write_voxel_folder(tmp_path / "day1")
    with open_labelled(voxels.path) as sequence:
        grid = next(iter(sequence))
    image = grid.encode("tencode_voxel")
    y, x = 7, 9
    newest = [b for b in range(5) if grid.voxels[b, y, x] != 0]
    positive = bool(newest) and grid.voxels[newest[-1], y, x] > 0
    expected = [positive, 1 - newest[-1] / 4, not positive] if newest else [0, 0, 0]
    np.testing.assert_allclose(image[:, y, x], expected)
    normal = grid.encode("voxel_grid")
    held = grid.voxels[grid.voxels != 0].astype(np.float64)
    np.testing.assert_allclose(
        normal[2, y],
        np.where(grid.voxels[2, y] != 0, (grid.voxels[2, y] - held.mean()) / held.std(), 0),
        atol=1e-5,
    )
    assert window.encode("voxel_grid", bins=7).shape == (7, 26, 34)
    for sample, name, bins in (
        (grid, "tencode", 5), (grid, "voxel_grid", 3), (window, "histogram", 5),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=f"'{name}' with {bins} bins: the sequence"):
            sample.encode(name, bins)


def test_a_data_set_runs_like_a_recording(tmp_path):
    """`dae-ros bag` on a sequence folder steps the windows of its events and previews frames."""
    written = write_eventscape(tmp_path / "sequence_1", height=28, width=42)
    out = tmp_path / "out"
    arguments = ["--weights", "untrained:tiny", "--device", "cpu", "--threads", "1"]
    arguments += ["--size", "42x28", "--out", str(out)]
    assert command_line.main(["bag", str(written.path), *arguments]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["events"] == len(written.events)
    assert summary["topics"] == {"events": "/carla/events", "image": "/carla/image_raw"}
    assert summary["windows"]["stepped"] == 6


def test_depth_stamps_are_moved_onto_the_sensor_clock(tmp_path):
    """Events that count from the camera's start are cut at the depth's stamp on their clock."""
    random = np.random.default_rng(9)
    offset_ns = 1_700_000_000_000_000_000
    encoder = create_encoder("evt3", 64, 48)
    written = []
    with BagWriter(tmp_path / "sensor") as bag:
        bag.add_topic("/events", EVENT_PACKET)
        bag.add_topic("/depth_truth", IMAGE)
        for k in range(40):
            begin_us = 5_000_000 + 10_000 * k
            t = np.sort(random.integers(begin_us, begin_us + 10_000, 100)) * 1000
            x, y, p = (random.integers(0, high, 100) for high in (64, 48, 2))
            written += zip(t.tolist(), x.tolist(), y.tolist(), p.tolist(), strict=True)
            part = Events(t, x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))
            payload, base_ns = encoder.encode(part)
            stamp_ns = offset_ns + int(t[0])
            packet = EventPacket("evt3", 48, 64, payload, base_ns, stamp_ns, k)
            bag.write("/events", EVENT_PACKET, stamp_ns, write_packet(packet))
            if k % 10 == 7:
                image = write_image(np.ones((48, 64), np.float32), stamp_ns, "")
                bag.write("/depth_truth", IMAGE, stamp_ns, image)
    with open_labelled(tmp_path / "sensor", window_ns=20 * MS) as sequence:
        windows = list(sequence)
    assert len(windows) == 4
    for window in windows:
        assert window.end_ns == window.stamp_ns - offset_ns
        assert rows(window) == events_between(written, window.end_ns - 20 * MS, window.end_ns)
