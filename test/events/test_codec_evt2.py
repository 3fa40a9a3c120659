"""Rules of EVT 2.0 and EVT 2.1 that need a case of their own; both share them."""

from __future__ import annotations

import struct

import pytest

from dae_ros.events.codecs import create_decoder
from test.reference.decoder_results import odd


def words(encoding: str, *items: tuple[str, int, int, int, int]) -> bytes:
    """Pack (kind, low time or TIME_HIGH, x or channel, y, p or edge); EVT 2.1 masks one column."""
    out = b""
    for kind, time, x, y, p in items:
        match kind:
            case "high":
                head, mask = 0x8 << 28 | time, 0
            case "trigger":
                head, mask = 0xA << 28 | time << 22 | x << 8 | p, 0
            case "cd":
                head = p << 28 | time << 22 | y
                head |= (x if encoding == "evt2" else x // 32 * 32) << 11
                mask = 1 << x % 32
            case _:
                head, mask = int(kind, 16) << 28, 0
        out += struct.pack("<I", head) if encoding == "evt2" else struct.pack("<II", mask, head)
    return out


def high(units: int) -> tuple[str, int, int, int, int]:
    return ("high", units, 0, 0, 0)


def cd(low: int, x: int = 1, y: int = 1, p: int = 1) -> tuple[str, int, int, int, int]:
    return ("cd", low, x, y, p)


pytestmark = pytest.mark.parametrize("encoding", ["evt2", "evt2.1"])


def test_events_wait_for_time_high(encoding: str) -> None:
    """Before the first TIME_HIGH nothing has a time; afterwards every event has its own."""
    decoder = create_decoder(encoding, 640, 480)
    payload = words(encoding, cd(3), ("trigger", 0, 1, 0, 1), high(2), cd(3, 70, 9, 0))
    events = decoder.decode(payload)
    assert (events.t.tolist(), events.x.tolist()) == ([131_000], [70])
    assert (events.y.tolist(), events.p.tolist()) == ([9], [0])
    assert odd(decoder) == {"before_sync": 1, "trigger_before_sync": 1}


def test_time_high_wraps_after_five_hours(encoding: str) -> None:
    """From 2^28 - 1 to 0 the time goes on; a late TIME_HIGH at the seam is disorder."""
    decoder = create_decoder(encoding, 640, 480)
    last = 2**28 - 1
    late = (high(last), cd(60), high(0), cd(1))
    payload = words(encoding, high(last), cd(63), high(0), cd(0), *late)
    assert (decoder.decode(payload).t // 1000 - 2**34).tolist() == [-1, 0, 0, 1]
    assert odd(decoder) == {"wraps": 2, "time_raised": 1}


def test_disorder_and_breaks(encoding: str) -> None:
    """Up to 10 ms back an event is raised; further back the stream is cut."""
    decoder = create_decoder(encoding, 640, 480)
    packet = decoder.decode_packet(
        words(encoding, high(1000), cd(0, 1), high(844), cd(0, 2), high(843), cd(5, 3))
    )
    assert packet.breaks_ns == (157 * 64_000,)
    assert [part.t.tolist() for part in packet.segments] == [[64_000_000] * 2, [53_957_000]]
    assert odd(decoder) == {"time_raised": 1, "time_breaks": 1}


def test_triggers_on_both_sides_of_a_break(encoding: str) -> None:
    """Each cut says which trigger is the first after it, whether or not events lie between."""
    decoder = create_decoder(encoding, 640, 480)
    edge = ("trigger", 0, 1, 0, 1)
    payload = words(encoding, high(1000), edge, high(500), edge, cd(0, 1), high(100))
    packet = decoder.decode_packet(payload)
    assert packet.triggers.t.tolist() == [64_000_000, 32_000_000]
    assert [len(segment) for segment in packet.segments] == [0, 1, 0]
    assert packet.trigger_cuts == (1, 2)


def test_other_words(encoding: str) -> None:
    """OTHERS and CONTINUED are skipped, reserved types unknown, rows outside dropped."""
    decoder = create_decoder(encoding, 640, 480)
    payload = words(encoding, high(1), *((kind, 0, 0, 0, 0) for kind in "EF7"), cd(0, 1, 480))
    assert decoder.decode_packet(payload).segments == ()
    assert odd(decoder) == {"skipped_word": 2, "unknown_word": 1, "out_of_bounds": 1}
    assert decoder.latest_time_ns == 64_000
