"""Prophesee raw files: header forms, and words cut into packets without loss."""

from __future__ import annotations

import numpy as np
import pytest

from dae_ros.bags import prophesee_raw
from dae_ros.bags.recording import open_recording
from dae_ros.errors import RecordingError
from dae_ros.events.codecs import create_decoder
from dae_ros.events.packet import Events
from dae_ros.events.stream import EventStream
from dae_ros.simulation.encoders import create_encoder

HEADER = "% Date 2024-01-02 03:04:05\n% integrator_name Prophesee\n"


def some_events(count=3000):
    """Sorted events of a 640x480 sensor over 0.3 s."""
    random = np.random.default_rng(3)
    return Events(
        np.sort(random.integers(0, 300_000, count)) * 1000,
        random.integers(0, 640, count).astype(np.uint16),
        random.integers(0, 480, count).astype(np.uint16),
        random.integers(0, 2, count).astype(np.uint8),
    )


def columns(packets):
    """All events of packets as four arrays."""
    decoder, parts = None, []
    for packet in packets:
        decoder = decoder or create_decoder(packet.encoding, packet.width, packet.height)
        parts += decoder.decode_packet(packet.payload, packet.time_base_ns).segments
    joined = Events.concatenate(parts)
    return joined.t, joined.x, joined.y, joined.p


@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("evt3", "% format EVT3;height=480;width=640\n% end\n"),
        ("evt3", "% evt 3.0\n% geometry 640x480\n"),
        ("evt2", "% evt 2.0\n% geometry 640x480\n% end\n"),
        ("evt2.1", "% format EVT21;height=480;width=640;endianness=little\n% end\n"),
        ("evt3", "% evt 3.0\n% plugin_name hal_plugin_gen31_fx3\n% end\n"),
    ],
)
@pytest.mark.parametrize("packet_bytes", [64, 1000, 64 * 1024])
def test_words_are_delivered_whatever_the_header_and_the_cuts(
    tmp_path, monkeypatch, encoding, line, packet_bytes
):
    """Every event comes out for each form of header and any packet size."""
    monkeypatch.setattr(prophesee_raw, "PACKET_BYTES", packet_bytes)
    events = some_events()
    payload, _ = create_encoder(encoding, 640, 480).encode(events)
    (tmp_path / "a.raw").write_bytes((HEADER + line).encode() + payload)
    with open_recording(tmp_path / "a.raw") as recording:
        packets = list(recording.event_packets())
        count = recording.topics["/events"].count
        times = [message.time_ns for message in recording.messages()]
    assert len(packets) == count == -(-len(payload) // packet_bytes)
    assert {(p.encoding, p.height, p.width) for p in packets} == {(encoding, 480, 640)}
    assert [p.seq for p in packets] == list(range(count))
    # Recorded at the sensor's time at the end of the packet, stamped at its first event.
    assert times == sorted(times)
    assert all(p.stamp_ns <= time_ns for p, time_ns in zip(packets, times, strict=True))
    decoder = create_decoder(encoding, 640, 480)
    for packet, time_ns in zip(packets, times, strict=True):
        found = [part for part in decoder.decode_packet(packet.payload).segments if len(part)]
        assert packet.stamp_ns == (int(found[0].t[0]) if found else time_ns)
    assert times[-1] >= int(events.t[-1]) - 4096_000
    decoder = create_decoder(encoding, 640, 480)
    expected = decoder.decode(payload)
    np.testing.assert_array_equal(
        np.stack([c.astype(np.int64) for c in columns(packets)]),
        np.stack([c.astype(np.int64) for c in (expected.t, expected.x, expected.y, expected.p)]),
    )
    assert len(expected) == len(events)


def test_a_size_may_be_given_where_the_header_lacks_it(tmp_path):
    """Without a geometry the error names the option, and with the option the file is read."""
    payload, _ = create_encoder("evt3", 640, 480).encode(some_events(50))
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 3.0\n% end\n" + payload)
    with pytest.raises(RecordingError, match=r"convert with .*--size 1280x720 .*replay_node plays"):
        open_recording(path)
    with open_recording(path, (480, 640)) as recording:
        assert len(columns(recording.event_packets())[0]) == 50


@pytest.mark.parametrize("option", ["height=abc", "height=", "height=-480", "height=0"])
def test_a_size_that_is_no_number_is_named(tmp_path, option):
    """A header with a damaged size names itself; with the size given the file is read."""
    payload, _ = create_encoder("evt3", 640, 480).encode(some_events(50))
    path = tmp_path / "a.raw"
    path.write_bytes(f"% format EVT3;{option};width=640\n% end\n".encode() + payload)
    with pytest.raises(RecordingError, match=rf"a\.raw .*'{option[7:]}'.* --size 1280x720"):
        open_recording(path)
    with open_recording(path, (480, 640)) as recording:
        assert len(columns(recording.event_packets())[0]) == 50


def test_formats_without_a_decoder_are_refused(tmp_path):
    """EVT4 and the swapped EVT2.1 are named in the error instead of being decoded as noise."""
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 4.0\n% geometry 640x480\n% end\n")
    with pytest.raises(RecordingError, match=r"format '4\.0'"):
        open_recording(path)
    path.write_bytes(b"% format EVT21;height=480;width=640;endianness=legacy\n% end\n")
    with pytest.raises(RecordingError, match="'legacy'"):
        open_recording(path)


def test_words_that_look_like_a_header_line_are_words(tmp_path):
    """Behind `% end` a word that begins with the byte of '%' is not taken for a header line."""
    payload, _ = create_encoder("evt3", 640, 480).encode(some_events(50))
    # TIME_HIGH 0x025 and TIME_LOW 0x00a: as text, "%", something and a line feed.
    words = b"%\x80\x0a\x60" + payload
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 3.0\n% geometry 640x480\n% end\n" + words)
    with open_recording(path) as recording:
        assert b"".join(bytes(p.payload) for p in recording.event_packets()) == words


def test_an_odd_last_byte_costs_nothing(tmp_path):
    """A file that was cut inside a word gives every whole word."""
    payload, _ = create_encoder("evt3", 640, 480).encode(some_events(50))
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 3.0\n% geometry 640x480\n% end\n" + payload + b"\x01")
    with open_recording(path) as recording:
        assert len(columns(recording.event_packets())[0]) == 50


def test_ros_time_is_sensor_time_at_any_event_rate(tmp_path):
    """Packets of 1 ms and of 20 s in one file: no gap is found, and stamps equal event times."""
    rng = np.random.default_rng(7)
    steps_us = np.repeat(rng.integers(1, 4, 12), 12_000) * np.repeat([1, 300] * 6, 12_000)
    t = 1_000_000_000 + np.cumsum(steps_us).astype(np.int64) * 1000
    events = Events(
        t,
        rng.integers(0, 640, len(t)).astype(np.uint16),
        rng.integers(0, 480, len(t)).astype(np.uint16),
        rng.integers(0, 2, len(t)).astype(np.uint8),
    )
    payload, _ = create_encoder("evt3", 640, 480).encode(events)
    header = "% format EVT3;height=480;width=640\n% end\n"
    (tmp_path / "a.raw").write_bytes((HEADER + header).encode() + payload)
    stream = EventStream()
    with open_recording(tmp_path / "a.raw") as recording:
        for packet in recording.event_packets():
            for part in stream.feed(packet):
                assert part.gap is None
                last_ns = int(part.events.t[-1])
                assert part.clock.to_ros(last_ns) == last_ns
    assert stream.counts()["lost_packets"] == 0


def test_a_clock_that_begins_anew_inside_a_packet_is_one_gap(tmp_path):
    """ROS time stays sensor time on both sides of it."""
    words = b""
    for start_ms in (5_000, 0):
        t = np.arange(start_ms, start_ms + 1000, dtype=np.int64) * 1_000_000
        zeros = np.zeros(len(t), np.uint16)
        events = Events(t, zeros, zeros, zeros.astype(np.uint8))
        words += create_encoder("evt3", 640, 480).encode(events)[0]
    (tmp_path / "a.raw").write_bytes(b"% evt 3.0\n% geometry 640x480\n% end\n" + words)
    stream, gaps = EventStream(), []
    with open_recording(tmp_path / "a.raw") as recording:
        for packet in recording.event_packets():
            for part in stream.feed(packet):
                gaps.append(part.gap and part.gap.cause)
                assert part.clock.to_ros(int(part.events.t[-1])) == part.events.t[-1]
    assert [cause for cause in gaps if cause] == ["time_backward"]
