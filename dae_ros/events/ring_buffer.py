"""The recent past of one camera's events, bounded by time and by memory.

Packets are kept as they were pushed, without a copy. A push is O(1), finding a window costs two
bisections over the packets plus one inside each boundary packet, whatever the window's length.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from dae_ros.errors import ConfigurationError, DaeError, TimeDisorder
from dae_ros.events.packet import Events


class WindowEvicted(DaeError, ValueError):
    """A window that begins before what the ring still holds."""

    code = "window_evicted"


class EventRing:
    """Answers any window [start, end) that lies inside the last seconds.

    Every event has an index that counts all events ever pushed, so that windows by count are
    differences of indices.

    Not thread-safe: one owner.

    Args:
        length_ns: event time that is kept at least, counted back from the newest event.
        capacity_bytes: memory of the columns (13 bytes an event); whichever bound is met first
            evicts the oldest packets. A packet larger than the capacity keeps its newest part.
    """

    def __init__(self, length_ns: int, capacity_bytes: int) -> None:
        if length_ns <= 0 or capacity_bytes < _BYTES_PER_EVENT:
            raise ConfigurationError(
                "A ring needs a positive length and room for at least one event.",
                length_ns=length_ns,
                capacity_bytes=capacity_bytes,
            )
        self.length_ns = length_ns
        self.capacity_bytes = capacity_bytes
        # Parallel lists, one entry per packet; entries before _head are evicted and are cut off
        # once they are the larger half, so that both ends cost O(1) on average and bisect works.
        self._chunks: list[Events] = []
        self._first_ns: list[int] = []
        self._last_ns: list[int] = []
        self._first_index: list[int] = []
        self._head = 0
        self._total = 0
        self._bytes = 0
        self._evicted = 0
        self._evicted_through_ns: int | None = None
        self._generation = 0

    @property
    def oldest_ns(self) -> int | None:
        """Time of the oldest event kept, None when empty."""
        return self._first_ns[self._head] if self._head < len(self._chunks) else None

    @property
    def newest_ns(self) -> int | None:
        """Time of the newest event, None when empty."""
        return self._last_ns[-1] if self._head < len(self._chunks) else None

    @property
    def event_count(self) -> int:
        """Events kept."""
        return self._total - self.oldest_index

    @property
    def byte_count(self) -> int:
        """Bytes of the columns kept."""
        return self._bytes

    @property
    def evicted_count(self) -> int:
        """Events that had to go because of a bound; `clear` does not count."""
        return self._evicted

    @property
    def total_pushed(self) -> int:
        """Events ever pushed: the index that the next event will get."""
        return self._total

    @property
    def oldest_index(self) -> int:
        """Index of the oldest event kept; `total_pushed` when empty."""
        return self._first_index[self._head] if self._head < len(self._chunks) else self._total

    @property
    def generation(self) -> int:
        """How often the ring was cleared; what was derived from an older one is void."""
        return self._generation

    def push(self, events: Events) -> None:
        """Append one packet's events; the ring keeps them as they are.

        Raises:
            TimeDisorder: they begin before the newest event; `clear` the ring first if time
                really ran back.
        """
        if len(events) == 0:
            return
        first_ns, last_ns = int(events.t[0]), int(events.t[-1])
        newest_ns = self.newest_ns
        if newest_ns is not None and first_ns < newest_ns:
            raise TimeDisorder(
                f"Events from {first_ns} ns were pushed after {newest_ns} ns; clear the ring where "
                "time ran back.",
                first_ns=first_ns,
                newest_ns=newest_ns,
                segments=(events,),
            )
        self._chunks.append(events)
        self._first_ns.append(first_ns)
        self._last_ns.append(last_ns)
        self._first_index.append(self._total)
        self._total += len(events)
        self._bytes += len(events) * _BYTES_PER_EVENT
        self._evict(last_ns - self.length_ns)

    def covers(self, start_ns: int) -> bool:
        """Whether no event at or after `start_ns` has been evicted."""
        return self._evicted_through_ns is None or start_ns > self._evicted_through_ns

    def slices(self, start_ns: int, end_ns: int) -> list[Events]:
        """Return the events of [start, end) as views of the packets, in order.

        Raises:
            WindowEvicted: the window begins before what is kept (see `covers`).
        """
        self.require(start_ns, end_ns)
        return self.between(self.index_of(start_ns), self.index_of(end_ns))

    def window(self, start_ns: int, end_ns: int) -> Events:
        """Return the events of [start, end); without a copy where they lie in one packet.

        Raises:
            WindowEvicted: the window begins before what is kept (see `covers`).
        """
        return Events.concatenate(self.slices(start_ns, end_ns))

    def index_of(self, time_ns: int) -> int:
        """Return the index of the first event kept at or after `time_ns`."""
        chunk = bisect_left(self._last_ns, time_ns, self._head)
        if chunk == len(self._chunks):
            return self._total
        return self._first_index[chunk] + int(np.searchsorted(self._chunks[chunk].t, time_ns))

    def time_of(self, index: int) -> int:
        """Return the time of one event by its index, in ns.

        Raises:
            WindowEvicted: the event is no longer kept, or not pushed yet.
        """
        if not self.oldest_index <= index < self._total:
            raise WindowEvicted(
                f"Event {index} is not among those kept, {self.oldest_index} to {self._total - 1}; "
                "lengthen the ring (ring_s, ring_mb) or shorten the window.",
                index=index,
                oldest_index=self.oldest_index,
                total_pushed=self._total,
            )
        chunk = bisect_right(self._first_index, index, self._head) - 1
        return int(self._chunks[chunk].t[index - self._first_index[chunk]])

    def between(self, start_index: int, stop_index: int) -> list[Events]:
        """Return the events of index `start` (inclusive) to `stop` (exclusive) as views, in order.

        Raises:
            WindowEvicted: `start_index` is older than what is kept.
        """
        if start_index >= stop_index:
            return []
        self.time_of(start_index)
        self.time_of(stop_index - 1)
        parts = []
        chunk = bisect_right(self._first_index, start_index, self._head) - 1
        while chunk < len(self._chunks) and self._first_index[chunk] < stop_index:
            offset = self._first_index[chunk]
            events = self._chunks[chunk]
            low, high = max(0, start_index - offset), min(len(events), stop_index - offset)
            parts.append(events if high - low == len(events) else events.slice(low, high))
            chunk += 1
        return parts

    def clear(self) -> None:
        """Forget all events, because time does not continue; indices go on."""
        for column in (self._chunks, self._first_ns, self._last_ns, self._first_index):
            column.clear()
        self._head = 0
        self._bytes = 0
        self._evicted_through_ns = None
        self._generation += 1

    def require(self, start_ns: int, end_ns: int) -> None:
        """Raise WindowEvicted unless the window's beginning is still held (see `covers`)."""
        if start_ns > end_ns:
            raise ConfigurationError(
                f"A window must not end ({end_ns} ns) before it begins ({start_ns} ns).",
                start_ns=start_ns,
                end_ns=end_ns,
            )
        if not self.covers(start_ns):
            raise WindowEvicted(
                f"The window from {start_ns} ns begins before what the ring still holds whole "
                f"(after {self._evicted_through_ns} ns); lengthen the ring (ring_s, ring_mb) or "
                "ask earlier.",
                start_ns=start_ns,
                end_ns=end_ns,
                evicted_through_ns=self._evicted_through_ns,
                oldest_ns=self.oldest_ns,
            )

    def _evict(self, before_ns: int) -> None:
        last = len(self._chunks) - 1
        while self._head < last and (
            self._last_ns[self._head] < before_ns or self._bytes > self.capacity_bytes
        ):
            events = self._chunks[self._head]
            self._evicted_through_ns = self._last_ns[self._head]
            self._evicted += len(events)
            self._bytes -= len(events) * _BYTES_PER_EVENT
            self._chunks[self._head] = _NOTHING  # frees the columns before the list is cut
            self._head += 1
        if self._bytes > self.capacity_bytes:
            self._keep_newest_part(last)
        if self._head > 64 and 2 * self._head > len(self._chunks):
            for column in (self._chunks, self._first_ns, self._last_ns, self._first_index):
                del column[: self._head]
            self._head = 0

    def _keep_newest_part(self, chunk: int) -> None:
        """Cut one packet that alone exceeds the capacity; a copy, since a view would keep it."""
        events = self._chunks[chunk]
        cut = len(events) - self.capacity_bytes // _BYTES_PER_EVENT
        self._evicted_through_ns = int(events.t[cut - 1])
        self._evicted += cut
        self._chunks[chunk] = Events(
            events.t[cut:].copy(),
            events.x[cut:].copy(),
            events.y[cut:].copy(),
            events.p[cut:].copy(),
        )
        self._first_ns[chunk] = int(events.t[cut])
        self._first_index[chunk] += cut
        self._bytes = (len(events) - cut) * _BYTES_PER_EVENT


_BYTES_PER_EVENT = 8 + 2 + 2 + 1
_NOTHING = Events.empty()
