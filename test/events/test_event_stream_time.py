"""One camera's time that runs back or leaps, inside of packets and between them, and its clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dae_ros.events.packet import EventPacket, Events, Triggers
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
    evt3_run,
    mono_packet,
    packet_of,
)


def test_time_running_back_inside_a_packet_cuts_it() -> None:
    """Events before and after the break come as two parts in order; nothing is lost."""
    stream = EventStream()
    before, after = events_from(EPOCH), events_from(EPOCH - 5 * S)
    # One payload with one time base: offsets of `mono` are unsigned, so take the earlier one.
    payload = b"".join(
        int((t - (EPOCH - 5 * S)) | x << 32 | y << 48 | p << 63).to_bytes(8, "little")
        for events in (after, before)
        for t, x, y, p in zip(
            (events.t - S if events is before else events.t).tolist(),
            events.x.tolist(),
            events.y.tolist(),
            events.p.tolist(),
            strict=True,
        )
    )
    payload = payload[len(payload) // 2 :] + payload[: len(payload) // 2]
    parts = stream.feed(EventPacket("mono", HEIGHT, WIDTH, payload, EPOCH - 5 * S, EPOCH, 1))
    assert [part.gap and part.gap.cause for part in parts] == [None, "time_backward"]
    assert parts[1].gap is not None
    assert parts[1].gap.duration_ns == int(before.t[-1]) - S - (EPOCH - 5 * S)
    np.testing.assert_array_equal(parts[0].events.x, before.x)
    assert_same(parts[1], after)
    assert parts[0].newest_time_ns > parts[1].newest_time_ns
    stream.ring.push(parts[0].events)
    stream.ring.clear()
    stream.ring.push(parts[1].events)
    assert stream.counts()["gap_time_backward"] == 1


def test_each_part_brings_the_clock_of_its_own_time() -> None:
    """Where time breaks inside a packet, what lies before is still converted as before."""
    stream = EventStream()
    packets = evt3_run(3)
    for packet in packets[:2]:
        (part,) = stream.feed(packet)
    assert part.clock is stream.clock
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    later, _ = encoder.encode(events_from(S))
    broken = replace(packets[2], payload=bytes(packets[2].payload) + bytes(later))
    before, after = stream.feed(broken)
    start_ns = 3 * S + 8 * MS
    assert before.clock is part.clock
    assert before.clock.to_ros(start_ns) == EPOCH + 8 * MS
    assert before.clock.final_ns == start_ns
    assert after.clock is stream.clock
    # The stamp is that of the packet's beginning: the new clock goes on from the old one's end
    # until the next packet sets it.
    assert after.clock.to_ros(S) == before.clock.to_ros(before.newest_time_ns)
    assert after.clock.to_event(after.clock.to_ros(S + MS)) == S + MS
    assert after.clock.final_ns is None
    (part,) = stream.feed(packet_of(encoder, events_from(S + 4 * MS), 10, EPOCH + 14 * MS))
    assert part.clock is after.clock
    assert (part.clock.to_ros(S), part.clock.final_ns) == (EPOCH + 10 * MS, S + 4 * MS)


def _array(stamp_ns: int, *runs: Events) -> EventPacket:
    """Join runs of events in one array, which has no counter."""
    payload = b"".join(
        create_encoder("event_array_ros1", WIDTH, HEIGHT).encode(events)[0] for events in runs
    )
    return EventPacket("event_array_ros1", HEIGHT, WIDTH, payload, 0, stamp_ns, None, "cam")


@pytest.mark.parametrize("stamped_at_end", [False, True])
def test_a_clock_that_is_set_back_inside_an_array_is_one_gap(stamped_at_end: bool) -> None:
    """Stamps follow the events, and the one of the broken array belongs to one side only."""
    runs = [[events_from(EPOCH + k * 4 * MS)] for k in range(3)]
    runs.append([events_from(EPOCH + 12 * MS), events_from(EPOCH - 5 * S)])
    runs += [[events_from(EPOCH - 5 * S + k * 4 * MS)] for k in (1, 2)]
    stream = EventStream()
    causes = []
    for events in runs:
        stamp_ns = int(events[-1].t[-1] if stamped_at_end else events[0].t[0])
        for part in stream.feed(_array(stamp_ns, *events)):
            causes.append(part.gap and part.gap.cause)
    assert causes == [None, None, None, None, "time_backward", None, None]


def test_a_break_without_a_time_of_its_own_is_told_once() -> None:
    """Two breaks with nothing in between are one gap, and the next packet continues."""
    stream = EventStream()
    times = [[0x8064, 0x6000], [0x8032, 0x6000, 0x800A, 0x6000, 0x0001, 0x2001], [0x6001, 0x2002]]
    causes = []
    for seq, words in enumerate(times):
        payload = np.array(words, "<u2").tobytes()
        for part in stream.feed(EventPacket("evt3", HEIGHT, WIDTH, payload, seq=seq)):
            causes.append(part.gap and part.gap.cause)
    assert causes == [None, "time_backward", None]


def test_time_running_back_between_packets() -> None:
    """A packet that begins earlier by more than disorder allows starts with a gap."""
    stream = EventStream()
    stream.feed(mono_packet(events_from(EPOCH), 1))
    (part,) = stream.feed(mono_packet(events_from(EPOCH - S), 2))
    assert part.gap is not None
    assert part.gap.cause == "time_backward"
    assert_same(part, events_from(EPOCH - S))


def test_loss_and_backward_time_are_one_gap() -> None:
    """Where messages are missing and time ran back, one gap says both."""
    stream = EventStream()
    stream.feed(mono_packet(events_from(EPOCH), 1))
    (part,) = stream.feed(mono_packet(events_from(EPOCH - S), 5))
    assert part.gap is not None
    assert (part.gap.cause, part.gap.lost_packets) == ("time_backward", 3)
    assert stream.counts()["lost_packets"] == 3


def test_event_time_that_leaves_the_stamps_behind_is_a_jump() -> None:
    """A sensor clock that is set, or a pause longer than a sensor's counter, is a `time_jump`."""
    stream = EventStream()
    stream.feed(mono_packet(events_from(EPOCH), 1))
    (part,) = stream.feed(mono_packet(events_from(EPOCH + 40 * S), 2, EPOCH + 6 * MS))
    assert part.gap is not None
    assert part.gap.cause == "time_jump"
    assert part.gap.duration_ns == 40 * S - 4 * MS
    stream = EventStream()
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    stream.feed(packet_of(encoder, events_from(S), 1, EPOCH))
    (part,) = stream.feed(packet_of(encoder, events_from(S + 8 * MS), 2, EPOCH + 17 * S))
    assert part.gap is not None
    assert part.gap.cause == "time_jump"
    # the host's clock was set: event times that are absolute do not care
    stream = EventStream()
    stream.feed(mono_packet(events_from(EPOCH), 1))
    (part,) = stream.feed(mono_packet(events_from(EPOCH + 8 * MS), 2, EPOCH + 17 * S))
    assert part.gap is None


def test_silence_is_no_gap() -> None:
    """A scene without events for ten seconds continues, whatever the stamps are worth."""
    for stamps in ((EPOCH, EPOCH + 10 * S), (0, 0), (1_700_000_000, 1_700_000_010)):
        stream = EventStream()
        stream.feed(mono_packet(events_from(EPOCH), 1, stamps[0]))
        (part,) = stream.feed(mono_packet(events_from(EPOCH + 10 * S), 2, stamps[1]))
        assert part.gap is None


def test_triggers_arrive_on_their_side_of_a_break() -> None:
    """External triggers come out with their packet, and with the part that they belong to."""
    stream = EventStream()
    triggers = Triggers(
        np.array([S + MS, S + 3 * MS], np.int64),
        np.array([1, 0], np.uint8),
        np.array([2, 2], np.uint16),
    )
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    (part,) = stream.feed(packet_of(encoder, events_from(S), 1, EPOCH, triggers))
    np.testing.assert_array_equal(part.triggers.t, triggers.t)
    np.testing.assert_array_equal(part.triggers.edge, [1, 0])
    more = Triggers(np.array([S + 5 * MS]), np.ones(1, np.uint8), np.zeros(1, np.uint16))
    packet = packet_of(encoder, Events.empty(), 2, EPOCH + 4 * MS, more)
    words, _ = create_encoder("evt3", WIDTH, HEIGHT).encode(events_from(0), triggers.slice(0, 0))
    before, after = stream.feed(replace(packet, payload=bytes(packet.payload) + words))
    assert (before.triggers.t.tolist(), before.newest_time_ns) == ([S + 5 * MS], S + 5 * MS)
    assert (before.gap, len(before.events), len(after.triggers)) == (None, 0, 0)
    assert_same(after, events_from(0))
