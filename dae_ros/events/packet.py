"""The values that flow through the event half: packets in, events and triggers out.

Times are int64 nanoseconds. Which clock they belong to depends on the encoding
(`docs/time.md`): absolute for `libcaer`, `libcaer_cmp`, `mono` and the event arrays,
time since the camera started for `evt3`, `evt2` and `evt2.1`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

# ROS stamps count seconds in 31 bits, up to January 2038: no time from here on can be published.
TIME_LIMIT_NS: Final = 2**31 * 1_000_000_000

Payload: TypeAlias = "bytes | bytearray | memoryview | NDArray[np.uint8]"
Columns: TypeAlias = (
    "tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint8]]"
)
BYTES_PER_EVENT: Final = 8 + 2 + 2 + 1


def columns_of(count: int) -> Columns:
    """Return room for `count` events: t, x, y and p."""
    return (
        np.empty(count, np.int64),
        np.empty(count, np.uint16),
        np.empty(count, np.uint16),
        np.empty(count, np.uint8),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Change-detection events, sorted by time and inside the sensor; columns are read-only.

    Attributes:
        t: int64[N], nanoseconds, never decreasing.
        x: uint16[N], column in px, 0 <= x < width.
        y: uint16[N], row in px, 0 <= y < height.
        p: uint8[N], polarity: 1 brighter (ON), 0 darker (OFF).
    """

    t: NDArray[np.int64]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    p: NDArray[np.uint8]

    def __post_init__(self) -> None:
        # Written out, as this is done for every packet: half the time of a loop over `flags`.
        self.t.setflags(write=False)
        self.x.setflags(write=False)
        self.y.setflags(write=False)
        self.p.setflags(write=False)

    def __len__(self) -> int:
        return len(self.t)

    @property
    def first_ns(self) -> int:
        """Time of the first event; there has to be one."""
        return int(self.t[0])

    @property
    def last_ns(self) -> int:
        """Time of the last event; there has to be one."""
        return int(self.t[-1])

    @property
    def byte_count(self) -> int:
        """Memory that these events keep."""
        return BYTES_PER_EVENT * len(self)

    def time_of(self, index: int) -> int:
        """Return the time of one event, in ns."""
        return int(self.t[index])

    def first_at(self, time_ns: int) -> tuple[int, int]:
        """Return index and time of the first event at or after `time_ns`; there has to be one."""
        index = int(np.searchsorted(self.t, time_ns))
        return index, int(self.t[index])

    def slice(self, start: int, stop: int) -> Events:
        """Return the events of index `start` (inclusive) to `stop` (exclusive), without a copy."""
        return Events(
            self.t[start:stop], self.x[start:stop], self.y[start:stop], self.p[start:stop]
        )

    def write_to(self, columns: Columns) -> None:
        """Copy the events into t, x, y and p of their length."""
        t, x, y, p = columns
        t[:], x[:], y[:], p[:] = self.t, self.x, self.y, self.p

    def let_go(self) -> int:
        """Free what can be made again from the packet; return how many bytes: none here."""
        return 0

    @staticmethod
    def empty() -> Events:
        """Return no events."""
        return Events(*columns_of(0))

    @staticmethod
    def concatenate(parts: Sequence[Events]) -> Events:
        """Join parts that are already in time order."""
        if not parts:
            return Events.empty()
        if len(parts) == 1:
            return parts[0]
        t, x, y, p = columns_of(sum(map(len, parts)))
        start = 0
        for part in parts:
            stop = start + len(part)
            part.write_to((t[start:stop], x[start:stop], y[start:stop], p[start:stop]))
            start = stop
        return Events(t, x, y, p)


@dataclass(frozen=True, slots=True, eq=False)
class Triggers:
    """External trigger edges, in stream order.

    Attributes:
        t: int64[N], nanoseconds, same clock as the events of the packet.
        edge: uint8[N], 1 rising, 0 falling.
        channel: uint16[N], trigger input.
    """

    t: NDArray[np.int64]
    edge: NDArray[np.uint8]
    channel: NDArray[np.uint16]

    def __post_init__(self) -> None:
        for column in (self.t, self.edge, self.channel):
            column.setflags(write=False)

    def __len__(self) -> int:
        return len(self.t)

    def slice(self, start: int, stop: int) -> Triggers:
        """Return the edges of index `start` (inclusive) to `stop` (exclusive), without a copy."""
        return Triggers(self.t[start:stop], self.edge[start:stop], self.channel[start:stop])

    @staticmethod
    def empty() -> Triggers:
        """Return no triggers."""
        return Triggers(np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint16))


@dataclass(frozen=True, slots=True, eq=False)
class EventPacket:
    """One message of an event topic, whatever its type; the payload is not copied.

    Attributes:
        encoding: `evt3`, `libcaer`, `libcaer_cmp`, `mono`, `evt2`, `evt2.1`, or for the
            per-event array messages `event_array_cdr` (ROS 2) and `event_array_ros1`.
        height, width: sensor size in px.
        payload: the encoded events.
        time_base_ns: added to the times of encodings that carry offsets.
        stamp_ns: `header.stamp`, the host's clock in ns.
        seq: the publisher's message counter, None where the type has none.
        frame_id: `header.frame_id`.
    """

    encoding: str
    height: int
    width: int
    payload: Payload
    time_base_ns: int = 0
    stamp_ns: int = 0
    seq: int | None = None
    frame_id: str = ""


class DecodedPacket(NamedTuple):
    """What one payload held.

    Attributes:
        segments: events, cut where time ran back by more than the tolerated disorder;
            one segment for a healthy packet, none for one without events.
        triggers: external trigger edges.
        breaks_ns: for each cut, how far time ran back (positive ns). A packet that begins
            with a cut against the packet before has as many breaks as segments.
        trigger_cuts: for each cut, the index of the first trigger after it. Times cannot tell
            the side on which a trigger lies.
    """

    segments: tuple[Events, ...]
    triggers: Triggers
    breaks_ns: tuple[int, ...] = ()
    trigger_cuts: tuple[int, ...] = ()

    def parts(self) -> Iterator[tuple[int | None, Events, Triggers]]:
        """Yield (how far time ran back before it in ns or None, events, triggers) in order.

        One part for a packet without breaks, even without events.
        """
        segments = self.segments or (Events.empty(),)
        if not self.breaks_ns:
            yield None, segments[0], self.triggers
            return
        unbroken = len(segments) - len(self.breaks_ns)  # 1, or 0 where the packet begins with a cut
        bounds = [0] * unbroken + [*self.trigger_cuts, len(self.triggers)]
        back_ns = [None] * unbroken + [*self.breaks_ns]
        for index, events in enumerate(segments):
            yield back_ns[index], events, self.triggers.slice(bounds[index], bounds[index + 1])
