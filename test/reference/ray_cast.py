"""Ray casting the slow way: for one ray at a time, solve for the point on every rectangle."""

from __future__ import annotations

import numpy as np


def cast(corners, rights, downs, rotation, position, fx, fy, cx, cy, height, width):
    """Return (depth float64[H, W], rectangle int[H, W]); inf and -1 where a ray meets nothing.

    A rectangle is corner + a right + b down, 0 <= a, b <= 1, seen from the side from which
    right x down points away. Each ray is position + z (rotation @ ((x - cx) / fx, ..., 1)).
    """
    towards = np.einsum("fi,fi->f", np.cross(rights, downs), corners - position)
    facing = np.flatnonzero(towards > 1e-12)
    depth = np.full((height, width), np.inf)
    nearest = np.full((height, width), -1)
    for row in range(height):
        for column in range(width):
            ray = rotation @ np.array([(column - cx) / fx, (row - cy) / fy, 1.0])
            systems = np.stack(
                [np.broadcast_to(ray, (len(facing), 3)), -rights[facing], -downs[facing]], axis=2
            )
            crossing = np.abs(np.linalg.det(systems)) > 1e-12
            found = facing[crossing]
            z, a, b = np.linalg.solve(systems[crossing], (corners[found] - position)[..., None])[
                ..., 0
            ].T
            inside = (np.minimum(a, b) >= -1e-9) & (np.maximum(a, b) <= 1 + 1e-9) & (z > 0)
            if inside.any():
                first = np.flatnonzero(inside)[np.argmin(z[inside])]
                depth[row, column] = z[first]
                nearest[row, column] = found[first]
    return depth, nearest
