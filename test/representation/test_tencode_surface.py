"""The incremental surface and `tencode` against each other and against filtering all history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.errors import ConfigurationError
from dae_ros.events.packet import Events
from dae_ros.events.ring_buffer import EventRing, WindowEvicted
from dae_ros.representation.surface import TencodeSurface
from dae_ros.representation.tencode import tencode
from test.reference.surface_windows import (
    HEIGHT,
    MS,
    US,
    WIDTH,
    S,
    assert_code_of,
    filtered,
    random_events,
)
from test.reference.tencode_pixels import tencode_pixels


def test_reference_gives_hand_made_numbers() -> None:
    """The reference colours three events as written by hand; the last of a pixel wins."""
    image = tencode_pixels([1000, 2999, 5000, 5000], [0, 1, 1, 2], [0, 0, 0, 0], [1, 1, 0, 1], 1, 4)
    np.testing.assert_array_equal(image, [[[1, 0, 1, 0]], [[1, 0, 0, 0]], [[0, 1, 0, 0]]])
    assert tencode_pixels([0, 1000, 4000], [0, 1, 2], [0] * 3, [1] * 3, 1, 3)[1, 0, 1] == 0.75


@given(st.integers(0, 2**32), st.integers(0, 200), st.integers(1, 5_000_000))
@settings(max_examples=100, deadline=None)
def test_tencode_equals_the_reference(seed: int, count: int, span_ns: int) -> None:
    """The encoder equals the per-event reference: R and B exactly, G within 1e-6."""
    events = random_events(np.random.default_rng(seed), seed, seed + span_ns, count)
    expected = tencode_pixels(
        events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist(), HEIGHT, WIDTH
    )
    image = tencode(events, HEIGHT, WIDTH)
    np.testing.assert_array_equal(image[::2], expected[::2])
    np.testing.assert_allclose(image[1], expected[1], rtol=0, atol=1e-6)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_surface_equals_filtering_all_history(data: st.DataObject) -> None:
    """Any order of pushes and windows (overlapping, past, skipped, longer) gives equal bits."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
    history: list[Events] = []
    now_us = data.draw(st.integers(-10_000, 10**12))
    begin_us = now_us
    for _ in range(data.draw(st.integers(1, 12))):
        length_us = data.draw(st.integers(1, 4_000))
        events = random_events(
            rng, now_us * US, (now_us + length_us) * US, data.draw(st.integers(0, 60))
        )
        ring.push(events)
        history.append(events)
        now_us += length_us
        for _ in range(data.draw(st.integers(0, 2))):
            behind_us = data.draw(st.sampled_from([0, 0, 0, 1_000, 7_000]))
            end_ns = (now_us - behind_us) * US
            start_ns = end_ns - data.draw(st.integers(1, 9_000)) * US
            expected = filtered(history, start_ns, end_ns)
            encoded = surface.encode(ring, start_ns, end_ns)
            assert_code_of(encoded, expected)
            assert encoded.event_count == len(expected)
            if len(expected):
                assert encoded.first_ns == expected.t[0]
                assert encoded.last_ns == expected.t[-1]
            else:
                assert encoded.first_ns is None
    assert now_us >= begin_us


def test_overlapping_windows_do_not_go_through_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows at the head read the surface; only windows that end earlier are rebuilt."""
    rng = np.random.default_rng(0)
    ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
    rebuilt = []

    def spy(events: Events, *rest: int) -> np.ndarray:
        rebuilt.append(len(events))
        return tencode(events, *rest)

    monkeypatch.setattr("dae_ros.representation.surface.tencode", spy)
    for k in range(20):
        ring.push(random_events(rng, k * 10 * MS, (k + 1) * 10 * MS, 50))
        if k >= 4:
            surface.encode(ring, (k - 4) * 10 * MS, (k + 1) * 10 * MS)
    assert rebuilt == []
    surface.encode(ring, 100 * MS, 150 * MS)
    assert len(rebuilt) == 1
    surface.encode(ring, 150 * MS, 200 * MS)
    assert len(rebuilt) == 1


def test_following_spares_the_events_of_windows_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """`follow` leaves out the packet in which the next window ends, so that nothing is rebuilt."""

    def refuse(events: Events, *_: int) -> np.ndarray:
        raise AssertionError(f"{len(events)} events were encoded once more")

    rng = np.random.default_rng(4)
    ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH, lets_go=False)
    monkeypatch.setattr("dae_ros.representation.surface.tencode", refuse)
    monkeypatch.setattr("dae_ros.representation.surface._WORTHWHILE_EVENTS", 1)
    end_ns = 20 * MS
    for k in range(20):
        ring.push(random_events(rng, k * 7 * MS, (k + 1) * 7 * MS, 50))
        surface.follow(ring, end_ns)
        while (ring.newest_ns or 0) >= end_ns:
            surface.encode(ring, end_ns - 20 * MS, end_ns)
            end_ns += 10 * MS


def test_events_pushed_late_belong_to_the_next_window() -> None:
    """Events older than a window that was already encoded still count in later windows."""
    ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
    rng = np.random.default_rng(1)
    first, late = random_events(rng, 0, 5 * MS, 30), random_events(rng, 6 * MS, 8 * MS, 30)
    ring.push(first)
    surface.encode(ring, 0, 10 * MS)
    ring.push(late)
    encoded = surface.encode(ring, 2 * MS, 12 * MS)
    expected = filtered([first, late], 2 * MS, 12 * MS)
    assert_code_of(encoded, expected)


def test_rebase_keeps_the_window() -> None:
    """Windows before, across and after 2^31 us from the first one equal a fresh encoding."""
    rng = np.random.default_rng(2)
    ring, surface = EventRing(100 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
    start_us = 12_345
    times_us = [start_us, start_us + 2**31 - 90_000, start_us + 2**31 - 20_000]
    times_us += [start_us + 2**31 + k * 30_000 for k in range(4)] + [start_us + 3 * 2**31]
    for time_us in times_us:
        ring.push(random_events(rng, time_us * US, (time_us + 10_000) * US, 40))
        end_ns = (time_us + 10_000) * US
        encoded = surface.encode(ring, end_ns - 50 * MS, end_ns)
        window = ring.window(end_ns - 50 * MS, end_ns)
        assert encoded.event_count == len(window) >= 40
        assert_code_of(encoded, window)
        # a longer window may reach before what a re-based surface kept
        encoded = surface.encode(ring, end_ns - 99 * S, end_ns)
        window = ring.window(end_ns - 99 * S, end_ns)
        assert_code_of(encoded, window)


def test_cleared_and_other_rings_start_afresh() -> None:
    """Nothing of an older run of time, or of another camera, shows in a window."""
    rng = np.random.default_rng(3)
    ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
    ring.push(random_events(rng, 0, 10 * MS, 200))
    surface.encode(ring, 0, 10 * MS)
    for begin_ns in (0, 10 * MS, -5 * MS):  # same, later and earlier times
        ring.clear()
        events = random_events(rng, begin_ns + 8 * MS, begin_ns + 10 * MS, 5)
        ring.push(events)
        encoded = surface.encode(ring, begin_ns, begin_ns + 10 * MS)
        assert_code_of(encoded, events)
    other = EventRing(10 * S, 10**8)
    other.push(random_events(rng, 8 * MS, 9 * MS, 4))
    encoded = surface.encode(other, 0, 10 * MS)
    assert encoded.event_count == 4
    assert_code_of(encoded, other.window(0, 10 * MS))


def test_skipped_and_evicted_events_do_not_matter() -> None:
    """After the ring evicted events that were never scattered, covered windows are right."""
    rng = np.random.default_rng(4)
    ring, surface = EventRing(20 * MS, 10**8), TencodeSurface(HEIGHT, WIDTH)
    history = []
    for k in range(30):
        history.append(random_events(rng, k * 5 * MS, (k + 1) * 5 * MS, 20))
        ring.push(history[-1])
        if k in (2, 20, 21, 29):
            end_ns = (k + 1) * 5 * MS
            encoded = surface.encode(ring, end_ns - 10 * MS, end_ns)
            expected = filtered(history, end_ns - 10 * MS, end_ns)
            assert_code_of(encoded, expected)
    with pytest.raises(WindowEvicted):
        surface.encode(ring, 0, 150 * MS)


def test_windows_too_long_for_the_surface_are_encoded_from_the_ring() -> None:
    """An hour in one window, with events all over it; the windows after it are right as well."""
    rng = np.random.default_rng(6)
    ring, surface = EventRing(10**15, 10**8), TencodeSurface(HEIGHT, WIDTH)
    history = [random_events(rng, k * 60 * S, (k + 1) * 60 * S, 20) for k in range(60)]
    for events in history:
        ring.push(events)
        surface.follow(ring, 3_600 * S)
    for start_s, end_s in ((0, 3_600), (3_500, 3_600), (1, 3_600), (1_453, 3_600), (3_000, 3_599)):
        encoded = surface.encode(ring, start_s * S, end_s * S)
        assert_code_of(encoded, filtered(history, start_s * S, end_s * S))


def test_bounds_and_places_are_checked() -> None:
    """Bounds that are no whole microseconds, windows without length and foreign pixels raise."""
    rng = np.random.default_rng(5)
    ring, surface = EventRing(10 * S, 10**8), TencodeSurface(HEIGHT, WIDTH)
    events = random_events(rng, 0, MS, 20)
    ring.push(events)
    for start_ns, end_ns in ((0, 1_500), (1, 2_000), (2_000, 2_000), (3_000, 2_000)):
        with pytest.raises(ConfigurationError, match="whole microseconds"):
            surface.encode(ring, start_ns, end_ns)
        with pytest.raises(ConfigurationError, match="whole microseconds"):
            tencode(Events.empty(), HEIGHT, WIDTH, window=(start_ns, end_ns))
    with pytest.raises(ConfigurationError, match="outside the window"):
        tencode(events, HEIGHT, WIDTH, window=(0, 500_000))
    for height, width in ((HEIGHT - 1, WIDTH), (HEIGHT, WIDTH - 1)):
        outside = int(((events.x >= width) | (events.y >= height)).sum())
        assert outside > 0
        with pytest.raises(ConfigurationError, match=f"{outside} events lie outside"):
            tencode(events, height, width)
        with pytest.raises(ConfigurationError, match=f"{outside} events lie outside"):
            TencodeSurface(height, width).encode(ring, 0, MS)


def test_window_bounds_can_date_the_age() -> None:
    """With `window` the age counts from the window's bounds instead of the events' extent."""
    events = Events(
        np.array([20_000, 60_000], np.int64),
        np.array([0, 1], np.uint16),
        np.array([0, 0], np.uint16),
        np.array([1, 0], np.uint8),
    )
    image = tencode(events, 1, 2, window=(0, 100_000))
    np.testing.assert_allclose(image, [[[1, 0]], [[0.8, 0.4]], [[0, 1]]], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(tencode(events, 1, 2), np.float32([[[1, 0]], [[1, 0]], [[0, 1]]]))
