"""Radiance and exact depth of a scene of rectangles, from any pose, on one core.

A ray through a pixel meets the plane of a rectangle at an inverse depth, and at rectangle
coordinates divided by the depth, that are all linear in the pixel's column and row. A
rectangle therefore covers, in each row, one interval of columns that five linear
inequalities give; the greatest inverse depth wins. Nothing is approximated: the depth of a
pixel is that of the ray through its centre. Texture is sampled trilinearly at the level
that its footprint asks for, and pixels at the border of a rectangle are averaged over 2 x 2
rays, so that edges move through pixels instead of jumping over them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel
from dae_ros.simulation.camera import Camera, Pose
from dae_ros.simulation.scene import Scene
from dae_ros.simulation.texture import LEVELS, SIZE

# Rows of the coefficients of a rectangle: each is linear in (column, row, 1).
_INVERSE_DEPTH, _RIGHT, _DOWN, _TEXEL_U, _TEXEL_V = range(5)
# How far, in fractions of its edges, a rectangle reaches over its border, so that no ray
# slips through the joint of two walls by rounding.
_JOINT = 1e-9
# Of each mip level: where it begins in a pyramid, its size less one, its scale.
_LEVEL_SIZE = SIZE >> np.arange(LEVELS)
_LEVEL_START = np.concatenate([[0], np.cumsum(_LEVEL_SIZE**2)[:-1]]).astype(np.int32)
_LEVEL_MASK = (_LEVEL_SIZE - 1).astype(np.int32)
_LEVEL_SCALE = (_LEVEL_SIZE / SIZE).astype(np.float32)


@kernel
def _project(
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
def _cover(
    coefficients: NDArray[np.float64],
    first_row: NDArray[np.int64],
    end_row: NDArray[np.int64],
    inverse_depth: NDArray[np.float64],
    faces: NDArray[np.int16],
) -> None:
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
def _bilinear(
    pyramids: NDArray[np.float32],
    start: int,
    mask: int,
    u: np.float32,
    v: np.float32,
) -> float:
    # Textures repeat, so a mask folds; u and v are positive, so truncation is the floor.
    # Unsigned indices spare the test for negative ones.
    column = np.int32(u)
    row = np.int32(v)
    du = u - np.float32(column)
    dv = v - np.float32(row)
    c0 = column & mask
    c1 = (column + np.int32(1)) & mask
    r0 = start + (row & mask) * (mask + np.int32(1))
    r1 = start + ((row + np.int32(1)) & mask) * (mask + np.int32(1))
    p00 = pyramids[np.uint32(r0 + c0)]
    p10 = pyramids[np.uint32(r1 + c0)]
    upper = p00 + du * (pyramids[np.uint32(r0 + c1)] - p00)
    lower = p10 + du * (pyramids[np.uint32(r1 + c1)] - p10)
    return float(upper + dv * (lower - upper))


@kernel
def _sample(
    pyramids: NDArray[np.float32],
    base: int,
    u: float,
    v: float,
    footprint_squared: float,
) -> float:
    # log2 from the bits of a float32 (exponent, then mantissa): continuous, exact at powers
    # of two, and at most 0.09 too low between them.
    bits = np.float32(max(footprint_squared, 1.0)).view(np.int32)
    level = min(
        np.float32(0.5) * (np.float32(bits) * np.float32(2.0**-23) - np.float32(127.0)),
        np.float32(LEVELS - 1.001),
    )
    fine = np.uint32(level)
    weight = level - np.float32(fine)
    coarse = fine + np.uint32(1)
    # One whole period keeps the coordinates positive at the rim of a rectangle.
    u_fine = np.float32(u + SIZE) * _LEVEL_SCALE[fine]
    v_fine = np.float32(v + SIZE) * _LEVEL_SCALE[fine]
    half = np.float32(0.5)
    near = _bilinear(
        pyramids,
        np.int32(base) + _LEVEL_START[fine],
        _LEVEL_MASK[fine],
        u_fine - half,
        v_fine - half,
    )
    far = _bilinear(
        pyramids,
        np.int32(base) + _LEVEL_START[coarse],
        _LEVEL_MASK[coarse],
        half * u_fine - half,
        half * v_fine - half,
    )
    return float(near + weight * (far - near))


@kernel
def _shade_at(
    c: NDArray[np.float64],
    face: int,
    x: float,
    y: float,
    inverse_depth: float,
    pyramids: NDArray[np.float32],
    bases: NDArray[np.int64],
    shades: NDArray[np.float32],
) -> float:
    depth = 1.0 / inverse_depth
    u = (c[face, 3, 0] * x + c[face, 3, 1] * y + c[face, 3, 2]) * depth
    v = (c[face, 4, 0] * x + c[face, 4, 1] * y + c[face, 4, 2]) * depth
    # Texels per pixel along columns and rows; the longer of the two decides.
    ux = c[face, 3, 0] - u * c[face, 0, 0]
    vx = c[face, 4, 0] - v * c[face, 0, 0]
    uy = c[face, 3, 1] - u * c[face, 0, 1]
    vy = c[face, 4, 1] - v * c[face, 0, 1]
    footprint = max(ux * ux + vx * vx, uy * uy + vy * vy) * depth * depth
    return float(shades[face] * _sample(pyramids, bases[face], u, v, footprint))


@kernel
def _border_radiance(
    c: NDArray[np.float64],
    faces: NDArray[np.int16],
    x: int,
    y: int,
    inverse_depth: NDArray[np.float64],
    pyramids: NDArray[np.float32],
    bases: NDArray[np.int64],
    shades: NDArray[np.float32],
    seen: NDArray[np.float64],
) -> float:
    """Average 2 x 2 rays; each may meet what the pixel or one of its four neighbours sees.

    The rays that meet one rectangle are shaded together, at the middle of them; `seen` is
    room for five rows of (rectangle, rays, sum of columns, sum of rows).
    """
    height, width = faces.shape
    seen[0, 0] = faces[y, x]
    seen[1, 0] = faces[y, max(x - 1, 0)]
    seen[2, 0] = faces[y, min(x + 1, width - 1)]
    seen[3, 0] = faces[max(y - 1, 0), x]
    seen[4, 0] = faces[min(y + 1, height - 1), x]
    for k in range(5):
        seen[k, 1] = 0.0
        seen[k, 2] = 0.0
        seen[k, 3] = 0.0
    for ray in range(4):
        sx = x - 0.25 + 0.5 * (ray & 1)
        sy = y - 0.25 + 0.5 * (ray >> 1)
        nearest = 0.0
        # A ray past the borders of all candidates is counted for the pixel's own rectangle.
        chosen = 0
        for k in range(5):
            face = int(seen[k, 0])
            if face < 0 or (k > 0 and face == seen[0, 0]):
                continue
            value = c[face, 0, 0] * sx + c[face, 0, 1] * sy + c[face, 0, 2]
            if value <= nearest:
                continue
            right = c[face, 1, 0] * sx + c[face, 1, 1] * sy + c[face, 1, 2]
            down = c[face, 2, 0] * sx + c[face, 2, 1] * sy + c[face, 2, 2]
            slack = _JOINT * value
            if (
                right >= -slack
                and right <= value + slack
                and down >= -slack
                and down <= value + slack
            ):
                nearest = value
                chosen = k
        seen[chosen, 1] += 1.0
        seen[chosen, 2] += sx
        seen[chosen, 3] += sy
    total = 0.0
    for k in range(5):
        rays = seen[k, 1]
        if rays > 0.0:
            face = int(seen[k, 0])
            sx = seen[k, 2] / rays
            sy = seen[k, 3] / rays
            value = c[face, 0, 0] * sx + c[face, 0, 1] * sy + c[face, 0, 2]
            if value <= 0.0:
                value = inverse_depth[y, x]
            total += rays * _shade_at(c, face, sx, sy, value, pyramids, bases, shades)
    return 0.25 * total


@kernel
def _shade_run(
    c: NDArray[np.float64],
    face: int,
    y: int,
    first: int,
    end: int,
    inverse_depth: NDArray[np.float64],
    pyramids: NDArray[np.float32],
    bases: NDArray[np.int64],
    shades: NDArray[np.float32],
    radiance: NDArray[np.float32],
) -> None:
    """Do what `_shade_at` does for pixels of one rectangle, with what they share read once."""
    w_x, w_y = c[face, 0, 0], c[face, 0, 1]
    u_x, u_y = c[face, 3, 0], c[face, 3, 1]
    v_x, v_y = c[face, 4, 0], c[face, 4, 1]
    u_0 = u_y * y + c[face, 3, 2]
    v_0 = v_y * y + c[face, 4, 2]
    base = bases[face]
    shade = shades[face]
    for x in range(first, end):
        depth = 1.0 / inverse_depth[y, x]
        u = (u_x * x + u_0) * depth
        v = (v_x * x + v_0) * depth
        across = (u_x - u * w_x) ** 2 + (v_x - v * w_x) ** 2
        along = (u_y - u * w_y) ** 2 + (v_y - v * w_y) ** 2
        footprint = max(across, along) * depth * depth
        radiance[y, x] = shade * _sample(pyramids, base, u, v, footprint)


@kernel
def _shade(
    coefficients: NDArray[np.float64],
    inverse_depth: NDArray[np.float64],
    faces: NDArray[np.int16],
    pyramids: NDArray[np.float32],
    bases: NDArray[np.int64],
    shades: NDArray[np.float32],
    radiance: NDArray[np.float32],
) -> None:
    height, width = faces.shape
    seen = np.empty((5, 4))
    for y in range(height):
        above = max(y - 1, 0)
        below = min(y + 1, height - 1)
        x = 0
        while x < width:
            face = int(faces[y, x])
            first = x
            while (
                x < width
                and faces[y, x] == face
                and faces[above, x] == face
                and faces[below, x] == face
                and (x + 1 == width or faces[y, x + 1] == face)
                and (x == 0 or faces[y, x - 1] == face)
            ):
                x += 1
            if face < 0:
                x = max(x, first + 1)
                for k in range(first, x):
                    radiance[y, k] = 0.0
            elif x > first:
                _shade_run(
                    coefficients,
                    face,
                    y,
                    first,
                    x,
                    inverse_depth,
                    pyramids,
                    bases,
                    shades,
                    radiance,
                )
            else:
                radiance[y, x] = _border_radiance(
                    coefficients, faces, x, y, inverse_depth, pyramids, bases, shades, seen
                )
                x += 1


@kernel
def _greatest_flow(
    inverse_depth: NDArray[np.float64],
    focal_x: float,
    focal_y: float,
    centre_x: float,
    centre_y: float,
    linear: NDArray[np.float64],
    angular: NDArray[np.float64],
    stride: int,
) -> float:
    height, width = inverse_depth.shape
    greatest = 0.0
    for row in range(0, height, stride):
        y = (row - centre_y) / focal_y
        for column in range(0, width, stride):
            x = (column - centre_x) / focal_x
            w = inverse_depth[row, column]
            u = focal_x * (
                (x * linear[2] - linear[0]) * w
                + angular[0] * x * y
                - angular[1] * (1.0 + x * x)
                + angular[2] * y
            )
            v = focal_y * (
                (y * linear[2] - linear[1]) * w
                + angular[0] * (1.0 + y * y)
                - angular[1] * x * y
                - angular[2] * x
            )
            greatest = max(greatest, u * u + v * v)
    return float(np.sqrt(greatest))


class Renderer:
    """Renders one scene for one camera; `look` first, then ask for what that pose shows.

    Args:
        scene: the world.
        camera: the camera.
    """

    def __init__(self, scene: Scene, camera: Camera) -> None:
        self._scene = scene
        self._camera = camera
        count = len(scene.corner)
        self._coefficients = np.zeros((count, 5, 3))
        self._first_row = np.zeros(count, np.int64)
        self._end_row = np.zeros(count, np.int64)
        self._inverse_depth = np.zeros((camera.height, camera.width))
        self._faces = np.full((camera.height, camera.width), -1, np.int16)
        self._pyramids = scene.pyramids.ravel()
        self._bases = scene.texture * scene.pyramids.shape[1]

    def look(self, pose: Pose) -> None:
        """Find what every pixel sees from a pose."""
        scene, camera = self._scene, self._camera
        _project(
            scene.corner,
            scene.right,
            scene.down,
            scene.texels,
            scene.offset,
            pose.rotation,
            pose.position,
            camera.fx,
            camera.fy,
            camera.cx,
            camera.cy,
            camera.height,
            self._coefficients,
            self._first_row,
            self._end_row,
        )
        _cover(self._coefficients, self._first_row, self._end_row, self._inverse_depth, self._faces)

    def radiance(self) -> NDArray[np.float32]:
        """Return the linear radiance of the last look, float32[H, W] in 0..1; 0 for nothing."""
        result = np.empty((self._camera.height, self._camera.width), np.float32)
        _shade(
            self._coefficients,
            self._inverse_depth,
            self._faces,
            self._pyramids,
            self._bases,
            self._scene.shade,
            result,
        )
        return result

    def depth(self) -> NDArray[np.float32]:
        """Return the depth of the last look along the optical axis, float32[H, W] in m.

        A pixel whose ray meets nothing is NaN; the worlds of this package leave no such pixel.
        """
        with np.errstate(divide="ignore"):
            depth = 1.0 / self._inverse_depth
        return np.where(self._faces >= 0, depth, np.nan).astype(np.float32)

    def greatest_flow(self, pose: Pose) -> float:
        """Return the fastest image motion of the last look in px/s, over every 4th pixel."""
        camera = self._camera
        return _greatest_flow(
            self._inverse_depth,
            camera.fx,
            camera.fy,
            camera.cx,
            camera.cy,
            pose.linear,
            pose.angular,
            4,
        )
