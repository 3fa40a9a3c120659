"""Events that went onto a surface as they were decoded: what is kept of them is their packet.

No column is ever made, until somebody asks for the past: then the packet is decoded once more, from
the decoder's state of before it. The decoder is a function of both, so what comes back is the same
to the bit. For the formats that are decoded to columns; those of EVT 3.0 are `PackedEvents`.
"""

from __future__ import annotations

from collections.abc import Callable

from dae_ros.events.lazy_events import LazyEvents
from dae_ros.events.packet import Columns, Events


class PutAwayEvents(LazyEvents):
    """The events of one packet, which is decoded when they are asked for.

    Args:
        count: how many, at least one.
        ends_ns: times of the first and the last one.
        again: returns them, decoding the packet.
        packet_bytes: memory of the packet.
    """

    __slots__ = ("_again", "_packet")

    def __init__(
        self,
        count: int,
        ends_ns: tuple[int, int],
        again: Callable[[], Events],
        packet_bytes: int,
    ) -> None:
        super().__init__(count, ends_ns)
        self._again = again
        self._packet = packet_bytes

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

    def _make(self) -> Events:
        return self._again()

    def _made(self) -> Events:
        """Return the columns for one question, without keeping them."""
        return self._again() if self._columns is None else self._columns
