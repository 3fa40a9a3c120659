"""Data sets with wrong bytes or a cut: read, or refused with a sentence, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from dae_ros.bags.datasets.eventscape import read_events
from dae_ros.bags.datasets.images import read_depth_npy
from dae_ros.bags.datasets.voxel_folder import VoxelFolder
from dae_ros.bags.recording import open_recording
from dae_ros.errors import RecordingError
from test.reference.damaging import surprises

# numpy tells of headers that Python 2 may have written.
pytestmark = pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file:UserWarning")


def read_all(path: Path) -> None:
    with open_recording(path) as recording:
        for _ in recording.messages(recording.topics):
            pass


def write_tiny_dsec(folder: Path, offset_us: float) -> Path:
    left = folder / "events" / "left"
    left.mkdir(parents=True)
    with h5py.File(left / "events.h5", "w") as file:
        packed = hdf5plugin.Blosc(cname="zstd", clevel=5)
        for column, kind in (("x", "u2"), ("y", "u2"), ("t", "u4"), ("p", "u1")):
            file.create_dataset(
                f"events/{column}", data=np.arange(2, dtype=kind), chunks=(2,), compression=packed
            )
        file["t_offset"] = offset_us
    return left


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_events_of_eventscape(tmp_path: Path, save: Callable[..., None]) -> None:
    """Damaged archives, packed or not, end in RecordingError."""
    path = tmp_path / "events.npz"
    save(path, x=[1, 2], y=[3, 4], t=[5, 6], p=[0, 1])
    assert surprises(path, lambda: read_events(path, 10, 10), cases=1500) == []


def test_depth_maps(tmp_path: Path) -> None:
    """Damaged .npy files end in RecordingError."""
    path = tmp_path / "depth.npy"
    np.save(path, np.ones((2, 3), np.float32))
    assert surprises(path, lambda: read_depth_npy(path), cases=600) == []


def test_voxel_folders(tmp_path: Path) -> None:
    """Damaged grids end in RecordingError."""
    for folder, shape in (("events/voxels", (5, 2, 3)), ("depth/data", (2, 3))):
        (tmp_path / folder).mkdir(parents=True)
        np.save(tmp_path / folder / "a_0000000000.npy", np.ones(shape, np.float32))
        (tmp_path / folder / "timestamps.txt").write_text("0 0.05\n")
    path = tmp_path / "events/voxels/a_0000000000.npy"
    assert surprises(path, lambda: VoxelFolder(tmp_path).read(0)) == []


def test_mvsec_files(tmp_path: Path) -> None:
    """Damaged HDF5 files, their metadata included, end in RecordingError."""
    path = tmp_path / "tiny_data.hdf5"
    with h5py.File(path, "w", libver="earliest") as file:
        left = file.create_group("davis/left")
        left["events"] = [[1, 2, 10.0, 1], [3, 1, 10.1, -1]]
        left["image_raw"] = np.zeros((2, 4, 6), np.uint8)
        left["image_raw_ts"] = [10.0, 10.2]
        left["depth_image_raw"] = np.ones((1, 4, 6), np.float32)
        left["depth_image_raw_ts"] = [10.1]
    read_all(path)
    assert surprises(path, lambda: read_all(path)) == []


@pytest.mark.parametrize("name", ["events.h5", "rectify_map.h5"])
def test_dsec_files(tmp_path: Path, name: str) -> None:
    """Damaged HDF5 files of a sequence end in RecordingError."""
    left = write_tiny_dsec(tmp_path, np.int64(5_000_000))
    with h5py.File(left / "rectify_map.h5", "w") as file:
        file["rectify_map"] = np.ones((3, 4, 2), np.float32)
    read_all(tmp_path)
    assert surprises(left / name, lambda: read_all(tmp_path)) == []


WORDS = np.array(["a", "b"])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"x": WORDS}, "<U1, not numbers"),
        ({"p": np.array([1j, 0])}, "complex128, not numbers"),
        ({"y": np.array([[1], [2]])}, "not of one length"),
        ({"t": np.array([0.0, np.nan])}, "not whole microseconds"),
        ({"t": np.array([-5, -1])}, "time 0 of .* is -5 us"),
        ({"t": np.array([0, 2**63], np.uint64)}, "time 1 of .* is 9223372036854775808 us"),
        ({"t": np.array([0, 2**60])}, "time 1 of .* is 1152921504606846976 us"),
    ],
)
def test_columns_that_are_none(tmp_path: Path, wrong: dict[str, np.ndarray], sentence: str) -> None:
    """Text, complex numbers, tables and times that no clock shows are refused, not cast."""
    columns = {"x": [1, 2], "y": [1, 2], "t": [1, 2], "p": [0, 1], **wrong}
    np.savez(tmp_path / "events.npz", **columns)
    with pytest.raises(RecordingError, match=sentence):
        read_events(tmp_path / "events.npz", 10, 10)


@pytest.mark.parametrize("offset", [2**62, -(2**62), -6, np.nan, 3.5])
def test_an_offset_that_no_clock_has(tmp_path: Path, offset: float) -> None:
    """Microseconds that do not fit, and parts of them, are refused when the sequence is opened."""
    write_tiny_dsec(tmp_path, offset)
    with pytest.raises(RecordingError, match=r"t_offset|count from"):
        open_recording(tmp_path)
