"""The clock estimator on synthetic delays: one-sided, bursty, drifting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.events.sensor_clock import SensorClock

MS = 1_000_000
S = 1_000_000_000
EPOCH = 1_700_000_000 * S


def _packets(
    seconds: float, drift_ppm: float = 0.0, seed: int = 1, floor_ns: int = 200_000
) -> list[tuple[int, int, int]]:
    """(event, stamp, true ROS time) every 4 ms; delay = floor + exponential 1 ms + rare bursts."""
    rng = np.random.default_rng(seed)
    event = 7 * S + np.arange(0, int(seconds * S), 4 * MS)
    true = EPOCH + event + np.rint((event - event[0]) * drift_ppm * 1e-6).astype(np.int64)
    delay = rng.exponential(1.0 * MS, event.size)
    delay += np.where(rng.random(event.size) < 0.02, 30 * MS, 0)
    stamp = true + floor_ns + delay.astype(np.int64)
    return list(zip(event.tolist(), stamp.tolist(), true.tolist(), strict=True))


def test_converges_to_the_smallest_delay() -> None:
    """After five seconds ROS time is true time plus the smallest delay, within 0.1 ms."""
    clock = SensorClock(absolute=False)
    errors = []
    for event, stamp, true in _packets(10.0):
        clock.update(event, stamp)
        errors.append(clock.to_ros(event) - true - 200_000)
    settled = np.array(errors[1250:])
    assert np.abs(settled).max() < 100_000
    assert clock.offset_ns is not None
    assert abs(clock.offset_ns - EPOCH - 200_000) < 50_000
    assert 0.5 * MS < clock.jitter_ns < 6 * MS  # mean excess: 1 ms plus 2 % of 30 ms


def test_follows_drift_of_50_ppm_both_ways() -> None:
    """Drift is measured within 5 ppm and followed within 0.2 ms for three minutes."""
    for drift in (50.0, -50.0):
        clock = SensorClock(absolute=False)
        errors = []
        for event, stamp, true in _packets(180.0, drift):
            clock.update(event, stamp)
            errors.append(clock.to_ros(event) - true - 200_000)
        assert np.abs(np.array(errors[30 * 250 :])).max() < 200_000
        assert abs(clock.drift_ppm - drift) < 5.0


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(-800, 800)), min_size=2, max_size=80))
@settings(max_examples=150, deadline=None)
def test_monotone_and_never_changes_its_mind(steps: list[tuple[int, int]]) -> None:
    """Whatever the stamps, ROS time never falls and past conversions stay as they were."""
    clock = SensorClock(absolute=False)
    event = 0
    # Stamps that differ: with one alone, the second may turn out to say nothing.
    clock.update(event - MS, EPOCH - MS)
    clock.update(event, EPOCH)
    known: dict[int, int] = {}
    for elapsed_ms, delay_ms in steps:
        event += elapsed_ms * MS
        clock.update(event, EPOCH + event + delay_ms * MS)
        for time in range(max(0, event - 50 * MS), event + 1, 10 * MS):
            known.setdefault(time, clock.to_ros(time))
    ordered = [known[time] for time in sorted(known)]
    assert ordered == sorted(ordered)
    for time, ros in known.items():
        assert clock.to_ros(time) == ros
        assert abs(clock.to_event(ros) - time) <= 3


def test_reproducible() -> None:
    """The same packets give the same bits in another clock."""
    packets = _packets(15.0, 20.0)
    first, second = SensorClock(absolute=False), SensorClock(absolute=False)
    assert first.offset_ns is first.final_ns is None
    for event, stamp, _ in packets:
        first.update(event, stamp)
        second.update(event, stamp)
        assert first.to_ros(event) == second.to_ros(event)
        assert first.final_ns == event
    assert (first.offset_ns, first.jitter_ns, first.drift_ppm) == (
        second.offset_ns,
        second.jitter_ns,
        second.drift_ppm,
    )


def test_first_packet_converts_at_once() -> None:
    """One packet is enough for a conversion; before it and for absolute times it is identity."""
    clock = SensorClock(absolute=False)
    assert clock.to_ros(5) == 5
    clock.update(1 * S, EPOCH)
    assert clock.to_ros(1 * S) == EPOCH
    assert clock.to_ros(1 * S + 7) == EPOCH + 7
    assert clock.to_event(EPOCH + 7) == 1 * S + 7


@pytest.mark.parametrize("stamp_ns", [0, EPOCH])
def test_stamps_that_tell_no_time_leave_sensor_time(stamp_ns: int) -> None:
    """Stamps of 0, or one and the same, convert nothing; the first that is another does."""
    clock = SensorClock(absolute=False)
    for event in range(5 * S, 8 * S, 10 * MS):
        clock.update(event, stamp_ns)
        if event > 5 * S:
            assert clock.to_ros(event) == event == clock.to_event(event)
            assert (clock.offset_ns, clock.final_ns, clock.jitter_ns) == (None, None, 0)
            assert clock.useless_stamp_ns == stamp_ns
    clock.update(8 * S, EPOCH + 3 * S)
    assert clock.to_ros(8 * S) == EPOCH + 3 * S
    assert clock.useless_stamp_ns is None


def test_a_stamp_that_comes_again_is_not_used() -> None:
    """Two messages of one read share a stamp; the second would look 4 ms less delayed."""
    clock = SensorClock(absolute=False)
    for k in range(500):
        clock.update(k * 4 * MS, EPOCH + k // 2 * 8 * MS)
        if k > 1:
            assert clock.to_ros(k * 4 * MS) == EPOCH + k * 4 * MS
    assert clock.final_ns == 499 * 4 * MS


def test_a_provisional_offset_holds_until_the_first_packet() -> None:
    """It converts both ways, is not final, and leaves no trace in the estimate."""
    clock = SensorClock(absolute=False, provisional_offset_ns=EPOCH)
    assert (clock.to_ros(S), clock.to_event(EPOCH + S)) == (EPOCH + S, S)
    assert clock.final_ns is clock.offset_ns is clock.useless_stamp_ns is None
    clock.update(2 * S, EPOCH + 3 * S)
    assert clock.to_ros(2 * S) == EPOCH + 3 * S


def test_absolute_times_stay_and_the_lag_is_reported() -> None:
    """Absolute event times convert to themselves, the stamps' lag and jitter are measured."""
    clock = SensorClock(absolute=True)
    for event in range(EPOCH, EPOCH + 2 * S, 10 * MS):
        clock.update(event, event + 11 * MS)
    assert clock.to_ros(EPOCH + 3) == EPOCH + 3 == clock.to_event(EPOCH + 3)
    assert clock.offset_ns == 11 * MS
    assert clock.jitter_ns == 0
