"""The recent past of one camera's events, bounded by time and by memory.

Packets are kept as they were pushed, without a copy. A push is O(1), finding a window costs two
bisections over the packets plus one inside each boundary packet, whatever the window's length.
Where events are on a surface already, only their packet may be left, from which any past window is
decoded again (`PackedEvents`, `PutAwayEvents`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from dae_ros.errors import ConfigurationError, DaeError, TimeDisorder
from dae_ros.events.packet import BYTES_PER_EVENT, Events

# What Python needs for a packet beside its events: array headers, list entries, and the decoder's
# state where the packet is kept; 0.8 to 1.1 kB (tracemalloc). A quiet camera sends many small ones.
PACKET_BYTES = 1000
# Bounds of windows whose place is remembered, because the packet there may be let go: more than
# windows that overlap fifty times have between them.
_PLACES_KEPT = 256


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
        capacity_bytes: memory of events (`Events.byte_count`) and packets (`PACKET_BYTES` each);
            whichever bound is met first evicts the oldest packets. A packet larger than the
            capacity keeps its newest part.
    """

    def __init__(self, length_ns: int, capacity_bytes: int) -> None:
        if length_ns <= 0 or capacity_bytes < PACKET_BYTES + BYTES_PER_EVENT:
            raise ConfigurationError(
                "A ring needs a positive length and room for at least one packet of one event.",
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
        self._let_go = 0  # packets before this one hold no events any more
        self._places: dict[int, tuple[int, int]] = {}  # time: index and time of the event there
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
        """Bytes of the events and packets kept, as the capacity counts them."""
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
        count = len(events)
        if count == 0:
            return
        first_ns, last_ns = events.first_ns, events.last_ns
        if self._last_ns and first_ns < self._last_ns[-1]:
            newest_ns = self._last_ns[-1]
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
        self._total += count
        self._bytes += events.byte_count + PACKET_BYTES
        before_ns = last_ns - self.length_ns
        if self._bytes > self.capacity_bytes or self._last_ns[self._head] < before_ns:
            self._evict(before_ns)

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
        return self.first_at(time_ns)[0]

    def first_at(self, time_ns: int) -> tuple[int, int | None]:
        """Return index and time of the first event kept at or after `time_ns`.

        `total_pushed` and None where there is none yet.
        """
        place = self._places.get(time_ns)
        if place is None:
            chunk = bisect_left(self._last_ns, time_ns, self._head)
            if chunk == len(self._chunks):
                return self._total, None
            place = self._first_index[chunk], self._first_ns[chunk]
            if time_ns > place[1]:
                inside, found_ns = self._chunks[chunk].first_at(time_ns)
                place = place[0] + inside, found_ns
            if len(self._places) == _PLACES_KEPT:
                del self._places[next(iter(self._places))]
            self._places[time_ns] = place
        if place[0] < self.oldest_index:
            return self.oldest_index, self.oldest_ns
        return place

    def packet_of(self, time_ns: int) -> int:
        """Return the index of the first event of the first packet that reaches `time_ns`."""
        chunk = bisect_left(self._last_ns, time_ns, self._head)
        return self._total if chunk == len(self._chunks) else self._first_index[chunk]

    def time_of(self, index: int) -> int:
        """Return the time of one event by its index, in ns.

        Raises:
            WindowEvicted: the event is no longer kept, or not pushed yet.
        """
        self._require_index(index)
        chunk = bisect_right(self._first_index, index, self._head) - 1
        inside = index - self._first_index[chunk]
        if inside == 0:
            return self._first_ns[chunk]
        if inside == len(self._chunks[chunk]) - 1:
            return self._last_ns[chunk]
        return self._chunks[chunk].time_of(inside)

    def between(self, start_index: int, stop_index: int) -> list[Events]:
        """Return the events of index `start` (inclusive) to `stop` (exclusive) as views, in order.

        Raises:
            WindowEvicted: `start_index` is older than what is kept.
        """
        if start_index >= stop_index:
            return []
        self._require_index(start_index)
        self._require_index(stop_index - 1)
        first = bisect_right(self._first_index, start_index, self._head) - 1
        last = bisect_left(self._first_index, stop_index, first)  # exclusive
        parts = self._chunks[first:last]
        end = stop_index - self._first_index[last - 1]
        if end < len(parts[-1]):
            parts[-1] = parts[-1].slice(0, end)
        begin = start_index - self._first_index[first]
        if begin > 0:
            parts[0] = parts[0].slice(begin, len(parts[0]))
        return parts

    def let_go(self, stop_index: int) -> None:
        """Keep only the packet, where there is one, of packets that end before `stop_index`.

        For an owner that has put these events on a surface. They can be asked for as before, and
        cost decoding once more.
        """
        while self._let_go < len(self._chunks):
            events = self._chunks[self._let_go]
            if self._first_index[self._let_go] + len(events) > stop_index:
                return
            self._bytes -= events.let_go()
            self._let_go += 1

    def clear(self) -> None:
        """Forget all events, because time does not continue; indices go on."""
        for column in (self._chunks, self._first_ns, self._last_ns, self._first_index):
            column.clear()
        self._places.clear()
        self._head = self._let_go = 0
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

    def _require_index(self, index: int) -> None:
        if not self.oldest_index <= index < self._total:
            raise WindowEvicted(
                f"Event {index} is not among those kept, {self.oldest_index} to {self._total - 1}; "
                "lengthen the ring (ring_s, ring_mb) or shorten the window.",
                index=index,
                oldest_index=self.oldest_index,
                total_pushed=self._total,
            )

    def _evict(self, before_ns: int) -> None:
        last = len(self._chunks) - 1
        while self._head < last and (
            self._last_ns[self._head] < before_ns or self._bytes > self.capacity_bytes
        ):
            events = self._chunks[self._head]
            self._evicted_through_ns = self._last_ns[self._head]
            self._evicted += len(events)
            self._bytes -= events.byte_count + PACKET_BYTES
            self._chunks[self._head] = _NOTHING  # frees the columns before the list is cut
            self._head += 1
        if self._bytes > self.capacity_bytes:
            self._keep_newest_part(last)
        if self._head > 64 and 2 * self._head > len(self._chunks):
            for column in (self._chunks, self._first_ns, self._last_ns, self._first_index):
                del column[: self._head]
            self._let_go = max(0, self._let_go - self._head)
            self._head = 0

    def _keep_newest_part(self, chunk: int) -> None:
        """Cut one packet that alone exceeds the capacity; a copy, since a view would keep it."""
        events = self._chunks[chunk]
        room = (self.capacity_bytes - PACKET_BYTES) // BYTES_PER_EVENT
        # None is cut where columns alone fit and columns with a payload do not.
        cut = max(0, len(events) - room)
        if cut:
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
        self._bytes = (len(events) - cut) * BYTES_PER_EVENT + PACKET_BYTES


_NOTHING = Events.empty()
