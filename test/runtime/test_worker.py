"""Inbox and worker: bounded, counted, and never dying in silence."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from dae_ros.runtime.worker import Inbox, Worker


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_inbox_keeps_the_newest_within_its_bytes(sizes: list[int], capacity: int) -> None:
    """What is taken is the longest newest run that fits; the rest is counted as dropped."""
    inbox: Inbox[int] = Inbox(capacity)
    for number, size in enumerate(sizes):
        inbox.put(number, size)
    expected: list[int] = []
    total = 0
    for number in reversed(range(len(sizes))):
        total += sizes[number]
        if total > capacity and expected:
            break
        expected.insert(0, number)
    assert inbox.take_all(0.0) == expected
    assert inbox.dropped == len(sizes) - len(expected)
    assert inbox.byte_count == 0


def test_closing_wakes_the_taker() -> None:
    """A worker that waits for items ends at once when the inbox closes."""
    inbox: Inbox[int] = Inbox(10)
    taken: list[list[int]] = []
    thread = threading.Thread(target=lambda: taken.append(inbox.take_all(60.0)))
    thread.start()
    inbox.close()
    thread.join(5.0)
    assert taken == [[]]
    inbox.put(1, 1)
    assert len(inbox) == 0


def test_a_failing_turn_is_reported_and_ends_the_thread() -> None:
    """The error and its traceback reach the callback; closed still runs."""
    reports: list[tuple[str, str]] = []
    closed = threading.Event()

    def turn() -> None:
        raise ValueError("broken")

    worker = Worker("w", turn, lambda e, text: reports.append((str(e), text)), closed=closed.set)
    worker.start()
    assert closed.wait(5.0)
    assert worker.stop(5.0)
    assert reports[0][0] == "broken" and "in turn" in reports[0][1]
