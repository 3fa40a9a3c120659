"""One camera's stream over real decoders: healthy, lost, refused and changed packets, counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dae_ros.errors import PacketError, UnsupportedEncoding
from dae_ros.events.continuity import Continuity
from dae_ros.events.packet import EventPacket, Events
from dae_ros.events.stream import EventStream
from dae_ros.simulation.encoders import create_encoder
from test.reference.camera_packets import (
    EPOCH,
    HEIGHT,
    MS,
    WIDTH,
    S,
    assert_same,
    events_from,
    mono_packet,
    packet_of,
)


@pytest.mark.parametrize("encoding", ["evt3", "libcaer", "libcaer_cmp", "mono"])
def test_healthy_stream_has_one_part_per_packet(encoding: str) -> None:
    """Every event arrives in order, without a gap, dated by the newest event."""
    stream = EventStream()
    encoder = create_encoder(encoding, WIDTH, HEIGHT)
    base = 20 * S if encoding == "evt3" else EPOCH
    for k in range(20):
        events = events_from(base + k * 4 * MS)
        (part,) = stream.feed(packet_of(encoder, events, k + 5, EPOCH + k * 4 * MS + 3 * MS))
        assert part.gap is None
        assert part.events.t[0] % (2**24 * 1000) == events.t[0] % (2**24 * 1000)
        np.testing.assert_array_equal(np.diff(part.events.t), np.diff(events.t))
        np.testing.assert_array_equal(part.events.x, events.x)
        assert part.newest_time_ns == part.events.t[-1] == stream.newest_time_ns
        stream.ring.push(part.events)
    assert stream.ring.event_count == 800
    assert (stream.height, stream.width, stream.encoding) == (HEIGHT, WIDTH, encoding)
    assert {k: v for k, v in stream.counts().items() if v} == {}


def test_lost_messages_say_how_many_and_how_long() -> None:
    """A jump of the counter is a gap that keeps history, with the event time that is missing."""
    stream = EventStream()
    stream.feed(mono_packet(events_from(EPOCH), 1))
    newest = stream.newest_time_ns
    (part,) = stream.feed(mono_packet(events_from(EPOCH + 80 * MS), 21))
    assert part.gap is not None
    assert (part.gap.cause, part.gap.lost_packets, part.gap.breaks_time) == ("lost", 19, False)
    assert newest is not None
    assert part.gap.duration_ns == EPOCH + 80 * MS - newest
    assert stream.counts()["lost_packets"] == 19
    assert stream.counts()["gap_lost"] == 1


@pytest.mark.parametrize(("first", "second"), [(None, None), (0, 0), (1, 2), (1, 5)])
def test_messages_that_were_dropped_unread_are_a_gap(first: int | None, second: int | None) -> None:
    """Once, where no counter tells; a counter that does tells all."""
    stream = EventStream()
    packets = [
        replace(mono_packet(events_from(EPOCH + k * 80 * MS), 1), seq=None) for k in range(3)
    ]
    stream.feed(replace(packets[0], seq=first))
    stream.note_drop()
    (part,) = stream.feed(replace(packets[1], seq=second))
    lost = 0 if first != 1 else int(second or 0) - 2
    if (first, second) == (1, 2):
        assert part.gap is None
    else:
        assert part.gap is not None and part.gap.duration_ns is not None
        assert (part.gap.cause, part.gap.lost_packets) == ("lost", lost)
        assert 0 < part.gap.duration_ns < 80 * MS
    (part,) = stream.feed(replace(packets[2], seq=second and second + 1))
    assert part.gap is None
    assert stream.counts().get("lost_packets", 0) == lost


def test_lost_evt3_messages_forget_the_row() -> None:
    """After a gap evt3 events wait for a row address, so none lands in the wrong row."""
    stream = EventStream()
    words = np.array([0x8001, 0x6000, 0x0005, 0x2007], "<u2").tobytes()  # time, y = 5, x = 7
    more = np.array([0x6001, 0x2008], "<u2").tobytes()  # x = 8 in the row of before
    (part,) = stream.feed(EventPacket("evt3", HEIGHT, WIDTH, words, seq=1))
    assert (part.events.x[0], part.events.y[0]) == (7, 5)
    (part,) = stream.feed(EventPacket("evt3", HEIGHT, WIDTH, more, seq=2))
    assert (part.events.x[0], part.events.y[0]) == (8, 5)
    (part,) = stream.feed(EventPacket("evt3", HEIGHT, WIDTH, more, seq=9))
    assert len(part.events) == 0
    assert part.gap is not None
    assert part.gap.lost_packets == 6
    assert stream.counts()["before_sync"] == 1


def test_changes_of_size_and_encoding_make_a_new_decoder() -> None:
    """A new size or encoding is a gap; what the old decoder counted stays counted."""
    stream = EventStream()
    stream.feed(mono_packet(events_from(EPOCH), 1))
    payload = mono_packet(events_from(EPOCH + 5 * MS), 2).payload
    small = EventPacket("mono", 8, 8, payload, EPOCH + 5 * MS, 0, 2)
    (part,) = stream.feed(small)
    assert part.gap is not None
    assert part.gap.cause == "resolution"
    assert (stream.height, stream.width) == (8, 8)
    outside = 40 - len(part.events)
    assert outside > 0
    encoder = create_encoder("evt3", 8, 8)
    events = Events(
        np.array([S], np.int64),
        np.array([3], np.uint16),
        np.array([2], np.uint16),
        np.array([1], np.uint8),
    )
    (part,) = stream.feed(packet_of(encoder, events, 3, EPOCH))
    assert part.gap is not None
    assert part.gap.cause == "encoding"
    assert not stream.clock.absolute
    assert stream.clock.to_ros(int(part.events.t[0])) == EPOCH
    assert stream.counts()["out_of_bounds"] == outside


def test_refused_packets_are_counted_and_count_as_lost() -> None:
    """An unknown encoding raises, the stream goes on, and its place shows as one lost message."""
    stream = EventStream()
    stream.feed(mono_packet(events_from(EPOCH), 1))
    bad = EventPacket("evt9", HEIGHT, WIDTH, b"1234", 0, EPOCH, 2)
    with pytest.raises(UnsupportedEncoding):
        stream.feed(bad)
    (part,) = stream.feed(mono_packet(events_from(EPOCH + 8 * MS), 3))
    assert part.gap is not None
    assert (part.gap.cause, part.gap.lost_packets) == ("lost", 1)
    assert_same(part, events_from(EPOCH + 8 * MS))
    assert stream.counts()["unsupported_encoding"] == 1
    assert issubclass(UnsupportedEncoding, PacketError)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"encoding": "evt9", "payload": b"1234"}, "unsupported_encoding"),
        ({"encoding": "evt9", "height": 8, "width": 8}, "unsupported_encoding"),
        ({"height": 0}, "malformed_packet"),
        ({"width": 70_000}, "malformed_packet"),
        ({"encoding": "mono", "payload": bytes(8), "time_base_ns": 2**61}, "malformed_packet"),
    ],
)
@pytest.mark.parametrize("seq", [9, None])
def test_a_refused_packet_leaves_no_trace_in_a_good_stream(
    changes: dict[str, Any], code: str, seq: int | None
) -> None:
    """Neither encoding nor size changed: decoder, clock and history go on over the hole."""
    stream = EventStream()
    good = [events_from(3 * S + k * 4 * MS) for k in range(4)]
    for number, events in enumerate(good):
        # an encoder of its own, so that every packet begins with its row
        encoder = create_encoder("evt3", WIDTH, HEIGHT)
        packet = packet_of(encoder, events, number + 7 + (seq == 9 and number > 1), EPOCH)
        if number == 2:
            clock, ros_ns = stream.clock, stream.clock.to_ros(3 * S)
            with pytest.raises(PacketError) as caught:
                stream.feed(replace(packet, **changes, seq=seq))
            assert caught.value.code == code
        (part,) = stream.feed(packet)
        missing = number == 2 and seq == 9
        assert (part.gap and part.gap.cause) == ("lost" if missing else None)
        assert_same(part, events)
    assert stream.clock is clock
    assert clock.to_ros(3 * S) == ros_ns
    assert (stream.encoding, stream.height, stream.width) == ("evt3", HEIGHT, WIDTH)
    counts = {reason: number for reason, number in stream.counts().items() if number}
    lost = {"lost_packets": 1, "gap_lost": 1} if seq == 9 else {}
    assert counts == {code: 1} | lost


def test_time_words_without_events_move_time_on() -> None:
    """An evt3 packet of time words alone dates an empty part, so that windows can close."""
    stream = EventStream()
    stream.feed(EventPacket("evt3", HEIGHT, WIDTH, np.array([0x8001, 0x6000], "<u2").tobytes()))
    words = np.array([0x8002, 0x6001], "<u2").tobytes()
    (part,) = stream.feed(EventPacket("evt3", HEIGHT, WIDTH, words))
    assert len(part.events) == 0
    assert part.newest_time_ns == (2 * 4096 + 1) * 1000


def test_reset_forgets_the_past_and_keeps_the_counts() -> None:
    """After reset earlier times are welcome and no gap is reported."""
    stream = EventStream()
    stream.feed(mono_packet(events_from(EPOCH), 1))
    for part in stream.feed(mono_packet(events_from(EPOCH + 80 * MS), 21)):
        stream.ring.push(part.events)
    stream.reset()
    assert stream.ring.event_count == 0
    assert stream.clock.offset_ns is None
    (part,) = stream.feed(mono_packet(events_from(EPOCH - S), 3))
    assert part.gap is None
    assert stream.counts()["lost_packets"] == 19


def test_unaccepted_packets_do_not_move_continuity() -> None:
    """A packet is compared with the last accepted packet, however often it is asked."""
    continuity = Continuity()
    packet = EventPacket("mono", 4, 4, b"", seq=1)
    continuity.accept(packet)
    for _ in range(2):
        gap = continuity.check(EventPacket("mono", 4, 4, b"", seq=4))
        assert gap is not None
        assert gap.lost_packets == 2
    assert continuity.check(EventPacket("mono", 4, 5, b"", seq=2)).cause == "resolution"
