"""Real recordings through CDR reader, stream and clock, packet by packet."""

from __future__ import annotations

import numpy as np
import pytest

from dae_ros.events.cdr import read_packet, write_packet
from dae_ros.events.stream import EventStream
from test.reference.recordings import evt3_messages, libcaer_cmp_messages

pytestmark = pytest.mark.recordings

PACKET = "event_camera_msgs/msg/EventPacket"


def test_evt3_recording() -> None:
    """No gap in 517 messages; the clock settles so that no stamp lies 0.5 ms before its event."""
    stream = EventStream()
    messages = seen = on = 0
    ages_ms = []
    for message in evt3_messages():
        messages += 1
        packet = read_packet(PACKET, message)
        again = read_packet(PACKET, write_packet(packet))
        assert bytes(again.payload) == bytes(packet.payload)
        assert (again.seq, again.stamp_ns) == (packet.seq, packet.stamp_ns)
        for part in stream.feed(packet):
            assert part.gap is None
            seen += len(part.events)
            on += int(part.events.p.sum())
            stream.ring.push(part.events)
            if len(part.events):
                ros_ns = stream.clock.to_ros(int(part.events.t[0]))
                ages_ms.append((packet.stamp_ns - ros_ns) / 1e6)
    assert (messages, seen, on) == (517, 343_474, 125_183)
    assert (stream.height, stream.width, stream.encoding) == (480, 640, "evt3")
    assert stream.ring.event_count == seen  # two seconds fit into the ring
    assert not stream.clock.absolute
    settled = np.array(ages_ms[-200:])
    assert settled.min() > -0.5
    assert np.median(settled) < 3.0
    assert {reason for reason, number in stream.counts().items() if number} == {"skipped_word"}


def test_libcaer_cmp_recording() -> None:
    """No gap in 100 messages; times are absolute, and the stamps' lag is measured, not applied."""
    stream = EventStream()
    seen = 0
    for message in libcaer_cmp_messages():
        for part in stream.feed(read_packet(PACKET, message)):
            assert part.gap is None
            seen += len(part.events)
            assert stream.clock.to_ros(part.newest_time_ns) == part.newest_time_ns
    assert seen == 571_266
    assert not any(stream.counts().values())
    assert stream.clock.offset_ns is not None
    assert 5e6 < stream.clock.offset_ns < 20e6  # a packet of 10 ms, stamped when it arrived
