"""EventScape's sequence folders: events, frames and depth of CARLA."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest

from dae_ros.bags.labelled import open_labelled
from dae_ros.bags.messages import read_depth
from dae_ros.bags.recording import open_recording
from dae_ros.errors import RecordingError
from test.reference.dataset_layouts import mono_rows, until_error, write_eventscape

SIZE = (24, 40)
EVENTS = "/carla/events"
FILE = "01_012_0003_events.npz"


@pytest.fixture
def sequence(tmp_path):
    """A sequence of a small sensor and what is in it."""
    return write_eventscape(tmp_path / "Town01" / "sequence_12")


def test_events_frames_and_depth_come_out_as_written(sequence):
    """Files are joined in order, an unsorted one is sorted by time, an empty one is passed over."""
    with open_recording(sequence.path, SIZE) as recording:
        assert mono_rows(recording.event_packets()) == sequence.events
        frames = list(recording.frames())
        depths = [read_depth(m.data) for m in recording.messages(["/carla/depth_truth"])]
        times = [message.time_ns for message in recording.messages()]
        assert times == sorted(times)
        assert (recording.start_ns, recording.end_ns) == (times[0], times[-1])
    for frame, (stamp_ns, picture) in zip(frames, sequence.frames, strict=True):
        assert frame.stamp_ns == stamp_ns
        np.testing.assert_array_equal(frame.image, picture)
    for depth, (stamp_ns, expected) in zip(depths, sequence.depths, strict=True):
        assert depth.stamp_ns == stamp_ns
        np.testing.assert_array_equal(depth.depth, expected)


def test_events_that_lie_in_the_next_file_are_put_in_order(sequence):
    """A sequence is sorted, not only each file: times stay, and no break in time is seen."""
    folder = sequence.path / "events" / "data"
    ahead, behind = (folder / f"01_012_{k:04d}_events.npz" for k in (6, 7))
    with np.load(ahead) as first, np.load(behind) as second:
        # The newest events of a file, up to 20 ms before its end, and half of those in the next.
        late = first["t"] >= 8_000_000 + 40_000 * 7 - 20_000
        late[np.flatnonzero(late)[::2]] = False
        kept = {name: first[name][~late] for name in "xytp"}
        more = {name: np.concatenate([second[name], first[name][late]]) for name in "xytp"}
    np.savez(ahead, **kept)
    np.savez(behind, **more)
    with open_recording(sequence.path, SIZE) as recording:
        found = mono_rows(recording.event_packets())
    assert sorted(found) == sorted(sequence.events)
    assert [row[0] for row in found] == sorted(row[0] for row in found)
    with open_labelled(sequence.path, size=SIZE) as windows:
        restarts = [window.restarts for window in windows]
    assert restarts == [True] + [False] * 8


@pytest.mark.parametrize("after_ms", [0, 101, 390])
def test_a_start_time_gives_the_same_messages_from_there_on(sequence, after_ms):
    """Starting later yields exactly the messages of the whole sequence from there on."""
    with open_recording(sequence.path, SIZE) as recording:
        start_ns = recording.start_ns + after_ms * 1_000_000
        whole = [(m.topic, m.time_ns) for m in recording.messages() if m.time_ns >= start_ns]
        assert [(m.topic, m.time_ns) for m in recording.messages(None, start_ns)] == whole


def test_the_published_size_is_the_default(sequence):
    """Without a size the sensor has 512x256 px, and smaller depth maps are refused by name."""
    with (
        open_recording(sequence.path) as recording,
        pytest.raises(RecordingError, match=r"01_012_0000_\w+\.\w+ has 40x24 px, .* 512x256"),
    ):
        list(recording.messages(["/carla/depth_truth"]))


def test_only_the_events_are_needed(sequence):
    """Folders that were not unpacked are no topics."""
    shutil.rmtree(sequence.path / "rgb")
    shutil.rmtree(sequence.path / "depth")
    with open_recording(sequence.path, SIZE) as recording:
        assert list(recording.topics) == [EVENTS]


def _save(**arrays):
    def damage(path):
        good = {name: np.zeros(2, np.int64) for name in "xytp"}
        good["t"] = np.full(2, 8_140_000)
        np.savez(path, **{**good, **arrays})

    return damage


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.write_bytes(b""), "no readable arrays"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "no readable arrays"),
        (lambda path: np.savez(path, x=np.zeros(2)), "no readable arrays x, y, t and p"),
        (_save(x=np.zeros(3)), "not of one length"),
        (_save(t=np.full(2, 8.14)), "float64, not whole microseconds"),
        (_save(t=np.full(2, 8_140_000_000)), "lie 8131.840 s from their time stamp"),
        (_save(y=np.full(2, 24)), "outside the sensor of 40x24"),
        (_save(p=np.full(2, 2)), "polarity"),
    ],
)
def test_a_damaged_file_of_events_is_named(sequence, damage, problem):
    """Whatever a file of events holds instead, the error names it and the rest was read."""
    damage(sequence.path / "events" / "data" / FILE)
    with open_recording(sequence.path, SIZE) as recording:
        packets, error = until_error(recording.event_packets())
    assert isinstance(error, RecordingError)
    assert FILE in str(error)
    assert problem in str(error)
    assert mono_rows(packets) == [event for event in sequence.events if event[0] < 8_120_000_000]


def test_negative_polarity_is_darker(sequence):
    """A file with -1 and 1 gives the events of one with 0 and 1."""
    path = sequence.path / "events" / "data" / FILE
    arrays = dict(np.load(path))
    arrays["p"] = np.where(arrays["p"] == 1, 1, -1).astype(np.int8)
    np.savez(path, **arrays)
    with open_recording(sequence.path, SIZE) as recording:
        assert mono_rows(recording.event_packets()) == sequence.events


def test_a_damaged_map_costs_no_other_topic(sequence):
    """Events and frames are read to their end although a depth map in between is damaged."""
    (sequence.path / "depth" / "data" / "01_012_0004_depth.npy").write_bytes(b"\x93NUMPY?")
    with open_recording(sequence.path, SIZE) as recording:
        read, error = until_error(recording.messages())
        counts = Counter(message.topic for message in read)
        packets = sum(1 for _ in recording.event_packets())
    assert counts == {EVENTS: packets, "/carla/image_raw": 10, "/carla/depth_truth": 4}
    assert isinstance(error, RecordingError)
    assert "01_012_0004_depth.npy is missing or damaged" in str(error)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.zeros((24, 40, 1)), "array of 2 dimensions"),
        (np.array([[b"1"]]), "real numbers"),
        (np.array([[None]]), "missing or damaged"),
    ],
)
def test_an_array_that_is_no_depth_map_is_refused(sequence, values, problem):
    """Extra axes, text and pickled objects are no depth; nothing is unpickled."""
    np.save(sequence.path / "depth" / "data" / "01_012_0000_depth.npy", values)
    with open_recording(sequence.path, SIZE) as recording:
        read, error = until_error(recording.messages(["/carla/depth_truth"]))
    assert read == []
    assert problem in str(error)


def test_events_just_after_their_stamp_are_found_from_there_on(sequence):
    """A start between a stamp and the last event of its file still gives that event."""
    path = sequence.path / "events" / "data" / FILE
    arrays = dict(np.load(path))
    stamp_us = 8_160_000
    arrays["t"][-1] = stamp_us + 300
    np.savez(path, **arrays)
    with open_recording(sequence.path, SIZE) as recording:
        start_ns = (stamp_us + 200) * 1000
        first = next(recording.event_packets(start_ns=start_ns))
    assert (stamp_us + 300) * 1000 in [row[0] for row in mono_rows([first])]
