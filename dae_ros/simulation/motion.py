"""Smooth paths on the ground: stops, a closed loop with rounded corners, bodies that follow it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dae_ros.simulation.camera import Pose

_TABLE_STEP_M = 0.05


class Motion(Protocol):
    """How a body moves."""

    def pose(self, time_s: float) -> Pose:
        """Return where the body's frame (x forward, y left, z up) is in the world."""


@dataclass(frozen=True, slots=True)
class Stops:
    """Time that stands still now and then: its flow eases down to nothing and up again.

    Attributes:
        every_s: from one stop to the next; 0 for no stops.
        length_s: how long a stop lasts.
        ramp_s: how long it takes to come to rest, and to get going.
    """

    every_s: float = 0.0
    length_s: float = 0.0
    ramp_s: float = 0.8

    def warp(self, time_s: float) -> tuple[float, float]:
        """Return how much time has flowed, s, and how fast it flows, 0..1."""
        if self.every_s <= 0.0:
            return time_s, 1.0
        r = self.ramp_s
        cruise = self.every_s - self.length_s - 2.0 * r
        count, phase = divmod(time_s, self.every_s)
        flowed = count * (cruise + r)
        if phase < cruise:
            return flowed + phase, 1.0
        phase -= cruise
        if phase < r:
            angle = math.pi * phase / r
            return flowed + cruise + 0.5 * (phase + r / math.pi * math.sin(angle)), (
                0.5 + 0.5 * math.cos(angle)
            )
        if phase < r + self.length_s:
            return flowed + cruise + 0.5 * r, 0.0
        phase -= r + self.length_s
        angle = math.pi * phase / r
        return flowed + cruise + 0.5 * r + 0.5 * (phase - r / math.pi * math.sin(angle)), (
            0.5 - 0.5 * math.cos(angle)
        )


class Loop:
    """A rectangle with smoothly rounded corners about the origin, run through to the left.

    The curvature of a corner is a raised cosine, so that no steering wheel jumps. It begins in
    the middle of the lower side, heading along +x.

    Args:
        straight_x_m, straight_y_m: lengths of the straight parts.
        corner_m: length of a corner's curve.

    Attributes:
        length_m: once around; `round_m`: once around for who slows down in corners (`arc`).
        half_x_m, half_y_m: how far the loop reaches from the origin.
    """

    def __init__(self, straight_x_m: float, straight_y_m: float, corner_m: float) -> None:
        self._corner_m = corner_m
        starts = [straight_x_m / 2.0]
        for straight in (straight_y_m, straight_x_m, straight_y_m):
            starts.append(starts[-1] + corner_m + straight)
        self._starts = np.array(starts)
        self.length_m = starts[-1] + corner_m + straight_x_m / 2.0
        count = round(self.length_m / _TABLE_STEP_M)
        self._step_m = self.length_m / count
        nodes = np.arange(count + 1) * self._step_m
        # Simpson's rule from node to node; what does not quite close is shared evenly.
        position = np.zeros((count + 1, 2))
        ends = np.array([self._tangent(float(s)) for s in nodes])
        middles = np.array([self._tangent(float(s)) for s in nodes[:-1] + self._step_m / 2.0])
        parts = (ends[:-1] + 4.0 * middles + ends[1:]) * (self._step_m / 6.0)
        position[1:] = np.cumsum(parts - parts.mean(axis=0), axis=0)
        position -= (position.max(axis=0) + position.min(axis=0)) / 2.0
        self._position, self._ends = position, ends
        self.half_x_m, self.half_y_m = (float(v) for v in position.max(axis=0))
        self._pace = np.array([self._pace_at(float(s)) for s in nodes])
        between = np.array([self._pace_at(float(s)) for s in nodes[:-1] + self._step_m / 2.0])
        spent = self._step_m / 6.0 * (1.0 / self._pace[:-1] + 4.0 / between + 1.0 / self._pace[1:])
        self._progress = np.concatenate([[0.0], np.cumsum(spent)])
        self.round_m = float(self._progress[-1])

    def heading(self, along_m: float) -> tuple[float, float]:
        """Return heading, rad, endlessly growing, and curvature, 1/m, at an arc length."""
        rounds, s = divmod(along_m, self.length_m)
        corner = int(np.searchsorted(self._starts, s, side="right")) - 1
        heading = 2.0 * math.pi * rounds
        if corner < 0:
            return heading, 0.0
        part = (s - self._starts[corner]) / self._corner_m
        heading += 0.5 * math.pi * corner
        if part >= 1.0:
            return heading + 0.5 * math.pi, 0.0
        angle = 2.0 * math.pi * part
        return (
            heading + 0.5 * math.pi * (part - math.sin(angle) / (2.0 * math.pi)),
            0.5 * math.pi / self._corner_m * (1.0 - math.cos(angle)),
        )

    def _pace_at(self, along_m: float) -> float:
        """Return the share of one's speed that one keeps: half at the sharpest point of a bend."""
        return 1.0 / (1.0 + self.heading(along_m)[1] * self._corner_m / math.pi)

    def arc(self, progress_m: float) -> tuple[float, float]:
        """Return arc length, m, and its rate, for who slows down in corners.

        Args:
            progress_m: how far one would be without slowing down; `round_m` leads once around.
        """
        rounds, progress = divmod(progress_m, self.round_m)
        node = min(
            int(np.searchsorted(self._progress, progress, side="right")) - 1, len(self._pace) - 2
        )
        span = self._progress[node + 1] - self._progress[node]
        u = float((progress - self._progress[node]) / span)
        start, end = node * self._step_m, (node + 1) * self._step_m
        along = (
            (1 + 2 * u) * (1 - u) ** 2 * start + u * (1 - u) ** 2 * self._pace[node] * span
            + u * u * (3 - 2 * u) * end + u * u * (u - 1) * self._pace[node + 1] * span
        )  # fmt: skip
        along_m = rounds * self.length_m + float(along)
        return along_m, self._pace_at(along_m)

    def _tangent(self, along_m: float) -> tuple[float, float]:
        heading, _ = self.heading(along_m)
        return math.cos(heading), math.sin(heading)

    def point(self, along_m: float) -> NDArray[np.float64]:
        """Return (x, y) at an arc length, float64[2] in m; cubic between nodes 5 cm apart."""
        s = along_m % self.length_m / self._step_m
        node = min(int(s), len(self._ends) - 2)
        u = s - node
        p0, p1 = self._position[node], self._position[node + 1]
        d0, d1 = self._ends[node] * self._step_m, self._ends[node + 1] * self._step_m
        result: NDArray[np.float64] = (
            (1 + 2 * u) * (1 - u) ** 2 * p0 + u * (1 - u) ** 2 * d0
            + u * u * (3 - 2 * u) * p1 + u * u * (u - 1) * d1
        )  # fmt: skip
        return result


@dataclass(frozen=True, slots=True)
class LoopMotion:
    """A body that follows a loop beside its line and slows down in corners.

    Attributes:
        loop: the line.
        lane_m: how far to the left of the line.
        start_m: progress at time 0 (`Loop.arc`).
        speed_m_s: on the straight; negative runs the other way, looking there.
        stops: when it stands.
        bounce_m, bounce_hz: of its height, as in walking.
    """

    loop: Loop
    lane_m: float
    start_m: float
    speed_m_s: float
    stops: Stops = Stops()
    bounce_m: float = 0.0
    bounce_hz: float = 0.0

    def pose(self, time_s: float) -> Pose:
        """See `Motion`."""
        flowed_s, flow = self.stops.warp(time_s)
        along_m, pace = self.loop.arc(self.start_m + self.speed_m_s * flowed_s)
        heading, curvature = self.loop.heading(along_m)
        normal = np.array([-math.sin(heading), math.cos(heading)])
        omega = 2.0 * math.pi * self.bounce_hz
        x, y = self.loop.point(along_m) + self.lane_m * normal
        backwards = self.speed_m_s < 0.0
        yaw = heading + math.pi if backwards else heading
        c, s = math.cos(yaw), math.sin(yaw)
        speed = abs(self.speed_m_s) * flow * pace * (1.0 - curvature * self.lane_m)
        return Pose(
            np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]),
            np.array([x, y, self.bounce_m * (1.0 - math.cos(omega * flowed_s))]),
            np.array([speed, 0.0, self.bounce_m * omega * flow * math.sin(omega * flowed_s)]),
            np.array([0.0, 0.0, curvature * self.speed_m_s * flow * pace]),
        )
