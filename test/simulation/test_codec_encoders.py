"""Encoders against decoders: what is written is read back, in every encoding."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.errors import ConfigurationError, UnsupportedEncoding
from dae_ros.events.codecs import create_decoder, supported_encodings
from dae_ros.events.packet import Events, Triggers
from dae_ros.simulation.encoders import create_encoder, encodable, encode

WIDTH, HEIGHT = 346, 260
ENCODINGS = sorted(supported_encodings())
EVT = ("evt2", "evt2.1", "evt3")


def _events(rows: list[tuple[int, int, int, int]]) -> Events:
    table = np.array(rows, np.int64).reshape(-1, 4)
    return Events(
        table[:, 0].copy(), table[:, 1].astype(np.uint16), table[:, 2].astype(np.uint16),
        table[:, 3].astype(np.uint8),
    )  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> Events:
    """Draw events in bursts that share time, row or column, so that vectors form."""
    t = draw(st.integers(0, 2**24 - 1)) * 1000
    rows = []
    for burst in range(draw(st.integers(0, 12))):
        if burst > 0:
            t += draw(st.sampled_from([0, 1, 15, 16, 63, 64, 4096, 70_000])) * 1000
        x, y = draw(st.integers(0, WIDTH - 40)), draw(st.integers(0, HEIGHT - 12))
        p = draw(st.integers(0, 1))
        along = draw(st.sampled_from(["row", "column"]))
        steps = draw(st.sets(st.integers(0, 39 if along == "row" else 11), min_size=1, max_size=16))
        for step in sorted(steps):
            rows.append((t, x + step, y, p) if along == "row" else (t, x, y + step, p))
    return _events(rows)


def _assert_equal(decoded: Events, events: Events) -> None:
    for name in "txyp":
        np.testing.assert_array_equal(getattr(decoded, name), getattr(events, name), err_msg=name)


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=60, deadline=None)
@given(events=streams())
def test_one_payload_round_trip(encoding: str, vectors: bool, events: Events) -> None:
    """A payload encoded on its own decodes to the same events, with vectors and without."""
    base_ns = 10**12
    if encoding.startswith(("lib", "mono")):
        first = int(events.t[0]) if len(events) else 0
        events = Events(events.t - first + base_ns, events.x, events.y, events.p)
    payload = encode(encoding, events, WIDTH, HEIGHT, time_base_ns=base_ns, vectors=vectors)
    decoder = create_decoder(encoding, WIDTH, HEIGHT)
    _assert_equal(decoder.decode(payload, base_ns), events)
    assert sum(decoder.counts.values()) == decoder.counts["wraps"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=40, deadline=None)
@given(parts=st.lists(streams(), max_size=4), pause_us=st.sampled_from([0, 999, 17_000_000]))
def test_stateful_round_trip(encoding: str, parts: list[Events], pause_us: int) -> None:
    """Packets of one encoder decode to the same events, over pauses longer than a wrap as well."""
    encoder = create_encoder(encoding, WIDTH, HEIGHT)
    decoder = create_decoder(encoding, WIDTH, HEIGHT)
    # the clock of the EVT 3.0 decoder begins inside its first wrap, below 2^24 us
    after = 0
    for part in parts:
        shift = after - (int(part.t[0]) if len(part) and after else 0)
        events = Events(part.t + shift, part.x, part.y, part.p)
        payload, base_ns = encoder.encode(events)
        _assert_equal(decoder.decode(payload, base_ns), events)
        if len(events):
            after = int(events.t[-1]) + pause_us * 1000


@pytest.mark.parametrize("encoding", EVT)
def test_triggers_round_trip(encoding: str) -> None:
    """Edges keep their time, edge and channel between the events."""
    events = _events([(1_000_000, 5, 6, 1), (90_000_000, 7, 8, 0)])
    triggers = Triggers(
        np.array([0, 1_000_000, 95_000_000]), np.array([1, 0, 1], np.uint8),
        np.array([0, 3, 15], np.uint16),
    )  # fmt: skip
    payload = encode(encoding, events, WIDTH, HEIGHT, triggers=triggers)
    packet = create_decoder(encoding, WIDTH, HEIGHT).decode_packet(payload)
    (decoded,) = packet.segments
    _assert_equal(decoded, events)
    assert packet.triggers.t.tolist() == triggers.t.tolist()
    assert packet.triggers.edge.tolist() == [1, 0, 1]
    assert packet.triggers.channel.tolist() == [0, 3, 15]


def test_evt3_words_of_a_vector_group() -> None:
    """Five events of one row and time become base, 12, 12 and 8; TIME_HIGH comes every 16 us."""
    rows = [(5000, x, 3, 1) for x in (10, 11, 22, 35, 41)] + [(15_000, 0, 3, 0), (16_000, 0, 3, 0)]
    words = struct.unpack("<12H", encode("evt3", _events(rows), WIDTH, HEIGHT))
    expected = (
        0x8000, 0x6005, 0x0003, 0x380A, 0x4003, 0x4001, 0x5082,
        0x600F, 0x2000, 0x8000, 0x6010, 0x2000,
    )  # fmt: skip
    assert words == expected


def test_libcaer_cmp_words() -> None:
    """Time, column, then a vector along the column, then a single row."""
    rows = [(4_097_000, 7, y, 1) for y in (2, 4, 9)] + [(4_097_000, 7, 1, 0)]
    words = struct.unpack("<6H", encode("libcaer_cmp", _events(rows), WIDTH, HEIGHT))
    assert words == (0x0001, 0x1001, 0x2007, 0x4802, 0x5085, 0x3001)


def test_time_bases() -> None:
    """`mono` counts from the first event, libcaer from its whole microsecond, evt from nothing."""
    events = _events([(1_234_567, 1, 1, 0)])
    bases = {name: create_encoder(name, WIDTH, HEIGHT).encode(events)[1] for name in encodable()}
    assert bases["mono"] == 1_234_567
    assert bases["libcaer"] == bases["libcaer_cmp"] == 1_234_000
    assert {bases[name] for name in (*EVT, "event_array_cdr", "event_array_ros1")} == {0}


def test_every_encoding_can_be_written() -> None:
    """Encoders and decoders know the same names."""
    assert set(encodable()) == set(supported_encodings())


def test_what_cannot_be_encoded_is_refused() -> None:
    """Unknown encodings, events outside, unsorted or out of range, and triggers without a word."""
    with pytest.raises(UnsupportedEncoding, match="No encoder for 'evt4'"):
        create_encoder("evt4", WIDTH, HEIGHT)
    with pytest.raises(ConfigurationError, match="outside the sensor"):
        encode("mono", _events([(0, WIDTH, 0, 0)]), WIDTH, HEIGHT)
    with pytest.raises(ConfigurationError, match="sorted by time"):
        encode("mono", _events([(5, 0, 0, 0), (4, 0, 0, 0)]), WIDTH, HEIGHT)
    with pytest.raises(ConfigurationError, match="sorted by time"):
        encode("evt3", _events([(-1, 0, 0, 0)]), WIDTH, HEIGHT)
    with pytest.raises(ConfigurationError, match=r"holds times from 0 to 4\.295 s"):
        encode("mono", _events([(0, 0, 0, 0), (2**32, 0, 0, 0)]), WIDTH, HEIGHT)
    with pytest.raises(ConfigurationError, match="holds times from 0"):
        encode("libcaer", _events([(0, 0, 0, 0)]), WIDTH, HEIGHT, time_base_ns=1)
    with pytest.raises(ConfigurationError, match="2048"):
        create_encoder("evt3", 2049, HEIGHT)
    one = Triggers(np.zeros(1, np.int64), np.ones(1, np.uint8), np.zeros(1, np.uint16))
    with pytest.raises(ConfigurationError, match="carries no triggers"):
        encode("mono", _events([]), WIDTH, HEIGHT, triggers=one)
    late = Triggers(np.array([5, 4]), np.ones(2, np.uint8), np.zeros(2, np.uint16))
    with pytest.raises(ConfigurationError, match="sorted by time"):
        encode("evt3", _events([]), WIDTH, HEIGHT, triggers=late)
