"""Worlds of textured rectangles: a furnished room and a corridor, all in m, z up.

A rectangle is seen from one side only, the side from which its `right` edge runs to the
right and its `down` edge downwards. Light is fixed to the world and surfaces scatter it
evenly, so that a point keeps its radiance whoever looks at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dae_ros.simulation import texture

Vector = NDArray[np.float64]
LIGHT = np.array([0.35, 0.5, 0.79])
AMBIENT = 0.55
# Directions of the six sides of a box and, for each, which way its texture runs down.
_SIDES = (
    ((1, 0, 0), (0, 0, -1)),
    ((-1, 0, 0), (0, 0, -1)),
    ((0, 1, 0), (0, 0, -1)),
    ((0, -1, 0), (0, 0, -1)),
    ((0, 0, 1), (0, -1, 0)),
    ((0, 0, -1), (0, 1, 0)),
)


@dataclass(frozen=True, slots=True, eq=False)
class Rectangle:
    """A textured rectangle.

    Attributes:
        corner: float64[3], its upper left corner as seen from its front, m.
        right, down: float64[3], its edges from there, m.
        material: a key of `texture.DRAWERS`.
        period_m: length over which the texture repeats; 0 fits one period to the rectangle.
        offset: where in its period the texture begins, (right, down), 0..1.
        shade: factor on the albedo that the light gives.
    """

    corner: Vector
    right: Vector
    down: Vector
    material: str
    period_m: float
    offset: tuple[float, float]
    shade: float


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """All rectangles as columns, as the renderer wants them.

    Attributes:
        corner, right, down: float64[F, 3], m.
        texels: float64[F, 2], texels over the right and the down edge.
        offset: float64[F, 2], texel at the corner.
        texture: int64[F], index of the texture.
        shade: float32[F].
        pyramids: float32[textures, M], mip levels of each texture (`texture.pyramid`).
    """

    corner: Vector
    right: Vector
    down: Vector
    texels: Vector
    offset: Vector
    texture: NDArray[np.int64]
    shade: NDArray[np.float32]
    pyramids: NDArray[np.float32]

    @staticmethod
    def build(rectangles: Sequence[Rectangle], seed: int) -> Scene:
        """Draw the textures that the rectangles name and collect the columns."""
        materials = sorted({item.material for item in rectangles})
        texels, offset = [], []
        for item in rectangles:
            for edge, start in ((item.right, item.offset[0]), (item.down, item.offset[1])):
                periods = np.linalg.norm(edge) / item.period_m if item.period_m > 0.0 else 1.0
                texels.append(periods * texture.SIZE)
                offset.append(start * texture.SIZE)
        return Scene(
            np.array([item.corner for item in rectangles]),
            np.array([item.right for item in rectangles]),
            np.array([item.down for item in rectangles]),
            np.array(texels).reshape(-1, 2),
            np.array(offset).reshape(-1, 2),
            np.array([materials.index(item.material) for item in rectangles], np.int64),
            np.array([item.shade for item in rectangles], np.float32),
            np.stack([texture.pyramid(texture.draw(name, seed)) for name in materials]),
        )


def rectangle(
    centre: Vector,
    normal: Vector,
    down: Vector,
    width: float,
    height: float,
    material: str,
    period_m: float,
    offset: tuple[float, float] = (0.0, 0.0),
) -> Rectangle:
    """Return a rectangle about a centre.

    Args:
        centre: float64[3], m.
        normal: float64[3], unit vector towards the side from which it is seen.
        down: float64[3], unit vector along which its texture runs down, in its plane.
        width, height: lengths of the right and the down edge, m.
        material: a key of `texture.DRAWERS`.
        period_m, offset: see `Rectangle`.
    """
    right = np.cross(down, -normal)
    light = float(LIGHT @ normal) / float(np.linalg.norm(LIGHT))
    return Rectangle(
        centre - right * (width / 2) - down * (height / 2),
        right * width,
        down * height,
        material,
        period_m,
        offset,
        AMBIENT + (1.0 - AMBIENT) * max(light, 0.0),
    )


class _Builder:
    """Collects rectangles; everything random comes from one generator."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng([seed, 0])
        self.rectangles: list[Rectangle] = []

    def _place(
        self,
        centre: Vector,
        normal: Vector,
        down: Vector,
        width: float,
        height: float,
        material: str,
        period_m: float,
    ) -> None:
        offset = (0.0, 0.0)
        if period_m > 0.0:
            offset = (float(self.generator.uniform()), float(self.generator.uniform()))
        self.rectangles.append(
            rectangle(centre, normal, down, width, height, material, period_m, offset)
        )

    def hall(
        self,
        low: Sequence[float],
        high: Sequence[float],
        walls: tuple[str, str],
        floor: str,
        ceiling: str,
    ) -> None:
        """Add the inside of a box from its lowest to its highest corner.

        The first material of `walls` is for the two walls across x, the second for those
        across y.
        """
        start, end = np.array(low, float), np.array(high, float)
        middle, size = (start + end) / 2, end - start
        for outward, down in _SIDES:
            normal, downward = -np.array(outward, float), np.array(down, float)
            axis = int(np.argmax(np.abs(normal)))
            height_axis = int(np.argmax(np.abs(downward)))
            width_axis = 3 - axis - height_axis
            if axis == 2:
                material, period = (ceiling, 2.4) if normal[2] < 0 else (floor, 2.8)
            else:
                material, period = walls[axis], 2.6
            self._place(
                middle - normal * size[axis] / 2,
                normal,
                downward,
                size[width_axis],
                size[height_axis],
                material,
                period,
            )

    def box(
        self,
        centre: Sequence[float],
        size: Sequence[float],
        material: str,
        period_m: float = 0.0,
        yaw: float = 0.0,
        top: str | None = None,
    ) -> None:
        """Add the outside of a box that is turned about the vertical by `yaw` rad."""
        middle, extent = np.array(centre, float), np.array(size, float)
        turn = np.array(
            [[np.cos(yaw), -np.sin(yaw), 0.0], [np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]]
        )
        for outward, down in _SIDES:
            normal, downward = np.array(outward, float), np.array(down, float)
            axis = int(np.argmax(np.abs(normal)))
            height_axis = int(np.argmax(np.abs(downward)))
            width_axis = 3 - axis - height_axis
            chosen = top if top is not None and outward[2] == 1 else material
            self._place(
                middle + turn @ normal * extent[axis] / 2,
                turn @ normal,
                turn @ downward,
                extent[width_axis],
                extent[height_axis],
                chosen,
                period_m,
            )

    def uniform(self, low: float, high: float) -> float:
        """Return one random number."""
        return float(self.generator.uniform(low, high))


def room(seed: int) -> Scene:
    """Return a furnished room of 8 x 6 x 2.8 m; x up to 1.7 and y up to 1.4 m are free to walk."""
    b = _Builder(seed)
    b.hall((-4, -3, 0), (4, 3, 2.8), ("wallpaper", "bricks"), "planks", "panels")
    # Shelves along the left wall, a cabinet with a picture above it ahead, a sofa behind.
    b.box((b.uniform(-1.0, 0.5), 2.75, 1.0), (2.6, 0.5, 2.0), "books", 1.3)
    b.box((3.7, b.uniform(-0.8, 0.8), 0.45), (0.6, 1.8, 0.9), "planks", 1.2)
    b.box((3.97, b.uniform(-0.5, 0.5), 1.65), (0.05, 1.1, 0.8), "picture")
    b.box((-3.4, 0.2, 0.25), (0.9, 2.2, 0.5), "fabric", 0.9)
    b.box((-3.75, 0.2, 0.65), (0.25, 2.2, 0.5), "fabric", 0.9)
    b.box((-3.97, b.uniform(-1.2, 1.2), 1.7), (0.05, 0.8, 1.0), "picture")
    # A table with four legs and things on it, against the right wall.
    x = b.uniform(0.0, 1.2)
    b.box((x, -2.4, 0.73), (1.6, 0.8, 0.05), "planks", 1.1)
    for dx in (-0.74, 0.74):
        for dy in (-0.34, 0.34):
            b.box((x + dx, -2.4 + dy, 0.35), (0.07, 0.07, 0.7), "crate", 0.5)
    b.box((x - 0.4, -2.45, 0.87), (0.35, 0.25, 0.22), "picture", yaw=b.uniform(-0.6, 0.6))
    b.box((x + 0.35, -2.4, 0.95), (0.12, 0.3, 0.38), "books", 0.8, yaw=b.uniform(-0.6, 0.6))
    b.box((x, -2.97, 1.75), (1.3, 0.05, 0.8), "picture")
    # A stack of crates in a corner, a post, a low bench in the way of the feet, two lamps.
    b.box((3.1, 2.3, 0.35), (0.7, 0.7, 0.7), "crate", yaw=b.uniform(-0.5, 0.5))
    b.box((3.1, 2.3, 0.95), (0.5, 0.5, 0.5), "crate", yaw=b.uniform(-0.5, 0.5))
    b.box((2.3, 2.5, 0.25), (0.5, 0.5, 0.5), "crate", yaw=b.uniform(-0.5, 0.5))
    b.box((-2.6, -2.2, 1.4), (0.3, 0.3, 2.8), "plaster", 1.0)
    b.box((2.6, -1.9, 1.4), (0.25, 0.25, 2.8), "bricks", 1.2)
    b.box((-2.2, 2.1, 0.3), (0.5, 0.5, 0.6), "fabric", 0.7, yaw=b.uniform(-0.7, 0.7))
    b.box((0.0, 0.0, 0.2), (1.1, 0.5, 0.4), "fabric", 0.8, yaw=b.uniform(-0.8, 0.8))
    for x in (-1.8, 1.8):
        b.box((x, 0.0, 2.77), (1.2, 0.4, 0.06), "lamp")
    return Scene.build(b.rectangles, seed)


def corridor(seed: int) -> Scene:
    """Return a corridor of 44 x 2.8 x 2.6 m; y within 0.55 m is free to walk, x within 14 m."""
    b = _Builder(seed)
    b.hall((-22, -1.4, 0), (22, 1.4, 2.6), ("bricks", "plaster"), "tiles", "panels")
    for x in np.arange(-20.0, 21.0, 4.0):
        b.box((x, 0.0, 2.58), (1.2, 0.35, 0.05), "lamp")
        for side in (-1.0, 1.0):
            kind = b.generator.integers(4)
            along = float(x) + b.uniform(-0.6, 0.6)
            if kind <= 1:
                b.box((along, side * 1.38, 1.02), (0.95, 0.06, 2.05), "crate", 0.9)
            elif kind == 2:
                b.box((along, side * 1.38, 1.6), (b.uniform(0.6, 1.2), 0.05, 0.8), "picture")
            else:
                b.box((along, side * 1.2, 0.9), (0.9, 0.4, 1.8), "books", 1.2)
            b.box((float(x) + 2.0, side * 1.33, 1.3), (0.3, 0.16, 2.6), "bricks", 1.4)
    for x in np.arange(-18.0, 19.0, 5.0):
        side = 1.0 if b.uniform(0.0, 1.0) < 0.5 else -1.0
        size = b.uniform(0.3, 0.5)
        b.box(
            (float(x) + b.uniform(-1.0, 1.0), side * b.uniform(1.0, 1.05), size / 2),
            (size, size, size),
            "crate",
            yaw=b.uniform(-0.4, 0.4),
        )
    b.box((21.97, 0.0, 1.05), (0.06, 1.0, 2.1), "wallpaper", 1.6)
    b.box((-21.97, 0.0, 1.05), (0.06, 1.0, 2.1), "wallpaper", 1.6)
    return Scene.build(b.rectangles, seed)
