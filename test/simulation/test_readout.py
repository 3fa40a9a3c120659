"""The row arbiter against its plain twin, and what a slow bus does to events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.events.packet import Events
from dae_ros.simulation.readout import ROW_COST_EVENTS, ReadOut
from test.reference import row_arbiter

HEIGHT, WIDTH = 4, 6


def columns(requests: list[tuple[int, int, int, int]]) -> tuple[np.ndarray, ...]:
    """Return t, x, y, p of (time, row, column, polarity), row by row as the pixels give them."""
    rows = sorted(requests, key=lambda r: (r[1], r[2], r[0]))
    table = np.array(rows, np.int64).reshape(-1, 4)
    return (
        table[:, 0].copy(),
        table[:, 2].astype(np.uint16),
        table[:, 1].astype(np.uint16),
        table[:, 3].astype(np.uint8),
    )


def as_tuples(events: Events) -> list[tuple[int, int, int, int]]:
    rows = zip(events.t // 1000, events.y, events.x, events.p, strict=True)
    return [tuple(int(v) for v in row) for row in rows]


def test_the_twin_serves_rows_together_and_loses_a_second_request() -> None:
    """The reference itself: two rows ask at once, one pixel twice, at 1 us an event."""
    requests = [(0, 0, 3, 1), (0, 2, 1, 1), (1, 0, 5, 0), (2, 2, 1, 0), (2, 2, 4, 0)]
    sent, left, now = row_arbiter.serve(requests, 1.0, 2.0)
    # Row 0 leaves at 0 and takes 3 us; by then row 2 has two pixels waiting and lost one request,
    # and row 0 has asked again.
    assert sent == [(0, 0, 3, 1), (3, 2, 1, 1), (3, 2, 4, 0), (7, 0, 5, 0)]
    assert left == []
    assert now == 10.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 59),
            st.integers(0, HEIGHT - 1),
            st.integers(0, WIDTH - 1),
            st.integers(0, 1),
        ),
        max_size=60,
    ),
    st.sampled_from([50_000.0, 400_000.0, 3e6]),
)
def test_read_out_equals_the_twin_step_by_step(
    requests: list[tuple[int, int, int, int]], events_per_s: float
) -> None:
    """Over three steps of 20 us, and one that empties the queue, all events equal the twin's."""
    # A pixel fires once per microsecond at most.
    unique = sorted({r[:3]: r for r in requests}.values(), key=lambda r: r[:3])
    readout = ReadOut(HEIGHT, WIDTH, events_per_s, 0)
    waiting, now = [], 0.0
    for start_us, end_us in ((0, 20), (20, 40), (40, 60), (60, 100_000)):
        step = [r for r in unique if start_us <= r[0] < end_us]
        expected, waiting, now = row_arbiter.serve(
            waiting + step, 1e6 / events_per_s, ROW_COST_EVENTS, end_us, now
        )
        events = readout.serve(start_us, end_us, *columns(step))
        assert as_tuples(events) == expected
    assert waiting == []


def test_without_a_limit_events_keep_their_times() -> None:
    """An unlimited bus only sorts: by time, then row, then column."""
    random = np.random.default_rng(3)
    requests = [(int(random.integers(50)), y, x, 1) for y in range(HEIGHT) for x in range(WIDTH)]
    events = ReadOut(HEIGHT, WIDTH, 0.0, 0).serve(0, 50, *columns(requests))
    assert as_tuples(events) == sorted(requests)


def test_a_saturated_bus_carries_its_rate_and_no_more() -> None:
    """When all pixels fire at 2.5 times what the bus can carry, it carries nearly its rate."""
    height, width = 20, 100
    readout = ReadOut(height, width, 1e6, 0)
    total = 0
    y, x = (v.ravel() for v in np.mgrid[0:height, 0:width])
    times = []
    for step in range(12):
        start_us = 800 * step
        # Every pixel fires once per 800 us: 2.5 Mev/s.
        t = start_us + (np.arange(height * width) * 7919) % 800
        events = readout.serve(
            start_us,
            start_us + 800,
            t,
            x.astype(np.uint16),
            y.astype(np.uint16),
            np.ones(len(t), np.uint8),
        )
        total += len(events)
        times.append(events.t)
    assert (np.diff(np.concatenate(times)) >= 0).all()
    assert total / (12 * 800e-6) == pytest.approx(1e6, rel=0.08)
