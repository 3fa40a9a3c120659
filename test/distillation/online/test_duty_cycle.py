"""The duty cycle: work and rest, closed over depth's latency, stopped by losses and memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.distillation.online.budget import BEGINNING, LEAST, DutyCycle
from dae_ros.parameters.distillation import OnlineParameters

PARAMETERS = OnlineParameters(duty=0.32, latency_budget_ms=35.0, recovery_s=5.0, memory_mb=1000)
SECOND, MS = 1_000_000_000, 1_000_000


def second(cycle: DutyCycle, now_ns: int, latency_ms: float | None) -> int:
    """Let 20 windows of depth come during a second; return the time after it."""
    for _ in range(20 if latency_ms is not None else 0):
        cycle.depth(latency_ms)
    cycle.update(now_ns + SECOND)
    return now_ns + SECOND


def grown(latency_ms: float | None = 10.0) -> tuple[DutyCycle, int]:
    """Return a cycle that found its largest share, and the time."""
    cycle, now_ns = DutyCycle(PARAMETERS, 0), 0
    for _ in range(60):
        now_ns = second(cycle, now_ns, latency_ms)
    return cycle, now_ns


def test_it_begins_with_little_and_grows_while_there_is_room() -> None:
    """A tenth more each second, up to the largest share."""
    cycle, now_ns, duties = DutyCycle(PARAMETERS, 0), 0, []
    assert cycle.duty == 0.02
    for _ in range(40):
        now_ns = second(cycle, now_ns, 20.0)
        duties.append(cycle.duty)
    assert duties[:3] == pytest.approx([0.022, 0.0242, 0.02662])
    assert duties[-1] == 0.32
    assert duties == sorted(duties)


def test_work_is_followed_by_its_rest() -> None:
    """After 100 ms at d = 0.2, 400 ms; less is left the later it is."""
    cycle, now_ns = grown()
    cycle.parameters = dataclasses.replace(PARAMETERS, duty=0.2)
    cycle.update(now_ns)
    assert cycle.rest_ns(now_ns) == 0
    cycle.worked(100 * MS, now_ns + 100 * MS)
    assert cycle.rest_ns(now_ns + 100 * MS) == pytest.approx(400 * MS)
    assert cycle.rest_ns(now_ns + 300 * MS) == pytest.approx(200 * MS)
    assert cycle.rest_ns(now_ns + 500 * MS) == 0
    # Two pieces in a row are rested from together, and idle time is no credit.
    cycle.worked(100 * MS, now_ns + 9100 * MS)
    cycle.worked(100 * MS, now_ns + 9200 * MS)
    assert cycle.rest_ns(now_ns + 9200 * MS) == pytest.approx(800 * MS)


def test_a_share_of_one_needs_no_rest() -> None:
    """Offline there is nobody to disturb."""
    cycle = DutyCycle(dataclasses.replace(PARAMETERS, duty=1.0), 0)
    for now_s in range(1, 60):
        cycle.update(now_s * SECOND)
    assert cycle.duty == 1.0
    cycle.worked(10 * SECOND, 70 * SECOND)
    assert cycle.rest_ns(70 * SECOND) == 0


def test_late_depth_halves_the_share_and_neither_late_nor_early_leaves_it() -> None:
    """Above 35 ms, between 24.5 and 35 ms, and too few images to say."""
    cycle, now_ns = grown()
    now_ns = second(cycle, now_ns, 35.1)
    assert cycle.duty == 0.16
    now_ns = second(cycle, now_ns, 35.0)
    now_ns = second(cycle, now_ns, 24.5)
    assert cycle.duty == 0.16
    now_ns = second(cycle, now_ns, 24.4)
    assert cycle.duty == pytest.approx(0.176)


@pytest.mark.parametrize("period_ns", [SECOND // 9, SECOND // 2, 2 * SECOND])
def test_slow_depth_that_is_late_is_heard(period_ns: int) -> None:
    """Fewer than ten images a second, each half a second late: learning stops, and stays so."""
    cycle, began_ns = grown(None)
    for now_ns in range(began_ns, began_ns + 90 * SECOND, period_ns):
        cycle.depth(500.0)
        cycle.update(now_ns)
        if now_ns - began_ns > 60 * SECOND:
            assert cycle.duty == 0.0
            assert cycle.hold is not None and cycle.hold.reason == "late"


def test_few_latencies_decide_nothing_before_there_are_ten_or_five_seconds() -> None:
    """Late ones are waited for, once decided on they count no more, and silence is no depth."""
    cycle, now_ns = grown()
    for count in (4, 5):
        for _ in range(count):
            cycle.depth(90.0)
        now_ns += SECOND
        cycle.update(now_ns)
        assert cycle.duty == 0.32
    cycle.depth(90.0)
    now_ns += SECOND
    cycle.update(now_ns)
    assert cycle.duty == 0.16, "ten"
    for _ in range(4):
        now_ns += SECOND
        cycle.update(now_ns)
        assert cycle.duty == 0.16, "depth may come again"
    now_ns += SECOND
    cycle.update(now_ns)
    assert cycle.duty == pytest.approx(0.176), "there is no depth"
    cycle.depth(90.0)
    for second_ in range(6):
        cycle.update(now_ns + second_ * SECOND)
        assert cycle.duty == pytest.approx(0.176 if second_ < 5 else 0.088)


def slowed(contention: float, long_s: int) -> tuple[float, float]:
    """Two hours of depth at 20 Hz, longer by `contention` while learning works.

    Args:
        long_s: every twentieth piece of work takes so long, the others a second.

    Returns:
        Of the second hour the share of time that learning worked, and the ratio of the 95 %
        quantile to that without learning.
    """
    parameters = dataclasses.replace(PARAMETERS, latency_budget_ms=0.0, duty=0.25)
    cycle, random = DutyCycle(parameters, 0), np.random.default_rng(1)
    found, piece_ns, ends_ns, pieces = [], 0, 0, 0
    for tick in range(20 * 7200):
        now_ns = tick * SECOND // 20
        if ends_ns and now_ns >= ends_ns:
            cycle.worked(piece_ns, ends_ns)
            ends_ns = 0
        alone_ms = 36.0 * float(random.normal(1.0, 0.03))
        latency_ms = alone_ms * (1.0 + contention * (ends_ns > 0))
        cycle.depth(latency_ms)
        if not ends_ns:  # as in a piece of work
            cycle.update(now_ns)
            if cycle.rest_ns(now_ns) == 0:
                pieces += 1
                piece_ns = (long_s if pieces % 20 == 0 else 1) * SECOND
                ends_ns = now_ns + piece_ns
                cycle.works()
        if tick >= 20 * 3600:
            found.append((ends_ns > 0, alone_ms, latency_ms))
    worked, alone, disturbed = np.array(found).T
    return float(worked.mean()), float(np.quantile(disturbed, 0.95) / np.quantile(alone, 0.95))


@pytest.mark.parametrize("long_s", [1, 40])
def test_without_a_budget_depth_may_take_a_fifth_longer(long_s: int) -> None:
    """Above what it takes here: what disturbs little is done, what disturbs much hardly ever."""
    share, ratio = slowed(0.1, long_s)
    assert share == pytest.approx(0.25, abs=0.02) and ratio < 1.15
    share, ratio = slowed(0.5, long_s)
    assert 0.01 < share < 0.05 and ratio < 1.2


def test_without_a_budget_nothing_grows_before_it_is_known_what_is_usual() -> None:
    """Depth that has not been heard at rest says nothing; another load becomes what is usual."""
    cycle = DutyCycle(dataclasses.replace(PARAMETERS, latency_budget_ms=0.0), 0)
    cycle.works()
    now_ns = 0
    for _ in range(20):
        now_ns = second(cycle, now_ns, 30.0)
    assert cycle.duty == 0.02 and cycle.hold is None
    cycle.worked(20 * SECOND, now_ns)
    for _ in range(5):
        now_ns = second(cycle, now_ns, 30.0)
    assert cycle.duty > 0.02
    for _ in range(2400):
        now_ns = second(cycle, now_ns, 60.0)
    assert cycle.hold is None and cycle.duty == 0.32


def test_the_95_percent_quantile_decides() -> None:
    """One late image of twenty-five is none; two are."""
    for late, expected in ((1, 0.32), (2, 0.16)):
        cycle, now_ns = grown()
        for index in range(25):
            cycle.depth(90.0 if index < late else 10.0)
        cycle.update(now_ns + SECOND)
        assert cycle.duty == expected


def test_lost_windows_stop_it_at_once_and_it_recovers() -> None:
    """Within one update; then five seconds without a loss, and from the beginning."""
    cycle, now_ns = grown()
    cycle.dropped(3)
    cycle.update(now_ns + 1)
    assert cycle.duty == 0.0
    assert cycle.rest_ns(now_ns + 1) is None
    assert cycle.hold is not None
    assert cycle.hold.reason == "windows_dropped"
    assert "3 windows" in cycle.hold.detail
    began_ns = now_ns
    while cycle.duty == 0.0:
        now_ns = second(cycle, now_ns, 10.0)
    assert 5 * SECOND <= now_ns - began_ns <= 7 * SECOND
    assert cycle.duty == BEGINNING * 0.32
    assert cycle.hold is None
    assert cycle.rest_ns(now_ns) == 0


def test_depth_that_is_late_without_learning_stops_it() -> None:
    """Another load on the machine: nothing is learned until it is gone, with the reason."""
    cycle, now_ns = grown()
    for _ in range(8):
        now_ns = second(cycle, now_ns, 60.0)
    assert cycle.duty == 0.0
    assert cycle.hold is not None
    assert cycle.hold.reason == "late"
    for _ in range(60):
        now_ns = second(cycle, now_ns, 60.0)
    assert cycle.duty == 0.0
    for _ in range(60):
        now_ns = second(cycle, now_ns, 10.0)
    assert cycle.duty == 0.32


def test_without_depth_it_recovers_as_well() -> None:
    """A depth node that went after it lost windows is disturbed no more."""
    cycle, now_ns = grown()
    cycle.dropped(1)
    for _ in range(60):
        now_ns = second(cycle, now_ns, None)
    assert cycle.duty == 0.32


def test_memory_holds_until_a_tenth_is_free() -> None:
    """Above 1000 MB it holds; at 950 MB still, at 899 MB no more."""
    cycle, now_ns = grown()
    reasons, begins = [], []
    for megabytes in (1000, 1001, 1002, 950, 899, 950):
        begins.append(cycle.memory(megabytes * 1_000_000))
        reasons.append(None if cycle.hold is None else cycle.hold.reason)
        assert (cycle.rest_ns(now_ns) is None) == (cycle.hold is not None)
    assert reasons == [None, "memory", "memory", "memory", None, None]
    assert begins == [False, True, False, False, False, False]


def test_a_smaller_share_is_followed_at_once() -> None:
    """While running, by the next update."""
    cycle, now_ns = grown()
    cycle.parameters = dataclasses.replace(PARAMETERS, duty=0.1)
    cycle.update(now_ns + 1)
    assert cycle.duty == 0.1


moments = st.lists(
    st.one_of(
        st.tuples(st.just("depth"), st.floats(0.0, 200.0)),
        st.tuples(st.just("dropped"), st.integers(0, 3)),
        st.tuples(st.just("worked"), st.integers(0, 2 * SECOND)),
        st.tuples(st.just("wait"), st.integers(-SECOND, 3 * SECOND)),
        st.tuples(st.just("memory"), st.integers(0, 2_000_000_000)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(moments)
def test_the_share_stays_within_its_bounds(steps: list[tuple[str, Any]]) -> None:
    """Whatever comes in whatever order, clocks that jump back included."""
    cycle, now_ns = DutyCycle(PARAMETERS, 0), 0
    for kind, value in steps:
        if kind == "depth":
            for _ in range(10):
                cycle.depth(value)
        elif kind == "dropped":
            cycle.dropped(value)
        elif kind == "memory":
            cycle.memory(value)
        else:
            now_ns += value
            if kind == "worked":
                cycle.worked(value, now_ns)
        cycle.update(now_ns)
        assert cycle.duty == 0.0 or LEAST * 0.32 <= cycle.duty <= 0.32
        if kind == "dropped" and value:
            assert cycle.duty == 0.0
        rest_ns = cycle.rest_ns(now_ns)
        assert (rest_ns is None) == (cycle.hold is not None)
        assert rest_ns is None or rest_ns >= 0


@settings(max_examples=25, deadline=None)
@given(st.integers(1 * MS, 400 * MS))
def test_whoever_waits_works_no_more_than_the_share(piece_ns: int) -> None:
    """Over a minute, but for one piece of work."""
    cycle, now_ns = grown()
    began_ns, work_ns = now_ns, 0
    while now_ns - began_ns < 60 * SECOND:
        now_ns += cycle.rest_ns(now_ns) or 0
        now_ns += piece_ns
        work_ns += piece_ns
        cycle.worked(piece_ns, now_ns)
        cycle.update(now_ns)
    elapsed_ns = now_ns - began_ns
    assert work_ns <= 0.32 * elapsed_ns + piece_ns
    assert work_ns >= 0.32 * elapsed_ns - piece_ns


@settings(max_examples=50, deadline=None)
@given(st.floats(1.0, 24.0), st.floats(0.0, 400.0))
def test_it_settles_where_depth_is_in_time(alone_ms: float, slope_ms: float) -> None:
    """Latency that grows with the share: after a minute and a half it is within its budget."""
    cycle, now_ns, late = DutyCycle(PARAMETERS, 0), 0, []
    for _ in range(120):
        latency_ms = alone_ms + slope_ms * cycle.duty
        late.append(latency_ms > 35.0)
        now_ns = second(cycle, now_ns, latency_ms)
    assert not any(late[90:])
    assert cycle.duty == 0.32 or alone_ms + slope_ms * cycle.duty >= 0.7 * 35.0
