"""One camera's stream over real decoders: gaps, breaks, refused packets, clocks, counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dae_ros.errors import PacketError, UnsupportedEncoding
from dae_ros.events.cdr import read_packet, write_event_array
from dae_ros.events.continuity import Continuity
from dae_ros.events.packet import EventPacket, Events, Triggers
from dae_ros.events.stream import EventStream, StreamPart
from dae_ros.simulation.encoders import Encoder, create_encoder

MS = 1_000_000
S = 1_000_000_000
EPOCH = 1_700_000_000 * S
HEIGHT, WIDTH = 48, 64


def _events(start_ns: int, length_ns: int = 4 * MS, count: int = 40, seed: int = 0) -> Events:
    rng = np.random.default_rng([seed, start_ns % 2**32])
    t = start_ns + np.sort(rng.integers(0, length_ns // 1000, count)) * 1000
    t[0] = start_ns
    return Events(
        t,
        rng.integers(0, WIDTH, count).astype(np.uint16),
        rng.integers(0, HEIGHT, count).astype(np.uint16),
        rng.integers(0, 2, count).astype(np.uint8),
    )


def _packet(
    encoder: Encoder, events: Events, seq: int, stamp_ns: int, triggers: Triggers | None = None
) -> EventPacket:
    payload, base_ns = encoder.encode(events, triggers)
    return EventPacket(
        encoder.encoding, encoder.height, encoder.width, payload, base_ns, stamp_ns, seq, "cam"
    )


def _mono(events: Events, seq: int, stamp_ns: int | None = None) -> EventPacket:
    encoder = create_encoder("mono", WIDTH, HEIGHT)
    stamp_ns = int(events.t[0]) + 2 * MS if stamp_ns is None else stamp_ns
    return _packet(encoder, events, seq, stamp_ns)


def _same(part: StreamPart, events: Events) -> None:
    for name in "txyp":
        np.testing.assert_array_equal(getattr(part.events, name), getattr(events, name))


@pytest.mark.parametrize("encoding", ["evt3", "libcaer", "libcaer_cmp", "mono"])
def test_healthy_stream_has_one_part_per_packet(encoding: str) -> None:
    """Every event arrives in order, without a gap, dated by the newest event."""
    stream = EventStream()
    encoder = create_encoder(encoding, WIDTH, HEIGHT)
    base = 20 * S if encoding == "evt3" else EPOCH
    for k in range(20):
        events = _events(base + k * 4 * MS)
        (part,) = stream.feed(_packet(encoder, events, k + 5, EPOCH + k * 4 * MS + 3 * MS))
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
    stream.feed(_mono(_events(EPOCH), 1))
    newest = stream.newest_time_ns
    (part,) = stream.feed(_mono(_events(EPOCH + 80 * MS), 21))
    assert part.gap is not None
    assert (part.gap.cause, part.gap.lost_packets, part.gap.breaks_time) == ("lost", 19, False)
    assert newest is not None
    assert part.gap.duration_ns == EPOCH + 80 * MS - newest
    assert stream.counts()["lost_packets"] == 19
    assert stream.counts()["gap_lost"] == 1


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


@pytest.mark.parametrize("encoding", ["evt3", "mono"])
def test_looping_bag_restarts(encoding: str) -> None:
    """A counter that falls is one `restart`; the new events are whole and time begins anew."""
    stream = EventStream()
    for loop in range(2):
        encoder = create_encoder(encoding, WIDTH, HEIGHT)
        for k in range(3):
            events = _events((3 * S if encoding == "evt3" else EPOCH) + k * 4 * MS)
            stamp_ns = EPOCH + 50 * S * loop + k * 4 * MS
            (part,) = stream.feed(_packet(encoder, events, k, stamp_ns))
            if loop == 1 and k == 0:
                assert part.gap is not None
                assert part.gap.cause == "restart"
                assert part.gap.breaks_time
                stream.ring.clear()
            else:
                assert part.gap is None
            _same(part, events)
            if encoding == "evt3":  # the clock begins anew as well
                assert stream.clock.to_ros(int(events.t[0])) == stamp_ns
            stream.ring.push(part.events)
    assert stream.counts()["gap_restart"] == 1
    assert "gap_time_backward" not in stream.counts()


def _evt3_run(count: int) -> list[EventPacket]:
    """Packets of 4 ms from one camera, with seq from 7 on."""
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    return [
        _packet(encoder, _events(3 * S + k * 4 * MS), k + 7, EPOCH + k * 4 * MS)
        for k in range(count)
    ]


def _fed(order: str, packets: list[EventPacket]) -> tuple[list[str], list[StreamPart], EventStream]:
    """Feed packets by their letters (a the first); return which gave a part, and its gap."""
    stream = EventStream()
    log, parts = [], []
    for letter in order:
        for part in stream.feed(packets["abcdefgh".index(letter)]):
            log.append(letter + (f":{part.gap.cause}" if part.gap else ""))
            parts.append(part)
    return log, parts, stream


@pytest.mark.parametrize("order", ["aabbccdd", "aabcccd", "abcbdc", "abcdbdc"])
def test_a_repeated_packet_is_dropped_and_counted(order: str) -> None:
    """Two recordings of one camera, merged: each message counts once, and nothing restarts."""
    packets = _evt3_run(4)
    log, parts, stream = _fed(order, packets)
    clean_log, clean, clean_stream = _fed("abcd", packets)
    assert log == clean_log == ["a", "b", "c", "d"]
    for part, expected in zip(parts, clean, strict=True):
        _same(part, expected.events)
        assert part.newest_time_ns == expected.newest_time_ns
    counts = {reason: number for reason, number in stream.counts().items() if number}
    assert counts == {"duplicate_packets": len(order) - 4}
    assert stream.clock.to_ros(3 * S) == clean_stream.clock.to_ros(3 * S)


@pytest.mark.parametrize(("order", "heard"), [("acbd", "acd"), ("adbce", "ade"), ("acdbe", "acde")])
def test_a_packet_behind_its_successors_is_dropped_as_late(order: str, heard: str) -> None:
    """Its place is a `lost` gap already; that it comes after all breaks nothing a second time."""
    log, parts, stream = _fed(order, _evt3_run(5))
    assert [entry[0] for entry in log] == list(heard)
    assert [entry for entry in log if ":" in entry] == [heard[1] + ":lost"]
    counts = stream.counts()
    late = len(order) - len(heard)
    assert (counts["late_packets"], counts["lost_packets"], counts["gap_lost"]) == (late, late, 1)
    assert all((np.diff(part.events.t) >= 0).all() for part in parts)
    assert "gap_restart" not in counts


@pytest.mark.parametrize("order", ["abab", "abcabc", "abcdabcd", "acac", "aceace"])
def test_a_short_bag_that_loops_is_no_repetition(order: str) -> None:
    """A counter that falls to where the run began is a loop, even of two messages, stamps alike."""
    length = order.index("a", 1)
    log, _, stream = _fed(order, _evt3_run(5))
    assert [entry for entry in log if entry.endswith("restart")] == ["a:restart"]
    assert log.index("a:restart") == length
    assert stream.counts()["gap_restart"] == 1


@pytest.mark.parametrize(("seq", "stamp_ns"), [(0, EPOCH + S), (8, EPOCH + S), (9, EPOCH + S)])
def test_a_driver_that_restarts_is_heard_at_once(seq: int, stamp_ns: int) -> None:
    """A counter that falls with a stamp that goes on is a restart, by however little it falls."""
    stream = EventStream()
    a, _, c, *_ = _evt3_run(5)
    stream.feed(a)
    stream.feed(c)
    (part,) = stream.feed(_packet(create_encoder("evt3", WIDTH, HEIGHT), _events(S), seq, stamp_ns))
    assert part.gap is not None
    assert part.gap.cause == "restart"
    _same(part, _events(S))


def test_two_cameras_on_one_topic_are_no_repetition() -> None:
    """The same counter with another stamp, older or newer, is another message: it is heard."""
    for stamp_ns in (EPOCH - MS, EPOCH + MS):
        stream = EventStream()
        stream.feed(_mono(_events(EPOCH), 7, EPOCH))
        (part,) = stream.feed(_mono(_events(EPOCH, seed=1), 7, stamp_ns))
        assert part.gap is not None
        assert part.gap.cause == "restart"
        _same(part, _events(EPOCH, seed=1))


def test_time_running_back_inside_a_packet_cuts_it() -> None:
    """Events before and after the break come as two parts in order; nothing is lost."""
    stream = EventStream()
    before, after = _events(EPOCH), _events(EPOCH - 5 * S)
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
    _same(parts[1], after)
    assert parts[0].newest_time_ns > parts[1].newest_time_ns
    stream.ring.push(parts[0].events)
    stream.ring.clear()
    stream.ring.push(parts[1].events)
    assert stream.counts()["gap_time_backward"] == 1


def test_each_part_brings_the_clock_of_its_own_time() -> None:
    """Where time breaks inside a packet, what lies before is still converted as before."""
    stream = EventStream()
    packets = _evt3_run(3)
    for packet in packets[:2]:
        (part,) = stream.feed(packet)
    assert part.clock is stream.clock
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    later, _ = encoder.encode(_events(S))
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
    (part,) = stream.feed(_packet(encoder, _events(S + 4 * MS), 10, EPOCH + 14 * MS))
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
    runs = [[_events(EPOCH + k * 4 * MS)] for k in range(3)]
    runs.append([_events(EPOCH + 12 * MS), _events(EPOCH - 5 * S)])
    runs += [[_events(EPOCH - 5 * S + k * 4 * MS)] for k in (1, 2)]
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


def test_a_restart_whose_time_comes_in_pieces_loses_nothing() -> None:
    """TIME_HIGH, TIME_LOW and events in packets of their own: the decoder begins anew only once."""
    stream = EventStream()
    restart = [[0x8001], [0x6100, 0x0005, 0x2003], [0x6200, 0x2004]]
    found = []
    for seq, words in zip((500, 0, 1, 2), [[0x8400, 0x6000], *restart], strict=True):
        payload = np.array(words, "<u2").tobytes()
        for part in stream.feed(EventPacket("evt3", HEIGHT, WIDTH, payload, seq=seq)):
            found.append((part.gap and part.gap.cause, part.events.x.tolist()))
    assert found == [(None, []), ("restart", [3]), (None, [4])]
    assert "before_sync" not in {reason for reason, number in stream.counts().items() if number}


def test_time_running_back_between_packets() -> None:
    """A packet that begins earlier by more than disorder allows starts with a gap."""
    stream = EventStream()
    stream.feed(_mono(_events(EPOCH), 1))
    (part,) = stream.feed(_mono(_events(EPOCH - S), 2))
    assert part.gap is not None
    assert part.gap.cause == "time_backward"
    _same(part, _events(EPOCH - S))


def test_loss_and_backward_time_are_one_gap() -> None:
    """Where messages are missing and time ran back, one gap says both."""
    stream = EventStream()
    stream.feed(_mono(_events(EPOCH), 1))
    (part,) = stream.feed(_mono(_events(EPOCH - S), 5))
    assert part.gap is not None
    assert (part.gap.cause, part.gap.lost_packets) == ("time_backward", 3)
    assert stream.counts()["lost_packets"] == 3


def test_changes_of_size_and_encoding_make_a_new_decoder() -> None:
    """A new size or encoding is a gap; what the old decoder counted stays counted."""
    stream = EventStream()
    stream.feed(_mono(_events(EPOCH), 1))
    payload = _mono(_events(EPOCH + 5 * MS), 2).payload
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
    (part,) = stream.feed(_packet(encoder, events, 3, EPOCH))
    assert part.gap is not None
    assert part.gap.cause == "encoding"
    assert not stream.clock.absolute
    assert stream.clock.to_ros(int(part.events.t[0])) == EPOCH
    assert stream.counts()["out_of_bounds"] == outside


def test_refused_packets_are_counted_and_count_as_lost() -> None:
    """An unknown encoding raises, the stream goes on, and its place shows as one lost message."""
    stream = EventStream()
    stream.feed(_mono(_events(EPOCH), 1))
    bad = EventPacket("evt9", HEIGHT, WIDTH, b"1234", 0, EPOCH, 2)
    with pytest.raises(UnsupportedEncoding):
        stream.feed(bad)
    (part,) = stream.feed(_mono(_events(EPOCH + 8 * MS), 3))
    assert part.gap is not None
    assert (part.gap.cause, part.gap.lost_packets) == ("lost", 1)
    _same(part, _events(EPOCH + 8 * MS))
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
    good = [_events(3 * S + k * 4 * MS) for k in range(4)]
    for number, events in enumerate(good):
        # an encoder of its own, so that every packet begins with its row
        encoder = create_encoder("evt3", WIDTH, HEIGHT)
        packet = _packet(encoder, events, number + 7 + (seq == 9 and number > 1), EPOCH)
        if number == 2:
            clock, ros_ns = stream.clock, stream.clock.to_ros(3 * S)
            with pytest.raises(PacketError) as caught:
                stream.feed(replace(packet, **changes, seq=seq))
            assert caught.value.code == code
        (part,) = stream.feed(packet)
        missing = number == 2 and seq == 9
        assert (part.gap and part.gap.cause) == ("lost" if missing else None)
        _same(part, events)
    assert stream.clock is clock
    assert clock.to_ros(3 * S) == ros_ns
    assert (stream.encoding, stream.height, stream.width) == ("evt3", HEIGHT, WIDTH)
    counts = {reason: number for reason, number in stream.counts().items() if number}
    lost = {"lost_packets": 1, "gap_lost": 1} if seq == 9 else {}
    assert counts == {code: 1} | lost


def test_gap_of_an_undated_packet_waits_for_the_next() -> None:
    """A restart whose first packet holds neither events nor times is told with the next one."""
    stream = EventStream()
    stream.feed(_mono(_events(EPOCH), 50))
    assert stream.feed(EventPacket("mono", HEIGHT, WIDTH, b"", EPOCH, EPOCH, 1)) == []
    (part,) = stream.feed(_mono(_events(EPOCH + 8 * MS), 2))
    assert part.gap is not None
    assert part.gap.cause == "restart"
    assert stream.counts()["gap_restart"] == 1


def test_event_time_that_leaves_the_stamps_behind_is_a_jump() -> None:
    """A sensor clock that is set, or a pause longer than a sensor's counter, is a `time_jump`."""
    stream = EventStream()
    stream.feed(_mono(_events(EPOCH), 1))
    (part,) = stream.feed(_mono(_events(EPOCH + 40 * S), 2, EPOCH + 6 * MS))
    assert part.gap is not None
    assert part.gap.cause == "time_jump"
    assert part.gap.duration_ns == 40 * S - 4 * MS
    stream = EventStream()
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    stream.feed(_packet(encoder, _events(S), 1, EPOCH))
    (part,) = stream.feed(_packet(encoder, _events(S + 8 * MS), 2, EPOCH + 17 * S))
    assert part.gap is not None
    assert part.gap.cause == "time_jump"
    # the host's clock was set: event times that are absolute do not care
    stream = EventStream()
    stream.feed(_mono(_events(EPOCH), 1))
    (part,) = stream.feed(_mono(_events(EPOCH + 8 * MS), 2, EPOCH + 17 * S))
    assert part.gap is None


def test_silence_is_no_gap() -> None:
    """A scene without events for ten seconds continues, whatever the stamps are worth."""
    for stamps in ((EPOCH, EPOCH + 10 * S), (0, 0), (1_700_000_000, 1_700_000_010)):
        stream = EventStream()
        stream.feed(_mono(_events(EPOCH), 1, stamps[0]))
        (part,) = stream.feed(_mono(_events(EPOCH + 10 * S), 2, stamps[1]))
        assert part.gap is None


def test_counters_that_nobody_fills_are_no_restart() -> None:
    """A seq of 0 throughout, or none at all, is not taken for a restart."""
    stream = EventStream()
    for k in range(3):
        (part,) = stream.feed(_mono(_events(EPOCH + k * 4 * MS), 0))
        assert part.gap is None
    stream = EventStream()
    for k in range(3):
        events = _events(EPOCH + k * 4 * MS)
        data = write_event_array(events, HEIGHT, WIDTH, EPOCH, "cam")
        (part,) = stream.feed(read_packet("dvs_msgs/msg/EventArray", data))
        assert part.gap is None
        _same(part, events)


def test_time_words_without_events_move_time_on() -> None:
    """An evt3 packet of time words alone dates an empty part, so that windows can close."""
    stream = EventStream()
    stream.feed(EventPacket("evt3", HEIGHT, WIDTH, np.array([0x8001, 0x6000], "<u2").tobytes()))
    words = np.array([0x8002, 0x6001], "<u2").tobytes()
    (part,) = stream.feed(EventPacket("evt3", HEIGHT, WIDTH, words))
    assert len(part.events) == 0
    assert part.newest_time_ns == (2 * 4096 + 1) * 1000


def test_triggers_arrive_on_their_side_of_a_break() -> None:
    """External triggers come out with their packet, and with the part that they belong to."""
    stream = EventStream()
    triggers = Triggers(
        np.array([S + MS, S + 3 * MS], np.int64),
        np.array([1, 0], np.uint8),
        np.array([2, 2], np.uint16),
    )
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    (part,) = stream.feed(_packet(encoder, _events(S), 1, EPOCH, triggers))
    np.testing.assert_array_equal(part.triggers.t, triggers.t)
    np.testing.assert_array_equal(part.triggers.edge, [1, 0])
    more = Triggers(np.array([S + 5 * MS]), np.ones(1, np.uint8), np.zeros(1, np.uint16))
    packet = _packet(encoder, Events.empty(), 2, EPOCH + 4 * MS, more)
    words, _ = create_encoder("evt3", WIDTH, HEIGHT).encode(_events(0), triggers.slice(0, 0))
    before, after = stream.feed(replace(packet, payload=bytes(packet.payload) + words))
    assert (before.triggers.t.tolist(), before.newest_time_ns) == ([S + 5 * MS], S + 5 * MS)
    assert (before.gap, len(before.events), len(after.triggers)) == (None, 0, 0)
    _same(after, _events(0))


def test_reset_forgets_the_past_and_keeps_the_counts() -> None:
    """After reset earlier times are welcome and no gap is reported."""
    stream = EventStream()
    stream.feed(_mono(_events(EPOCH), 1))
    for part in stream.feed(_mono(_events(EPOCH + 80 * MS), 21)):
        stream.ring.push(part.events)
    stream.reset()
    assert stream.ring.event_count == 0
    assert stream.clock.offset_ns is None
    (part,) = stream.feed(_mono(_events(EPOCH - S), 3))
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
