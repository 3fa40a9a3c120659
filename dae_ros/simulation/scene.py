"""A world as the renderer wants it: textured rectangles in m, z up, some of them on moving bodies.

A rectangle is seen from one side only, the side from which its `right` edge runs to the right and
its `down` edge downwards. `Builder` places rectangles and boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dae_ros.simulation import texture
from dae_ros.simulation.light import Lamp, Light
from dae_ros.simulation.motion import Motion
from dae_ros.simulation.pattern import SIZE

Vector = NDArray[np.float64]
# What glows by itself instead of scattering light.
GLOWING = ("lamp", "lit_windows")
SKY = "sky"
# Directions of the six sides of a box and, for each, which way its texture runs down.
_SIDES = (
    ((1, 0, 0), (0, 0, -1)), ((-1, 0, 0), (0, 0, -1)), ((0, 1, 0), (0, 0, -1)),
    ((0, -1, 0), (0, 0, -1)), ((0, 0, 1), (0, -1, 0)), ((0, 0, -1), (0, 1, 0)),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Rectangle:
    """A textured rectangle.

    Attributes:
        corner: float64[3], its upper left corner as seen from its front, m.
        right, down: float64[3], its edges from there, m.
        material: a key of `texture.DRAWERS`.
        period_m: length over which the texture repeats; 0 fits one period to the rectangle.
        offset: where in its period the texture begins, (right, down), 0..1.
        body: 0 for what stands still, k for the k-th moving body, in whose coordinates it is.
        albedo: factor on the texture's albedo.
    """

    corner: Vector
    right: Vector
    down: Vector
    material: str
    period_m: float
    offset: tuple[float, float]
    body: int = 0
    albedo: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """All rectangles as columns, and what moves and lights them.

    Attributes:
        corner, right, down: float64[F, 3], m, in coordinates of the body.
        texels: float64[F, 2], texels over the right and the down edge.
        offset: float64[F, 2], texel at the corner.
        texture: int64[F], index of the texture.
        albedo: float64[F], factor on the texture.
        glow: bool[F], glows by itself; `sky`: bool[F], glows and has no depth.
        body: int64[F], 0 for what stands still.
        bodies: how bodies 1, 2, ... move.
        light: what lights the world.
        pyramids: float32[textures, M], mip levels of each texture (`texture.pyramid`).
    """

    corner: Vector
    right: Vector
    down: Vector
    texels: Vector
    offset: Vector
    texture: NDArray[np.int64]
    albedo: Vector
    glow: NDArray[np.bool_]
    sky: NDArray[np.bool_]
    body: NDArray[np.int64]
    bodies: tuple[Motion, ...]
    light: Light
    pyramids: NDArray[np.float32]

    @staticmethod
    def build(
        rectangles: Sequence[Rectangle],
        seed: int,
        light: Light | None = None,
        bodies: Sequence[Motion] = (),
    ) -> Scene:
        """Draw the textures that the rectangles name and collect the columns."""
        materials = sorted({item.material for item in rectangles})
        texels, offset = [], []
        for item in rectangles:
            for edge, start in ((item.right, item.offset[0]), (item.down, item.offset[1])):
                periods = (
                    float(np.linalg.norm(edge)) / item.period_m if item.period_m > 0.0 else 1.0
                )
                texels.append(periods * SIZE)
                offset.append(start * SIZE)
        return Scene(
            np.array([item.corner for item in rectangles]),
            np.array([item.right for item in rectangles]),
            np.array([item.down for item in rectangles]),
            np.array(texels).reshape(-1, 2), np.array(offset).reshape(-1, 2),
            np.array([materials.index(item.material) for item in rectangles], np.int64),
            np.array([item.albedo for item in rectangles]),
            np.array([item.material in (*GLOWING, SKY) for item in rectangles]),
            np.array([item.material == SKY for item in rectangles]),
            np.array([item.body for item in rectangles], np.int64),
            tuple(bodies), Light() if light is None else light,
            np.stack([texture.pyramid(texture.draw(name, seed)) for name in materials]),
        )  # fmt: skip


def rectangle(
    centre: Vector,
    normal: Vector,
    down: Vector,
    width: float,
    height: float,
    material: str,
    period_m: float,
    offset: tuple[float, float] = (0.0, 0.0),
    body: int = 0,
    albedo: float = 1.0,
) -> Rectangle:
    """Return a rectangle about a centre.

    Args:
        centre: float64[3], m.
        normal: float64[3], unit vector towards the side from which it is seen.
        down: float64[3], unit vector along which its texture runs down, in its plane.
        width, height: lengths of the right and the down edge, m.
        material, period_m, offset, body, albedo: see `Rectangle`.
    """
    right = np.cross(down, -normal)
    return Rectangle(
        centre - right * (width / 2) - down * (height / 2), right * width, down * height,
        material, period_m, offset, body, albedo,
    )  # fmt: skip


class Builder:
    """Collects rectangles, bodies and lamps; everything random comes from one generator.

    Attributes:
        generator: source of everything random.
        rectangles, bodies, lamps: what has been placed.
    """

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng([seed, 0])
        self.rectangles: list[Rectangle] = []
        self.bodies: list[Motion] = []
        self.lamps: list[Lamp] = []
        self._body = 0

    def uniform(self, low: float, high: float) -> float:
        """Return one random number."""
        return float(self.generator.uniform(low, high))

    def choice(self, *names: str) -> str:
        """Return one of the names."""
        return names[int(self.generator.integers(len(names)))]

    @contextmanager
    def body(self, motion: Motion) -> Iterator[None]:
        """Place what follows on a new body, in its coordinates (x forward, z up)."""
        self.bodies.append(motion)
        self._body = len(self.bodies)
        yield
        self._body = 0

    def face(
        self,
        centre: Sequence[float] | Vector,
        normal: Sequence[float] | Vector,
        down: Sequence[float] | Vector,
        width: float,
        height: float,
        material: str,
        period_m: float = 0.0,
        albedo: float = 1.0,
    ) -> None:
        """Add one rectangle; see `rectangle`."""
        offset = (0.0, 0.0)
        if period_m > 0.0:
            offset = (self.uniform(0.0, 1.0), self.uniform(0.0, 1.0))
        self.rectangles.append(
            rectangle(
                np.asarray(centre, float),
                np.asarray(normal, float),
                np.asarray(down, float),
                width,
                height,
                material,
                period_m,
                offset,
                self._body,
                albedo,
            )
        )

    def hall(
        self,
        low: Sequence[float],
        high: Sequence[float],
        walls: tuple[str, str],
        floor: str,
        ceiling: str,
        periods_m: tuple[float, float, float],
    ) -> None:
        """Add the inside of a box from its lowest to its highest corner.

        The first material of `walls` is for the two walls across x, the second for those across
        y; `periods_m` is of walls, floor and ceiling.
        """
        start, end = np.array(low, float), np.array(high, float)
        middle, size = (start + end) / 2, end - start
        for outward, down in _SIDES:
            normal = -np.array(outward, float)
            axis, height_axis, width_axis = _axes(outward, down)
            if axis == 2:
                material = ceiling if normal[2] < 0 else floor
                period_m = periods_m[2] if normal[2] < 0 else periods_m[1]
            else:
                material, period_m = walls[axis], periods_m[0]
            self.face(
                middle - normal * size[axis] / 2,
                normal,
                down,
                size[width_axis],
                size[height_axis],
                material,
                period_m,
            )

    def box(
        self,
        centre: Sequence[float],
        size: Sequence[float],
        material: str,
        period_m: float = 0.0,
        yaw: float = 0.0,
        top: str | None = None,
        ends: str | None = None,
        albedo: float = 1.0,
    ) -> None:
        """Add the outside of a box that is turned about the vertical by `yaw` rad.

        Args:
            centre, size: m.
            material, period_m, albedo: of its sides; see `Rectangle`.
            yaw: rad.
            top, ends: other materials for the upper side, and for the sides along x.
        """
        middle, extent = np.array(centre, float), np.array(size, float)
        turn = np.array(
            [[np.cos(yaw), -np.sin(yaw), 0.0], [np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]]
        )
        for outward, down in _SIDES:
            normal = np.array(outward, float)
            axis, height_axis, width_axis = _axes(outward, down)
            if outward[2] == -1 and middle[2] - extent[2] / 2 < 0.01 and self._body == 0:
                continue  # it stands on the ground
            chosen = material
            if top is not None and outward[2] == 1:
                chosen = top
            elif ends is not None and axis == 0:
                chosen = ends
            self.face(
                middle + turn @ normal * extent[axis] / 2,
                turn @ normal,
                turn @ np.array(down, float),
                extent[width_axis],
                extent[height_axis],
                chosen,
                period_m,
                albedo,
            )

    def turned_box(
        self,
        centre: Sequence[float] | Vector,
        size: Sequence[float],
        turn: Vector,
        material: str,
        period_m: float = 0.0,
        albedo: float = 1.0,
    ) -> None:
        """Add the outside of a box in any attitude.

        Args:
            centre, size: m.
            turn: float64[3, 3], rotation of the box.
            material, period_m, albedo: of all six sides; see `Rectangle`.
        """
        middle, extent = np.array(centre, float), np.array(size, float)
        for outward, down in _SIDES:
            normal = turn @ np.array(outward, float)
            axis, height_axis, width_axis = _axes(outward, down)
            self.face(
                middle + normal * extent[axis] / 2,
                normal,
                turn @ np.array(down, float),
                extent[width_axis],
                extent[height_axis],
                material,
                period_m,
                albedo,
            )

    def lamp(self, centre: Sequence[float], size: Sequence[float], pool_m: float) -> None:
        """Add a lamp that lights a pool of this radius beneath it."""
        self.box(centre, size, "lamp")
        self.lamps.append(Lamp(float(centre[0]), float(centre[1]), pool_m))


def _axes(outward: Sequence[int], down: Sequence[int]) -> tuple[int, int, int]:
    """Return the axes of a box side: normal, height, width."""
    axis = int(np.argmax(np.abs(outward)))
    height_axis = int(np.argmax(np.abs(down)))
    return axis, height_axis, 3 - axis - height_axis
