"""All decoders against straight-line Python, on plausible words, on garbage and on damage."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dae_ros.events.codecs import create_decoder, supported_encodings, warm_up
from dae_ros.events.packet import Events
from dae_ros.simulation.encoders import encode
from test.reference.codec_oracles import ORACLES, assert_same

WIDTH, HEIGHT = 70, 50
WORD_BYTES = {
    "evt3": 2, "evt2": 4, "evt2.1": 8, "mono": 8, "libcaer": 8, "libcaer_cmp": 2,
    "event_array_cdr": 16, "event_array_ros1": 13,
}  # fmt: skip


def _evt3_word(rng: np.random.Generator, size: int) -> bytes:
    shares = np.array([8, 1, 25, 5, 8, 4, 16, 1, 16, 1, 3, 1, 1, 1, 1, 1])
    kind = rng.choice(16, size, p=shares / shares.sum())
    value = rng.integers(0, 4096, size)
    small = rng.integers(0, 80, size) | rng.integers(0, 2, size) << 11
    value = np.where((kind == 0) | (kind == 2) | (kind == 3), small, value)
    near = np.cumsum(rng.choice([0, 1, -1, 2, -3, 2040, 2048], size, p=[0.5, 0.3] + [0.04] * 5))
    value = np.where(kind == 8, near % 4096, value)
    return (kind << 12 | value).astype("<u2").tobytes()


def _evt2_high(rng: np.random.Generator, size: int) -> np.ndarray:
    steps = np.array([0, 1, -1, 150, -150, -158, 2**27, -(2**27), 2**28 - 157])
    return np.cumsum(rng.choice(steps, size, p=[0.4, 0.36] + [0.24 / 7] * 7)) % 2**28


def _evt2_word(rng: np.random.Generator, size: int) -> bytes:
    shares = np.array([20, 20, 1, 0, 0, 0, 0, 0, 30, 0, 5, 1, 0, 1, 1, 1])
    kind = rng.choice(16, size, p=shares / shares.sum())
    x, y = rng.integers(0, WIDTH + 4, size), rng.integers(0, HEIGHT + 4, size)
    value = rng.integers(0, 64, size) << 22 | x << 11 | y
    value = np.where(kind == 8, _evt2_high(rng, size), value)
    return (kind << 28 | value).astype("<u4").tobytes()


def _evt21_word(rng: np.random.Generator, size: int) -> bytes:
    head = np.frombuffer(_evt2_word(rng, size), "<u4").astype(np.uint64)
    mask = np.bitwise_and.reduce(rng.integers(0, 2**32, (3, size)))
    return (head << np.uint64(32) | mask.astype(np.uint64)).tobytes()


def _times(rng: np.random.Generator, size: int, unit: int) -> np.ndarray:
    steps = np.array([0, 7, 999, -3, -9000, -11000, 20000]) * unit
    shares = [0.3, 0.3, 0.2, 0.1, 0.04, 0.03, 0.03]
    return 10**6 * unit + np.cumsum(rng.choice(steps, size, p=shares))


def _mono_word(rng: np.random.Generator, size: int) -> bytes:
    words = np.empty(size, [("t", "<u4"), ("x", "<u2"), ("y", "<u2")])
    words["t"] = _times(rng, size, 1000) % 2**32
    words["x"] = rng.integers(0, WIDTH + 3, size)
    words["y"] = rng.integers(0, HEIGHT + 3, size) | rng.integers(0, 2, size) << 15
    return words.tobytes()


def _libcaer_word(rng: np.random.Generator, size: int) -> bytes:
    words = np.empty(size, [("data", "<u4"), ("t", "<u4")])
    x, y = rng.integers(0, WIDTH + 3, size), rng.integers(0, HEIGHT + 3, size)
    words["data"] = x << 17 | y << 2 | rng.integers(0, 2, size) << 1 | (rng.random(size) < 0.97)
    roll = 2**31 - 500_000 if rng.random() < 0.5 else 0
    negative = (rng.random(size) < 0.01).astype("u4") << 31
    words["t"] = (_times(rng, size, 1) + roll) % 2**31 | negative
    return words.tobytes()


def _libcaer_cmp_word(rng: np.random.Generator, size: int) -> bytes:
    kind = rng.choice(8, size, p=np.array([4, 25, 15, 30, 6, 10, 1, 1]) / 92)
    value = rng.integers(0, 60, size) | rng.integers(0, 2, size) << 11
    value = np.where(kind == 0, rng.integers(0, 4, size), value)
    value = np.where((kind == 1) | (kind == 5), rng.integers(0, 4096, size), value)
    return (kind << 12 | value).astype("<u2").tobytes()


def _array_word(rng: np.random.Generator, size: int, *, cdr: bool) -> bytes:
    fields = [("x", "<u2"), ("y", "<u2"), ("s", "<u4"), ("ns", "<u4"), ("p", "u1")]
    if cdr:
        fields = [*fields[:2], ("pad", "<u2"), *fields[2:], ("tail", "u1")]
    words = np.zeros(size, fields)
    t = _times(rng, size, 1000)
    words["x"] = rng.integers(0, WIDTH + 3, size)
    words["y"] = rng.integers(0, HEIGHT + 3, size)
    words["s"], words["ns"] = t // 10**9, t % 10**9
    words["ns"] += (rng.random(size) < 0.01) * np.uint32(10**9)
    words["p"] = rng.choice([0, 1, 2], size, p=[0.5, 0.49, 0.01])
    octets = words.tobytes()
    return octets[:4] + octets[6:-1] if cdr else octets


PLAUSIBLE = {
    "evt3": _evt3_word,
    "evt2": _evt2_word,
    "evt2.1": _evt21_word,
    "mono": _mono_word,
    "libcaer": _libcaer_word,
    "libcaer_cmp": _libcaer_cmp_word,
    "event_array_cdr": lambda rng, size: _array_word(rng, size, cdr=True),
    "event_array_ros1": lambda rng, size: _array_word(rng, size, cdr=False),
}


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    for encoding in supported_encodings():
        warm_up(encoding)


def _nonzero(counts: object) -> dict[str, int]:
    return {reason: int(number) for reason, number in dict(counts).items() if number}


def _compare(encoding: str, payloads: list[bytes], forget_after: int | None = None) -> int:
    decoder = create_decoder(encoding, WIDTH, HEIGHT)
    oracle = ORACLES[encoding](WIDTH, HEIGHT)
    events = 0
    for index, payload in enumerate(payloads):
        packet = decoder.decode_packet(payload, 5_000_000)
        assert_same(packet, oracle.decode(payload, 5_000_000))
        assert decoder.latest_time_ns == oracle.newest
        for segment in packet.segments:
            assert (np.diff(segment.t) >= 0).all()
        events += sum(map(len, packet.segments))
        if index == forget_after:
            decoder.forget_position()
            oracle.forget_position()
    assert _nonzero(decoder.counts) == _nonzero(oracle.counts)
    return events


def test_every_encoding_has_an_oracle() -> None:
    """No decoder without a straight-line twin."""
    assert set(ORACLES) == set(PLAUSIBLE) == set(supported_encodings())


@pytest.mark.parametrize("encoding", sorted(ORACLES))
def test_plausible_words_with_every_oddity(encoding: str) -> None:
    """Streams rich in wraps, disorder, breaks and strays decode as the straight-line decoder."""
    events = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        payloads = [PLAUSIBLE[encoding](rng, int(rng.integers(1, 300))) for _ in range(6)]
        events += _compare(encoding, payloads, forget_after=3)
    assert events > 3000


@pytest.mark.parametrize("encoding", sorted(ORACLES))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(payloads=st.lists(st.binary(max_size=400), max_size=4))
def test_garbage(encoding: str, payloads: list[bytes]) -> None:
    """Any octets at all decode as the straight-line decoder: no crash, counts add up."""
    _compare(encoding, payloads)


@pytest.mark.parametrize("encoding", sorted(ORACLES))
def test_damaged_payloads(encoding: str) -> None:
    """Payloads with changed, removed and inserted octets decode as the straight-line decoder."""
    rng = np.random.default_rng(5)
    for _ in range(25):
        octets = bytearray(b"".join(PLAUSIBLE[encoding](rng, 80) for _ in range(2)))
        for _ in range(int(rng.integers(1, 6))):
            at = int(rng.integers(0, len(octets)))
            match int(rng.integers(0, 3)):
                case 0:
                    octets[at] ^= 1 << int(rng.integers(0, 8))
                case 1:
                    del octets[at]
                case _:
                    octets.insert(at, int(rng.integers(0, 256)))
        _compare(encoding, [bytes(octets[: len(octets) // 2]), bytes(octets[len(octets) // 2 :])])


@pytest.mark.parametrize("encoding", ["evt3", "evt2", "evt2.1", "mono", "event_array_ros1"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_any_split_into_packets_gives_the_same_events(
    encoding: str, seed: int, cuts: list[int]
) -> None:
    """Decoding a stream in parts gives the events, triggers and breaks of the whole."""
    payload = PLAUSIBLE[encoding](np.random.default_rng(seed), 200)
    whole = create_decoder(encoding, WIDTH, HEIGHT)
    expected = whole.decode_packet(payload)
    parts = create_decoder(encoding, WIDTH, HEIGHT)
    bounds = [0, *sorted(cut * WORD_BYTES[encoding] for cut in cuts), len(payload)]
    packets = [parts.decode_packet(payload[a:b]) for a, b in pairwise(bounds)]
    joined = Events.concatenate([part for packet in packets for part in packet.segments])
    reference = Events.concatenate(expected.segments)
    for name in "txyp":
        np.testing.assert_array_equal(getattr(joined, name), getattr(reference, name))
    assert [back for packet in packets for back in packet.breaks_ns] == list(expected.breaks_ns)
    np.testing.assert_array_equal(
        np.concatenate([packet.triggers.t for packet in packets]), expected.triggers.t
    )
    assert parts.counts == whole.counts


@pytest.mark.parametrize("encoding", sorted(ORACLES))
def test_every_octet_of_a_cut_payload(encoding: str) -> None:
    """However a payload is cut short, its whole words decode and the rest is counted."""
    t = np.array([1000, 2000, 2000, 9000, 70_000_000])
    x = np.array([1, 2, 3, 40, 60], np.uint16)
    events = Events(t, x, x // 2, (x % 2).astype(np.uint8))
    payload = encode(encoding, events, WIDTH, HEIGHT)
    for size in range(len(payload) + 1):
        _compare(encoding, [payload[:size]])


@pytest.mark.parametrize("encoding", sorted(ORACLES))
def test_a_payload_of_16_megabytes(encoding: str) -> None:
    """A packet far beyond any driver's decodes in one piece."""
    rng = np.random.default_rng(2)
    size = 2**24 // (5 if encoding in ("evt3", "libcaer_cmp") else WORD_BYTES[encoding])
    t = np.cumsum(rng.integers(0, 2, size)) * 1000
    x, y = rng.integers(0, WIDTH, size), rng.integers(0, HEIGHT, size)
    p = rng.integers(0, 2, size)
    events = Events(t, x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))
    payload = encode(encoding, events, WIDTH, HEIGHT)
    assert len(payload) > 2**24 * 0.9
    decoder = create_decoder(encoding, WIDTH, HEIGHT)
    decoded = decoder.decode(payload)
    for name in "txyp":
        np.testing.assert_array_equal(getattr(decoded, name), getattr(events, name))
    assert _nonzero(decoder.counts) == {}
