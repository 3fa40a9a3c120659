"""Python's garbage collector in a process that must not pause: it runs between windows alone."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

PERIOD_S = 1.0
WHOLE_PERIOD_S = 60.0
# Python's generations: what has come since the last collection, and everything.
_NEW, _ALL = 1, 2


@dataclass(frozen=True, slots=True)
class Collections:
    """How many collections there were, and how long the last and the longest took, in ms."""

    count: int = 0
    last_ms: float = 0.0
    longest_ms: float = 0.0


class GarbageCollection:
    """Collects cycles where nobody waits, and never looks again at what has been loaded.

    By itself Python collects in the middle of whatever thread makes one object too many, and now
    and then looks at every object of the process: hundreds of thousands once PyTorch and rclpy are
    loaded, which takes tenths of a second, with the interpreter's lock. That is a window or more.

    It is of a whole process, so only the `main` of a node makes one; the process of somebody who
    uses the library keeps its collector as it is.

    Most collections look only at what has come since the one before; what the ring of events holds
    for seconds would make each of them a pause of several milliseconds for all threads.

    Args:
        period_s: between two collections; what lies in cycles waits for so long, or longer where
            there is no rest.
        whole_period_s: between two that look at everything that has come since `settle`; cycles
            that lived longer than `period_s` wait for it.

    Attributes:
        collections: those at rest, since `settle`.
    """

    def __init__(self, period_s: float = PERIOD_S, whole_period_s: float = WHOLE_PERIOD_S) -> None:
        self._period_s = period_s
        self._whole_period_s = whole_period_s
        self._settled = False
        self._next_s = 0.0
        self._next_whole_s = 0.0
        self.collections = Collections()

    def settle(self) -> None:
        """Everything is loaded: leave it alone, and collect at rest from now on."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        gc.disable()
        self.collections = Collections()
        now_s = time.monotonic()
        self._next_s = now_s + self._period_s
        self._next_whole_s = now_s + self._whole_period_s
        self._settled = True

    def rest(self) -> None:
        """Collect where that is due; called between windows, by the thread that steps them."""
        now_s = time.monotonic()
        if not self._settled or now_s < self._next_s:
            return
        whole = now_s >= self._next_whole_s
        begin_ns = time.perf_counter_ns()
        gc.collect(_ALL if whole else _NEW)
        took_ms = (time.perf_counter_ns() - begin_ns) / 1e6
        before = self.collections
        self.collections = Collections(before.count + 1, took_ms, max(before.longest_ms, took_ms))
        self._next_s = time.monotonic() + self._period_s
        if whole:
            self._next_whole_s = time.monotonic() + self._whole_period_s

    def end(self) -> None:
        """Give the collector back to Python; what had been loaded may go."""
        if self._settled:
            self._settled = False
            gc.unfreeze()
            gc.enable()
