"""Events that went onto a surface as they were decoded: what is kept of them is their packet.

No column is ever made, until somebody asks for the past: then the packet is decoded once more, from
the decoder's state of before it. The decoder is a function of both, so what comes back is the same
to the bit. For the formats that are decoded to columns; those of EVT 3.0 are `PackedEvents`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.packet import Columns, Events


class PutAwayEvents(Events):
    """The events of one packet, which are decoded when they are asked for.

    Not thread-safe while `let_go` may be called: one owner.

    Args:
        count: how many, at least one.
        ends_ns: times of the first and the last one.
        again: returns them, decoding the packet.
        packet_bytes: memory of the packet.
    """

    __slots__ = ("_again", "_columns", "_count", "_first", "_last", "_packet")
    # Those of a frozen dataclass with slots are not for subclasses with fields of their own.
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__

    def __init__(
        self,
        count: int,
        ends_ns: tuple[int, int],
        again: Callable[[], Events],
        packet_bytes: int,
    ) -> None:
        self._count = count
        self._first, self._last = ends_ns
        self._again = again
        self._packet = packet_bytes
        self._columns: Events | None = None

    def __len__(self) -> int:
        return self._count

    def __reduce__(self) -> tuple[type[Events], tuple[object, ...]]:
        """Copies, also in other processes, are columns."""
        return Events, (self.t, self.x, self.y, self.p)

    @property
    def t(self) -> NDArray[np.int64]:  # type: ignore[override]  # made when asked for
        """int64[N], as in `Events`."""
        return self._kept().t

    @property
    def x(self) -> NDArray[np.uint16]:  # type: ignore[override]  # made when asked for
        """uint16[N], as in `Events`."""
        return self._kept().x

    @property
    def y(self) -> NDArray[np.uint16]:  # type: ignore[override]  # made when asked for
        """uint16[N], as in `Events`."""
        return self._kept().y

    @property
    def p(self) -> NDArray[np.uint8]:  # type: ignore[override]  # made when asked for
        """uint8[N], as in `Events`."""
        return self._kept().p

    @property
    def first_ns(self) -> int:
        """Time of the first event."""
        return self._first

    @property
    def last_ns(self) -> int:
        """Time of the last event."""
        return self._last

    @property
    def byte_count(self) -> int:
        """Memory that these events keep; columns that were asked for come on top."""
        return self._packet

    def time_of(self, index: int) -> int:
        """Return the time of one event, in ns."""
        if index in (0, self._count - 1):
            return self._last if index else self._first
        return self._made().time_of(index)

    def first_at(self, time_ns: int) -> tuple[int, int]:
        """Return index and time of the first event at or after `time_ns`; there has to be one."""
        return self._made().first_at(time_ns)

    def slice(self, start: int, stop: int) -> Events:
        """Return the events of index `start` (inclusive) to `stop` (exclusive)."""
        return self._made().slice(start, stop)

    def write_to(self, columns: Columns) -> None:
        """Copy the events into t, x, y and p of their length."""
        self._made().write_to(columns)

    def let_go(self) -> int:
        """Free columns that were asked for; none of them was counted."""
        self._columns = None
        return 0

    def _made(self) -> Events:
        """Return the columns for one question, without keeping them."""
        return self._again() if self._columns is None else self._columns

    def _kept(self) -> Events:
        # Each column is asked for by itself.
        if self._columns is None:
            self._columns = self._again()
        return self._columns
