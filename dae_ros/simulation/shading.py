"""Kernels that give every pixel its radiance.

Texture is sampled trilinearly at the level that its footprint asks for, and pixels at the border
of a rectangle are averaged over 2 x 2 rays, so that edges move through pixels instead of jumping
over them: without both, aliasing would make events that no camera sees.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel
from dae_ros.simulation.pattern import SIZE
from dae_ros.simulation.texture import LEVELS

# Entries of the vector of lighting that the kernels take.
HEADLIGHT, LAMP_X, LAMP_Y, LAMP_CELLS, FOG_PER_M, FOG = range(6)
# As in `raster`.
_JOINT = 1e-9
# Of each mip level: where it begins in a pyramid, its size less one, its scale.
_LEVEL_SIZE = SIZE >> np.arange(LEVELS)
_LEVEL_START = np.concatenate([[0], np.cumsum(_LEVEL_SIZE**2)[:-1]]).astype(np.int32)
_LEVEL_MASK = (_LEVEL_SIZE - 1).astype(np.int32)
_LEVEL_SCALE = (_LEVEL_SIZE / SIZE).astype(np.float32)


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
def _lit(
    texel: float,
    face: int,
    x: float,
    y: float,
    depth: float,
    gains: NDArray[np.float64],
    reflects: NDArray[np.float64],
    lamps: NDArray[np.float32],
    lighting: NDArray[np.float64],
    plan: NDArray[np.float64],
) -> float:
    """Return the radiance of a texel: light from everywhere, headlight, lamps, then fog.

    The place on the floor plan is plan[axis, 3] + depth (plan[axis, :3] . (column, row, 1)).
    """
    light = gains[face]
    part = reflects[face]
    if part > 0.0:
        if lighting[HEADLIGHT] > 0.0:
            light += part * lighting[HEADLIGHT] / (1.0 + depth * depth)
        if lighting[LAMP_CELLS] > 0.0:
            u = plan[0, 3] + depth * (plan[0, 0] * x + plan[0, 1] * y + plan[0, 2])
            v = plan[1, 3] + depth * (plan[1, 0] * x + plan[1, 1] * y + plan[1, 2])
            last = lamps.shape[0] - 1.001
            u = min(max((u - lighting[LAMP_X]) * lighting[LAMP_CELLS], 0.0), last)
            v = min(max((v - lighting[LAMP_Y]) * lighting[LAMP_CELLS], 0.0), last)
            i = int(u)
            j = int(v)
            du = u - i
            dv = v - j
            upper = lamps[j, i] + du * (lamps[j, i + 1] - lamps[j, i])
            lower = lamps[j + 1, i] + du * (lamps[j + 1, i + 1] - lamps[j + 1, i])
            light += part * (upper + dv * (lower - upper))
    radiance = texel * light
    if lighting[FOG_PER_M] > 0.0:
        radiance = lighting[FOG] + (radiance - lighting[FOG]) * np.exp(-lighting[FOG_PER_M] * depth)
    return float(radiance)


@kernel
def _shade_at(
    c: NDArray[np.float64],
    face: int,
    x: float,
    y: float,
    inverse_depth: float,
    pyramids: NDArray[np.float32],
    bases: NDArray[np.int64],
    gains: NDArray[np.float64],
    reflects: NDArray[np.float64],
    lamps: NDArray[np.float32],
    lighting: NDArray[np.float64],
    plan: NDArray[np.float64],
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
    texel = _sample(pyramids, bases[face], u, v, footprint)
    return _lit(texel, face, x, y, depth, gains, reflects, lamps, lighting, plan)


@kernel
def _border_radiance(
    c: NDArray[np.float64],
    faces: NDArray[np.int16],
    x: int,
    y: int,
    inverse_depth: NDArray[np.float64],
    pyramids: NDArray[np.float32],
    bases: NDArray[np.int64],
    gains: NDArray[np.float64],
    reflects: NDArray[np.float64],
    lamps: NDArray[np.float32],
    lighting: NDArray[np.float64],
    plan: NDArray[np.float64],
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
            total += rays * _shade_at(
                c, face, sx, sy, value, pyramids, bases, gains, reflects, lamps, lighting, plan
            )
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
    gains: NDArray[np.float64],
    reflects: NDArray[np.float64],
    lamps: NDArray[np.float32],
    lighting: NDArray[np.float64],
    plan: NDArray[np.float64],
    radiance: NDArray[np.float32],
) -> None:
    """Do what `_shade_at` does for pixels of one rectangle, with what they share read once."""
    w_x, w_y = c[face, 0, 0], c[face, 0, 1]
    u_x, u_y = c[face, 3, 0], c[face, 3, 1]
    v_x, v_y = c[face, 4, 0], c[face, 4, 1]
    u_0 = u_y * y + c[face, 3, 2]
    v_0 = v_y * y + c[face, 4, 2]
    base = bases[face]
    gain = gains[face]
    # By day, and for what glows, light from everywhere is all there is.
    is_plain = lighting[FOG_PER_M] == 0.0 and (
        reflects[face] == 0.0 or (lighting[HEADLIGHT] == 0.0 and lighting[LAMP_CELLS] == 0.0)
    )
    for x in range(first, end):
        depth = 1.0 / inverse_depth[y, x]
        u = (u_x * x + u_0) * depth
        v = (v_x * x + v_0) * depth
        across = (u_x - u * w_x) ** 2 + (v_x - v * w_x) ** 2
        along = (u_y - u * w_y) ** 2 + (v_y - v * w_y) ** 2
        footprint = max(across, along) * depth * depth
        texel = _sample(pyramids, base, u, v, footprint)
        if is_plain:
            radiance[y, x] = gain * texel
        else:
            radiance[y, x] = _lit(texel, face, x, y, depth, gains, reflects, lamps, lighting, plan)


@kernel
def shade(
    coefficients: NDArray[np.float64],
    inverse_depth: NDArray[np.float64],
    faces: NDArray[np.int16],
    pyramids: NDArray[np.float32],
    bases: NDArray[np.int64],
    gains: NDArray[np.float64],
    reflects: NDArray[np.float64],
    lamps: NDArray[np.float32],
    lighting: NDArray[np.float64],
    plan: NDArray[np.float64],
    radiance: NDArray[np.float32],
) -> None:
    """Fill the radiance of every pixel; 0 where nothing is seen.

    Args:
        coefficients, inverse_depth, faces: from `raster`.
        pyramids: of all textures one after another; `bases`: where each rectangle's begins.
        gains: float64[F], what each rectangle shows of its texture by the light from everywhere,
            or by itself; `reflects`: its factor for lamps and headlight, 0 for what glows.
        lamps: light of lamps on the floor plan; `lighting`: see the entries above.
        plan: float64[2, 4], see `_lit`.
        radiance: float32[H, W], the result.
    """
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
                    gains,
                    reflects,
                    lamps,
                    lighting,
                    plan,
                    radiance,
                )
            else:
                radiance[y, x] = _border_radiance(
                    coefficients,
                    faces,
                    x,
                    y,
                    inverse_depth,
                    pyramids,
                    bases,
                    gains,
                    reflects,
                    lamps,
                    lighting,
                    plan,
                    seen,
                )
                x += 1
