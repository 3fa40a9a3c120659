"""What places under the open sky share: the sky, and ground to put things on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dae_ros.simulation.motion import Loop
from dae_ros.simulation.scene import SKY, Builder, Vector, rectangle

_SKY_M = 300.0


class FreeGround:
    """What is still free: away from ways and from what has been placed.

    Args:
        b: source of everything random.
        reach_m: from the middle to the edges, along x and along y.
        ways: their lines, and how much is free on both sides of each, m.
    """

    def __init__(
        self, b: Builder, reach_m: tuple[float, float], ways: Sequence[tuple[Loop, float]]
    ) -> None:
        self._b = b
        self._reach_m = reach_m
        self._lines = [
            (np.array([loop.point(s) for s in np.arange(0.0, loop.length_m, 0.5)]), way_m)
            for loop, way_m in ways
        ]
        self._taken: list[tuple[float, float, float]] = []

    def take(self, x: float, y: float, radius_m: float) -> None:
        """Mark a disc as taken."""
        self._taken.append((x, y, radius_m))

    def place(self, radius_m: float) -> tuple[float, float] | None:
        """Take a random free disc of this radius; return its centre, or None after 40 misses."""
        reach_x_m, reach_y_m = self._reach_m
        for _ in range(40):
            x = self._b.uniform(-reach_x_m + 0.6 + radius_m, reach_x_m - 0.6 - radius_m)
            y = self._b.uniform(-reach_y_m + 0.6 + radius_m, reach_y_m - 0.6 - radius_m)
            near_way = any(
                np.hypot(*(points - (x, y)).T).min() < way_m + radius_m
                for points, way_m in self._lines
            )
            if not near_way and all(
                np.hypot(x - other_x, y - other_y) > radius_m + other_m
                for other_x, other_y, other_m in self._taken
            ):
                self.take(x, y, radius_m)
                return x, y
        return None


def open_sky(b: Builder) -> None:
    """Close the world; clouds run on from one side to the next, since all of it is in sight."""
    period_m, wide = 400.0, 2 * _SKY_M
    start = b.uniform(0.0, 1.0)
    for number, (x, y) in enumerate(((1.0, 0.0), (0.0, -1.0), (-1.0, 0.0), (0.0, 1.0))):
        b.rectangles.append(
            rectangle(
                np.array([x, y, 0.0]) * _SKY_M, np.array([-x, -y, 0.0]),
                np.array([0.0, 0.0, -1.0]), wide, wide, SKY, period_m,
                ((start + number * wide / period_m) % 1.0, 0.0),
            )
        )  # fmt: skip
    b.face((0.0, 0.0, _SKY_M), (0.0, 0.0, -1.0), (0.0, -1.0, 0.0), wide, wide, SKY, period_m)


def turn_about(yaw: float, pitch: float) -> Vector:
    """Return the rotation about y by `pitch`, then about the vertical by `yaw`, rad."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[cy * cp, -sy, cy * sp], [sy * cp, cy, sy * sp], [-sp, 0.0, cp]])
