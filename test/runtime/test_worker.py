"""Inbox and worker: bounded, counted, and never dying in silence."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from dae_ros.runtime.worker import Inbox, Worker


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 120))
def test_inbox_keeps_the_newest_within_its_bytes(sizes: list[int], capacity: int) -> None:
    """What is taken is the longest newest run that fits, and all that has no size."""
    inbox: Inbox[int] = Inbox(capacity)
    for number, size in enumerate(sizes):
        inbox.put(number, size)
    expected: list[int] = []
    total = 0
    for number in reversed(range(len(sizes))):
        if sizes[number] == 0:
            expected.insert(0, number)
            continue
        total += sizes[number]
        if total <= capacity or total == sizes[number]:
            expected.insert(0, number)
    assert inbox.take(0.0) == expected
    assert inbox.dropped == len(sizes) - len(expected)
    assert inbox.byte_count == 0


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 120), st.integers(1, 5))
def test_items_that_find_room_push_nothing_out(sizes: list[int], capacity: int, most: int) -> None:
    """Whoever takes from the inbox until there is room gets every item, in order."""
    inbox: Inbox[int] = Inbox(capacity)
    taken: list[int] = []
    for number, size in enumerate(sizes):
        while not inbox.has_room(size):
            taken += inbox.take(0.0, most)
        inbox.put(number, size)
        assert inbox.byte_count <= max([capacity, *sizes])
    while rest := inbox.take(0.0, most):
        assert len(rest) <= most
        taken += rest
    assert taken == list(range(len(sizes)))
    assert (inbox.dropped, inbox.byte_count) == (0, 0)


def test_what_is_forgotten_leaves_what_takes_no_room() -> None:
    """Messages go and are told, commands stay in order, and there is room again."""
    inbox: Inbox[str] = Inbox(10)
    for item, size in (("a", 4), ("x", 0), ("b", 5), ("y", 0)):
        inbox.put(item, size)
    assert inbox.forget() == 2
    assert (inbox.byte_count, inbox.dropped) == (0, 0)
    inbox.put("c", 10)
    assert inbox.take(0.0) == ["x", "y", "c"]


def test_closing_wakes_the_taker() -> None:
    """A worker that waits for items ends at once when the inbox closes."""
    inbox: Inbox[int] = Inbox(10)
    taken: list[list[int]] = []
    thread = threading.Thread(target=lambda: taken.append(inbox.take(60.0)))
    thread.start()
    inbox.close()
    thread.join(120.0)
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
    assert closed.wait(120.0)
    assert worker.stop(120.0)
    assert reports[0][0] == "broken" and "in turn" in reports[0][1]
