"""Labelled windows of files that are damaged, incomplete or of another kind."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from dae_ros.bags.labelled import open_labelled
from dae_ros.bags.recording import open_recording
from dae_ros.errors import ConfigurationError, RecordingError
from test.reference.dataset_layouts import (
    until_error,
    write_mvsec,
    write_voxel_folder,
)

MS = 1_000_000


def test_depth_of_another_size_is_refused(tmp_path):
    """Depth that does not belong to the events' pixels is an error with both sizes."""
    written = write_mvsec(tmp_path)
    with h5py.File(tmp_path / "outdoor_day1_gt.hdf5", "r+") as file:
        del file["davis/left/depth_image_raw"]
        file["davis/left/depth_image_raw"] = np.ones((len(written.depths), 13, 17), np.float32)
    paths = [tmp_path / f"outdoor_day1_{kind}.hdf5" for kind in ("data", "gt")]
    with open_labelled(paths) as sequence, pytest.raises(RecordingError, match=r"17x13.* 34x26"):
        list(sequence)


def test_missing_labels_are_answered_with_what_is_there(tmp_path):
    """Without depth beside the events the error lists the topics."""
    write_mvsec(tmp_path)
    with pytest.raises(
        RecordingError, match=r"no depth images beside /davis/left/events.*image_raw"
    ):
        open_labelled(tmp_path / "outdoor_day1_data.hdf5")
    with pytest.raises(ConfigurationError, match="whole microseconds"):
        open_labelled(tmp_path / "outdoor_day1_data.hdf5", window_ns=1500)


def test_a_damaged_file_gives_everything_before_it(tmp_path, monkeypatch):
    """The windows before a damaged event chunk come out, then the error of the file."""
    written = write_mvsec(tmp_path)
    with h5py.File(tmp_path / "outdoor_day1_data.hdf5", "r+") as file:
        file["davis/left/events"][2000, 0] = 999
    paths = [tmp_path / f"outdoor_day1_{kind}.hdf5" for kind in ("data", "gt")]
    monkeypatch.setattr("dae_ros.bags.datasets.mvsec_hdf5.CHUNK", 500)
    with open_labelled(paths) as sequence:
        windows, error = until_error(sequence)
    assert isinstance(error, RecordingError)
    assert "event 0 of" in str(error) and "from row 2000" in str(error)
    assert 0 < len(windows) < 9
    assert windows[-1].end_ns <= written.events[1999][0] + MS


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("events/voxels/event_tensor_0000000002.npy", b"", "missing or damaged"),
        ("depth/data/depth_0000000002.npy", b"\x93NUMPY", "missing or damaged"),
        ("rgb/davis_left_sync/frame_0000000010.png", b"no", "missing or damaged"),
    ],
)
def test_a_damaged_file_of_a_voxel_folder_is_named(tmp_path, name, data, problem):
    """The windows before come out, then the error names the file."""
    path = write_voxel_folder(tmp_path / "day1").path
    (path / name).write_bytes(data)
    with open_labelled(path) as sequence:
        windows, error = until_error(sequence)
    assert isinstance(error, RecordingError)
    assert name.rpartition("/")[2] in str(error)
    assert problem in str(error)
    assert 0 < len(windows) < 6


def test_a_voxel_folder_is_no_recording(tmp_path):
    """Running a voxel folder as a recording says what it is; it has no other windows either."""
    path = write_voxel_folder(tmp_path / "day1").path
    with pytest.raises(RecordingError, match="voxel grids instead of events"):
        open_recording(path)
    with pytest.raises(ConfigurationError, match="no other windows"):
        open_labelled(path, ends="frame")
    np.save(path / "events" / "voxels" / "event_tensor_0000000000.npy", np.zeros((5, 9, 9)))
    with open_labelled(path) as sequence, pytest.raises(RecordingError, match="9x9 px and"):
        list(sequence)
