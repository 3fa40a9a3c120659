"""Warp a picture with depth to where another camera pose would see it: a mesh of triangles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel
from dae_ros.simulation.camera import Camera

# A triangle whose corners' inverse depths differ by more than this share spans a jump.
TEAR = 0.08
# Triangles reach over their edges by this much of themselves, so that no pixel falls between.
_RIM = 1e-4
_NEAREST_M = 0.05

FloatImage = NDArray[np.float32]


def warp(
    radiance: FloatImage,
    inverse_depth: FloatImage,
    known: NDArray[np.bool_],
    motion: NDArray[np.float64],
    camera: Camera,
) -> tuple[FloatImage, FloatImage, NDArray[np.bool_]]:
    """Return what another pose of the same camera sees of a frame.

    Args:
        radiance, inverse_depth, known: [H, W], of the frame; inverse depth in 1/m, > 0.
        motion: float64[4, 4], from the frame's coordinates to those of the other pose.
        camera: of both.

    Returns:
        radiance, inverse depth (0 where nothing of the frame is seen) and whether that depth is
        known, [H, W] each. The nearest surface wins; edges between surfaces are torn open.
    """
    warped = np.zeros_like(radiance)
    nearest = np.zeros_like(inverse_depth)
    sure = np.zeros(known.shape, np.bool_)
    _warp(
        radiance,
        inverse_depth,
        known,
        motion,
        camera.fx,
        camera.fy,
        camera.cx,
        camera.cy,
        warped,
        nearest,
        sure,
    )
    return warped, nearest, sure


@kernel
def _warp(
    radiance: FloatImage,
    inverse_depth: FloatImage,
    known: NDArray[np.bool_],
    motion: NDArray[np.float64],
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    warped: FloatImage,
    nearest: FloatImage,
    sure: NDArray[np.bool_],
) -> None:
    height, width = radiance.shape
    # Column, row and inverse depth of every pixel in the other picture; 0 behind it.
    place = np.zeros((height, width, 3))
    for row in range(height):
        for column in range(width):
            z = 1.0 / inverse_depth[row, column]
            x = (column - cx) / fx * z
            y = (row - cy) / fy * z
            depth = motion[2, 0] * x + motion[2, 1] * y + motion[2, 2] * z + motion[2, 3]
            if depth < _NEAREST_M:
                continue
            across = motion[0, 0] * x + motion[0, 1] * y + motion[0, 2] * z + motion[0, 3]
            along = motion[1, 0] * x + motion[1, 1] * y + motion[1, 2] * z + motion[1, 3]
            place[row, column, 0] = fx * across / depth + cx
            place[row, column, 1] = fy * along / depth + cy
            place[row, column, 2] = 1.0 / depth
    rows = np.empty(3, np.int64)
    columns = np.empty(3, np.int64)
    for row in range(height - 1):
        for column in range(width - 1):
            for half in range(2):
                # Upper left and lower right triangle of the square between four pixels.
                rows[0], columns[0] = row + half, column + half
                rows[1], columns[1] = row, column + 1
                rows[2], columns[2] = row + 1, column
                a = inverse_depth[rows[0], columns[0]]
                b = inverse_depth[rows[1], columns[1]]
                c = inverse_depth[rows[2], columns[2]]
                largest = max(a, b, c)
                if largest - min(a, b, c) > TEAR * largest:
                    continue
                w0 = place[rows[0], columns[0], 2]
                w1 = place[rows[1], columns[1], 2]
                w2 = place[rows[2], columns[2], 2]
                if w0 == 0.0 or w1 == 0.0 or w2 == 0.0:
                    continue
                x0 = place[rows[0], columns[0], 0]
                y0 = place[rows[0], columns[0], 1]
                x1 = place[rows[1], columns[1], 0]
                y1 = place[rows[1], columns[1], 1]
                x2 = place[rows[2], columns[2], 0]
                y2 = place[rows[2], columns[2], 1]
                area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
                if half == 1:
                    area = -area
                if area <= 1e-9:
                    continue  # turned away
                sign = 1.0 if half == 0 else -1.0
                first_row = max(0, int(np.ceil(min(y0, y1, y2) - _RIM)))
                last_row = min(height - 1, int(np.floor(max(y0, y1, y2) + _RIM)))
                first_column = max(0, int(np.ceil(min(x0, x1, x2) - _RIM)))
                last_column = min(width - 1, int(np.floor(max(x0, x1, x2) + _RIM)))
                for y in range(first_row, last_row + 1):
                    for x in range(first_column, last_column + 1):
                        u = sign * ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) / area
                        v = sign * ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) / area
                        t = 1.0 - u - v
                        if u < -_RIM or v < -_RIM or t < -_RIM:
                            continue
                        w = u * w0 + v * w1 + t * w2
                        if w <= nearest[y, x]:
                            continue
                        nearest[y, x] = w
                        # Colour is linear on the surface, not in the picture.
                        warped[y, x] = (
                            u * w0 * radiance[rows[0], columns[0]]
                            + v * w1 * radiance[rows[1], columns[1]]
                            + t * w2 * radiance[rows[2], columns[2]]
                        ) / w
                        sure[y, x] = (
                            known[rows[0], columns[0]]
                            and known[rows[1], columns[1]]
                            and known[rows[2], columns[2]]
                        )
