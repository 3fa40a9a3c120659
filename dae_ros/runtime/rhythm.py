"""When the next window is due, from those that came."""

from __future__ import annotations

import itertools
from collections import deque

# The shortest of so many intervals: a step that fits into it is in time.
_INTERVALS = 4


class Rhythm:
    """Foresees the closing of the next window, on the clock of those that it is told of.

    Attributes:
        due_ns: not before this the next window is expected; 0 until an interval is known.
    """

    def __init__(self) -> None:
        self._closed_ns: deque[int] = deque(maxlen=_INTERVALS + 1)
        self.due_ns = 0

    def closed(self, time_ns: int) -> None:
        """Note when the packet that closed a window arrived."""
        self._closed_ns.append(time_ns)
        times = list(self._closed_ns)
        if len(times) > 1:
            shortest_ns = min(b - a for a, b in itertools.pairwise(times))
            self.due_ns = time_ns + shortest_ns
