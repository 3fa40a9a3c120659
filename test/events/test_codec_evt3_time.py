"""EVT 3.0's time words: wraps, disorder and breaks, by the decoder table in docs/time.md."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.errors import TimeDisorder
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


def test_time_high_clears_time_low() -> None:
    """Between a TIME_HIGH that goes on and its TIME_LOW the low part is 0, not the old one."""
    words = (*SYNC, row(1), low(4000), event(1), high(2), event(2), low(1), event(3))
    assert [t for t, *_ in rows_of(decoder(), *words)] == [8096, 8192, 8193]


def test_a_repeated_time_high_keeps_time_low() -> None:
    """Sensors repeat TIME_HIGH every 16 us; that changes nothing."""
    words = (*SYNC, row(1), low(40), high(1), event(1))
    assert rows_of(decoder(), *words) == [(START_US + 40, 1, 1, 1)]


def test_events_never_lie_before_a_time_that_was_announced() -> None:
    """Time words without events close windows, so later events may not fall below them."""
    camera = decoder()
    camera.decode(payload(high(10), low(100)))
    assert camera.latest_time_ns == 41_060_000
    assert [t for t, *_ in rows_of(camera, low(90), row(1), event(1))] == [41060]


def test_a_packet_that_spans_weeks() -> None:
    """Wraps inside one packet may add up to any time."""
    camera = decoder()
    wraps = 70_000
    events = camera.decode(
        payload(*SYNC, row(1), event(1), *(high(4000), high(0)) * wraps, event(2))
    )
    assert (events.t // 1000).tolist() == [START_US, wraps * 2**24]
    assert odd(camera) == {"wraps": wraps}


def test_time_wraps_after_16_seconds() -> None:
    """TIME_HIGH from 4095 to 0 continues the time, also between packets."""
    camera = decoder()
    assert [t for t, *_ in rows_of(camera, high(4095), low(4095), row(1), event(1))] == [16777215]
    assert [t for t, *_ in rows_of(camera, high(0), low(2), event(1))] == [16777218]
    assert odd(camera) == {"wraps": 1}


@pytest.mark.parametrize(("drop", "wraps"), [(2047, 0), (2048, 1)])
def test_half_the_range_decides_between_wrap_and_break(drop: int, wraps: int) -> None:
    """TIME_HIGH that falls by 2048 units or more wrapped; by less, time ran back."""
    camera = decoder()
    camera.decode(payload(high(3000), low(0), row(1), event(1)))
    packet = camera.decode_packet(payload(high(3000 - drop), low(0), row(1), event(1)))
    assert camera.counts["wraps"] == wraps
    assert camera.counts["time_breaks"] == 1 - wraps
    assert packet.breaks_ns == (() if wraps else (drop * 4_096_000,))


def test_disorder_keeps_its_place_and_gets_the_last_time() -> None:
    """A step back of 10 ms raises the event to the newest time and counts it."""
    camera = decoder()
    words = (high(10), low(0), row(1), event(1), high(7), low(2288), event(2), low(2289), event(3))
    assert [(t, x) for t, x, *_ in rows_of(camera, *words)] == [(40960, 1), (40960, 2), (40960, 3)]
    assert odd(camera) == {"time_raised": 2}
    assert rows_of(camera, high(10), low(1), event(4)) == [(40961, 4, 1, 1)]


def test_time_that_ran_back_further_breaks_the_stream() -> None:
    """One microsecond more than 10 ms cuts, and a new row is needed before events count again."""
    camera = decoder()
    camera.decode(payload(high(10), low(0), row(1), event(1), base(0)))
    words = (high(7), low(2287), event(2), vector12(1), row(4), event(3))
    packet = camera.decode_packet(payload(*words))
    assert packet.breaks_ns == (10_001_000,)
    (events,) = packet.segments
    assert (events.t.tolist(), events.x.tolist(), events.y.tolist()) == ([30_959_000], [3], [4])
    assert odd(camera) == {"time_breaks": 1, "before_sync": 2}


def test_decode_raises_with_all_events_where_a_packet_is_cut() -> None:
    """`decode` cannot return an unsorted value: it raises, and nothing is lost."""
    camera = decoder()
    words = (high(100), low(0), row(1), event(1), high(3), low(0), row(2), event(2))
    with pytest.raises(TimeDisorder, match=r"ran back by 397\.3 ms") as caught:
        camera.decode(payload(*words))
    segments = caught.value.data["segments"]
    assert [segment.x.tolist() for segment in segments] == [[1], [2]]
    assert rows_of(camera, event(3)) == [(3 * 4096, 3, 2, 1)]


def test_a_break_without_events_is_still_reported() -> None:
    """Segments after a cut may be empty, so that consumers hear of every cut at once."""
    camera = decoder()
    words = (high(100), low(0), row(1), event(1), high(50), low(0), high(10), low(0))
    packet = camera.decode_packet(payload(*words))
    assert [len(segment) for segment in packet.segments] == [1, 0, 0]
    assert packet.breaks_ns == (50 * 4_096_000, 40 * 4_096_000)
    assert camera.latest_time_ns == 10 * 4_096_000
    again = camera.decode_packet(payload(high(1), low(0), row(1), event(7)))
    assert [len(segment) for segment in again.segments] == [1]
    assert again.breaks_ns == (9 * 4_096_000,)


def test_triggers_lie_on_their_own_side_of_a_break() -> None:
    """A cut says which trigger is the first after it, though all times fit on both sides."""
    camera = decoder()
    words = (
        *(high(100), low(0), trigger(1, 0), row(1), event(1), trigger(0, 1)),
        *(high(50), low(0), trigger(1, 2), high(60), low(0), trigger(0, 3)),
        *(high(10), low(0), row(2), event(2)),
    )
    packet = camera.decode_packet(payload(*words))
    assert [len(segment) for segment in packet.segments] == [1, 0, 1]
    assert packet.triggers.channel.tolist() == [0, 1, 2, 3]
    assert packet.trigger_cuts == (2, 4)


def test_triggers_before_the_first_break_have_a_segment_even_without_events() -> None:
    """A packet that begins with a trigger does not begin with the cut after it."""
    camera = decoder()
    camera.decode(payload(high(100), low(0)))
    packet = camera.decode_packet(payload(trigger(1, 0), high(50), low(0), row(1), event(1)))
    assert [len(segment) for segment in packet.segments] == [0, 1]
    assert (len(packet.breaks_ns), packet.trigger_cuts) == (1, (1,))
    packet = camera.decode_packet(payload(high(10), low(0), trigger(1, 0), row(1), event(1)))
    assert [len(segment) for segment in packet.segments] == [1]
    assert (len(packet.breaks_ns), packet.trigger_cuts) == (1, (0,))


def test_more_breaks_than_one_kernel_call_holds() -> None:
    """A payload with 1000 breaks is cut into 1000 segments."""
    camera = decoder()
    words = list(SYNC)
    for _ in range(1000):
        words += [high(9), low(0), row(1), event(1), trigger(1, 0), high(1), low(0)]
    packet = camera.decode_packet(payload(*words))
    assert len(packet.breaks_ns) == camera.counts["time_breaks"] == 1000
    assert [len(segment) for segment in packet.segments] == [1] * 1000 + [0]
    assert packet.trigger_cuts == tuple(range(1, 1001))


def test_disorder_across_the_wrap_is_no_leap_of_16_seconds() -> None:
    """A late word from before the wrap counts as disorder."""
    camera = decoder()
    words = (high(4095), low(4000), row(1), event(1), high(0), low(5), event(2))
    late = (high(4095), low(4090), event(3), high(0), low(9), event(4))
    times = [t for t, *_ in rows_of(camera, *words, *late)]
    assert times == [16777120, 16777221, 16777221, 16777225]
    assert odd(camera) == {"wraps": 2, "time_raised": 1}


def test_a_small_step_back_loses_no_event_before_its_time_low() -> None:
    """After a TIME_HIGH that fell by one unit, at most 8.2 ms, events are kept at once."""
    camera = decoder()
    columns = range(10, 20)
    words = (high(5), low(100), row(1), event(1), high(4), *map(event, columns), low(4095))
    assert rows_of(camera, *words, event(2)) == [
        (5 * 4096 + 100, x, 1, 1) for x in (1, *columns, 2)
    ]
    assert odd(camera) == {"time_raised": 11}


@settings(max_examples=100, deadline=None)
@given(
    newest_us=st.integers(20_000, 2**25), back_us=st.integers(1, 10_000), split=st.integers(0, 7)
)
def test_no_event_is_lost_to_a_step_back_of_10_ms(newest_us: int, back_us: int, split: int) -> None:
    """Wherever it happens, at the wrap too, and however packets are cut: no break, no loss."""
    camera = decoder()
    late_us = newest_us - back_us
    start = (high((late_us >> 12) % 4096), low(late_us % 4096), row(1))
    now = (high((newest_us >> 12) % 4096), low(newest_us % 4096), event(1))
    late = (high((late_us >> 12) % 4096), event(2), low(late_us % 4096), event(3))
    words = (*start, *now, *late)
    packets = [camera.decode_packet(payload(*part)) for part in (words[:split], words[split:])]
    segments = [segment for packet in packets for segment in packet.segments]
    assert [x for segment in segments for x in segment.x.tolist()] == [1, 2, 3]
    times = [t for segment in segments for t in segment.t.tolist()]
    assert len(set(times)) == 1
    assert times[0] // 1000 % 2**24 == newest_us % 2**24
    assert [packet.breaks_ns for packet in packets] == [(), ()]
    wraps = camera.counts["wraps"]
    same_high = newest_us >> 12 == late_us >> 12
    expected = {"time_raised": 1 if same_high else 2} | ({"wraps": wraps} if wraps else {})
    assert odd(camera) == expected


@pytest.mark.parametrize(("us", "breaks"), [(2288, ()), (2287, (10_001_000,))])
def test_the_time_low_decides_about_a_step_of_about_10_ms(us: int, breaks: tuple[int, ...]) -> None:
    """Events before it belong to the time before; whether the stream breaks is told with it."""
    camera = decoder()
    camera.decode(payload(high(10), low(0), row(1), event(1), base(8)))
    packet = camera.decode_packet(payload(high(7), event(2), vector8(1), low(us)))
    assert packet.breaks_ns == breaks
    events = packet.segments[0]
    assert (events.t.tolist(), events.x.tolist()) == ([40_960_000] * 2, [2, 8])
    assert odd(camera) == {"time_raised": 2} | ({"time_breaks": 1} if breaks else {})


def test_a_step_of_10_ms_back_over_the_wrap_is_disorder() -> None:
    """A rise by the whole range but three units may still be 10 ms back, so it is no leap."""
    camera = decoder()
    words = (high(0), low(5), row(1), event(1), high(4093), event(2), low(2293), event(3))
    assert [(t, x) for t, x, *_ in rows_of(camera, *words)] == [(5, 1), (5, 2), (5, 3)]
    assert odd(camera) == {"time_raised": 2}


def test_events_after_a_certain_break_wait_for_its_time_low() -> None:
    """Where even the smallest step is beyond 10 ms, events have no time before TIME_LOW."""
    camera = decoder()
    camera.decode(payload(high(10), low(1808), row(1), event(1)))
    packet = camera.decode_packet(payload(high(7), row(2), event(2), low(4095), row(3), event(3)))
    assert packet.breaks_ns == (10_001_000,)
    assert [segment.x.tolist() for segment in packet.segments] == [[3]]
    assert odd(camera) == {"before_sync": 1, "time_breaks": 1}


def test_a_time_high_that_falls_and_returns_breaks_nothing() -> None:
    """Only TIME_LOW makes a break: a TIME_HIGH that is corrected before it costs no event after."""
    camera = decoder()
    words = (high(100), low(9), row(1), event(1), high(50), high(100), event(2), low(10), event(3))
    assert [(t - 409_600, x) for t, x, *_ in rows_of(camera, *words)] == [(9, 1), (9, 2), (10, 3)]
    assert odd(camera) == {"time_raised": 1}
