"""Rules of `mono`, `libcaer`, `libcaer_cmp` and the event arrays that need a case of their own."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from dae_ros.errors import ConfigurationError, MalformedPacket, UnsupportedEncoding
from dae_ros.events.codecs import create_decoder, supported_encodings, warm_up
from test.reference.decoder_results import odd


def libcaer(*records: tuple[int, int, int, int]) -> bytes:
    """(t in us, x, y, p) -> valid records."""
    return b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for t, x, y, p in records)


def mono(*records: tuple[int, int, int, int]) -> bytes:
    """(t in ns, x, y, p) -> words."""
    return b"".join(struct.pack("<IHH", t, x, y | p << 15) for t, x, y, p in records)


def test_libcaer_rolls_over_within_a_payload() -> None:
    """A fall by more than 2^30 us adds 2^31 us; the next payload starts at its own base."""
    decoder = create_decoder("libcaer", 346, 260)
    last = 2**31 - 1
    events = decoder.decode(libcaer((last, 1, 1, 1), (0, 2, 2, 0), (5, 3, 3, 1)), 10**9)
    assert events.t.tolist() == [10**9 + 1000 * us for us in (last, last + 1, last + 6)]
    later_base = 10**9 + 2**31 * 1000
    assert decoder.decode(libcaer((6, 4, 4, 1)), later_base).t[0] == events.t[-1] + 1000
    assert odd(decoder) == {"wraps": 1}


def test_libcaer_small_fall_is_disorder_not_a_roll_over() -> None:
    """One microsecond back does not add 35.8 minutes; nor does disorder at the seam."""
    decoder = create_decoder("libcaer", 346, 260)
    assert decoder.decode(libcaer((100, 1, 1, 1), (99, 2, 2, 0))).t.tolist() == [100_000] * 2
    last = 2**31 - 1
    records = [(us, 1, 1, 1) for us in (last, 0, last, 1)]
    seam = create_decoder("libcaer", 346, 260)
    times_us = (seam.decode(libcaer(*records)).t // 1000).tolist()
    assert times_us == [last, last + 1, last + 1, last + 2]
    assert seam.counts["time_raised"] == 1


def test_libcaer_invalid_records_are_dropped() -> None:
    """Records without the valid bit or with a negative time are counted, and no event."""
    decoder = create_decoder("libcaer", 346, 260)
    payload = struct.pack("<II", 1 << 17, 5) + struct.pack("<Ii", 1 << 17 | 1, -5)
    assert len(decoder.decode(payload + libcaer((7, 2, 3, 1)))) == 1
    assert odd(decoder) == {"invalid": 2}


def test_libcaer_cmp_payloads_stand_alone() -> None:
    """Column, vector base and time of one payload do not reach the next."""
    decoder = create_decoder("libcaer_cmp", 346, 260)
    first = struct.pack("<5H", 0x0002, 0x1003, 0x2005, 0x4807, 0x5001)
    assert decoder.decode(first).t.tolist() == [8_195_000]
    second = struct.pack("<4H", 0x3009, 0x5003, 0x2006, 0x3009)
    events = decoder.decode(second, 20_000_000)
    assert (events.t.tolist(), events.x.tolist()) == ([20_000_000], [6])
    assert odd(decoder) == {"before_sync": 3}


def test_libcaer_cmp_keeps_time_low_over_time_high() -> None:
    """The driver writes only the half of the time that changed: neither clears the other."""
    decoder = create_decoder("libcaer_cmp", 346, 260)
    words = struct.pack("<5H", 0x1003, 0x2001, 0x3001, 0x0001, 0x3002)
    assert decoder.decode(words).t.tolist() == [3_000, 4_099_000]


def test_libcaer_cmp_reserved_words_are_unknown() -> None:
    """VECT_12 is reserved and written by nobody; it is counted, not guessed."""
    decoder = create_decoder("libcaer_cmp", 346, 260)
    assert len(decoder.decode(struct.pack("<3H", 0x2001, 0x4001, 0x6FFF))) == 0
    assert odd(decoder) == {"unknown_word": 1}


def test_mono_offsets_use_all_32_bits() -> None:
    """Offsets beyond 2^31 ns are not negative, and the base may be any epoch time."""
    decoder = create_decoder("mono", 640, 480)
    base = 1_700_000_000_000_000_000
    assert decoder.decode(mono((2**32 - 1, 1, 2, 1)), base).t[0] == base + 2**32 - 1


def test_mono_checks_the_geometry() -> None:
    """Upstream's decoder does not; events outside would write past a surface."""
    decoder = create_decoder("mono", 640, 480)
    events = decoder.decode(mono((1, 639, 479, 1), (2, 640, 0, 1), (3, 0, 480, 1)))
    assert events.x.tolist() == [639]
    assert odd(decoder) == {"out_of_bounds": 2}


def test_times_beyond_ros_stamps_are_refused_and_leave_no_trace() -> None:
    """A damaged time base costs its packet alone; the last representable ns is still good."""
    decoder = create_decoder("mono", 640, 480)
    decoder.decode(mono((1, 1, 1, 1)) + b"\x01", 5 * 10**9)
    limit_ns = 2**31 * 10**9
    for base in (2**61 + 5, limit_ns - 1):
        with pytest.raises(MalformedPacket, match="beyond January 2038"):
            decoder.decode_packet(mono((0, 1, 1, 1), (1, 2, 2, 1)) + b"\x01", base)
    assert (decoder.latest_time_ns, odd(decoder)) == (5 * 10**9 + 1, {"trailing_bytes": 1})
    # also where a break follows
    words = libcaer((2**20, 1, 1, 1), (0, 1, 1, 1))
    with pytest.raises(MalformedPacket):
        create_decoder("libcaer", 640, 480).decode_packet(words, limit_ns - 2**20 * 1000)
    assert decoder.decode(mono((0, 1, 1, 1)), limit_ns - 1).t.tolist() == [limit_ns - 1]


@pytest.mark.parametrize("encoding", ["event_array_cdr", "event_array_ros1"])
def test_array_events_with_unrepresentable_seconds_are_dropped_alone(encoding: str) -> None:
    """The same octets in ROS 1 and ROS 2: seconds of 2^31 or more, or below 0."""
    padding = b"\0\0" if encoding == "event_array_cdr" else b""
    seconds = (7, 2**31, 2**32 - 1, 2**31 - 1)
    records = [struct.pack("<HH", 1, 2) + struct.pack("<IIB", s, 3, 1) for s in seconds]
    if padding:
        records = records[:1] + [b"\0" + r[:4] + padding + r[4:] for r in records[1:]]
    decoder = create_decoder(encoding, 640, 480)
    events = decoder.decode(b"".join(records))
    assert events.t.tolist() == [7 * 10**9 + 3, (2**31 - 1) * 10**9 + 3]
    assert odd(decoder) == {"invalid": 2}


@pytest.mark.parametrize(("back_ns", "breaks"), [(10_000_000, ()), (10_000_001, (10_000_001,))])
def test_order_between_packets(back_ns: int, breaks: tuple[int, ...]) -> None:
    """The order rule holds across packets: raised to 10 ms, beyond that a cut at the start."""
    decoder = create_decoder("mono", 640, 480)
    decoder.decode(mono((20_000_000, 1, 1, 1)))
    packet = decoder.decode_packet(mono((20_000_000 - back_ns, 2, 2, 1)))
    assert packet.breaks_ns == breaks
    assert [len(segment) for segment in packet.segments] == [1]
    assert packet.segments[0].t[0] == (9_999_999 if breaks else 20_000_000)
    assert decoder.latest_time_ns == packet.segments[0].t[0]


def test_array_records_that_contradict_their_type_are_invalid() -> None:
    """Nanoseconds of a whole second, or a polarity that is no bool, drop the record."""
    decoder = create_decoder("event_array_ros1", 9, 9)
    payload = struct.pack("<HHIIB", 1, 2, 3, 10**9, 1) + struct.pack("<HHIIB", 1, 2, 3, 4, 2)
    assert len(decoder.decode(payload)) == 0
    assert odd(decoder) == {"invalid": 2}


@pytest.mark.parametrize("encoding", supported_encodings())
def test_empty_and_tiny_payloads(encoding: str) -> None:
    """No octet gives nothing; fewer octets than a word are counted."""
    decoder = create_decoder(encoding, 9, 9)
    assert len(decoder.decode(b"")) == 0
    assert len(decoder.decode(np.empty(0, np.uint8))) == 0
    assert odd(decoder) == {}
    assert decoder.decode_packet(b"\x01").segments == ()
    assert odd(decoder) == {"trailing_bytes": 1}


@pytest.mark.parametrize("encoding", supported_encodings())
def test_absolute_time_is_told(encoding: str) -> None:
    """Only the EVT formats count from the camera's start."""
    warm_up(encoding)
    decoder = create_decoder(encoding, 9, 7)
    assert decoder.has_absolute_time is not encoding.startswith("evt")
    assert (decoder.encoding, decoder.width, decoder.height) == (encoding, 9, 7)
    assert decoder.latest_time_ns is None


def test_unknown_encodings_and_sizes_are_refused_by_name() -> None:
    """The errors name what came, what is supported and what to do."""
    with pytest.raises(UnsupportedEncoding, match="'evt4'; supported are evt3, ") as caught:
        create_decoder("evt4", 640, 480)
    assert caught.value.data["supported"] == supported_encodings()
    with pytest.raises(UnsupportedEncoding, match="''"):
        warm_up("")
    with pytest.raises(ConfigurationError, match="0x480"):
        create_decoder("evt3", 0, 480)
