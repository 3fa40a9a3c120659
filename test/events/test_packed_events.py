"""Packed events against their columns, before and after they were let go."""

from __future__ import annotations

import copy
import pickle
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.events.codecs import create_decoder
from dae_ros.events.packed import PackedEvents
from dae_ros.events.packet import DecodedPacket, Events, Payload
from dae_ros.events.ring_buffer import PACKET_BYTES, EventRing

HIGH, LOW, ROW, COLUMN, VECTOR_BASE, VECTOR_12, TRIGGER = 8, 6, 0, 2, 3, 4, 10


def _words(*words: tuple[int, int]) -> bytes:
    return struct.pack(f"<{len(words)}H", *(code << 12 | value for code, value in words))


def _stream(rng: np.random.Generator, size: int) -> bytes:
    """Words with small steps back, breaks, wraps, vectors, triggers and events outside."""
    codes = rng.choice([HIGH, LOW, ROW, COLUMN, VECTOR_BASE, VECTOR_12, TRIGGER, 1, 15], size,
                       p=[0.03, 0.2, 0.2, 0.4, 0.03, 0.1, 0.02, 0.01, 0.01])  # fmt: skip
    values = rng.integers(0, 4096, size)
    values[codes == ROW] %= 500
    values[codes == HIGH] = np.cumsum(rng.integers(-3, 6, size))[codes == HIGH] % 4096
    return bytes((codes << 12 | values).astype("<u2").tobytes())


def _columns(events: Events) -> list[list[int]]:
    return [events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist()]


def _packed(packet: DecodedPacket) -> list[PackedEvents]:
    found = [part for part in packet.segments if isinstance(part, PackedEvents)]
    assert len(found) == len(packet.segments)
    return found


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_what_was_let_go_comes_back_to_the_bit(seed: int) -> None:
    """Each segment of each packet, and any slice of it, has its columns again from the packet."""
    rng = np.random.default_rng(seed)
    decoder = create_decoder("evt3", 1500, 480)
    segments, expected = [], []
    for _ in range(4):
        packet = decoder.decode_packet(_stream(rng, int(rng.integers(1, 300))))
        segments += _packed(packet)
        expected += [_columns(part) for part in packet.segments]
    cuts = [sorted(rng.integers(0, len(part) + 1, 2).tolist()) for part in segments]
    slices = [part.slice(*cut) for part, cut in zip(segments, cuts, strict=True)]
    for part in (*segments, *slices):
        held = part.byte_count
        freed = part.let_go()
        assert freed in (0, 8 * len(part)) and part.byte_count == held - freed
        assert part.let_go() == 0
    for part, columns, cut, piece in zip(segments, expected, cuts, slices, strict=True):
        assert _columns(part) == columns
        assert _columns(piece) == [column[slice(*cut)] for column in columns]
        assert _columns(part.slice(*cut)) == _columns(piece)
        if len(part):
            assert (part.first_ns, part.last_ns) == (columns[0][0], columns[0][-1])
            index = int(rng.integers(0, len(part)))
            assert part.time_of(index) == columns[0][index]
            asked_ns = int(rng.integers(columns[0][0] - 2000, columns[0][-1] + 1))
            first = next(k for k, t in enumerate(columns[0]) if t >= asked_ns)
            assert part.first_at(asked_ns) == (first, columns[0][first])


@pytest.mark.parametrize("kind", ["bytearray", "array", "view of changing octets", "small part"])
def test_octets_that_may_change_or_are_a_small_part_are_not_kept(kind: str) -> None:
    """Such a payload may be overwritten afterwards: the events stay, and nothing is let go."""
    octets = _words((HIGH, 1), (LOW, 0), (ROW, 7), (COLUMN, 3), (LOW, 9), (COLUMN, 4))
    changing = bytearray(octets)
    payload: Payload = changing
    if kind == "array":
        payload = np.frombuffer(changing, np.uint8)
    elif kind == "view of changing octets":
        payload = memoryview(changing).toreadonly()
    elif kind == "small part":
        payload = memoryview(octets + bytes(1000))[: len(octets)]
    (events,) = _packed(create_decoder("evt3", 640, 480).decode_packet(payload))
    changing[:] = bytes(len(changing))
    assert events.let_go() == 0
    assert _columns(events) == [[4_096_000, 4_105_000], [3, 4], [7, 7], [0, 0]]


def test_times_that_no_origin_spans_are_kept_as_columns() -> None:
    """A packet whose words wrap 70,000 times, 13 days, still has its events in order."""
    begin = ((HIGH, 0), (LOW, 1), (ROW, 2), (COLUMN, 3))
    wraps = ((HIGH, 2000), (HIGH, 4000), (HIGH, 0)) * 70_000
    (events,) = (
        create_decoder("evt3", 640, 480)
        .decode_packet(_words(*begin, *wraps, (LOW, 5), (COLUMN, 4), (COLUMN, 5)))
        .segments
    )
    late_ns = (70_000 * 2**24 + 5) * 1000
    assert _columns(events) == [[1000, late_ns, late_ns], [3, 4, 5], [2, 2, 2], [0, 0, 0]]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_copies_are_columns(copied: Callable[[Events], Events]) -> None:
    """Whoever copies events, or sends them to another process, gets equal ones."""
    words = _words((HIGH, 0), (LOW, 1), (ROW, 5), (COLUMN, 6), (COLUMN, 7))
    (events,) = create_decoder("evt3", 640, 480).decode_packet(words).segments
    assert isinstance(events, PackedEvents)
    assert _columns(copied(events)) == _columns(events) == [[1000, 1000], [6, 7], [5, 5], [0, 0]]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_ring_of_packets_answers_as_one_of_events(seed: int) -> None:
    """Windows, indices and times are equal whether events were let go or not; memory adds up."""
    rng = np.random.default_rng(seed)
    kept, packets = (EventRing(40_000_000, 10**6) for _ in range(2))
    decoder, pushed = create_decoder("evt3", 640, 480), []
    for number in range(12):
        words = [(HIGH, number), (LOW, 0), (ROW, int(rng.integers(0, 480)))]
        for low in np.sort(rng.integers(0, 4096, rng.integers(0, 9))).tolist():
            words += [(LOW, low), (COLUMN, int(rng.integers(0, 640)))]
        for events in decoder.decode_packet(_words(*words)).segments:
            kept.push(Events(events.t, events.x, events.y, events.p))
            packets.push(events)
            pushed.append(events)
            packets.let_go(int(rng.integers(0, packets.total_pushed + 1)))
        held = pushed[
            len(pushed) - len(packets.between(packets.oldest_index, packets.total_pushed)) :
        ]
        own = PACKET_BYTES * len(held)
        assert packets.byte_count == sum(events.byte_count for events in held) + own
        if kept.newest_ns is None or kept.oldest_ns is None:
            continue
        for _ in range(4):
            bounds = rng.integers(kept.oldest_ns, kept.newest_ns + 2_000_000, 2) // 1000 * 1000
            start_ns, end_ns = sorted(bounds.tolist())
            assert packets.covers(start_ns) == kept.covers(start_ns)
            assert packets.first_at(start_ns) == kept.first_at(start_ns)
            assert packets.index_of(end_ns) == kept.index_of(end_ns)
            if kept.covers(start_ns):
                assert _columns(packets.window(start_ns, end_ns)) == _columns(
                    kept.window(start_ns, end_ns)
                )
        index = int(rng.integers(kept.oldest_index, kept.total_pushed))
        assert packets.time_of(index) == kept.time_of(index)
