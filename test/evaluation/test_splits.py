"""Published splits: the right folders, and none that is incomplete."""

from __future__ import annotations

import dataclasses

import pytest

from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.evaluation.protocols import DSEC, MVSEC
from dae_ros.evaluation.splits import (
    EVENTSCAPE_VALIDATION,
    eventscape_sequences,
    mvsec_recordings,
    published_sequences,
)


def touch(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("protocol", "sequence", "folder", "name"),
    [
        (DSEC, "thun_00_a", "train/thun_00_a/disparity/event", "{:06d}.png"),
        (MVSEC, "test/mvsec_x", "test/mvsec_x/depth/data", "depth_{:010d}.npy"),
    ],
)
def test_a_split_is_found_and_counted(tmp_path, protocol, sequence, folder, name):
    """Folders lie where the archives unpack them; another number of frames is refused."""
    small = dataclasses.replace(protocol, splits={"test": {sequence: 3}})
    with pytest.raises(RecordingError, match=f"lacks 1 of the 1 sequences .*{sequence}"):
        published_sequences(small, "test", tmp_path)
    touch(tmp_path / folder, [name.format(k) for k in range(3)])
    found = published_sequences(small, "test", tmp_path)
    assert found == {sequence: tmp_path / (f"train/{sequence}" if protocol is DSEC else sequence)}
    (tmp_path / folder / name.format(2)).unlink()
    with pytest.raises(RecordingError, match=r"has 2 files .*published are 3"):
        published_sequences(small, "test", tmp_path)
    with pytest.raises(ConfigurationError, match=r"no split 'tset'; it has test\."):
        published_sequences(small, "tset", tmp_path)


def test_mvsec_recordings_come_in_pairs(tmp_path):
    """Each data file needs its ground truth beside it; HDF5 goes before the bag."""
    for kind in ("data", "gt"):
        (tmp_path / f"outdoor_day2_{kind}.bag").touch()
    assert mvsec_recordings("train", tmp_path) == {
        "outdoor_day2": (tmp_path / "outdoor_day2_data.bag", tmp_path / "outdoor_day2_gt.bag")
    }
    touch(tmp_path / "hdf5", ["outdoor_day2_data.hdf5"])
    with pytest.raises(RecordingError, match="outdoor_day2_gt beside it"):
        mvsec_recordings("train", tmp_path)
    (tmp_path / "hdf5" / "outdoor_day2_gt.hdf5").touch()
    data, truth = mvsec_recordings("train", tmp_path)["outdoor_day2"]
    assert (data.name, truth.name) == ("outdoor_day2_data.hdf5", "outdoor_day2_gt.hdf5")
    with pytest.raises(RecordingError, match="no outdoor_day1_data"):
        mvsec_recordings("test", tmp_path)


def test_single_sequences_of_a_split_can_be_wanted(tmp_path):
    """In the order of the split, whatever else is missing; what is in no split is refused."""
    splits = {"train": {"a": 1}, "test": {"b": 1, "c": 1, "d": 1}}
    small = dataclasses.replace(DSEC, splits=splits)
    for name in "dca":
        touch(tmp_path / "train" / name / "disparity" / "event", ["000000.png"])
    assert list(published_sequences(small, "test", tmp_path, ["d", "c"])) == ["c", "d"]
    with pytest.raises(RecordingError, match="--split test --sequences c,d "):
        published_sequences(small, "test", tmp_path)
    with pytest.raises(ConfigurationError, match=r"a is not in the split 'test' of dsec, .* b, c"):
        published_sequences(small, "test", tmp_path, ["a"])
    for kind in ("data", "gt"):
        (tmp_path / f"outdoor_night2_{kind}.bag").touch()
    with pytest.raises(RecordingError, match="taken with --sequences"):
        mvsec_recordings("test", tmp_path)
    assert list(mvsec_recordings("test", tmp_path, ["outdoor_night2"])) == ["outdoor_night2"]


def test_eventscape_is_split_by_town_and_number(tmp_path):
    """Town05 falls into two parts without a sequence in both; order is that of the numbers."""
    for town, numbers in {
        "Town01": (10, 2),
        "Town02": (1,),
        "Town03": (5,),
        "Town05": (7, 8, 300),
    }.items():
        for number in numbers:
            (tmp_path / town / f"sequence_{number}").mkdir(parents=True)

    def names(split):
        return [f"{path.parent.name}/{path.name}" for path in eventscape_sequences(split, tmp_path)]

    assert names("train") == [
        "Town01/sequence_2", "Town01/sequence_10", "Town02/sequence_1", "Town03/sequence_5",
    ]  # fmt: skip
    assert names("validation") == ["Town05/sequence_8", "Town05/sequence_300"]
    assert names("test") == ["Town05/sequence_7"]
    assert (len(EVENTSCAPE_VALIDATION), sum(EVENTSCAPE_VALIDATION)) == (100, 17326)
    (tmp_path / "Town05" / "sequence_7").rmdir()
    with pytest.raises(RecordingError, match="Town05 has no sequence of the split 'test'"):
        names("test")
