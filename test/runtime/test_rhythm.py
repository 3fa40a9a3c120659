"""When the next window is due."""

from __future__ import annotations

from dae_ros.runtime.rhythm import Rhythm


def test_the_next_window_is_due_after_the_shortest_of_the_last_intervals() -> None:
    """Nothing is foreseen from one window; an old short interval is forgotten in time."""
    rhythm = Rhythm()
    rhythm.closed(100)
    assert rhythm.due_ns == 0
    due = []
    for time_ns in (130, 180, 230, 280, 330, 380):
        rhythm.closed(time_ns)
        due.append(rhythm.due_ns - time_ns)
    assert due == [30, 30, 30, 30, 50, 50]
