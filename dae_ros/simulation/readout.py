"""How events leave the sensor: in order, a row at a time, and not faster than the bus.

A pixel that has fired waits until its row is served. Rows are served in the order of their first
waiting pixel; a row's waiting pixels leave together, from left to right, with the time at which
the row is served (the row arbiter of the DVS: Lichtsteiner et al., JSSC 2008; Brandli et al.,
JSSC 2014). A pixel that fires again while it waits loses that event: this is how a sensor
saturates. At low rates every event leaves in the microsecond of its origin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel
from dae_ros.events.packet import Events

# What choosing a row costs, in events' worth of bus time: our choice; it lets full rows through
# at nearly the stated rate and single pixels at a third of it.
ROW_COST_EVENTS = 2.0

Int64s = NDArray[np.int64]
UInt16s = NDArray[np.uint16]
UInt8s = NDArray[np.uint8]


class ReadOut:
    """The bus of one sensor.

    Args:
        height, width: sensor size in px.
        events_per_s: what the bus carries; 0 is without limit.
        start_us: time of the start in us.
    """

    def __init__(self, height: int, width: int, events_per_s: float, start_us: int) -> None:
        self._cost_us = 1e6 / events_per_s if events_per_s > 0.0 else 0.0
        self._free_us = np.array([float(start_us)])
        self._waiting = np.zeros(height * width, np.uint8)
        self._size = (height, width)
        self._left = Events.empty()

    def serve(
        self, start_us: int, end_us: int, t: Int64s, x: UInt16s, y: UInt16s, p: UInt8s
    ) -> Events:
        """Take the events of a step, in any order, and return those that leave in it.

        Args:
            start_us, end_us: the step; all events lie in [start_us, end_us).
            t: int64[N], us; x, y, p: as in `Events`.

        Returns:
            Events of [start_us, end_us), in order, in ns; what has to wait comes in a later step.
        """
        t, x, y, p = _sort(start_us, end_us, t, x, y, p)
        if self._cost_us == 0.0:
            return Events(t * 1000, x, y, p)
        t = np.concatenate([self._left.t, t])
        x = np.concatenate([self._left.x, x])
        y = np.concatenate([self._left.y, y])
        p = np.concatenate([self._left.p, p])
        sent_t, sent_x, sent_y, sent_p = (
            np.empty_like(t),
            np.empty_like(x),
            np.empty_like(y),
            np.empty_like(p),
        )
        height, width = self._size
        sent, left = _arbitrate(
            t,
            x,
            y,
            p,
            sent_t,
            sent_x,
            sent_y,
            sent_p,
            height,
            width,
            end_us,
            self._cost_us,
            self._free_us,
            self._waiting,
        )
        # Times of what waits are kept in us, as they came.
        self._left = Events(t[:left].copy(), x[:left].copy(), y[:left].copy(), p[:left].copy())
        return Events(sent_t[:sent] * 1000, sent_x[:sent], sent_y[:sent], sent_p[:sent])


def _sort(
    start_us: int, end_us: int, t: Int64s, x: UInt16s, y: UInt16s, p: UInt8s
) -> tuple[Int64s, UInt16s, UInt16s, UInt8s]:
    """Return the columns by time, then row, then column, when given row by row."""
    out = (np.empty_like(t), np.empty_like(x), np.empty_like(y), np.empty_like(p))
    _counting_sort(start_us, t, x, y, p, np.zeros(end_us - start_us + 1, np.int64), *out)
    return out


@kernel
def _counting_sort(
    start_us: int,
    t: Int64s,
    x: UInt16s,
    y: UInt16s,
    p: UInt8s,
    begin: Int64s,
    t_out: Int64s,
    x_out: UInt16s,
    y_out: UInt16s,
    p_out: UInt8s,
) -> None:
    """Sort by time, keeping the order within a microsecond."""
    for k in range(t.size):
        begin[t[k] - start_us + 1] += 1
    for k in range(1, begin.size):
        begin[k] += begin[k - 1]
    for k in range(t.size):
        slot = begin[t[k] - start_us]
        begin[t[k] - start_us] = slot + 1
        t_out[slot] = t[k]
        x_out[slot] = x[k]
        y_out[slot] = y[k]
        p_out[slot] = p[k]


@kernel
def _arbitrate(
    t: Int64s,
    x: UInt16s,
    y: UInt16s,
    p: UInt8s,
    t_out: Int64s,
    x_out: UInt16s,
    y_out: UInt16s,
    p_out: UInt8s,
    height: int,
    width: int,
    end_us: int,
    cost_us: float,
    free_us: NDArray[np.float64],
    waiting: UInt8s,
) -> tuple[int, int]:
    """Serve until `end_us`; return how many events left and how many wait, moved to the front."""
    following = np.full(t.size, -1, np.int64)
    first = np.full(height, -1, np.int64)
    queue = np.empty(height, np.int64)
    served = np.zeros(t.size, np.bool_)
    queued = 0
    head = 0
    arrived = 0
    sent = 0
    now = free_us[0]
    while True:
        if queued == 0:
            if arrived == t.size:
                break
            now = max(now, float(t[arrived]))
        if now >= end_us:
            break
        while arrived < t.size and t[arrived] <= now:
            k = arrived
            arrived += 1
            row = np.int64(y[k])
            pixel = row * width + x[k]
            if waiting[pixel] != 0:
                served[k] = True  # lost
                continue
            waiting[pixel] = 1
            if first[row] < 0:
                queue[(head + queued) % height] = row
                queued += 1
            # Keep the row's list ordered by column.
            before = np.int64(-1)
            after = first[row]
            while after >= 0 and x[after] < x[k]:
                before = after
                after = following[after]
            following[k] = after
            if before < 0:
                first[row] = k
            else:
                following[before] = k
        if queued == 0:
            continue
        row = queue[head]
        head = (head + 1) % height
        queued -= 1
        count = 0
        k = first[row]
        first[row] = -1
        while k >= 0:
            t_out[sent] = np.int64(now)
            x_out[sent] = x[k]
            y_out[sent] = y[k]
            p_out[sent] = p[k]
            served[k] = True
            waiting[np.int64(y[k]) * width + x[k]] = 0
            sent += 1
            count += 1
            k = following[k]
        now += (ROW_COST_EVENTS + count) * cost_us
    free_us[0] = now
    left = 0
    for k in range(t.size):
        if not served[k]:
            # It asks anew in the next step, in the same order.
            waiting[np.int64(y[k]) * width + x[k]] = 0
            t[left] = t[k]
            x[left] = x[k]
            y[left] = y[k]
            p[left] = p[k]
            left += 1
    return sent, left
