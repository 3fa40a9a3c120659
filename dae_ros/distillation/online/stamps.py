"""What the stamps of events and frames tell: whether their clock jumped, and what time it is."""

from __future__ import annotations

# Stamps of events that go back or ahead by more belong to another time; frames that are farther
# away from the events, on either side, to another clock.
LARGEST_BACKWARD_NS, LARGEST_FORWARD_NS = 1_000_000_000, 10_000_000_000


class Stamps:
    """The newest stamps, and when they came."""

    def __init__(self) -> None:
        self._newest_ns: int | None = None
        self._events_ns: int | None = None
        self._came_ns = 0

    def clear(self) -> None:
        """Forget all: another camera begins, or another time."""
        self._newest_ns = self._events_ns = None

    def jumped(self, events_ns: int) -> bool:
        """Return whether events of this stamp belong to another time than what came before them."""
        last_ns, newest_ns = self._events_ns, self._newest_ns
        if last_ns is None:
            # Frames alone came; they would be what time is told by until events reach them.
            return newest_ns is not None and abs(events_ns - newest_ns) > LARGEST_FORWARD_NS
        return not -LARGEST_BACKWARD_NS <= events_ns - last_ns <= LARGEST_FORWARD_NS

    def foreign(self, frame_ns: int) -> bool:
        """Return whether a frame is of before a jump, of another clock, or events have stopped."""
        events_ns = self._events_ns
        return events_ns is not None and abs(frame_ns - events_ns) > LARGEST_FORWARD_NS

    def take(self, stamp_ns: int, now_ns: int, *, events: bool) -> None:
        """Take the stamp of events or of a frame; `now_ns` is on any clock that only grows."""
        if events:
            self._events_ns = stamp_ns
        if self._newest_ns is None or stamp_ns > self._newest_ns:
            self._newest_ns, self._came_ns = stamp_ns, now_ns

    def time_ns(self, now_ns: int) -> int | None:
        """Return the time on the clock of the stamps, whichever that is; None without any."""
        if self._newest_ns is None:
            return None
        return self._newest_ns + max(now_ns - self._came_ns, 0)
