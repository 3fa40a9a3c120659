"""Which window closes next: by time, by event count, or at stamps (frames, triggers).

A window is [start, end) in decoded event time, in whole microseconds. It is closed when an event
or packet time >= its end has been seen, never by a wall clock, so a recording and a live stream
close the same windows. What a step does when several are closed at once is the overload policy.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from dae_ros.events.codecs import supported_encodings, trigger_encodings
from dae_ros.events.ring_buffer import EventRing
from dae_ros.parameters import DepthParameters

US = 1_000


@dataclass(frozen=True, slots=True)
class Window:
    """Attributes: index since the grid began; start_ns inclusive, end_ns exclusive."""

    index: int
    start_ns: int
    end_ns: int


class TimeWindows:
    """Windows whose ends are the integer multiples of the hop in decoded event time."""

    def __init__(self, length_ns: int, hop_ns: int) -> None:
        self.length_ns = length_ns
        self.hop_ns = hop_ns
        self.skipped = 0
        self._next_end_ns: int | None = None
        self._index = 0

    @property
    def next_end_ns(self) -> int | None:
        """Before which no window to come ends; None where that is not known yet."""
        return self._next_end_ns

    def restart(self) -> None:
        """Begin the grid again at the next event."""
        self._next_end_ns = None

    def begin(self, first_event_ns: int) -> None:
        """Choose the first window: the first whose start is not before the first event."""
        if self._next_end_ns is None:
            self._next_end_ns = -(-(first_event_ns + self.length_ns) // self.hop_ns) * self.hop_ns

    def skip_to(self, time_ns: int) -> int:
        """Go on with the first window that ends after `time_ns`; return how many that skips."""
        if self._next_end_ns is None or self._next_end_ns > time_ns:
            return 0
        count = (time_ns - self._next_end_ns) // self.hop_ns + 1
        self._next_end_ns += count * self.hop_ns
        self._index += count
        return count

    def take(self, ring: EventRing, newest_ns: int, overload: str) -> Window | None:
        """Return the next closed window, None while there is none."""
        if self._next_end_ns is None or newest_ns < self._next_end_ns:
            return None
        start_ns = self._next_end_ns - self.length_ns
        if overload != "queue":
            newest_end_ns = newest_ns // self.hop_ns * self.hop_ns
            self.skipped += self.skip_to(newest_end_ns - self.hop_ns)
        end_ns = self._next_end_ns
        if overload != "merge":
            start_ns = end_ns - self.length_ns
        elif not ring.covers(start_ns) and ring.oldest_ns is not None:
            # As much of what was left out as the ring still holds, in whole hops.
            missing = -(-(ring.oldest_ns - start_ns) // self.hop_ns)
            start_ns = min(start_ns + missing * self.hop_ns, end_ns - self.length_ns)
        window = Window(self._index, start_ns, end_ns)
        self.skip_to(end_ns)
        return window


class CountWindows:
    """Windows of a number of events; events that share the last microsecond belong to it too."""

    next_end_ns = None  # the events to come decide

    def __init__(self, length_events: int, hop_events: int) -> None:
        self.length_events = length_events
        self.hop_events = hop_events
        self.skipped = 0
        self._next: int | None = None
        self._index = 0

    def restart(self) -> None:
        """Begin to count again at the next event."""
        self._next = None

    def skip_to(self, time_ns: int) -> int:  # noqa: ARG002  (as of the other kinds of windows)
        """Begin to count again at the next event: no window reaches over a silence."""
        self._next = None
        return 0

    def begin_at(self, event_index: int) -> None:
        """Choose the first window: `length_events` from this absolute event index on."""
        if self._next is None:
            self._next = event_index + self.length_events

    def take(self, ring: EventRing, newest_ns: int, overload: str) -> Window | None:
        """Return the next closed window, None while there is none."""
        if self._next is None:
            return None
        # Windows that begin before what the ring still holds can never be whole again.
        behind = ring.oldest_index - (self._next - self.length_events)
        if behind > 0:
            self._skip(-(-behind // self.hop_events))
        last = self._last_closed(ring, newest_ns)
        if last is None:
            return None
        first = self._next
        chosen = first if overload == "queue" else last
        self._skip((chosen - first) // self.hop_events)
        start_index = (first if overload == "merge" else chosen) - self.length_events
        window = Window(
            self._index, ring.time_of(start_index) // US * US, self._end_ns(ring, chosen)
        )
        self._next = chosen + self.hop_events
        self._index += 1
        return window

    def _skip(self, count: int) -> None:
        if self._next is not None:
            self._next += count * self.hop_events
            self._index += count
            self.skipped += count

    def _end_ns(self, ring: EventRing, stop: int) -> int:
        return ring.time_of(stop - 1) // US * US + US

    def _last_closed(self, ring: EventRing, newest_ns: int) -> int | None:
        if self._next is None or self._next > ring.total_pushed:
            return None
        last = self._next + (ring.total_pushed - self._next) // self.hop_events * self.hop_events
        while last >= self._next:
            if self._end_ns(ring, last) <= newest_ns:
                return last
            last -= self.hop_events
        return None


class StampWindows:
    """Windows that end at given stamps: middles of exposure, or trigger edges.

    Attributes:
        skipped: ends without a step, by the policy or because the ring does not hold the window.
        added: ends so far.
    """

    next_end_ns = None  # a stamp may lie in the past

    def __init__(self, length_ns: int) -> None:
        self.length_ns = length_ns
        self.skipped = 0
        self.added = 0
        self._ends_ns: deque[int] = deque()
        self._first_end_ns: int | None = None  # windows that end before it are skipped
        self._last_ns: int | None = None
        self._index = 0

    @property
    def unreached(self) -> int:
        """How many ends no event has passed yet."""
        return len(self._ends_ns)

    def restart(self) -> None:
        """Forget stamps that were not reached."""
        self.skipped += len(self._ends_ns)
        self._ends_ns.clear()
        self._first_end_ns = None
        self._last_ns = None

    def begin(self, first_event_ns: int) -> None:
        """Skip windows whose start lies before the first event."""
        if self._first_end_ns is None:
            self._first_end_ns = first_event_ns + self.length_ns

    def skip_to(self, time_ns: int) -> int:
        """Leave out windows that end up to this time; return how many there are by now.

        `take` skips those that are added later.
        """
        self._first_end_ns = max(self._first_end_ns or 0, time_ns + 1)
        count = sum(end_ns <= time_ns for end_ns in self._ends_ns)
        for _ in range(count):
            self._ends_ns.popleft()
        self._index += count
        return count

    def add(self, stamp_ns: int) -> bool:
        """Add the end of a window, floored to whole microseconds; False if it is not newer."""
        end_ns = stamp_ns // US * US
        if self._last_ns is not None and end_ns <= self._last_ns:
            return False
        self._last_ns = end_ns
        self._ends_ns.append(end_ns)
        self.added += 1
        return True

    def take(self, ring: EventRing, newest_ns: int, overload: str) -> Window | None:
        """Return the next closed window that the ring still covers, None while there is none."""
        first_ns: int | None = None
        while self._ends_ns and self._ends_ns[0] <= newest_ns:
            end_ns = self._ends_ns.popleft()
            index, self._index = self._index, self._index + 1
            start_ns = end_ns - self.length_ns
            before = self._first_end_ns is None or end_ns < self._first_end_ns
            if before or not ring.covers(start_ns):
                self.skipped += 1
                continue
            first_ns = start_ns if first_ns is None else first_ns
            waiting = bool(self._ends_ns) and self._ends_ns[0] <= newest_ns
            if overload != "queue" and waiting:
                self.skipped += 1
                continue
            return Window(index, first_ns if overload == "merge" else start_ns, end_ns)
        return None


def carries_no_triggers(encoding: str | None) -> str | None:
    """Return what to do about trigger windows on an encoding that has no triggers, else None."""
    if encoding not in supported_encodings() or encoding in trigger_encodings():
        return None
    name = "event arrays" if encoding.startswith("event_array") else f"'{encoding}' packets"
    return (
        f"no window can end at a trigger: {name} carry none, only "
        f"{', '.join(trigger_encodings())} do; choose the window time, count or frame"
    )


def no_ends(window: str, encoding: str | None) -> str:
    """Return why windows do not close to whose stamps nothing has come, and what to do about it.

    Args:
        window: `frame` or `trigger`.
        encoding: of the events, None before the first packet.
    """
    if window == "frame":
        return (
            "no window has closed: no camera frame lies inside of the events; see that the image "
            "topic is the one that belongs to them and is stamped by the same clock, or choose "
            "the window time or count"
        )
    return carries_no_triggers(encoding) or (
        "no window has closed: the events came without a rising edge of a trigger; connect the "
        "camera's trigger input, or choose the window time, count or frame"
    )


Windows: TypeAlias = TimeWindows | CountWindows | StampWindows


def create_windows(parameters: DepthParameters) -> Windows:
    """Return the windows that the parameters ask for."""
    length_ns = round(parameters.window_s * 1e6) * US
    if parameters.window == "time":
        return TimeWindows(length_ns, round(parameters.hop_s * 1e6) * US)
    if parameters.window == "count":
        return CountWindows(parameters.window_events, parameters.hop_events)
    return StampWindows(length_ns)
