"""Real recordings give the counts and sums that their README states."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from dae_ros.bags.recording import open_recording
from dae_ros.errors import RecordingError
from dae_ros.events.codecs import create_decoder
from dae_ros.events.packet import Events

FOLDER = Path(
    os.environ.get(
        "DAE_ROS_RECORDINGS", Path(__file__).resolve().parents[2] / ".." / "shared" / "recordings"
    )
)

pytestmark = [
    pytest.mark.recordings,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recordings at {FOLDER}"),
]


def decode(name):
    """All events, the trigger times in us and the packets of a recording."""
    decoder, parts, trigger_us, packets = None, [], 0, []
    with open_recording(FOLDER / name) as recording:
        for packet in recording.event_packets():
            decoder = decoder or create_decoder(packet.encoding, packet.width, packet.height)
            found = decoder.decode_packet(packet.payload, packet.time_base_ns)
            parts += found.segments
            trigger_us += int((found.triggers.t // 1000).sum())
            packets.append(packet)
    return Events.concatenate(parts), trigger_us, packets


@pytest.mark.parametrize(
    "name",
    ["evt3_640x480", "evt3_640x480/test_events_1.db3", "evt3_640x480/ros1_test_events_1.bag"],
)
def test_the_evt3_recording_has_its_events(name):
    """Counts, first time and sum of times are those of the README, from each container."""
    events, trigger_us, packets = decode(name)
    assert len(packets) == 517
    assert {(p.encoding, p.height, p.width) for p in packets} == {("evt3", 480, 640)}
    assert len(events) == 343_474
    assert np.bincount(events.p).tolist() == [218_291, 125_183]
    assert int(events.t[0]) == 7_139_845_000
    assert int((events.t // 1000).sum()) + trigger_us == 2_885_601_049_874


def test_both_containers_of_the_evt3_recording_are_equal():
    """The sqlite3 file and the ROS 1 bag agree event for event and packet for packet."""
    first, _, packets = decode("evt3_640x480/test_events_1.db3")
    second, _, others = decode("evt3_640x480/ros1_test_events_1.bag")
    for name in ("t", "x", "y", "p"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for packet, other in zip(packets, others, strict=True):
        assert bytes(packet.payload) == bytes(other.payload)
        assert (packet.stamp_ns, packet.seq, packet.frame_id) == (
            other.stamp_ns,
            other.seq,
            other.frame_id,
        )


@pytest.mark.parametrize(
    "name", ["libcaer_cmp_davis346", "libcaer_cmp_davis346/test_events_2_0.mcap"]
)
def test_a_recording_with_broken_metadata_has_its_events(name):
    """Without a storage identifier and with an unreadable schema, counts and sums are right."""
    events, _, packets = decode(name)
    assert len(packets) == 100
    assert len(events) == 571_266
    assert np.bincount(events.p).tolist() == [360_223, 211_043]
    first_us = 1_744_227_144_732_712
    assert int(events.t[0]) == first_us * 1000
    assert int((events.t // 1000 - first_us).sum()) == 335_555_680_277


def test_the_aedat4_recording_has_its_events_and_frames():
    """Events and frames are those that the reader gives, frames at the middle of exposure."""
    aedat = pytest.importorskip("aedat")
    path = FOLDER / "davis346_lab" / "davis.aedat4"
    expected = [packet for packet in aedat.Decoder(path) if "events" in packet]
    pictures = [packet["frame"] for packet in aedat.Decoder(path) if "frame" in packet]
    events, _, packets = decode("davis346_lab/davis.aedat4")
    assert len(events) == 117_667
    assert {(p.encoding, p.height, p.width) for p in packets} == {("libcaer", 260, 346)}
    raw = np.concatenate([packet["events"] for packet in expected])
    np.testing.assert_array_equal(events.t, raw["t"].astype(np.int64) * 1000)
    for column, field in ((events.x, "x"), (events.y, "y"), (events.p, "on")):
        np.testing.assert_array_equal(column, raw[field])
    with open_recording(path) as recording:
        frames = list(recording.frames())
    assert len(frames) == len(pictures) == 3
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture["pixels"])
        assert frame.stamp_ns - frame.exposure_ns // 2 == picture["exposure_begin_t"] * 1000
        assert frame.stamp_ns + frame.exposure_ns // 2 == picture["exposure_end_t"] * 1000
    assert [b.stamp_ns - a.stamp_ns for a, b in itertools.pairwise(frames)] == [
        40_000_000,
        40_000_000,
    ]


def test_a_cut_aedat4_recording_delivers_what_lies_before_the_cut(tmp_path):
    """The packets before the cut come out, then an error says so."""
    pytest.importorskip("aedat")
    data = (FOLDER / "davis346_lab" / "davis.aedat4").read_bytes()
    (tmp_path / "cut.aedat4").write_bytes(data[: len(data) // 2])
    found = []
    with (
        open_recording(tmp_path / "cut.aedat4") as recording,
        pytest.raises(RecordingError, match="was cut or is damaged"),
    ):
        found.extend(recording.messages())
    assert 3 < len(found) < 18


def test_record_times_of_the_aedat4_recording_never_fall():
    """A frame is not recorded before the events in front of it, so a start at 0 loses none."""
    pytest.importorskip("aedat")
    with open_recording(FOLDER / "davis346_lab" / "davis.aedat4") as recording:
        messages = list(recording.messages())
        times_ns = [message.time_ns for message in messages]
        assert times_ns == sorted(times_ns)
        start_ns = recording.record_time_at(0.0, list(recording.topics))
        from_start = list(recording.messages(None, start_ns))
        assert [m.topic for m in from_start] == [m.topic for m in messages]
        frames = [message.time_ns for message in recording.messages(["/image_raw"])]
    assert frames == [m.time_ns for m in messages if m.topic == "/image_raw"]
    assert len(frames) == 3
