"""Packets of all other encodings that are put on the pixels at once, against the oracles."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.errors import MalformedPacket
from dae_ros.events.codecs import create_decoder, supported_encodings, warm_up
from dae_ros.events.last_events import LastEvents
from dae_ros.events.packet import TIME_LIMIT_NS, Events
from dae_ros.events.put_away import PutAwayEvents
from dae_ros.events.ring_buffer import EventRing
from dae_ros.simulation.encoders import create_encoder
from test.reference.codec_oracles import ORACLES, assert_same
from test.reference.decoder_results import events_of
from test.reference.plausible_words import HEIGHT, PLAUSIBLE, WIDTH

ENCODINGS = sorted(set(supported_encodings()) - {"evt3"})
BASE_US = 990_000
Rows = list[tuple[int, int, int, int]]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    for encoding in ENCODINGS:
        warm_up(encoding)


def onto_of(before_us: int = BASE_US + 2**30) -> LastEvents:
    return LastEvents(HEIGHT, WIDTH, np.zeros(HEIGHT * WIDTH, np.uint32), BASE_US, before_us)


def written(entries: np.ndarray, found: Rows) -> None:
    """Write the last event of each pixel, one after the other."""
    for t, x, y, p in found:
        entries[y * WIDTH + x] = 2 * (t // 1000 - BASE_US) + p


def healthy(rng: np.random.Generator, begin_ns: int, count: int, unit: int) -> Events:
    """Events of a scene, with runs that share their time and their column or row."""
    t = begin_ns + unit * np.cumsum(rng.choice([0, 0, 0, 1, 7, 300], count))
    x, y = rng.integers(0, WIDTH, count), rng.integers(0, HEIGHT, count)
    for at in rng.integers(0, count, count // 8).tolist():
        run = slice(at, at + int(rng.integers(2, 12)))
        t[run], x[run] = t[at], x[at]
        y[run] = (y[at] + np.arange(len(y[run]))) % HEIGHT
        if rng.integers(0, 2):
            x[run], y[run] = (x[at] + np.arange(len(x[run]))) % WIDTH, y[at]
    t = np.maximum.accumulate(t)
    p = rng.integers(0, 2, count)
    return Events(t, x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_what_is_put_is_what_the_oracle_decodes(encoding: str, seed: int) -> None:
    """Every healthy packet but the first is put; events, counts and times are as without."""
    rng = np.random.default_rng(seed)
    decoder, oracle = create_decoder(encoding, WIDTH, HEIGHT), ORACLES[encoding](WIDTH, HEIGHT)
    encoder = create_encoder(encoding, WIDTH, HEIGHT)
    unit = 1 if encoding in ("mono", "event_array_cdr", "event_array_ros1") else 1000
    onto = onto_of()
    expected, now_ns = onto.entries.copy(), 1_000_000_000
    for index in range(5):
        sent = healthy(rng, now_ns, int(rng.integers(1, 200)), unit)
        payload, time_base_ns = encoder.encode(sent)
        before = onto.put
        packet = decoder.decode_packet(payload, time_base_ns, onto)
        # A packet of few events between words of time is larger than their columns.
        put = index > 0 and len(payload) < 16 * len(sent)
        assert onto.put - before == (len(sent) if put else 0)
        assert_same(packet, oracle.decode(payload, time_base_ns))
        assert decoder.latest_time_ns == oracle.newest
        found = events_of(packet)
        written(expected, found)
        if not put:
            written(onto.entries, found)
        assert np.array_equal(onto.entries, expected)
        (events,) = packet.segments
        assert (events.first_ns, events.last_ns) == (found[0][0], found[-1][0])
        now_ns = int(sent.t[-1]) + unit * int(rng.integers(0, 3))
    # Of a packet that reaches the next window nothing of that window is put.
    sent = healthy(rng, now_ns, int(rng.integers(2, 200)), 1000)
    onto.before_us = int(rng.choice(sent.t)) // 1000
    onto.entries[:], before = 0, onto.put
    late = encoder.encode(sent)
    assert_same(decoder.decode_packet(*late, onto), oracle.decode(*late))
    assert onto.put == before and (onto.entries >> 1 < onto.before_us - BASE_US).all()
    assert dict(decoder.counts) == {name: oracle.counts[name] for name in decoder.counts}


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_anything_odd_is_left_to_the_decoder(encoding: str, seed: int) -> None:
    """Of streams full of faults, what is put is right, and all else is as if nothing had been."""
    rng = np.random.default_rng(seed)
    plain, decoder = (create_decoder(encoding, WIDTH, HEIGHT) for _ in range(2))
    onto = onto_of()
    time_base_ns = 5_000_000
    for _ in range(6):
        payload = PLAUSIBLE[encoding](rng, int(rng.choice([1, 2, 3, 300])))
        newest_ns = decoder.latest_time_ns
        onto.before_us = int(rng.integers(BASE_US, BASE_US + 100_000))
        onto.entries[:], put = 0, onto.put
        packet = decoder.decode_packet(payload, time_base_ns, onto)
        expected = plain.decode_packet(payload, time_base_ns)
        rows = events_of(expected)
        assert events_of(packet) == rows
        assert packet.breaks_ns == expected.breaks_ns
        assert dict(decoder.counts) == dict(plain.counts)
        assert decoder.latest_time_ns == plain.latest_time_ns
        entries = np.zeros_like(onto.entries)
        if onto.put > put:
            assert newest_ns is not None and onto.put - put == len(rows)
            assert not packet.breaks_ns and all(t < 1000 * onto.before_us for t, *_ in rows)
            written(entries, rows)
            assert np.array_equal(onto.entries, entries)
            continue
        # What was put of it until then are its own first events, none of them of a later window.
        assert (onto.entries >> 1 < max(1, onto.before_us - BASE_US)).all()
        if not packet.breaks_ns:
            early = [row for row in rows if BASE_US <= row[0] // 1000 < onto.before_us]
            written(entries, early)
            written(onto.entries, early)
            assert np.array_equal(onto.entries, entries)


def mono(*events: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<IHH", t, x, y | p << 15) for t, x, y, p in events)


def test_events_by_hand() -> None:
    """Two packets of `mono`: where they lie and when, to the microsecond below."""
    decoder, onto = create_decoder("mono", WIDTH, HEIGHT), onto_of()
    base_ns = 1_000_000_000
    decoder.decode_packet(mono((0, 1, 1, 0)), base_ns, onto)
    assert onto.put == 0  # before it no time was known
    packet = decoder.decode_packet(mono((1999, 3, 2, 1), (5000, 69, 49, 0)), base_ns, onto)
    assert onto.put == 2 and isinstance(packet.segments[0], PutAwayEvents)
    assert {int(k): int(onto.entries[k]) for k in onto.entries.nonzero()[0]} == {
        2 * WIDTH + 3: 2 * 10_001 + 1,
        50 * WIDTH - 1: 2 * 10_005,
    }
    assert packet.segments[0].t.tolist() == [base_ns + 1999, base_ns + 5000]


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("column outside", (9000, WIDTH, 0, 0)),
        ("row outside", (9000, 0, HEIGHT, 0)),
        ("time back", (8000, 0, 0, 0)),
        ("beyond the window", (20_000, 0, 0, 0)),
    ],
)
def test_each_oddity_by_hand(name: str, event: tuple[int, int, int, int]) -> None:
    """One event that is not as it should be, and the packet is left to the decoder."""
    decoder, onto = create_decoder("mono", WIDTH, HEIGHT), onto_of(1_000_020)
    decoder.decode_packet(mono((0, 1, 1, 0)), 1_000_000_000)
    good = (8500, 5, 5, 1)
    decoder.decode_packet(mono(good, event), 1_000_000_000, onto)
    assert onto.put == 0, name
    decoder.decode_packet(mono((20_000 - 1, 5, 5, 1)), 1_000_000_000, onto)
    assert onto.put == (0 if name == "beyond the window" else 1)


def words(size: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value in values)


def record(x: int, y: int, s: int, ns: int, p: int) -> bytes:
    return struct.pack("<HHIIB", x, y, s, ns, p)


# What is added to a healthy packet that ends at 2.000 s: at its last time, if not of another one.
HIGH_2S = 2_000_000 // 64
ADDED = {
    "evt2, nothing odd": ("evt2", words(4, 1 << 28 | 3 << 11 | 4)),
    "evt2, skipped": ("evt2", words(4, 0xE << 28)),
    "evt2, column": ("evt2", words(4, 1 << 28 | WIDTH << 11)),
    "evt2, row": ("evt2", words(4, 1 << 28 | HEIGHT)),
    "evt2, unknown": ("evt2", words(4, 0x9 << 28)),
    "evt2, time back": ("evt2", words(4, 0x8 << 28 | HIGH_2S - 1)),
    "evt2, wrap": ("evt2", words(4, 0x8 << 28 | 5)),
    "evt2, far ahead": ("evt2", words(4, 0x8 << 28 | HIGH_2S + 2**25)),
    "evt2, late word": ("evt2", words(4, 0x8 << 28 | 2**28 - 100)),
    "evt2.1, nothing odd": ("evt2.1", words(8, (1 << 28 | (WIDTH - 3) << 11) << 32 | 0b101)),
    "evt2.1, skipped": ("evt2.1", words(8, 0xE << 60)),
    "evt2.1, mask of nothing": ("evt2.1", words(8, (1 << 28 | WIDTH << 11 | HEIGHT) << 32)),
    "evt2.1, column": ("evt2.1", words(8, (1 << 28 | (WIDTH - 2) << 11) << 32 | 0b101)),
    "evt2.1, last pixel and beyond": (
        "evt2.1", words(8, (1 << 28 | (WIDTH - 1) << 11 | HEIGHT - 1) << 32 | 0b11),
    ),
    "evt2.1, row": ("evt2.1", words(8, (1 << 28 | HEIGHT) << 32 | 1)),
    "evt2.1, unknown": ("evt2.1", words(8, 0x9 << 60)),
    "evt2.1, time back": ("evt2.1", words(8, (0x8 << 28 | HIGH_2S - 1) << 32)),
    "evt2.1, far ahead": ("evt2.1", words(8, (0x8 << 28 | HIGH_2S + 2**25) << 32)),
    "libcaer_cmp, nothing odd": ("libcaer_cmp", words(2, 4 << 12 | HEIGHT - 2, 5 << 12 | 0b11)),
    "libcaer_cmp, row": ("libcaer_cmp", words(2, 4 << 12 | HEIGHT - 2, 5 << 12 | 0b101)),
    "libcaer_cmp, past the field": ("libcaer_cmp", words(2, 4 << 12 | 2047, 5 << 12 | 0b10)),
    "libcaer_cmp, column": ("libcaer_cmp", words(2, 2 << 12 | WIDTH, 3 << 12)),
    "libcaer_cmp, unknown": ("libcaer_cmp", words(2, 6 << 12)),
    "libcaer_cmp, time back": ("libcaer_cmp", words(2, 0, 1 << 12, 3 << 12)),
    "libcaer, nothing odd": ("libcaer", words(4, 3 << 17 | 1, 0)),
    "libcaer, not valid": ("libcaer", words(4, 3 << 17, 0)),
    "libcaer, no time": ("libcaer", words(4, 3 << 17 | 1, 2**31)),
    "libcaer, row": ("libcaer", words(4, HEIGHT << 2 | 1, 0)),
    "ros1, nothing odd": ("event_array_ros1", record(3, 4, 2, 0, 1)),
    "ros1, a second of nanoseconds": ("event_array_ros1", record(3, 4, 1, 10**9, 1)),
    "ros1, negative seconds": ("event_array_ros1", record(3, 4, 2**31 + 2, 0, 1)),
    "ros1, polarity": ("event_array_ros1", record(3, 4, 2, 0, 2)),
    "ros1, row": ("event_array_ros1", record(3, HEIGHT, 2, 0, 1)),
    "cdr, nothing odd": ("event_array_cdr", record(3, 4, 2, 0, 1)),
    "cdr, a second of nanoseconds": ("event_array_cdr", record(3, 4, 1, 10**9, 1)),
    "cdr, negative seconds": ("event_array_cdr", record(3, 4, 2**31 + 2, 0, 1)),
    "cdr, polarity": ("event_array_cdr", record(3, 4, 2, 0, 2)),
}  # fmt: skip
HEALTHY = ("nothing odd", "skipped", "mask of nothing")


@pytest.mark.parametrize("name", ADDED)
def test_each_oddity_of_each_format(name: str) -> None:
    """What follows a healthy packet's events decides whether they are put, and nothing is lost."""
    encoding, added = ADDED[name]
    t = np.array([1_999_999_000] * 3 + [2_000_000_000] * 9)
    x, y = np.arange(12, dtype=np.uint16), np.arange(12, dtype=np.uint16)
    encoder = create_encoder(encoding, WIDTH, HEIGHT)
    payload, time_base_ns = encoder.encode(Events(t, x, y, (x % 2).astype(np.uint8)))
    if encoding == "libcaer":
        # A time base of long ago, so that 2^31 us after it, which no event can say, is 2 s too.
        records = np.frombuffer(payload, "<u4").copy()
        ago_us = 2**31 - (2_000_000 - time_base_ns // 1000)
        last_us = 2**31 - 1 if name != "libcaer, no time" else 2**31
        records[1::2] += np.uint32(ago_us - 1)
        time_base_ns -= 1000 * (ago_us - 1)
        payload, added = records.tobytes(), added[:4] + words(4, last_us)
    if encoding == "event_array_cdr":  # one octet after a record, two within one
        payload += bytes(1)
        added = added[:4] + bytes(2) + added[4:]
    earlier = Events(t[:1] - 10**6, x[:1], y[:1], np.zeros(1, np.uint8))
    begin = create_encoder(encoding, WIDTH, HEIGHT).encode(earlier)
    plain, decoder = (create_decoder(encoding, WIDTH, HEIGHT) for _ in range(2))
    onto = onto_of()
    for one in (plain, decoder):
        one.decode_packet(*begin)
    packet = decoder.decode_packet(payload + added, time_base_ns, onto)
    expected = plain.decode_packet(payload + added, time_base_ns)
    rows = events_of(expected)
    assert events_of(packet) == rows and len(rows) >= 12
    assert packet.breaks_ns == expected.breaks_ns
    assert dict(decoder.counts) == dict(plain.counts)
    assert decoder.latest_time_ns == plain.latest_time_ns
    assert onto.put == (len(rows) if name.endswith(HEALTHY) else 0)
    if onto.put:
        entries = np.zeros_like(onto.entries)
        written(entries, rows)
        assert np.array_equal(onto.entries, entries)
        assert len(rows) == 12 + ("skipped" not in name and "mask" not in name) * (
            2 if encoding in ("evt2.1", "libcaer_cmp") else 1
        )


def test_nothing_is_put_of_what_may_change_or_does_not_fit() -> None:
    """Payloads that somebody may overwrite, and surfaces of another size."""
    decoder = create_decoder("mono", WIDTH, HEIGHT)
    decoder.decode_packet(mono((0, 1, 1, 0)), 1_000_000_000)
    onto = onto_of()
    larger = LastEvents(
        HEIGHT, WIDTH + 1, np.zeros(HEIGHT * (WIDTH + 1), np.uint32), BASE_US, 2**30
    )
    payload = mono((9, 1, 1, 0))
    decoder.decode_packet(bytearray(payload), 1_000_000_000, onto)
    decoder.decode_packet(payload, 1_000_000_000, larger)
    assert onto.put == larger.put == 0
    decoder.decode_packet(payload, 1_000_000_000, onto)
    assert onto.put == 1


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_was_put_away_can_be_asked_for(encoding: str) -> None:
    """Columns, slices, times, searches and copies, made again from the packet and let go again."""
    rng = np.random.default_rng(1)
    encoder = create_encoder(encoding, WIDTH, HEIGHT)
    decoder = create_decoder(encoding, WIDTH, HEIGHT)
    onto = onto_of()
    for begin_ns in (1_000_000_000, 2_000_000_000):
        sent = healthy(rng, begin_ns, 100, 1000)
        payload, time_base_ns = encoder.encode(sent)
        packet = decoder.decode_packet(payload, time_base_ns, onto)
    (events,) = packet.segments
    assert isinstance(events, PutAwayEvents) and onto.put == 100
    assert events.byte_count == len(payload)
    ring = EventRing(10**9, 10**6)
    ring.push(events)
    for _ in range(2):
        assert [events.time_of(k) for k in range(100)] == sent.t.tolist()
        at_ns = int(sent.t[50])
        first = int(np.searchsorted(sent.t, at_ns))
        assert events.first_at(at_ns) == (first, at_ns)
        part = events.slice(3, 98)
        both = Events.concatenate([part, events])
        between = ring.window(int(sent.t[0]), int(sent.t[-1]) + 1)
        for name in "txyp":
            column = getattr(sent, name)
            assert np.array_equal(getattr(events, name), column)
            assert np.array_equal(getattr(part, name), column[3:98])
            assert np.array_equal(getattr(both, name)[95:], column)
            assert np.array_equal(getattr(between, name), column)
        ring.let_go(100)
        assert events.let_go() == 0 and ring.byte_count < 1000 + len(payload) + 1


def test_a_time_that_no_stamp_can_hold_spoils_nothing_unseen() -> None:
    """The packet is refused as without a surface, and who owns the entries knows."""
    decoder, onto = create_decoder("event_array_ros1", WIDTH, HEIGHT), onto_of()
    record = struct.Struct("<HHII?")
    decoder.decode_packet(record.pack(1, 1, 1, 0, True))
    beyond = record.pack(2, 2, 1, 5000, True) + record.pack(
        3, 3, TIME_LIMIT_NS // 10**9 - 1, 0, True
    )
    decoder.decode_packet(beyond, 0, onto)
    assert onto.put == 0 and not onto.spoiled
    mono_decoder = create_decoder("mono", WIDTH, HEIGHT)
    mono_decoder.decode_packet(mono((0, 1, 1, 0)), TIME_LIMIT_NS - 10_000)
    onto = LastEvents(HEIGHT, WIDTH, np.zeros(HEIGHT * WIDTH, np.uint32),
                      TIME_LIMIT_NS // 1000 - 100, TIME_LIMIT_NS // 1000 + 100)  # fmt: skip
    with pytest.raises(MalformedPacket):
        mono_decoder.decode_packet(
            mono((0, 1, 1, 0), (20_000, 1, 1, 0)), TIME_LIMIT_NS - 10_000, onto
        )
    assert onto.spoiled and onto.put == 0
