"""One camera's packets that come twice, late or from the beginning: dropped, or a restart."""

from __future__ import annotations

import numpy as np
import pytest

from dae_ros.events.cdr import read_packet, write_event_array
from dae_ros.events.packet import EventPacket
from dae_ros.events.stream import EventStream, StreamPart
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


@pytest.mark.parametrize("encoding", ["evt3", "mono"])
def test_looping_bag_restarts(encoding: str) -> None:
    """A counter that falls is one `restart`; the new events are whole and time begins anew."""
    stream = EventStream()
    for loop in range(2):
        encoder = create_encoder(encoding, WIDTH, HEIGHT)
        for k in range(3):
            events = events_from((3 * S if encoding == "evt3" else EPOCH) + k * 4 * MS)
            stamp_ns = EPOCH + 50 * S * loop + k * 4 * MS
            (part,) = stream.feed(packet_of(encoder, events, k, stamp_ns))
            if loop == 1 and k == 0:
                assert part.gap is not None
                assert part.gap.cause == "restart"
                assert part.gap.breaks_time
                stream.ring.clear()
            else:
                assert part.gap is None
            assert_same(part, events)
            if encoding == "evt3":  # the clock begins anew as well
                assert stream.clock.to_ros(int(events.t[0])) == stamp_ns
            stream.ring.push(part.events)
    assert stream.counts()["gap_restart"] == 1
    assert "gap_time_backward" not in stream.counts()


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
    packets = evt3_run(4)
    log, parts, stream = _fed(order, packets)
    clean_log, clean, clean_stream = _fed("abcd", packets)
    assert log == clean_log == ["a", "b", "c", "d"]
    for part, expected in zip(parts, clean, strict=True):
        assert_same(part, expected.events)
        assert part.newest_time_ns == expected.newest_time_ns
    counts = {reason: number for reason, number in stream.counts().items() if number}
    assert counts == {"duplicate_packets": len(order) - 4}
    assert stream.clock.to_ros(3 * S) == clean_stream.clock.to_ros(3 * S)


@pytest.mark.parametrize(("order", "heard"), [("acbd", "acd"), ("adbce", "ade"), ("acdbe", "acde")])
def test_a_packet_behind_its_successors_is_dropped_as_late(order: str, heard: str) -> None:
    """Its place is a `lost` gap already; that it comes after all breaks nothing a second time."""
    log, parts, stream = _fed(order, evt3_run(5))
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
    log, _, stream = _fed(order, evt3_run(5))
    assert [entry for entry in log if entry.endswith("restart")] == ["a:restart"]
    assert log.index("a:restart") == length
    assert stream.counts()["gap_restart"] == 1


@pytest.mark.parametrize(("seq", "stamp_ns"), [(0, EPOCH + S), (8, EPOCH + S), (9, EPOCH + S)])
def test_a_driver_that_restarts_is_heard_at_once(seq: int, stamp_ns: int) -> None:
    """A counter that falls with a stamp that goes on is a restart, by however little it falls."""
    stream = EventStream()
    a, _, c, *_ = evt3_run(5)
    stream.feed(a)
    stream.feed(c)
    (part,) = stream.feed(
        packet_of(create_encoder("evt3", WIDTH, HEIGHT), events_from(S), seq, stamp_ns)
    )
    assert part.gap is not None
    assert part.gap.cause == "restart"
    assert_same(part, events_from(S))


def test_two_cameras_on_one_topic_are_no_repetition() -> None:
    """The same counter with another stamp, older or newer, is another message: it is heard."""
    for stamp_ns in (EPOCH - MS, EPOCH + MS):
        stream = EventStream()
        stream.feed(mono_packet(events_from(EPOCH), 7, EPOCH))
        (part,) = stream.feed(mono_packet(events_from(EPOCH, seed=1), 7, stamp_ns))
        assert part.gap is not None
        assert part.gap.cause == "restart"
        assert_same(part, events_from(EPOCH, seed=1))


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


def test_gap_of_an_undated_packet_waits_for_the_next() -> None:
    """A restart whose first packet holds neither events nor times is told with the next one."""
    stream = EventStream()
    stream.feed(mono_packet(events_from(EPOCH), 50))
    assert stream.feed(EventPacket("mono", HEIGHT, WIDTH, b"", EPOCH, EPOCH, 1)) == []
    (part,) = stream.feed(mono_packet(events_from(EPOCH + 8 * MS), 2))
    assert part.gap is not None
    assert part.gap.cause == "restart"
    assert stream.counts()["gap_restart"] == 1


def test_counters_that_nobody_fills_are_no_restart() -> None:
    """A seq of 0 throughout, or none at all, is not taken for a restart."""
    stream = EventStream()
    for k in range(3):
        (part,) = stream.feed(mono_packet(events_from(EPOCH + k * 4 * MS), 0))
        assert part.gap is None
    stream = EventStream()
    for k in range(3):
        events = events_from(EPOCH + k * 4 * MS)
        data = write_event_array(events, HEIGHT, WIDTH, EPOCH, "cam")
        (part,) = stream.feed(read_packet("dvs_msgs/msg/EventArray", data))
        assert part.gap is None
        assert_same(part, events)
