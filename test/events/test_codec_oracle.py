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
from test.reference.plausible_words import HEIGHT, PLAUSIBLE, WIDTH, WORD_BYTES


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
