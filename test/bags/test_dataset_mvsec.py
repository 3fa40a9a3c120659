"""MVSEC's HDF5 files: what is delivered is what lies in the layout."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest

from dae_ros.bags.datasets import messages
from dae_ros.bags.datasets.mvsec_hdf5 import MvsecHdf5File
from dae_ros.bags.messages import read_depth
from dae_ros.bags.recording import open_recording
from dae_ros.errors import ConfigurationError, RecordingError
from test.reference.dataset_layouts import mono_rows, until_error, write_mvsec

EVENTS = "/davis/left/events"


@pytest.fixture
def files(tmp_path):
    """The two files of a sequence and what is in them."""
    written = write_mvsec(tmp_path)
    paths = [tmp_path / "outdoor_day1_data.hdf5", tmp_path / "outdoor_day1_gt.hdf5"]
    return paths, written


def test_events_keep_their_microseconds_and_their_polarity(files, monkeypatch):
    """Every event comes out once, in order, at its whole microsecond, -1 as 0, over chunks."""
    monkeypatch.setattr("dae_ros.bags.datasets.mvsec_hdf5.CHUNK", 700)
    (data, _), written = files
    with open_recording(data) as recording:
        packets = list(recording.event_packets(EVENTS))
        assert mono_rows(packets) == written.events
    assert all(p.encoding == "mono" and (p.height, p.width) == (26, 34) for p in packets)


def test_frames_and_depth_are_those_of_the_bags(files):
    """Topics are named as in the bags; both files merge by time; NaN depth stays NaN."""
    paths, written = files
    with open_recording(paths) as recording:
        assert set(recording.topics) == {
            EVENTS, "/davis/left/image_raw", "/davis/left/depth_image_raw",
            "/davis/left/depth_image_rect", "/davis/right/events",
        }  # fmt: skip
        for frame, (stamp_ns, picture) in zip(recording.frames(), written.frames, strict=True):
            assert frame.stamp_ns == stamp_ns
            np.testing.assert_array_equal(frame.image, picture)
        depths = [read_depth(m.data) for m in recording.messages(["/davis/left/depth_image_raw"])]
        times = [message.time_ns for message in recording.messages()]
        assert times == sorted(times)
        assert recording.start_ns == min(written.events[0][0], 1_504_645_177_424_563_000)
        assert recording.end_ns == max(written.events[-1][0], written.depths[-1][0])
    for depth, (stamp_ns, expected) in zip(depths, written.depths, strict=True):
        assert depth.stamp_ns == stamp_ns
        np.testing.assert_array_equal(depth.depth, expected)


@pytest.mark.parametrize("row", [0, 700, 767, 768, 2999])
def test_a_start_time_gives_the_same_messages_from_there_on(files, monkeypatch, row):
    """Starting at any event, the first of a chunk too, yields those messages of the whole."""
    monkeypatch.setattr("dae_ros.bags.datasets.mvsec_hdf5.CHUNK", 256)
    paths, written = files
    start_ns = written.events[row][0]
    with open_recording(paths) as recording:
        whole = [(m.topic, m.time_ns) for m in recording.messages() if m.time_ns >= start_ns]
        later = [(m.topic, m.time_ns) for m in recording.messages(None, start_ns)]
    assert later == whole


def test_packets_end_at_multiples_of_ten_milliseconds(files):
    """No packet spans a multiple of 10 ms; each is recorded at its last event."""
    (data, _), _ = files
    with open_recording(data) as recording:
        for message in recording.messages([EVENTS]):
            rows = mono_rows([recording.read_packet(message)])
            assert message.time_ns == rows[-1][0]
            assert rows[0][0] // messages.PACKET_NS == rows[-1][0] // messages.PACKET_NS


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        (0, 34.0, "outside the sensor of 34x26"),
        (1, -1.0, "outside the sensor"),
        (0, 2.5, "no whole number"),
        (2, np.nan, r"is nan s"),
        (2, 0.0, "before that of the event ahead"),
        (3, 7.0, "polarity"),
    ],
)
def test_a_damaged_event_names_its_row(files, column, value, problem):
    """An impossible value is an error with file and row, after everything before was read."""
    (data, _), _ = files
    with h5py.File(data, "r+") as file:
        file["davis/left/events"][1234, column] = value
    with open_recording(data) as recording, pytest.raises(RecordingError, match=problem) as error:
        list(recording.event_packets(EVENTS))
    assert error.value.data["row"] == 1234
    assert "outdoor_day1_data.hdf5" in str(error.value)


def test_a_file_of_another_layout_says_what_was_expected(tmp_path):
    """HDF5 without MVSEC's groups, of wrong shape, or cut: each error says what to do."""
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["events/x"] = np.zeros(3)
    with pytest.raises(RecordingError, match=r"davis/left/events.*of DSEC give the folder"):
        open_recording(other)
    with h5py.File(other, "w") as file:
        file["davis/left/events"] = np.zeros((3, 5))
    with pytest.raises(RecordingError, match=r"shape \(3, 5\), expected \('N', 4\)"):
        open_recording(other)
    with h5py.File(other, "w") as file:
        file["davis/left/image_raw"] = np.zeros((3, 4, 5), np.uint8)
        file["davis/left/image_raw_ts"] = np.zeros(2)
    with pytest.raises(RecordingError, match=r"image_raw_ts .*\(2,\), expected \(3,\)"):
        open_recording(other)
    other.write_bytes(other.read_bytes()[:400])
    with pytest.raises(RecordingError, match=r"no readable HDF5 file.*download it again"):
        open_recording(other)


def test_a_damaged_chunk_ends_the_reading_with_its_place(files):
    """Where a compressed depth map is overwritten, the maps before come out, then an error."""
    (_, truth), _ = files
    with h5py.File(truth) as file:
        at = file["davis/left/depth_image_raw"].id.get_chunk_info(4)
    with truth.open("r+b") as file:
        file.seek(at.byte_offset)
        file.write(b"\xff" * at.size)
    with open_recording(truth) as recording:
        read, error = until_error(recording.messages(["/davis/left/depth_image_raw"]))
    assert len(read) == 4
    assert isinstance(error, RecordingError)
    assert "damaged in /davis/left/depth_image_raw, between rows 4 and 5" in str(error)


def test_a_missing_package_is_named(files, monkeypatch):
    """Without hdf5plugin the error is a ConfigurationError with the command to run."""
    (data, _), _ = files
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[datasets\]'"):
        MvsecHdf5File(data)


def test_time_that_runs_back_between_chunks_is_found(files, monkeypatch):
    """The first event of a chunk may not be older than the last one before."""
    monkeypatch.setattr("dae_ros.bags.datasets.mvsec_hdf5.CHUNK", 500)
    (data, _), written = files
    with h5py.File(data, "r+") as file:
        file["davis/left/events"][1000, 2] = (written.events[999][0] - 5000) / 1e9
    with open_recording(data) as recording:
        packets, error = until_error(recording.event_packets(EVENTS))
    assert mono_rows(packets) == written.events[:1000]
    assert isinstance(error, RecordingError)
    assert "time runs back at" in str(error) and "row 1000" in str(error)
