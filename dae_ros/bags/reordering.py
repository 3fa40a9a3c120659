"""Messages of a file without an index, in the order of their record times."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Message = TypeVar("Message")

# A recorder stamps a message when it arrives and writes it when its thread comes to it. Messages
# of so much time are held; one that is later still comes out late, and is not lost.
HELD_NS = 1_000_000_000


class Reordering(Generic[Message]):
    """Holds the messages of the newest second, so that later ones can go before them.

    Args:
        time_of: record time of a message in ns.
    """

    def __init__(self, time_of: Callable[[Message], int]) -> None:
        self._time_of = time_of
        self._newest_ns = -(2**63)
        self._count = 0
        # The count keeps messages of one time in the order of the file.
        self._held: list[tuple[int, int, Message]] = []

    def push(self, message: Message) -> Iterator[Message]:
        """Take a message and yield those before which none is expected any more."""
        time_ns = self._time_of(message)
        heapq.heappush(self._held, (time_ns, self._count, message))
        self._count += 1
        self._newest_ns = max(self._newest_ns, time_ns)
        while self._held[0][0] < self._newest_ns - HELD_NS:
            yield heapq.heappop(self._held)[2]

    def rest(self) -> Iterator[Message]:
        """Yield what is held at the end of the file, or where it was cut."""
        while self._held:
            yield heapq.heappop(self._held)[2]
