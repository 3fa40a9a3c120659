"""One thread that owns everything mutable, and the bounded inbox that feeds it."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """A first-in first-out of items with a bound in bytes; the oldest are dropped and counted.

    Items of 0 bytes take no room: they push nothing out and are never pushed out themselves.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def dropped(self) -> int:
        """How many items were dropped because the inbox was full."""
        return self._dropped

    @property
    def byte_count(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._items)

    def has_room(self, size_bytes: int) -> bool:
        """Whether an item pushes nothing out; one larger than the inbox needs it empty."""
        return not size_bytes or not self._bytes or self._bytes + size_bytes <= self.capacity_bytes

    def put(self, item: Item, size_bytes: int) -> None:
        """Add an item; an item larger than the whole inbox still enters, alone."""
        with self._changed:
            if self._closed:
                return
            while not self.has_room(size_bytes):
                self._drop_oldest()
            self._items.append((item, size_bytes))
            self._bytes += size_bytes
            self._changed.notify()

    def take(self, timeout_s: float, most: int | None = None) -> list[Item]:
        """Return what waits, oldest first, after at most `timeout_s` for the first.

        Args:
            timeout_s: 0 does not wait.
            most: how many at most, None for all.

        Returns:
            the items, none if none came.
        """
        with self._changed:
            if not self._items and not self._closed:
                self._changed.wait(timeout_s)
            count = len(self._items) if most is None else min(most, len(self._items))
            taken = [self._items.popleft() for _ in range(count)]
            self._bytes -= sum(size_bytes for _, size_bytes in taken)
            return [item for item, _ in taken]

    def forget(self) -> int:
        """Drop every item that takes room, without counting them; return how many they were."""
        with self._changed:
            before = len(self._items)
            self._items = deque(entry for entry in self._items if not entry[1])
            self._bytes = 0
            return before - len(self._items)

    def _drop_oldest(self) -> None:
        """Drop the oldest item that takes room."""
        place = next(place for place, (_, size_bytes) in enumerate(self._items) if size_bytes)
        self._bytes -= self._items[place][1]
        self._dropped += 1
        del self._items[place]

    def close(self) -> None:
        """Refuse further items and wake the taker."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Worker:
    """A named thread that calls `turn` until it is stopped.

    Args:
        name: of the thread.
        turn: one round of work; returns soon (the inbox's timeout bounds it).
        failed: called with the error and its traceback text if `turn` raises; the thread ends.
        opened, closed: called on the thread before the first and after the last turn.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], None],
        failed: Callable[[BaseException, str], None],
        opened: Callable[[], None] | None = None,
        closed: Callable[[], None] | None = None,
    ) -> None:
        self._turn = turn
        self._failed = failed
        self._opened = opened
        self._closed = closed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ask the thread to end and wait; return whether it did within `timeout_s`."""
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        # The one place beside the transition wrapper that catches everything: a thread that dies
        # in silence would leave a node that looks alive.
        try:
            if self._opened is not None:
                self._opened()
            while not self._stopping.is_set():
                self._turn()
        except Exception as error:
            self._failed(error, traceback.format_exc())
        finally:
            if self._closed is not None:
                self._closed()
