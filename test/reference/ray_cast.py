"""Ray casting the slow way: for one ray at a time, solve for the point on every rectangle."""

from __future__ import annotations

import numpy as np


def cast(corners, rights, downs, rotation, position, fx, fy, cx, cy, height, width):
    """Return (depth float64[H, W], rectangle int[H, W]); inf and -1 where a ray meets nothing.

    A rectangle is corner + a right + b down, 0 <= a, b <= 1, seen from the side from which
    right x down points away. Each ray is position + z (rotation @ ((x - cx) / fx, ..., 1)).
    """
    rectangles = list(zip(corners, rights, downs, strict=True))
    depth = np.full((height, width), np.inf)
    nearest = np.full((height, width), -1)
    for row in range(height):
        for column in range(width):
            ray = rotation @ np.array([(column - cx) / fx, (row - cy) / fy, 1.0])
            for index, (corner, right, down) in enumerate(rectangles):
                if np.dot(np.cross(right, down), corner - position) <= 0:
                    continue
                system = np.stack([ray, -right, -down], axis=1)
                if abs(np.linalg.det(system)) < 1e-12:
                    continue
                z, a, b = np.linalg.solve(system, corner - position)
                inside = -1e-9 <= a <= 1 + 1e-9 and -1e-9 <= b <= 1 + 1e-9
                if z > 0 and inside and z < depth[row, column]:
                    depth[row, column] = z
                    nearest[row, column] = index
    return depth, nearest
