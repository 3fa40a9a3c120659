"""Kernels that find which rectangle every pixel sees, and how fast what it sees moves.

A ray through a pixel meets the plane of a rectangle at an inverse depth, and at rectangle
coordinates divided by the depth, that are all linear in the pixel's column and row. A
rectangle therefore covers, in each row, one interval of columns that five linear
inequalities give; the greatest inverse depth wins. Nothing is approximated: the depth of a
pixel is that of the ray through its centre.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel

# Rows of the coefficients of a rectangle, float64[F, 5, 3], each linear in (column, row, 1).
INVERSE_DEPTH, RIGHT, DOWN, TEXEL_U, TEXEL_V = range(5)
# How far, in fractions of its edges, a rectangle reaches over its border, so that no ray
# slips through the joint of two walls by rounding.
_JOINT = 1e-9


@kernel
def place(
    corner: NDArray[np.float64],
    right: NDArray[np.float64],
    down: NDArray[np.float64],
    body: NDArray[np.int64],
    rotations: NDArray[np.float64],
    positions: NDArray[np.float64],
    placed: NDArray[np.float64],
    normals: NDArray[np.float64],
) -> None:
    """Write corner, right, down of every rectangle on a body into placed[3, F, 3], in the world.

    `normals` gets the unit normals of all of them; entry 0 of rotations and positions is not used.
    """
    for face in range(corner.shape[0]):
        b = body[face]
        for axis in range(3):
            if b == 0:
                placed[0, face, axis] = corner[face, axis]
                placed[1, face, axis] = right[face, axis]
                placed[2, face, axis] = down[face, axis]
                continue
            x = positions[b, axis]
            y = 0.0
            z = 0.0
            for k in range(3):
                x += rotations[b, axis, k] * corner[face, k]
                y += rotations[b, axis, k] * right[face, k]
                z += rotations[b, axis, k] * down[face, k]
            placed[0, face, axis] = x
            placed[1, face, axis] = y
            placed[2, face, axis] = z
        length = 0.0
        for axis in range(3):
            i = (axis + 1) % 3
            j = (axis + 2) % 3
            # Seen from the side from which right x down points away.
            n = placed[1, face, j] * placed[2, face, i] - placed[1, face, i] * placed[2, face, j]
            normals[face, axis] = n
            length += n * n
        for axis in range(3):
            normals[face, axis] /= np.sqrt(length)


@kernel
def project(
    corner: NDArray[np.float64],
    right: NDArray[np.float64],
    down: NDArray[np.float64],
    texels: NDArray[np.float64],
    offset: NDArray[np.float64],
    rotation: NDArray[np.float64],
    position: NDArray[np.float64],
    focal_x: float,
    focal_y: float,
    centre_x: float,
    centre_y: float,
    height: int,
    coefficients: NDArray[np.float64],
    first_row: NDArray[np.int64],
    end_row: NDArray[np.int64],
) -> None:
    """Fill the coefficients and the span of rows of every rectangle that faces the camera.

    `rotation` and `position` are the camera's pose; end_row 0 marks what cannot be seen.
    """
    local = np.empty((3, 3))
    planes = np.empty((5, 3))
    for face in range(corner.shape[0]):
        # The corner and the two edges in optical coordinates.
        for axis in range(3):
            x = 0.0
            y = 0.0
            z = 0.0
            for k in range(3):
                x += rotation[k, axis] * (corner[face, k] - position[k])
                y += rotation[k, axis] * right[face, k]
                z += rotation[k, axis] * down[face, k]
            local[0, axis] = x
            local[1, axis] = y
            local[2, axis] = z
        end_row[face] = 0
        first_row[face] = 0
        o, u, v = local[0], local[1], local[2]
        for axis in range(3):
            i = (axis + 1) % 3
            j = (axis + 2) % 3
            planes[0, axis] = u[i] * v[j] - u[j] * v[i]
            planes[1, axis] = v[i] * o[j] - v[j] * o[i]
            planes[2, axis] = o[i] * u[j] - o[j] * u[i]
        distance = planes[0, 0] * o[0] + planes[0, 1] * o[1] + planes[0, 2] * o[2]
        if distance <= 1e-9:
            continue  # seen from behind, or edge on
        for axis in range(3):
            for row in range(3):
                planes[row, axis] /= distance
            planes[3, axis] = texels[face, 0] * planes[1, axis] + offset[face, 0] * planes[0, axis]
            planes[4, axis] = texels[face, 1] * planes[2, axis] + offset[face, 1] * planes[0, axis]
        for row in range(5):
            x = planes[row, 0] / focal_x
            y = planes[row, 1] / focal_y
            coefficients[face, row, 0] = x
            coefficients[face, row, 1] = y
            coefficients[face, row, 2] = planes[row, 2] - x * centre_x - y * centre_y
        # Rows that the corners span; all rows where a corner is behind the camera.
        low = 1e18
        high = -1e18
        behind = 0
        for k in range(4):
            z = o[2] + (k & 1) * u[2] + (k >> 1) * v[2]
            if z < 1e-6:
                behind += 1
            else:
                y = focal_y * (o[1] + (k & 1) * u[1] + (k >> 1) * v[1]) / z + centre_y
                low = min(low, y)
                high = max(high, y)
        if behind == 4:
            continue
        if behind > 0:
            low = 0.0
            high = height - 1.0
        if high < -1.0 or low > height:
            continue
        first_row[face] = max(0, int(np.floor(low)) - 1)
        end_row[face] = min(height, int(np.ceil(high)) + 2)


@kernel
def cover(
    coefficients: NDArray[np.float64],
    first_row: NDArray[np.int64],
    end_row: NDArray[np.int64],
    inverse_depth: NDArray[np.float64],
    faces: NDArray[np.int16],
) -> None:
    """Fill the greatest inverse depth, 1/m, and its rectangle, -1 for none, of every pixel."""
    width = inverse_depth.shape[1]
    inverse_depth[:] = 0.0
    faces[:] = -1
    for face in range(coefficients.shape[0]):
        for y in range(first_row[face], end_row[face]):
            slope = coefficients[face, 0, 0]
            start = coefficients[face, 0, 1] * y + coefficients[face, 0, 2]
            low = 0.0
            high = width - 1.0
            for k in range(5):
                # k = 0: in front; 1, 2: right and down >= 0; 3, 4: right and down <= 1.
                if k == 0:
                    c1 = slope
                    c0 = start
                else:
                    row = 1 + (k - 1) % 2
                    c1 = coefficients[face, row, 0]
                    c0 = coefficients[face, row, 1] * y + coefficients[face, row, 2]
                    if k > 2:
                        c1 = slope - c1
                        c0 = start - c0
                    c1 += _JOINT * slope
                    c0 += _JOINT * start
                if c1 > 0.0:
                    low = max(low, -c0 / c1)
                elif c1 < 0.0:
                    high = min(high, -c0 / c1)
                elif c0 < 0.0:
                    high = -1.0
            if low > high:
                continue
            for x in range(int(np.ceil(low)), int(np.floor(high)) + 1):
                value = start + slope * x
                if value > inverse_depth[y, x]:
                    inverse_depth[y, x] = value
                    faces[y, x] = face


@kernel
def cover_between(
    c: NDArray[np.float64],
    faces: NDArray[np.int16],
    inverse_depth: NDArray[np.float64],
    column: NDArray[np.float64],
    row: NDArray[np.float64],
    result: NDArray[np.float64],
    found: NDArray[np.int16],
) -> None:
    """Fill inverse depth and rectangle of rays between the pixels of a picture.

    A ray may meet what one of the four pixels around it sees; where it meets none of these (at
    silhouettes, within a pixel of them) it counts for the nearest pixel's rectangle.
    """
    for y in range(result.shape[0]):
        for x in range(result.shape[1]):
            u = column[y, x]
            v = row[y, x]
            best = 0.0
            chosen = np.int16(-1)
            for k in range(4):
                face = faces[int(v) + (k >> 1), int(u) + (k & 1)]
                if face < 0:
                    continue
                w = c[face, 0, 0] * u + c[face, 0, 1] * v + c[face, 0, 2]
                right = c[face, 1, 0] * u + c[face, 1, 1] * v + c[face, 1, 2]
                down = c[face, 2, 0] * u + c[face, 2, 1] * v + c[face, 2, 2]
                slack = _JOINT * w
                if (
                    w > best
                    and right >= -slack
                    and right <= w + slack
                    and down >= -slack
                    and down <= w + slack
                ):
                    best = w
                    chosen = face
            if chosen < 0:
                near_y = int(v + 0.5)
                near_x = int(u + 0.5)
                chosen = faces[near_y, near_x]
                best = inverse_depth[near_y, near_x]
            result[y, x] = best
            found[y, x] = chosen


@kernel
def greatest_flow(
    inverse_depth: NDArray[np.float64],
    faces: NDArray[np.int16],
    body: NDArray[np.int64],
    focal_x: float,
    focal_y: float,
    centre_x: float,
    centre_y: float,
    linear: NDArray[np.float64],
    angular: NDArray[np.float64],
    stride: int,
) -> float:
    """Return the fastest image motion in px/s over every `stride`-th row and column.

    `linear` and `angular`, float64[B, 3], are the camera's twist against each body, in optical
    coordinates; entry 0 against what stands still.
    """
    height, width = inverse_depth.shape
    greatest = 0.0
    for row in range(0, height, stride):
        y = (row - centre_y) / focal_y
        for column in range(0, width, stride):
            x = (column - centre_x) / focal_x
            w = inverse_depth[row, column]
            b = body[faces[row, column]] if faces[row, column] >= 0 else np.int64(0)
            u = focal_x * (
                (x * linear[b, 2] - linear[b, 0]) * w
                + angular[b, 0] * x * y
                - angular[b, 1] * (1.0 + x * x)
                + angular[b, 2] * y
            )
            v = focal_y * (
                (y * linear[b, 2] - linear[b, 1]) * w
                + angular[b, 0] * (1.0 + y * y)
                - angular[b, 1] * x * y
                - angular[b, 2] * x
            )
            greatest = max(greatest, u * u + v * v)
    return float(np.sqrt(greatest))
