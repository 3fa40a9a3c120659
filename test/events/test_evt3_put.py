"""Packets that are put on the pixels at once, against the oracle and against the decoder."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.errors import MalformedPacket
from dae_ros.events.codecs import create_decoder
from dae_ros.events.last_events import LastEvents
from dae_ros.events.packet import TIME_LIMIT_NS, Events
from test.reference.codec_oracles import ORACLES, assert_same
from test.reference.decoder_results import events_of

WIDTH, HEIGHT = 40, 30
BEGIN_US = 5 * 4096 + 100
HIGH, LOW, ROW, COLUMN, BASE, VECTOR_12, VECTOR_8 = 8, 6, 0, 2, 3, 4, 5
Words = list[tuple[int, int]]


def payload(words: Words) -> bytes:
    return struct.pack(f"<{len(words)}H", *(code << 12 | value for code, value in words))


def beginning() -> bytes:
    """Synchronise: time, row and vector base are known."""
    return payload([(HIGH, 5), (LOW, 100), (ROW, 3), (BASE, 2), (COLUMN, 1)])


def packet_of(rng: np.random.Generator, now_us: int) -> tuple[Words, int]:
    """Return words of a healthy packet, and its last time in us."""
    words: Words = []
    for _ in range(int(rng.integers(1, 25))):
        kind = rng.integers(0, 8)
        if kind == 0:
            now_us += int(rng.choice([0, 1, 30, 5000]))
            # Sensors repeat the upper half, and send it before the lower one where it is new.
            words += [(HIGH, now_us // 4096)] * int(rng.integers(1, 3)) + [(LOW, now_us % 4096)]
        elif kind in (1, 2):
            words.append((ROW, int(rng.integers(0, HEIGHT)) | 2048 * int(rng.integers(0, 2))))
        elif kind == 3:
            polarity = 2048 * int(rng.integers(0, 2))
            room = int(rng.integers(1, 13))
            base = int(rng.integers(0, WIDTH - room + 1))
            # Bits past the border of the sensor are not set; the base moves on past it.
            mask = int(rng.integers(0, 2**room))
            words += [(BASE, base | polarity), (VECTOR_12, mask), (VECTOR_8, 0)]
        elif kind == 4:
            words.append((int(rng.choice([7, 9, 13, 14, 15])), int(rng.integers(0, 4096))))
        words.append((COLUMN, int(rng.integers(0, WIDTH)) | 2048 * int(rng.integers(0, 2))))
    return words, now_us


def onto_of(before_us: int = 2**30) -> LastEvents:
    return LastEvents(HEIGHT, WIDTH, np.zeros(HEIGHT * WIDTH, np.uint32), BEGIN_US - 9, before_us)


def written(entries: np.ndarray, found: list[tuple[int, int, int, int]], base_us: int) -> None:
    """Write the last event of each pixel, one after the other."""
    for t, x, y, p in found:
        entries[y * WIDTH + x] = 2 * (t // 1000 - base_us) + p


def test_a_packet_by_hand() -> None:
    """Two events and a vector lie where the words say, with their times; nothing else does."""
    decoder = create_decoder("evt3", WIDTH, HEIGHT)
    decoder.decode_packet(beginning())
    onto = onto_of()
    words = [(ROW, 4), (LOW, 110), (COLUMN, 7 | 2048), (LOW, 111), (BASE, 10), (VECTOR_12, 0b101),
             (ROW, 5), (COLUMN, 39), (LOW, 120)]  # fmt: skip
    packet = decoder.decode_packet(payload(words), 0, onto)
    assert onto.put == 4 and not onto.spoiled
    expected = {4 * WIDTH + 7: 2 * 19 + 1, 4 * WIDTH + 10: 40, 4 * WIDTH + 12: 40, 239: 40}
    assert {int(k): int(onto.entries[k]) for k in onto.entries.nonzero()[0]} == expected
    (events,) = packet.segments
    time_us = 5 * 4096
    assert (len(events), events.first_ns, events.last_ns) == (
        4, 1000 * (time_us + 110), 1000 * (time_us + 111),
    )  # fmt: skip
    assert events.x.tolist() == [7, 10, 12, 39] and events.y.tolist() == [4, 4, 4, 5]
    assert decoder.latest_time_ns == 1000 * (time_us + 120)
    # The vector's base and the row go on in the next packet.
    (events,) = decoder.decode_packet(payload([(VECTOR_8, 0b11)] * 2), 0, onto).segments
    assert onto.put == 8 and events.y.tolist() == [5] * 4
    assert events.x.tolist() == [22, 23, 30, 31] and set(events.t) == {1000 * (time_us + 120)}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_what_is_put_is_what_the_oracle_decodes(seed: int) -> None:
    """Events, counts and what comes after: all as without; a healthy packet is always put."""
    rng = np.random.default_rng(seed)
    decoder, oracle = create_decoder("evt3", WIDTH, HEIGHT), ORACLES["evt3"](WIDTH, HEIGHT)
    assert_same(decoder.decode_packet(beginning()), oracle.decode(beginning()))
    onto, now_us = onto_of(), BEGIN_US
    expected = onto.entries.copy()
    for _ in range(5):
        words, now_us = packet_of(rng, now_us)
        before = onto.put
        packet = decoder.decode_packet(payload(words), 0, onto)
        put = onto.put > before
        # Where words of time prevail rows are smaller than the packet, and made.
        assert put == (2 * len(words) < 8 * len(events_of(packet)))
        decoded = oracle.decode(payload(words))
        assert_same(packet, decoded)
        if put:
            assert onto.put - before == len(events_of(packet))
            written(expected, events_of(packet), onto.base_us)
            assert np.array_equal(onto.entries, expected)
        else:
            written(onto.entries, events_of(packet), onto.base_us)
            written(expected, events_of(packet), onto.base_us)
        assert decoder.latest_time_ns == now_us * 1000


ODD: dict[str, Words] = {
    "column outside": [(COLUMN, WIDTH)],
    "row outside": [(ROW, HEIGHT), (COLUMN, 1)],
    "vector outside": [(BASE, WIDTH - 2), (VECTOR_12, 0b100)],
    "short vector outside": [(BASE, WIDTH - 2), (VECTOR_8, 0b100)],
    "trigger": [(10, 1)],
    "another kind of event": [(1, 3), (COLUMN, 1)],
    "unknown": [(11, 0)],
    "low time back": [(LOW, 50)],
    "high time back": [(HIGH, 4), (LOW, 0)],
    "wrap": [(HIGH, 0)],
    "too late": [(HIGH, 9), (LOW, 0)],
}


@pytest.mark.parametrize("name", ODD)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
@settings(max_examples=25, deadline=None)
def test_anything_odd_is_left_to_the_decoder(name: str, seed: int, place: int) -> None:
    """Nothing counts as put; after the events are written the entries are right all the same."""
    rng = np.random.default_rng(seed)
    decoder, oracle = create_decoder("evt3", WIDTH, HEIGHT), ORACLES["evt3"](WIDTH, HEIGHT)
    for one in (decoder, oracle):
        one.decode(beginning())
    words: Words = []
    now_us = BEGIN_US
    while len(words) < 30 or now_us > 7 * 4096:
        words, now_us = packet_of(rng, BEGIN_US)
    limit_us = 8 * 4096
    onto = onto_of(limit_us)
    # Before the times change, so that each oddity is what its name says.
    changes = [k for k, (code, _) in enumerate(words) if code in (HIGH, LOW)]
    place = min([place, *changes])
    words[place:place] = ODD[name]
    packet = decoder.decode_packet(payload(words), 0, onto)
    assert onto.put == 0
    assert_same(packet, oracle.decode(payload(words)))
    early = [item for item in events_of(packet) if item[0] < limit_us * 1000]
    expected = np.zeros_like(onto.entries)
    written(expected, early, onto.base_us)
    written(onto.entries, early, onto.base_us)
    if name not in ("low time back", "high time back", "wrap"):  # there times are begun anew
        assert np.array_equal(onto.entries, expected)
    times_us = onto.entries[onto.entries > 0] >> 1
    assert (times_us + onto.base_us < limit_us).all()
    # The next packet is as good as any where the decoder is synchronised.
    healthy = payload([(ROW, 3), *[(COLUMN, 5)] * 9])
    assert_same(decoder.decode_packet(healthy, 0, onto_of()), oracle.decode(healthy))


def test_a_row_outside_is_not_carried_into_the_next_packet() -> None:
    """Rows of the packet before count as well: nothing is written past the entries."""
    behind = np.zeros(2048 * WIDTH, np.uint32)
    onto = LastEvents(HEIGHT, WIDTH, behind[: HEIGHT * WIDTH], BEGIN_US - 9, 2**30)
    decoder, oracle = create_decoder("evt3", WIDTH, HEIGHT), ORACLES["evt3"](WIDTH, HEIGHT)
    last_row_outside = payload([(COLUMN, 1), (COLUMN, 2), (ROW, HEIGHT)])
    columns = payload([*[(COLUMN, 5)] * 9, (ROW, HEIGHT - 1), (COLUMN, 6)])
    for octets in (beginning(), last_row_outside, columns, columns):
        assert_same(decoder.decode_packet(octets, 0, onto), oracle.decode(octets))
    assert decoder.counts["out_of_bounds"] == 9
    assert onto.put == 10 and not behind[HEIGHT * WIDTH :].any()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_bits_that_flip_do_no_harm_in_later_packets(seed: int) -> None:
    """What is put is what the oracle decodes, whatever the packets before have left behind."""
    rng = np.random.default_rng(seed)
    decoder, oracle = create_decoder("evt3", WIDTH, HEIGHT), ORACLES["evt3"](WIDTH, HEIGHT)
    for one in (decoder, oracle):
        one.decode(beginning())
    now_us = BEGIN_US
    for _ in range(8):
        words, now_us = packet_of(rng, now_us)
        words = words[: int(rng.integers(1, len(words) + 1))]
        octets = bytearray(payload([*words, (COLUMN, 3), (ROW, int(rng.integers(0, HEIGHT)))]))
        if rng.integers(0, 2):
            near_the_end = rng.integers(0, 2)
            at = len(octets) - 2 if near_the_end else int(rng.integers(0, len(octets)))
            octets[at + int(rng.integers(0, 2)) * near_the_end] ^= 1 << int(rng.integers(0, 8))
        behind = np.zeros(2048 * WIDTH, np.uint32)
        onto = LastEvents(HEIGHT, WIDTH, behind[: HEIGHT * WIDTH], 0, 2**30)
        packet = decoder.decode_packet(bytes(octets), 0, onto)
        assert_same(packet, oracle.decode(bytes(octets)))
        assert not behind[HEIGHT * WIDTH :].any()
        if onto.put:
            assert onto.put == len(events_of(packet))
            expected = np.zeros_like(onto.entries)
            written(expected, events_of(packet), 0)
            assert np.array_equal(onto.entries, expected)


def test_nothing_is_put_before_the_stream_is_known() -> None:
    """Without time, row or a lasting payload, or for another sensor, rows are made."""
    words = payload([(COLUMN, 5)] * 9)
    unsynchronised = create_decoder("evt3", WIDTH, HEIGHT)
    lost = create_decoder("evt3", WIDTH, HEIGHT)
    lost.decode(beginning())
    lost.forget_position()
    ready = create_decoder("evt3", WIDTH, HEIGHT)
    ready.decode(beginning())
    onto = onto_of()
    for decoder in (unsynchronised, lost):
        decoder.decode_packet(words, 0, onto)
    ready.decode_packet(bytearray(words), 0, onto)
    larger = LastEvents(HEIGHT, WIDTH + 1, np.zeros(HEIGHT * (WIDTH + 1), np.uint32), 0, 2**30)
    ready.decode_packet(words, 0, larger)
    assert onto.put == larger.put == 0
    ready.decode_packet(words, 0, onto)
    assert onto.put == 9


def test_a_packet_that_is_dropped_spoils_what_it_was_put_on() -> None:
    """Times that no stamp can hold, in the middle: who owns the entries has to know."""
    decoder = create_decoder("evt3", WIDTH, HEIGHT)
    last_us = TIME_LIMIT_NS // 1000 - 10
    # Just before the limit: by wraps, which a packet of the format's words takes years to send.
    loops = last_us // 4096 // 4096
    decoder.decode(beginning())
    decoder._state[11] = loops
    decoder.decode(payload([(HIGH, last_us // 4096 % 4096), (LOW, last_us % 4096)]))
    assert decoder.latest_time_ns == last_us * 1000
    onto = LastEvents(HEIGHT, WIDTH, np.zeros(HEIGHT * WIDTH, np.uint32), last_us - 9, last_us + 50)
    beyond = (HIGH, (last_us // 4096 + 1) % 4096), (LOW, 0)
    words = [*[(COLUMN, 5)] * 9, *beyond, (COLUMN, 6)]
    with pytest.raises(MalformedPacket):
        decoder.decode_packet(payload(words), 0, onto)
    assert onto.spoiled and onto.put == 0 and onto.entries.any()


def test_events_that_were_put_away_can_be_asked_for() -> None:
    """Columns, slices, times by index and a copy, all made again from the packet."""
    rng = np.random.default_rng(1)
    plain, decoder = (create_decoder("evt3", WIDTH, HEIGHT) for _ in range(2))
    for one in (plain, decoder):
        one.decode(beginning())
    words, _ = packet_of(rng, BEGIN_US)
    words += [(COLUMN, 4)] * 20
    expected = plain.decode(payload(words))
    onto = onto_of()
    (events,) = decoder.decode_packet(payload(words), 0, onto).segments
    assert onto.put == len(expected) == len(events) and events.byte_count == 2 * len(words)
    count = len(events)
    assert [events.time_of(k) for k in range(count)] == expected.t.tolist()
    part = events.slice(3, count - 2)
    both = Events.concatenate([part, part])
    for name in "txyp":
        assert np.array_equal(getattr(events, name), getattr(expected, name))
        assert np.array_equal(getattr(part, name), getattr(expected, name)[3:-2])
        assert np.array_equal(getattr(both, name)[: len(part)], getattr(part, name))
