"""EVT 3.0, word by word; with test_codec_evt3_time.py, every rule of the table in docs/time.md."""

from __future__ import annotations

import struct

import pytest

from test.reference.decoder_results import odd
from test.reference.evt3_by_hand import (
    START_US,
    SYNC,
    base,
    decoder,
    event,
    high,
    low,
    payload,
    row,
    rows_of,
    trigger,
    vector8,
    vector12,
)


def test_first_words_of_a_real_camera() -> None:
    """The first words of a SilkyEvCam recording give its published first event."""
    camera = decoder()
    words = struct.pack("<6H", 0x86CF, 0x6200, 0xA601, 0x6205, 0x01B9, 0x21DF)
    packet = camera.decode_packet(words)
    (events,) = packet.segments
    assert (events.t.tolist(), events.x.tolist()) == ([7_139_845_000], [479])
    assert (events.y.tolist(), events.p.tolist()) == ([441], [0])
    triggers = packet.triggers
    assert triggers.t.tolist() == [7_139_840_000]
    assert (triggers.edge.tolist(), triggers.channel.tolist()) == ([1], [6])


def test_nothing_is_decoded_before_the_time_is_known() -> None:
    """Events before TIME_HIGH, and before the TIME_LOW after it, are dropped and counted."""
    camera = decoder()
    words = (row(1), event(1), low(5), event(2), high(1), row(2), event(3), low(7), event(4))
    assert rows_of(camera, *words) == []
    assert odd(camera) == {"before_sync": 4}
    assert camera.latest_time_ns == (START_US + 7) * 1000
    assert rows_of(camera, row(9), event(5)) == [(START_US + 7, 5, 9, 1)]


def test_synchronisation_may_span_packets() -> None:
    """TIME_HIGH in one packet and TIME_LOW in the next are enough."""
    camera = decoder()
    assert rows_of(camera, high(1)) == []
    assert camera.latest_time_ns is None
    assert rows_of(camera, low(3), row(2), event(1)) == [(START_US + 3, 1, 2, 1)]


def test_a_row_sent_before_the_time_does_not_count() -> None:
    """After synchronisation the first event needs an ADDR_Y of its own; the row is no stale 0."""
    camera = decoder()
    assert rows_of(camera, row(5), *SYNC, event(1)) == []
    assert odd(camera) == {"before_sync": 1}


def test_a_vector_group_may_be_split_between_packets() -> None:
    """12 + 12 + 8 columns from one base; empty masks move the base as well."""
    camera = decoder()
    assert rows_of(camera, *SYNC, row(3), base(100, 0), vector12(0b1000_0000_0001)) == [
        (START_US, 100, 3, 0),
        (START_US, 111, 3, 0),
    ]
    assert rows_of(camera, vector12(0)) == []
    assert rows_of(camera, vector8(0b1000_0010)) == [(START_US, 125, 3, 0), (START_US, 131, 3, 0)]


def test_vectors_need_a_base() -> None:
    """A vector before any VECT_BASE_X is dropped, bit by bit counted."""
    camera = decoder()
    assert rows_of(camera, *SYNC, row(3), vector12(0b111), vector8(0xFF)) == []
    assert odd(camera) == {"before_sync": 11}


def test_vector_8_has_only_eight_columns() -> None:
    """The upper four bits of a VECT_8 word mean nothing."""
    words = (*SYNC, row(3), base(0), 0x5000 | 0xF01)
    assert [x for _, x, *_ in rows_of(decoder(), *words)] == [0]


def test_events_outside_the_sensor_are_dropped_and_counted() -> None:
    """Columns past the width (single and in vectors) and rows past the height are dropped."""
    camera = decoder(width=20, height=10)
    words = (*SYNC, row(9), event(19), event(20), base(18), vector12(0b1111), row(10), event(0))
    assert [(x, y) for _, x, y, _ in rows_of(camera, *words)] == [(19, 9), (18, 9), (19, 9)]
    assert odd(camera) == {"out_of_bounds": 4}


def test_vectors_at_the_end_of_the_address_range() -> None:
    """Columns past 2047 are past any sensor: they change neither row nor polarity."""
    camera = decoder(width=2048, height=2048)
    words = (*SYNC, row(2047), base(2040, 0), vector12(0xFFF), vector12(0xFFF), row(5), event(1))
    expected = [(START_US, x, 2047, 0) for x in range(2040, 2048)] + [(START_US, 1, 5, 1)]
    assert rows_of(camera, *words) == expected
    assert odd(camera) == {"out_of_bounds": 16}


def test_a_payload_of_vectors_alone() -> None:
    """A million columns in full masks are counted and decoded one by one."""
    camera = decoder(width=2048)
    line = (base(0), *[vector12(0xFFF)] * 100)
    events = camera.decode(payload(*SYNC, row(1), *line * 800))
    assert events.x.tolist() == list(range(1200)) * 800
    assert odd(camera) == {}


def test_events_that_are_not_change_detection_are_skipped() -> None:
    """Addresses after an EM ADDR_Y (type 1) are not CD, until the next ADDR_Y."""
    camera = decoder()
    assert [x for _, x, *_ in rows_of(camera, *SYNC, 0x1005, event(1), row(2), event(2))] == [2]
    assert odd(camera) == {"not_cd": 1}


def test_words_of_other_types_are_counted_and_change_nothing() -> None:
    """Padding, IMU, OTHERS and CONTINUED words are skipped, reserved ones unknown."""
    camera = decoder()
    other = (0x9123, 0xD001, 0xE014, 0xF123, 0x7001, 0xB000, 0xC123)
    assert rows_of(camera, *SYNC, row(2), *other, event(2)) == [(START_US, 2, 2, 1)]
    assert odd(camera) == {"skipped_word": 5, "unknown_word": 2}


def test_triggers_of_both_edges() -> None:
    """EXT_TRIGGER gives time, edge and channel; before the time is known it is counted."""
    camera = decoder()
    words = payload(trigger(1, 2), *SYNC, trigger(1, 0), low(9), trigger(0, 15))
    triggers = camera.decode_packet(words).triggers
    assert triggers.t.tolist() == [START_US * 1000, (START_US + 9) * 1000]
    assert (triggers.edge.tolist(), triggers.channel.tolist()) == ([1, 0], [0, 15])
    assert odd(camera) == {"trigger_before_sync": 1}


def test_an_odd_octet_is_counted_and_never_joined() -> None:
    """The last octet of an odd payload is lost alone; the next packet starts at a word."""
    camera = decoder()
    events = camera.decode(payload(*SYNC, row(1), event(1)) + b"\x07")
    assert events.x.tolist() == [1]
    assert rows_of(camera, event(2)) == [(START_US, 2, 1, 1)]
    assert odd(camera) == {"trailing_bytes": 1}


def test_an_empty_payload_is_no_error() -> None:
    """Zero octets, and one octet, give no events and no error."""
    camera = decoder()
    assert len(camera.decode(b"")) == 0
    assert camera.decode_packet(b"").segments == ()
    assert len(camera.decode(b"\x01")) == 0


def test_after_lost_packets_time_stays_and_position_is_forgotten() -> None:
    """`forget_position` drops events and vectors until new addresses; the clock goes on."""
    camera = decoder()
    camera.decode(payload(*SYNC, low(50), row(1), base(0), event(1)))
    camera.forget_position()
    words = (event(2), vector8(1), row(6), vector8(1), event(3), base(8), vector8(1))
    assert rows_of(camera, *words) == [(START_US + 50, 3, 6, 1), (START_US + 50, 8, 6, 1)]
    assert odd(camera) == {"before_sync": 3}


def test_reset_starts_anew_and_keeps_the_counts() -> None:
    """After `reset` the decoder waits for TIME_HIGH again, without a break."""
    camera = decoder()
    camera.decode(payload(high(500), low(0), row(1), event(1), 0xB000))
    camera.reset()
    assert camera.latest_time_ns is None
    assert rows_of(camera, event(2), *SYNC, row(1), event(3)) == [(START_US, 3, 1, 1)]
    assert odd(camera) == {"unknown_word": 1, "before_sync": 1}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_accepted_and_left_alone(kind: type) -> None:
    """bytes, bytearray, memoryview and unaligned slices decode alike; columns are read-only."""
    words = b"\x00" + payload(*SYNC, row(1), event(1))
    events = decoder().decode(kind(memoryview(words)[1:]))
    assert events.x.tolist() == [1]
    assert not events.x.flags.writeable
