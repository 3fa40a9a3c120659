"""An open place in a town: a green, a paved square or a car park, by seed. In m, z up.

How far it reaches, what closes each of its sides and what stands on it are drawn as well, so that
no two look alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dae_ros.simulation.indoors import person
from dae_ros.simulation.motion import Loop, LoopMotion
from dae_ros.simulation.open_ground import FreeGround, open_sky, turn_about
from dae_ros.simulation.scene import Builder
from dae_ros.simulation.street import car

# The way around the place, which the camera takes.
PARK_LOOP = Loop(26.0, 12.0, 14.0)
# Free on both sides of its line: a drone sways by 0.85 m, people walk at 2.8 m.
_WAY_M = 3.3
_FACADES = ("facade", "brick_facade", "office", "shop", "bricks")
_Build = Callable[[Builder, float, float], None]


@dataclass(frozen=True)
class _Kind:
    """What a kind of place has.

    Attributes:
        grounds: materials and their periods in m; one of them.
        things: how to build one, the radius in m that it needs, usually how many.
        cars: driving.
        people: on foot.
    """

    grounds: tuple[tuple[str, float], ...]
    things: tuple[tuple[_Build, float, int], ...]
    cars: int
    people: int


def park(b: Builder) -> None:
    """Build the place: 58 x 44 m to 92 x 72 m, and what is around it.

    Within 3.3 m of the line of `PARK_LOOP` the ground is free, but for people and cars.
    """
    open_sky(b)
    up, south = (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)
    b.face((0.0, 0.0, -0.05), up, south, 598.0, 598.0, "grass", 12.0, b.uniform(0.7, 1.4))
    kind = _KINDS[b.choice(*_KINDS)]
    reach_m = (b.uniform(29.0, 46.0), b.uniform(22.0, 36.0))
    material, period_m = kind.grounds[int(b.generator.integers(len(kind.grounds)))]
    size = (2 * reach_m[0] + 4.0, 2 * reach_m[1] + 4.0)
    b.face((0.0, 0.0, 0.0), up, south, *size, material, period_m, b.uniform(0.6, 1.5))
    for along_x in (True, False):
        for side in (-1.0, 1.0):
            _SIDES[b.choice(*_SIDES)](b, along_x, side, reach_m)
    _far_away(b, reach_m)
    ground = FreeGround(b, reach_m, ((PARK_LOOP, _WAY_M),))
    # From all but empty to crowded; what finds no place is left out.
    crowd = b.uniform(0.6, 2.4)
    for build, radius_m, count in kind.things:
        for _ in range(round(crowd * count)):
            place = ground.place(radius_m)
            if place is not None:
                build(b, *place)
    _traffic(b, kind)


def _row(
    along_x: bool, side: float, reach_m: tuple[float, float], away_m: float
) -> tuple[float, Callable[[float], tuple[float, float]], float]:
    """Return a side's length, its points by how far along they are, and its yaw in rad."""
    across, along = (reach_m[1], reach_m[0]) if along_x else reach_m
    line = side * (across + away_m)

    def point(distance_m: float) -> tuple[float, float]:
        run = distance_m - along
        return (run, line) if along_x else (line, run)

    return 2 * along, point, 0.0 if along_x else np.pi / 2


def _houses(b: Builder, along_x: bool, side: float, reach_m: tuple[float, float]) -> None:
    length_m, point, yaw = _row(along_x, side, reach_m, 8.0)
    at_m = -4.0
    while at_m < length_m:
        wide, high = b.uniform(7.0, 20.0), b.uniform(4.0, 16.0)
        x, y = point(at_m + wide / 2)
        deep = b.uniform(8.0, 12.0)
        material = b.choice(*_FACADES)
        period_m = {"shop": 3.6, "bricks": 2.6}.get(material, b.uniform(10.0, 14.0))
        b.box((x, y, high / 2), (wide, deep, high), material, period_m, yaw, "metal",
              albedo=b.uniform(0.6, 1.35))  # fmt: skip
        at_m += wide + (b.uniform(1.0, 9.0) if b.uniform(0.0, 1.0) < 0.3 else 0.0)


def _hedge(b: Builder, along_x: bool, side: float, reach_m: tuple[float, float]) -> None:
    length_m, point, yaw = _row(along_x, side, reach_m, 0.6)
    high = b.uniform(0.8, 2.6)
    at_m = 0.0
    while at_m < length_m:
        wide = min(b.uniform(4.0, 11.0), length_m - at_m + 0.5)
        x, y = point(at_m + wide / 2)
        tall = high * b.uniform(0.9, 1.1)
        b.box((x, y, tall / 2), (wide, 1.0, tall), "foliage", 2.2, yaw, albedo=b.uniform(0.7, 1.3))
        at_m += wide + (b.uniform(1.0, 4.0) if b.uniform(0.0, 1.0) < 0.25 else 0.0)


def _wall(b: Builder, along_x: bool, side: float, reach_m: tuple[float, float]) -> None:
    length_m, point, yaw = _row(along_x, side, reach_m, 0.4)
    material, high = b.choice("bricks", "concrete", "planks", "plaster"), b.uniform(0.6, 3.2)
    x, y = point(length_m / 2)
    b.box((x, y, high / 2), (length_m, 0.35, high), material, 2.6, yaw, albedo=b.uniform(0.6, 1.3))
    for at_m in np.arange(2.0, length_m, b.uniform(3.0, 7.0)):
        x, y = point(float(at_m))
        b.box((x, y, high / 2 + 0.1), (0.5, 0.5, high + 0.2), material, 1.3, yaw, albedo=0.9)


def _avenue(b: Builder, along_x: bool, side: float, reach_m: tuple[float, float]) -> None:
    """Plant a row of trees, all of one kind; behind it the meadow goes on."""
    length_m, point, _ = _row(along_x, side, reach_m, 1.5)
    build = (_tree, _poplar, _fir)[int(b.generator.integers(3))]
    step_m = b.uniform(5.0, 9.0)
    for at_m in np.arange(1.0, length_m, step_m):
        build(b, *point(float(at_m) + b.uniform(-0.8, 0.8)))


def _nothing(b: Builder, along_x: bool, side: float, reach_m: tuple[float, float]) -> None:
    """Leave a side open."""


def _far_away(b: Builder, reach_m: tuple[float, float]) -> None:
    """Put woods and single houses on the meadow, for where a side lets the eye through."""
    for _ in range(24):
        angle, far = b.uniform(-np.pi, np.pi), b.uniform(1.35, 3.2)
        x, y = far * reach_m[0] * np.cos(angle), far * reach_m[1] * np.sin(angle)
        wide, high = b.uniform(4.0, 12.0), b.uniform(3.0, 10.0)
        free_m = 14.0 + wide / 2
        if abs(x) < reach_m[0] + free_m and abs(y) < reach_m[1] + free_m:
            continue
        material = b.choice("foliage", "foliage", "foliage", "brick_facade", "facade")
        period_m = 3.5 if material == "foliage" else 12.0
        b.box((x, y, high / 2), (wide, wide, high), material, period_m,
              yaw=b.uniform(0.0, 1.5), albedo=b.uniform(0.6, 1.3))  # fmt: skip


def _crown(b: Builder, x: float, y: float, z: float, size: float) -> None:
    turn = turn_about(b.uniform(-np.pi, np.pi), b.uniform(0.2, 0.9))
    b.turned_box((x, y, z), (size, size, size), turn, "foliage", 2.0, b.uniform(0.7, 1.3))


def _tree(b: Builder, x: float, y: float) -> None:
    """Plant a broad tree."""
    high = b.uniform(1.7, 3.4)
    b.box((x, y, high / 2), (0.32, 0.32, high), "bark", 1.0, yaw=b.uniform(0.0, 1.5))
    for _ in range(8):
        off_x, off_y = b.uniform(-0.8, 0.8), b.uniform(-0.8, 0.8)
        _crown(b, x + off_x, y + off_y, high + b.uniform(0.0, 2.4), b.uniform(0.8, 1.5))


def _poplar(b: Builder, x: float, y: float) -> None:
    """Plant a tall, narrow tree."""
    b.box((x, y, 0.6), (0.28, 0.28, 1.2), "bark", 1.0)
    high = b.uniform(5.0, 10.0)
    for z in np.arange(1.6, high, 1.0):
        size = 1.15 * (1.0 - 0.5 * abs(2.0 * z / high - 1.0))
        _crown(b, x + b.uniform(-0.15, 0.15), y + b.uniform(-0.15, 0.15), float(z), size)


def _fir(b: Builder, x: float, y: float) -> None:
    """Plant a conifer: slices that become narrower, each turned its own way."""
    high, wide, tone = b.uniform(3.0, 7.0), b.uniform(1.3, 1.9), b.uniform(0.5, 0.9)
    b.box((x, y, 0.3), (0.25, 0.25, 0.6), "bark", 1.0)
    for number, z in enumerate(np.linspace(0.5, high, 6)):
        side_m = wide * (1.0 - number / 6.5)
        b.box((x, y, float(z) + high / 14), (side_m, side_m, high / 7), "foliage", 1.6,
              yaw=b.uniform(0.0, 1.5), albedo=tone)  # fmt: skip


def _shrub(b: Builder, x: float, y: float) -> None:
    for _ in range(3):
        size = b.uniform(0.4, 0.9)
        _crown(b, x + b.uniform(-0.35, 0.35), y + b.uniform(-0.35, 0.35), 0.42 * size, size)


def _flower_bed(b: Builder, x: float, y: float) -> None:
    yaw, material = b.uniform(-np.pi, np.pi), b.choice("concrete", "planks", "bricks")
    b.box((x, y, 0.22), (2.4, 1.1, 0.44), material, 1.4, yaw, albedo=b.uniform(0.7, 1.3))
    b.box((x, y, 0.55), (2.1, 0.8, 0.3), "foliage", 0.8, yaw, albedo=b.uniform(0.9, 1.6))


def _bench(b: Builder, x: float, y: float) -> None:
    yaw = b.uniform(-np.pi, np.pi)
    forward = np.array([-np.sin(yaw), np.cos(yaw)])
    side = np.array([np.cos(yaw), np.sin(yaw)])
    b.box((x, y, 0.45), (1.7, 0.45, 0.07), "planks", 0.9, yaw)
    back_x, back_y = (float(v) for v in np.array([x, y]) - 0.24 * forward)
    b.box((back_x, back_y, 0.75), (1.7, 0.06, 0.4), "planks", 0.9, yaw)
    for end in (-0.7, 0.7):
        leg_x, leg_y = (float(v) for v in np.array([x, y]) + end * side)
        b.box((leg_x, leg_y, 0.2), (0.08, 0.4, 0.4), "paint", 0.5, yaw, albedo=0.3)


def _lantern(b: Builder, x: float, y: float) -> None:
    high = b.uniform(3.2, 5.5)
    b.box((x, y, high / 2), (0.14, 0.14, high), "paint", 1.0, b.uniform(0.0, 1.5), albedo=0.4)
    b.lamp((x, y, high + 0.1), (0.45, 0.45, 0.25), 5.0)


def _monument(b: Builder, x: float, y: float) -> None:
    """Put something of three turned blocks on a plinth."""
    yaw, tone = b.uniform(-np.pi, np.pi), b.uniform(0.6, 1.4)
    material = b.choice("concrete", "plaster", "metal")
    b.box((x, y, 0.15), (2.2, 2.2, 0.3), "concrete", 1.5, yaw, albedo=tone)
    b.box((x, y, 0.85), (1.1, 1.1, 1.1), "bricks", 1.2, yaw, albedo=tone)
    for number in range(3):
        size = (b.uniform(0.2, 0.5), b.uniform(0.2, 0.5), b.uniform(0.7, 1.2))
        turn = turn_about(b.uniform(-np.pi, np.pi), b.uniform(-0.5, 0.5))
        b.turned_box((x, y, 1.8 + 0.55 * number), size, turn, material, 1.0, tone)


def _kiosk(b: Builder, x: float, y: float) -> None:
    """Put up a kiosk with a sloping roof."""
    yaw, tone = b.uniform(-np.pi, np.pi), b.uniform(0.6, 1.4)
    wide, deep, high = b.uniform(1.8, 3.2), b.uniform(1.6, 2.4), b.uniform(2.0, 2.8)
    material, period_m = ("shop", 3.0) if b.uniform(0.0, 1.0) < 0.4 else ("planks", 1.6)
    b.box((x, y, high / 2), (wide, deep, high), material, period_m, yaw, albedo=tone)
    turn = turn_about(yaw, b.uniform(0.05, 0.2))
    b.turned_box((x, y, high + 0.35), (wide + 0.7, deep + 0.5, 0.1), turn, "metal", 2.0, tone)


def _board(b: Builder, x: float, y: float) -> None:
    """Put up a board on two posts: a map, or an advertisement."""
    yaw, wide = b.uniform(-np.pi, np.pi), b.uniform(0.9, 2.4)
    low, high = b.uniform(0.5, 1.4), b.uniform(0.7, 1.4)
    b.box((x, y, low + high / 2), (wide, 0.08, high), "picture", 0.0, yaw, ends="paint")
    for end in (-0.45, 0.45):
        post = np.array([x, y]) + end * wide * np.array([np.cos(yaw), np.sin(yaw)])
        b.box((float(post[0]), float(post[1]), low / 2), (0.09, 0.07, low), "paint", 0.6, yaw,
              albedo=0.5)  # fmt: skip


def _boulder(b: Builder, x: float, y: float) -> None:
    size = b.uniform(0.6, 1.5)
    turn = turn_about(b.uniform(-np.pi, np.pi), b.uniform(0.15, 0.6))
    shape = (size, size * b.uniform(0.6, 1.0), size * b.uniform(0.5, 0.9))
    b.turned_box((x, y, 0.25 * size), shape, turn, "concrete", 1.7, b.uniform(0.5, 1.2))


def _mound(b: Builder, x: float, y: float) -> None:
    """Raise the ground: the top of a big block that lies tilted in it."""
    turn = turn_about(b.uniform(-np.pi, np.pi), b.uniform(0.08, 0.22))
    deep, shown = 3.0, b.uniform(0.1, 0.7)
    b.turned_box((x, y, shown - deep / 2), (6.0, 5.0, deep), turn, "grass", 6.0,
                 b.uniform(0.7, 1.5))  # fmt: skip


def _bollards(b: Builder, x: float, y: float) -> None:
    yaw, material = b.uniform(-np.pi, np.pi), b.choice("paint", "hazard", "concrete")
    tone, high = b.uniform(0.4, 1.3), b.uniform(0.5, 1.0)
    for step_m in (-1.3, 0.0, 1.3):
        b.box((x + step_m * np.cos(yaw), y + step_m * np.sin(yaw), high / 2), (0.18, 0.18, high),
              material, 0.7, yaw, albedo=tone)  # fmt: skip


def _frame(b: Builder, x: float, y: float) -> None:
    """Put up a swing: posts that lean, a beam, two seats."""
    yaw = b.uniform(-np.pi, np.pi)
    side = np.array([np.cos(yaw), np.sin(yaw)])
    b.box((x, y, 2.2), (2.6, 0.12, 0.12), "bark", 0.8, yaw, albedo=1.6)
    for end in (-1.2, 1.2):
        for lean in (-0.25, 0.25):
            place = np.array([x, y]) + end * side + 1.1 * np.sin(lean) * side
            turn = turn_about(yaw, -lean)
            b.turned_box((*(float(v) for v in place), 1.06), (0.1, 0.1, 2.15), turn, "bark", 0.8,
                         1.4)  # fmt: skip
    for end in (-0.5, 0.5):
        seat_x, seat_y = (float(v) for v in np.array([x, y]) + end * side)
        b.box((seat_x, seat_y, 0.45), (0.5, 0.2, 0.06), "planks", 0.6, yaw)


def _parked(b: Builder, x: float, y: float) -> None:
    """Park a car along one of the two axes, nearly."""
    car(b, x, y, 0.5 * np.pi * int(b.generator.integers(4)) + b.uniform(-0.06, 0.06))


def _traffic(b: Builder, kind: _Kind) -> None:
    """Let cars come along the way, and people on both sides of it."""
    loop = PARK_LOOP
    for number in range(kind.cars):
        start = loop.round_m * (number + b.uniform(0.2, 0.8)) / kind.cars
        with b.body(LoopMotion(loop, 1.3, start, -b.uniform(2.5, 4.5))):
            car(b)
    for number in range(kind.people):
        lane_m = 2.8 if number % 2 else -2.8
        speed = b.uniform(0.9, 1.7) * (1.0 if number % 4 < 2 else -1.0)
        start = b.uniform(0.0, loop.round_m)
        with b.body(LoopMotion(loop, lane_m, start, speed, bounce_m=0.03, bounce_hz=1.8)):
            person(b)


_SIDES: dict[str, Callable[[Builder, bool, float, tuple[float, float]], None]] = {
    "houses": _houses, "hedge": _hedge, "wall": _wall, "avenue": _avenue, "nothing": _nothing,
}  # fmt: skip
_KINDS = {
    "green": _Kind(
        (("grass", 9.0), ("grass", 5.0)),
        (
            (_mound, 4.2, 3), (_tree, 1.9, 12), (_fir, 1.2, 6), (_poplar, 0.9, 4), (_kiosk, 2.3, 1),
            (_frame, 1.9, 2), (_shrub, 0.9, 14), (_boulder, 1.1, 6), (_bench, 1.1, 8),
            (_flower_bed, 1.4, 4), (_lantern, 0.4, 7), (_board, 1.3, 3),
        ),
        0, 8,
    ),
    "square": _Kind(
        (("pavement", 4.0), ("concrete", 5.0), ("tiles", 3.0)),
        (
            (_kiosk, 2.3, 5), (_monument, 1.7, 2), (_tree, 1.9, 8), (_flower_bed, 1.4, 10),
            (_bench, 1.1, 12), (_board, 1.3, 6), (_bollards, 1.6, 7), (_lantern, 0.4, 9),
            (_parked, 2.7, 2), (_boulder, 1.1, 2),
        ),
        0, 10,
    ),
    "car park": _Kind(
        (("asphalt", 7.0), ("pavement", 5.0)),
        (
            (_parked, 2.7, 26), (_kiosk, 2.3, 1), (_tree, 1.9, 5), (_shrub, 0.9, 7),
            (_bollards, 1.6, 6), (_lantern, 0.4, 8), (_board, 1.3, 4), (_flower_bed, 1.4, 3),
        ),
        2, 4,
    ),
}  # fmt: skip
