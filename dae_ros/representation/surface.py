"""The incremental Tencode: a surface of last events that windows are read from.

Each pixel keeps its last event as one uint32, `(t - base) << 1 | p` in microseconds. A window that
ends at or after the previous one adds only the events in between and then reads the surface in
one dense pass, whose cost depends neither on the number of events nor on the overlap. It writes the
16-bit code of `tencode_code`, a sixth of the planes' bytes, which are what this pass takes time
for. The surface has forgotten what later events overwrote, so a window that ends earlier is encoded
from the ring; both ways give the bits that `pack_tencode` gives of
`tencode(ring.window(start_ns, end_ns), ...)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel
from dae_ros.events.last_events import LastEvents
from dae_ros.events.packed import (
    ADDRESS_MASK,
    POLARITY_SHIFT,
    ROW_SHIFT,
    TIME_SHIFT,
    PackedEvents,
    Rows,
)
from dae_ros.events.packet import Events
from dae_ros.events.ring_buffer import EventRing
from dae_ros.representation.tencode import (
    FloatImage,
    require_inside,
    require_whole_microseconds,
    tencode,
)
from dae_ros.representation.tencode_code import (
    CLIP_LEVELS,
    PARTS,
    TencodeCode,
    pack_tencode,
    unpack_tencode,
)

# 31 bits of microseconds beside the polarity bit: 35.8 minutes, then the surface is re-based.
_LARGEST_TIME_US: Final = 2**31 - 1
_EVER: Final = -(2**62)
# Events that are taken together: few enough to be in the cache still, many against what finding
# them costs.
_WORTHWHILE_EVENTS: Final = 32_768


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One encoded window.

    Attributes:
        code: uint16[H, W], what `tencode` gives in 16 bits per pixel (`tencode_code`).
        event_count: events in the window.
        first_ns, last_ns: times of its first and last event; None for an empty window.
    """

    code: TencodeCode
    event_count: int
    first_ns: int | None
    last_ns: int | None

    @property
    def image(self) -> FloatImage:
        """The planes float32[3, H, W], G within `LARGEST_ERROR`; made anew at each call."""
        return unpack_tencode(self.code)


class TencodeSurface:
    """Encodes windows of one camera's ring.

    The surface follows the ring: it starts afresh by itself when the ring was cleared or is
    another one. The kernels are compiled (or loaded from the cache) on construction.

    Not thread-safe: one owner, the owner of the ring.

    Args:
        height, width: sensor size in px.
        lets_go: whether the ring need not keep the events that are on the surface, only their
            packets (`EventRing.let_go`): where nobody else asks for most of them.
    """

    def __init__(self, height: int, width: int, *, lets_go: bool = True) -> None:
        self.height = height
        self.width = width
        self._lets_go = lets_go
        # One entry per pixel in row order; 0: no event. Times on the surface are >= 1.
        self._surface: NDArray[np.uint32] = np.zeros(height * width, np.uint32)
        self._ring: EventRing | None = None
        self._warm_up()
        self.reset()

    def reset(self) -> None:
        """Forget all events; the next window is built from the ring."""
        self._surface[:] = 0
        self._ring = None
        self._generation = 0
        # Times on the surface count from here; events before _complete_from_us may be missing
        # from it, and so may all events from index _next on.
        self._base_us = 0
        self._complete_from_us = 0
        self._next = 0
        # What the next packet may be put on; how many of its events are not counted yet.
        self._direct: LastEvents | None = None

    def direct(self, ring: EventRing, before_ns: int) -> LastEvents | None:
        """Return what the next packet's events may be put on as they are decoded.

        What is put there has to be pushed into the ring next; `follow` or `encode` then know.

        Args:
            ring: as in `encode`; it has all packets before.
            before_ns: no window to come ends earlier.

        Returns:
            None where the surface cannot take events without knowing them.
        """
        self._count_direct(ring)
        if self._direct is not None and self._direct.put:
            self.reset()  # the ring was not given what was put here
        newest_ns = ring.newest_ns
        if not self._follows(ring) or newest_ns is None or newest_ns >= before_ns:
            return None
        if before_ns // 1000 - self._base_us > _LARGEST_TIME_US:
            return None
        if self._next < ring.total_pushed:
            self._scatter(ring, max(self._next, ring.oldest_index), ring.total_pushed)
        direct = self._direct
        if direct is None or direct.base_us != self._base_us:
            direct = self._direct = LastEvents(
                self.height, self.width, self._surface, self._base_us, 0
            )
        direct.before_us = before_ns // 1000
        return direct

    def follow(self, ring: EventRing, before_ns: int) -> None:
        """Put events on the surface while they are in the processor's cache.

        Nothing depends on it but the time that `encode` takes.

        Args:
            ring: as in `encode`.
            before_ns: no window to come ends earlier; packets that reach it are left out.
        """
        self._count_direct(ring)
        if not self._follows(ring):
            if ring.oldest_ns is None:
                return
            self._follow(ring, ring.oldest_ns // 1000)
            self._complete_from_us = _EVER  # the ring holds nothing older for anybody to ask for
        if ring.total_pushed - self._next < _WORTHWHILE_EVENTS:
            return
        stop = ring.packet_of(before_ns)
        start = max(self._next, ring.oldest_index)
        if start < stop and ring.time_of(stop - 1) // 1000 - self._base_us <= _LARGEST_TIME_US:
            self._scatter(ring, start, stop)

    def encode(self, ring: EventRing, start_ns: int, end_ns: int) -> Encoded:
        """Encode the window [start, end).

        Args:
            ring: holds the window.
            start_ns, end_ns: whole microseconds.

        Raises:
            WindowEvicted: the window begins before what the ring still holds.
            ConfigurationError: bounds that are not whole microseconds, or an event outside the
                sensor.
        """
        require_whole_microseconds(start_ns, end_ns)
        ring.require(start_ns, end_ns)
        self._count_direct(ring)
        if not self._follows(ring):
            self._follow(ring, start_ns // 1000)
        (start, first_ns), stop = ring.first_at(start_ns), ring.index_of(end_ns)
        if start == stop or first_ns is None:
            return Encoded(np.zeros((self.height, self.width), np.uint16), 0, None, None)
        last_ns = ring.time_of(stop - 1)
        code = np.empty((self.height, self.width), np.uint16)
        # A window of 35 minutes and more has times that the surface cannot hold.
        too_long = last_ns // 1000 - start_ns // 1000 >= _LARGEST_TIME_US
        if too_long or stop < self._next or start_ns // 1000 < self._complete_from_us:
            image = tencode(ring.window(start_ns, end_ns), self.height, self.width)
            pack_tencode(image, code)
        else:
            self._advance(ring, start, stop, start_ns // 1000, last_ns // 1000)
            _read(
                self._surface,
                first_ns // 1000 - self._base_us,
                last_ns // 1000 - self._base_us,
                CLIP_LEVELS,
                PARTS,
                code.reshape(-1),
            )
        return Encoded(code, stop - start, first_ns, last_ns)

    def _follows(self, ring: EventRing) -> bool:
        return self._ring is ring and self._generation == ring.generation

    def _count_direct(self, ring: EventRing) -> None:
        """Take what was put here and is in the ring by now for scattered."""
        direct = self._direct
        if direct is not None and direct.spoiled:
            self.reset()
        if direct is None or not direct.put or not self._follows(ring):
            return
        pushed = min(direct.put, ring.total_pushed - self._next)
        direct.put -= pushed
        self._next += pushed
        if pushed and self._lets_go:
            ring.let_go(self._next)

    def _follow(self, ring: EventRing, start_us: int) -> None:
        self.reset()
        self._ring = ring
        self._generation = ring.generation
        self._base_us = start_us - 1
        self._complete_from_us = start_us
        # What is older has no time on the surface.
        self._next = ring.index_of(1000 * start_us)

    def _advance(self, ring: EventRing, start: int, stop: int, start_us: int, last_us: int) -> None:
        """Bring the surface from event index `_next` up to `stop`."""
        if start > self._next:
            # Nothing before this window is needed for it, so it is left out.
            self._complete_from_us = start_us
            self._next = start
        if last_us - self._base_us > _LARGEST_TIME_US:
            _rebase(self._surface, start_us - 1 - self._base_us)
            self._base_us = start_us - 1
            self._complete_from_us = max(self._complete_from_us, start_us)
        if self._next < stop:
            self._scatter(ring, self._next, stop)

    def _scatter(self, ring: EventRing, start: int, stop: int) -> None:
        outside = 0
        for events in ring.between(start, stop):
            if isinstance(events, PackedEvents):
                since_us = events.origin_us - self._base_us
                outside += _scatter_rows(events.rows(), since_us, self.width, self._surface)
            else:
                columns = events.t, events.x, events.y, events.p
                base_ns = 1000 * self._base_us
                outside += _scatter_columns(*columns, base_ns, self.width, self._surface)
        self._next = stop
        if self._lets_go:
            ring.let_go(stop)
        require_inside(outside, self.height, self.width)

    def _warm_up(self) -> None:
        nothing = Events.empty()
        code = np.empty((1, 1), np.uint16)
        pack_tencode(tencode(nothing, 1, 1, (0, 1000)), code)
        columns = nothing.t, nothing.x, nothing.y, nothing.p
        _scatter_columns(*columns, 0, 1, self._surface[:1])
        _scatter_rows(np.empty(0, np.int64), 0, 1, self._surface[:1])
        _rebase(self._surface[:1], 0)
        _read(self._surface[:1], 1, 1, CLIP_LEVELS, PARTS, code[0])


@kernel
def _scatter_columns(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    base_ns: int,
    width: int,
    surface: NDArray[np.uint32],
) -> int:
    """Write the events in order, the later over the earlier; return how many lie outside.

    Everything is unsigned, which spares the compiler the cases of negative indices and dividends.
    """
    outside = 0
    size, columns = np.uint64(surface.size), np.uint64(width)
    for k in range(t.size):
        column = np.uint64(x[k])
        pixel = np.uint64(y[k]) * columns + column
        if column >= columns or pixel >= size:
            outside += 1
        else:
            time_us = np.uint64(t[k] - base_ns) // np.uint64(1000)
            surface[pixel] = np.uint32(time_us << np.uint64(1) | np.uint64(p[k] != 0))
    return outside


@kernel
def _scatter_rows(rows: Rows, since_us: int, width: int, surface: NDArray[np.uint32]) -> int:
    """Write packed events as `_scatter_columns` does; their times count from `since_us`."""
    outside = 0
    size, columns = np.uint64(surface.size), np.uint64(width)
    mask = np.uint64(ADDRESS_MASK)
    for k in range(rows.size):
        row = np.uint64(rows[k])
        column = row & mask
        pixel = ((row >> np.uint64(ROW_SHIFT)) & mask) * columns + column
        if column >= columns or pixel >= size:
            outside += 1
        else:
            time_us = np.uint64(since_us + (rows[k] >> TIME_SHIFT))
            polarity = (row >> np.uint64(POLARITY_SHIFT)) & np.uint64(1)
            surface[pixel] = np.uint32(time_us << np.uint64(1) | polarity)
    return outside


@kernel
def _rebase(surface: NDArray[np.uint32], by_us: int) -> None:
    """Move all times back by `by_us` and forget events that would fall before time 1."""
    if by_us > 0x7FFFFFFF:
        surface[:] = 0
        return
    lost = np.uint32((by_us << 1) | 1)
    shift = np.uint32(by_us << 1)
    for k in range(surface.size):
        surface[k] = np.uint32(surface[k] - shift) if surface[k] > lost else np.uint32(0)


@kernel
def _read(
    surface: NDArray[np.uint32],
    first_us: int,
    last_us: int,
    levels: int,
    parts: int,
    code: TencodeCode,
) -> None:
    """Write the code of all pixels whose last event is not older than `first_us`.

    Times count from the surface's base. Same arithmetic as `tencode` and then `pack_tencode`, times
    a mask of 0 or 1 instead of branches, so that it becomes vector instructions bound by memory.
    `levels` and `parts` are `CLIP_LEVELS` and `PARTS`, given: compiled in they would outlive a
    change of their file.
    """
    one, first_levels, then_parts = np.float32(1.0), np.float32(levels), np.float32(parts)
    first, none = np.int32(first_us), np.int32(0)
    span = np.float32(max(last_us - first_us, 1))
    for k in range(surface.size):
        value = surface[k]
        age_us = np.int32(np.int32(value >> np.uint32(1)) - first)
        seen = np.int32(age_us >= none)
        on = np.int32(value & np.uint32(1))
        # Without older events, whose levels no int32 might hold.
        green = one - np.float32(max(age_us, none)) / span
        level = np.int32(np.rint(green * first_levels * then_parts + one))
        code[k] = np.uint16(np.int32(seen * np.int32(np.int32(2) * level + on)))
