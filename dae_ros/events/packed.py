"""Events as a word decoder leaves them, eight octets each, and the way back to them.

The packets of EVT 3.0 are smaller than their events: 2 to 7 octets an event against 13 in columns.
So a run of events keeps its packet and the decoder's state from before it, can let its events go
once they are on the surface, and decodes them again for whoever asks for the past. The decoder is
a function of that state and the packet, so what comes back is the same to the bit. Packets that
are not smaller (a quiet scene, where time words prevail), and those that somebody may overwrite,
are not kept, and their events stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel
from dae_ros.events.lazy_events import LazyEvents
from dae_ros.events.packet import Columns, Events, columns_of

Rows: TypeAlias = NDArray[np.int64]

# One row: column (bits 10..0) and polarity (11), row (22..12), and from 23 on, signed, the time in
# us since an origin that the rows of a packet share.
POLARITY_SHIFT: Final = 11
ROW_SHIFT: Final = 12
TIME_SHIFT: Final = 23
ADDRESS_MASK: Final = 2047  # of a column or a row
LONGEST_US: Final = 2**38  # what the time field can hold, with room to spare
BYTES_PER_ROW: Final = 8
_NO_ROWS: Rows = np.empty(0, np.int64)


class PackedEvents(LazyEvents):
    """A run of events of one packet; the columns are made when they are asked for.

    Args:
        rows: int64[N], the layout above.
        origin_us: what the times of `rows` count from.
        again: returns the rows of the whole packet, decoding it once more.
        packet_bytes: memory of the packet, in proportion where the run is a part of it; 0 where
            not the packet is kept but the rows are.
        start: index of the first event in what `again` returns.
    """

    __slots__ = ("_again", "_origin", "_packet", "_rows", "_start")

    def __init__(
        self,
        rows: Rows,
        origin_us: int,
        again: Callable[[], Rows],
        packet_bytes: int,
        start: int = 0,
    ) -> None:
        first_ns = last_ns = 0
        if len(rows):
            first_ns = (origin_us + (rows.item(0) >> TIME_SHIFT)) * 1000
            last_ns = (origin_us + (rows.item(-1) >> TIME_SHIFT)) * 1000
        super().__init__(len(rows), (first_ns, last_ns))
        self._rows: Rows | None = rows
        self._origin = origin_us
        self._again = again
        self._packet = packet_bytes
        self._start = start

    @classmethod
    def put_away(
        cls,
        count: int,
        ends_ns: tuple[int, int],
        origin_us: int,
        again: Callable[[], Rows],
        packet_bytes: int,
    ) -> PackedEvents:
        """Return the events of a packet whose rows were never made (`LastEvents`).

        Args:
            count: how many, at least one.
            ends_ns: times of the first and the last one.
            origin_us, again, packet_bytes: as for the constructor.
        """
        events = cls(_NO_ROWS, origin_us, again, packet_bytes)
        events._rows, events._count = None, count
        events._first, events._last = ends_ns
        return events

    @property
    def byte_count(self) -> int:
        """Memory that these events keep: rows and packet; columns that were asked for on top."""
        return self._packet + (0 if self._rows is None else BYTES_PER_ROW * self._count)

    @property
    def origin_us(self) -> int:
        """What the times of `rows` count from."""
        return self._origin

    def rows(self) -> Rows:
        """Return the rows, decoded again where they were let go; those are not kept."""
        if self._rows is not None:
            return self._rows
        return self._again()[self._start : self._start + self._count]

    def time_of(self, index: int) -> int:
        """Return the time of one event, in ns."""
        if index in (0, self._count - 1):
            return self._last if index else self._first
        return self._time(self.rows().item(index))

    def first_at(self, time_ns: int) -> tuple[int, int]:
        """Return index and time of the first event at or after `time_ns`; there has to be one."""
        rows = self.rows()
        since_us = max(-(-time_ns // 1000) - self._origin, -LONGEST_US)
        index = int(np.searchsorted(rows, since_us << TIME_SHIFT))
        return index, self._time(rows.item(index))

    def slice(self, start: int, stop: int) -> PackedEvents:
        """Return the events of index `start` (inclusive) to `stop` (exclusive), without a copy."""
        rows = self.rows()[start:stop]
        share = self._packet * len(rows) // max(1, self._count)
        return PackedEvents(rows, self._origin, self._again, share, self._start + start)

    def write_to(self, columns: Columns) -> None:
        """Copy the events into t, x, y and p of their length."""
        _unpack(self.rows(), self._origin, *columns)

    def let_go(self) -> int:
        """Free rows and columns where the packet is kept; return how many bytes the rows were."""
        if self._packet == 0 or self._rows is None:
            return 0
        self._rows = self._columns = None
        return BYTES_PER_ROW * self._count

    def _time(self, row: int) -> int:
        return (self._origin + (row >> TIME_SHIFT)) * 1000

    def _make(self) -> Events:
        columns = columns_of(self._count)
        self.write_to(columns)
        return Events(*columns)


def warm_up() -> None:
    """Compile or load the kernel that makes columns."""
    _unpack(np.empty(0, np.int64), 0, *columns_of(0))


@kernel
def _unpack(
    rows: Rows,
    origin_us: int,
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
) -> None:
    for k in range(rows.size):
        row = rows[k]
        t[k] = (origin_us + (row >> TIME_SHIFT)) * 1000
        x[k] = row & ADDRESS_MASK
        y[k] = (row >> ROW_SHIFT) & ADDRESS_MASK
        p[k] = (row >> POLARITY_SHIFT) & 1
