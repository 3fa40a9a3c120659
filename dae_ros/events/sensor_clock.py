"""Sensor time to ROS time, from what a message itself carries.

Encodings with absolute times need no conversion. The others count from the camera's start, and
`header.stamp` is the host's time when the driver received the data: later than the events by a
delay that is never negative and mostly small, on a host clock that drifts against the sensor's by
some tens of ppm. The offset is therefore a *lower envelope* of stamp - event time, found as the
edge of the lower convex hull below the middle of the history (Moon, Skelly, Towsley, "Estimation
and removal of clock skew from network delay measurements", 1999): the line under all points that
lies closest to them.

Only stamps and event times enter, never arrival, so that a bag gives the same stamps as the live
camera, bit for bit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Final

_BUCKET_NS: Final = 1_000_000_000
# Long enough that 0.1 ms of residual delay misjudges the drift by a few ppm only.
_HISTORY_BUCKETS: Final = 32
# With less history than this the drift is below what the delays' scatter would fake.
_DRIFT_FROM_NS: Final = 10_000_000_000
# The conversion moves towards a new estimate with this time constant, never in a step, and never
# so fast that ROS time would stand still.
_SLEW_TIME_NS: Final = 500_000_000
_FASTEST_SLEW: Final = 0.5
_KNOT_SPACING_NS: Final = 20_000_000
_KNOTS_KEPT: Final = 4096
_JITTER_WEIGHT: Final = 1.0 / 64.0


@dataclass(frozen=True, slots=True)
class _Line:
    """offset(t) = offset_ns + slope (t - at_ns)."""

    at_ns: int
    offset_ns: int
    slope: float

    def at(self, event_time_ns: int) -> int:
        elapsed_ns = event_time_ns - self.at_ns
        return self.offset_ns + round(self.slope * elapsed_ns)


class SensorClock:
    """Converts one camera's event times; monotone, and fixed for times already converted.

    It belongs to one run of the sensor's clock: where event time does not continue, make another.

    Args:
        absolute: event times count from the epoch; `to_ros` is then the identity, and the offset
            and jitter are measured for diagnostics alone.
        provisional_offset_ns: ROS time minus event time until the first update.
    """

    def __init__(self, absolute: bool, provisional_offset_ns: int = 0) -> None:
        self.absolute = absolute
        self._provisional_offset_ns = provisional_offset_ns
        self._newest_ns = 0
        self._stamp_ns: int | None = None  # the last that was used
        self._stamps_differ = False
        self._useless_stamp_ns: int | None = None
        self._minima: deque[tuple[int, int]] = deque(maxlen=_HISTORY_BUCKETS)
        self._target: _Line | None = None
        # Piecewise linear offset: knot k holds from its time on.
        self._knot_ns: list[int] = []
        self._knot_ros_ns: list[int] = []
        self._knots: list[_Line] = []
        self._jitter_ns = 0.0

    @property
    def offset_ns(self) -> int | None:
        """Estimate of ROS time minus event time at the newest update; None before the first.

        For absolute times: how far the stamps lag behind the events at least, in ns.
        """
        return None if self._target is None else self._target.at(self._newest_ns)

    @property
    def final_ns(self) -> int | None:
        """Newest event time whose conversion no update will change; None before the first."""
        return None if self._target is None else self._newest_ns

    @property
    def useless_stamp_ns(self) -> int | None:
        """The stamp that all packets so far carried, where it tells no time; else None.

        It is 0, or the same although event time moved on. Event times then convert to themselves.
        """
        return self._useless_stamp_ns

    @property
    def drift_ppm(self) -> float:
        """How much faster the host's clock runs than the sensor's; 0 while unknown."""
        return 0.0 if self._target is None else self._target.slope * 1e6

    @property
    def jitter_ns(self) -> int:
        """Mean delay of the stamps above the smallest one, over about 64 packets, in ns."""
        return round(self._jitter_ns)

    def update(self, event_time_ns: int, stamp_ns: int) -> None:
        """Take in one packet: its first event and its `header.stamp`.

        The first event, because a driver that merges reads into one message stamps the first.
        Event times must not decrease between calls. A stamp of 0 or one that the packet before
        had already is not used: its delay would shrink by as much as event time went on.
        """
        repeated = stamp_ns == self._stamp_ns and event_time_ns > self._newest_ns
        if stamp_ns == 0 or repeated:
            if not self._stamps_differ:
                self._forget()
                self._useless_stamp_ns = stamp_ns
            self._newest_ns = event_time_ns
            return
        self._useless_stamp_ns = None
        self._stamps_differ = self._stamps_differ or self._stamp_ns not in (None, stamp_ns)
        self._stamp_ns = stamp_ns
        delay_ns = stamp_ns - event_time_ns
        self._newest_ns = event_time_ns
        target = self._target
        if self._add(event_time_ns, delay_ns) or target is None:
            target = self._target = _lower_line(list(self._minima))
        excess_ns = float(delay_ns - target.at(event_time_ns))
        self._jitter_ns += _JITTER_WEIGHT * (excess_ns - self._jitter_ns)
        self._steer(event_time_ns, target)

    def to_ros(self, event_time_ns: int) -> int:
        """Convert one event time to ROS time in ns.

        Later updates do not change the result for times up to the newest update, as far back as
        about a minute; times beyond are extrapolated.
        """
        if self.absolute or not self._knots:
            return event_time_ns + self._provisional_offset_ns
        knot = max(0, bisect_right(self._knot_ns, event_time_ns) - 1)
        return event_time_ns + self._knots[knot].at(event_time_ns)

    def to_event(self, ros_time_ns: int) -> int:
        """Convert a ROS time, such as the stamp of a camera frame, to event time in ns.

        The inverse of `to_ros` within a nanosecond or two.
        """
        if self.absolute or not self._knots:
            return ros_time_ns - self._provisional_offset_ns
        index = max(0, bisect_right(self._knot_ros_ns, ros_time_ns) - 1)
        knot = self._knots[index]
        elapsed_ns = ros_time_ns - self._knot_ros_ns[index]
        return knot.at_ns + elapsed_ns - round(elapsed_ns * knot.slope / (1.0 + knot.slope))

    def _forget(self) -> None:
        """Convert to the same time again."""
        self._provisional_offset_ns = 0
        self._minima.clear()
        self._target = None
        self._knot_ns.clear()
        self._knot_ros_ns.clear()
        self._knots.clear()
        self._jitter_ns = 0.0

    def _add(self, event_time_ns: int, delay_ns: int) -> bool:
        """Keep the smallest delay of each bucket; return whether the minima changed."""
        minima = self._minima
        if minima and event_time_ns // _BUCKET_NS == minima[-1][0] // _BUCKET_NS:
            if delay_ns >= minima[-1][1]:
                return False
            minima[-1] = (event_time_ns, delay_ns)
        else:
            minima.append((event_time_ns, delay_ns))
        return True

    def _steer(self, event_time_ns: int, target: _Line) -> None:
        """Add a knot from which the conversion moves towards the target, without a step."""
        if not self._knots:
            now_ns = target.at(event_time_ns)
        elif event_time_ns - self._knot_ns[-1] < _KNOT_SPACING_NS:
            return
        else:
            now_ns = self._knots[-1].at(event_time_ns)
        error_ns = target.at(event_time_ns) - now_ns
        slope = target.slope + error_ns / _SLEW_TIME_NS
        slope = max(-_FASTEST_SLEW, min(_FASTEST_SLEW, slope))
        self._knot_ns.append(event_time_ns)
        self._knot_ros_ns.append(event_time_ns + now_ns)
        self._knots.append(_Line(event_time_ns, now_ns, slope))
        if len(self._knots) >= 2 * _KNOTS_KEPT:
            del self._knots[:_KNOTS_KEPT]
            del self._knot_ns[:_KNOTS_KEPT]
            del self._knot_ros_ns[:_KNOTS_KEPT]


def _lower_line(points: list[tuple[int, int]]) -> _Line:
    """Return the line below all (time, delay) points that is closest to them on average.

    Over a short history the line is level, at the minimum.
    """
    last_ns = points[-1][0]
    if last_ns - points[0][0] < _DRIFT_FROM_NS:
        return _Line(last_ns, min(delay for _, delay in points), 0.0)
    hull: list[tuple[int, int]] = []
    for point in points:
        while len(hull) > 1 and _turns_right(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    # The edge below the mean time minimises the summed distance (linear programming duality).
    mean_ns = points[0][0] + sum(time - points[0][0] for time, _ in points) // len(points)
    right = next(index for index in range(1, len(hull)) if hull[index][0] >= mean_ns)
    (t0, d0), (t1, d1) = hull[right - 1], hull[right]
    return _Line(t0, d0, (d1 - d0) / (t1 - t0))


def _turns_right(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[0] - a[0]) * (c[1] - a[1]) <= (c[0] - a[0]) * (b[1] - a[1])
