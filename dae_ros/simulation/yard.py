"""A storage yard under the open sky: gravel, things at any angle, a hall, a fence. In m, z up.

No recipe of training may use it: it is there to ask what weights make of a kind of place that they
never saw (docs/first_weights.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dae_ros.simulation.indoors import forklift, person
from dae_ros.simulation.motion import Loop, LoopMotion
from dae_ros.simulation.open_ground import FreeGround, open_sky, turn_about
from dae_ros.simulation.scene import Builder

# The way around the yard, which the camera takes, and a smaller one in the middle for others.
YARD_LOOP = Loop(24.0, 8.0, 16.0)
_INNER_LOOP = Loop(6.0, 2.0, 7.0)
# Free on both sides of their lines: a drone sways by 0.85 m, people walk at 2.9 m.
_WAY_M, _INNER_WAY_M = 3.4, 1.4
# From the middle to the fence and to the front of the hall.
_REACH_X_M, _REACH_Y_M = 34.0, 25.0
# What may stand above the way: gantries, over a drone that rises to 4.8 m.
_CLEARANCE_M = 5.6


def yard(b: Builder) -> None:
    """Build the yard: 68 x 50 m, a hall on one long side, fences and trees around the others.

    Within 3.4 m of the line of `YARD_LOOP` the ground is free, but for people and carts; above
    it gantries begin at 5.6 m.
    """
    open_sky(b)
    up, south = (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)
    b.face((0.0, 0.0, -0.05), up, south, 598.0, 598.0, "grass", 12.0)
    b.face((0.0, 0.0, 0.0), up, south, 2 * _REACH_X_M + 6.0, 2 * _REACH_Y_M + 6.0, "gravel", 11.0)
    _hall(b)
    _fences(b)
    _far_trees(b)
    ways = ((YARD_LOOP, _WAY_M), (_INNER_LOOP, _INNER_WAY_M))
    ground = FreeGround(b, (_REACH_X_M, _REACH_Y_M), ways)
    _gantries(b, ground)
    _masts(b, ground)
    things: tuple[tuple[Callable[[Builder, float, float], None], float, int], ...] = (
        (_container, 3.3, 12),
        (_tree, 1.3, 5),
        (_timber, 1.9, 4),
        (_leaning_pallets, 1.1, 6),
        (_crates, 1.0, 9),
        (_bush, 0.9, 9),
        (_pallets, 0.9, 8),
        (_barrier, 1.1, 8),
        (_drums, 0.7, 7),
    )
    for build, radius_m, count in things:
        for _ in range(count):
            place = ground.place(radius_m)
            if place is not None:
                build(b, *place)
    _traffic(b)


def _hall(b: Builder) -> None:
    """Place a row of halls behind the upper edge, with gates; their lamps hang at the front."""
    x = -_REACH_X_M - 4.0
    while x < _REACH_X_M:
        width, high = b.uniform(12.0, 24.0), b.uniform(5.0, 9.5)
        kind = b.choice("metal", "bricks", "brick_facade")
        period_m = {"metal": 3.2, "bricks": 2.6, "brick_facade": 12.0}[kind]
        front = _REACH_Y_M + b.uniform(0.0, 1.5)
        b.box(
            (x + width / 2, front + 6.0, high / 2), (width + 0.2, 12.0, high), kind, period_m,
            albedo=b.uniform(0.6, 1.3),
        )  # fmt: skip
        for gate in np.arange(x + 3.0, x + width - 3.0, 6.5):
            place = (float(gate), front - 0.04, 1.9)
            b.face(place, (0.0, -1.0, 0.0), (0.0, 0.0, -1.0), 3.4, 3.8, b.choice("metal", "hazard",
                   "planks"), 2.2, b.uniform(0.5, 1.4))  # fmt: skip
            if b.uniform(0.0, 1.0) < 0.4:
                b.lamp((float(gate), front - 0.3, 4.3), (0.6, 0.5, 0.15), 3.5)
        x += width


def _fences(b: Builder) -> None:
    """Close three sides, bay by bay: rails between posts, boards, sheet, or nothing."""
    walled = b.choice("left", "right", "neither")
    for name, side in (("left", -1.0), ("right", 1.0)):
        if name == walled:
            b.box((side * (_REACH_X_M + 0.2), 0.0, 1.5), (0.4, 2 * _REACH_Y_M, 3.0), "bricks", 2.6)
        else:
            _fence(b, (side * _REACH_X_M, -_REACH_Y_M), (0.0, 1.0), 2 * _REACH_Y_M)
    _fence(b, (-_REACH_X_M, -_REACH_Y_M), (1.0, 0.0), 2 * _REACH_X_M)


def _fence(
    b: Builder, start: tuple[float, float], along: tuple[float, float], length_m: float
) -> None:
    bay_m = 2.5
    yaw = float(np.arctan2(along[1], along[0]))
    for distance_m in np.arange(0.0, length_m - 0.1, bay_m):
        x, y = start[0] + along[0] * distance_m, start[1] + along[1] * distance_m
        b.box((x, y, 1.05), (0.12, 0.12, 2.1), "paint", 0.8, yaw=yaw, albedo=0.6)
        kind = b.choice("rails", "rails", "planks", "metal", "open")
        x, y = x + along[0] * bay_m / 2, y + along[1] * bay_m / 2
        if kind == "rails":
            for high in (0.5, 1.2, 1.9):
                b.box((x, y, high), (bay_m, 0.06, 0.13), "bark", 0.9, yaw=yaw, albedo=1.8)
        elif kind != "open":
            tone = b.uniform(0.6, 1.3)
            b.box((x, y, 1.0), (bay_m, 0.07, 1.9), kind, 2.0, yaw=yaw, albedo=tone)


def _far_trees(b: Builder) -> None:
    """Put dark clumps on the meadow, where the fence lets the eye through."""
    for _ in range(26):
        angle = b.uniform(-np.pi, np.pi)
        far = b.uniform(46.0, 110.0)
        x, y = 1.15 * far * np.cos(angle), far * np.sin(angle) - 8.0
        if y > _REACH_Y_M:
            continue  # behind the hall
        wide, high = b.uniform(3.0, 9.0), b.uniform(3.0, 9.0)
        b.box((x, y, high / 2), (wide, wide, high), "foliage", 3.5, yaw=b.uniform(0.0, 1.5),
              albedo=b.uniform(0.7, 1.2))  # fmt: skip


def _gantries(b: Builder, ground: FreeGround) -> None:
    """Span two arches over the way."""
    loop = YARD_LOOP
    for along in (b.uniform(3.0, 9.0), loop.length_m / 2.0 + b.uniform(-9.0, 9.0)):
        heading, _ = loop.heading(along)
        across = np.array([-np.sin(heading), np.cos(heading)])
        middle = loop.point(along)
        kind, wide = b.choice("hazard", "paint", "metal"), b.uniform(3.9, 4.3)
        for side in (-1.0, 1.0):
            x, y = (float(v) for v in middle + across * side * wide)
            b.box((x, y, 3.15), (0.4, 0.4, 6.3), kind, 1.6, yaw=heading)
            ground.take(x, y, 0.6)
        x, y = (float(v) for v in middle)
        b.box((x, y, _CLEARANCE_M + 0.35), (0.5, 2 * wide + 0.4, 0.7), kind, 1.6, yaw=heading)


def _masts(b: Builder, ground: FreeGround) -> None:
    """Put up poles with floodlights, and some without."""
    for number in range(9):
        place = ground.place(0.5)
        if place is None:
            continue
        x, y = place
        high = b.uniform(6.0, 9.0) if number < 6 else b.uniform(3.0, 5.0)
        b.box((x, y, high / 2), (0.2, 0.2, high), "paint", 1.2, yaw=b.uniform(0.0, 1.5), albedo=0.5)
        if number < 6:
            b.lamp((x, y, high), (0.9, 0.4, 0.3), 6.0)


def _container(b: Builder, x: float, y: float) -> None:
    yaw, high = b.uniform(-np.pi, np.pi), 2.59
    for storey in range(2 if b.uniform(0.0, 1.0) < 0.35 else 1):
        turned = yaw + storey * b.uniform(-0.06, 0.06)
        b.box(
            (x, y, (storey + 0.5) * high + 0.002 * storey), (6.06, 2.44, high), "container",
            yaw=turned, top="metal", ends="container_door", albedo=b.uniform(0.6, 1.5),
        )  # fmt: skip


def _crates(b: Builder, x: float, y: float) -> None:
    """Stack two to four crates, each turned its own way."""
    floor_m = 0.0
    for _ in range(int(b.generator.integers(2, 5))):
        side_m = b.uniform(0.5, 1.1)
        kind = b.choice("crate", "crate", "cardboard")
        shift_x, shift_y = b.uniform(-0.1, 0.1), b.uniform(-0.1, 0.1)
        b.box(
            (x + shift_x, y + shift_y, floor_m + side_m / 2), (side_m, side_m * 0.9, side_m), kind,
            0.0 if kind == "crate" else 1.2, yaw=b.uniform(-np.pi, np.pi),
            albedo=b.uniform(0.6, 1.4),
        )  # fmt: skip
        floor_m += side_m


def _pallets(b: Builder, x: float, y: float) -> None:
    """Stack pallets, the way a forklift leaves them."""
    yaw, one_m = b.uniform(-np.pi, np.pi), 0.145
    for number in range(int(b.generator.integers(2, 9))):
        b.box(
            (x, y, (number + 0.5) * one_m), (1.2, 0.8, one_m - 0.01), "crate", 0.5,
            yaw=yaw + b.uniform(-0.12, 0.12), top="pallet", albedo=b.uniform(0.8, 1.2),
        )  # fmt: skip


def _leaning_pallets(b: Builder, x: float, y: float) -> None:
    """Lean pallets against a block of concrete; some lie tilted on rubble."""
    yaw = b.uniform(-np.pi, np.pi)
    b.box((x, y, 0.45), (0.7, 1.5, 0.9), "concrete", 2.0, yaw=yaw, albedo=b.uniform(0.7, 1.2))
    for side in (-1.0, 1.0):
        lean = b.uniform(0.2, 0.5)
        turn = turn_about(yaw + (0.0 if side > 0.0 else np.pi), np.pi / 2 - lean)
        # Its lower edge stands on the ground, its upper one touches the block or stands off it.
        reach = 0.38 + 0.6 * np.sin(lean) + b.uniform(0.0, 0.1)
        centre = np.array([x, y, 0.6 * np.cos(lean) + 0.07 * np.sin(lean)])
        centre[:2] += side * reach * np.array([np.cos(yaw), np.sin(yaw)])
        b.turned_box(centre, (1.2, 0.8, 0.14), turn, "pallet", albedo=b.uniform(0.7, 1.2))


def _timber(b: Builder, x: float, y: float) -> None:
    """Pile beams, and lay one across them askew."""
    yaw, tone = b.uniform(-np.pi, np.pi), b.uniform(0.7, 1.3)
    high = 0.3 * int(b.generator.integers(1, 5))
    b.box((x, y, high / 2), (3.4, 0.9, high), "planks", 1.1, yaw=yaw, ends="rack", albedo=tone)
    turn = turn_about(yaw + b.uniform(0.2, 0.7), b.uniform(0.08, 0.2))
    b.turned_box((x, y, high + 0.45), (2.6, 0.2, 0.2), turn, "planks", 1.1, tone)


def _barrier(b: Builder, x: float, y: float) -> None:
    yaw = b.uniform(-np.pi, np.pi)
    kind, tone = b.choice("hazard", "concrete"), b.uniform(0.7, 1.2)
    b.box((x, y, 0.15), (2.0, 0.6, 0.3), "concrete", 1.5, yaw=yaw, albedo=tone)
    b.box((x, y, 0.6), (1.96, 0.24, 0.6), kind, 1.2, yaw=yaw, albedo=tone)


def _drums(b: Builder, x: float, y: float) -> None:
    """Stand drums together; three turned boxes make one nearly round."""
    for dx, dy in ((-0.33, 0.0), (0.33, 0.05), (0.0, 0.5))[: int(b.generator.integers(1, 4))]:
        kind, tone, yaw = b.choice("metal", "paint", "hazard"), b.uniform(0.5, 1.3), b.uniform(0, 1)
        for number in range(3):
            high = 0.88 + 0.006 * number  # tops at one height would flicker into each other
            b.box((x + dx, y + dy, high / 2), (0.53, 0.53, high), kind, 0.9,
                  yaw=yaw + number * np.pi / 6, albedo=tone)  # fmt: skip


def _bush(b: Builder, x: float, y: float) -> None:
    """Make a clump of leaves of four blocks, turned about all axes."""
    for _ in range(4):
        size = b.uniform(0.5, 1.0)
        centre = (x + b.uniform(-0.35, 0.35), y + b.uniform(-0.35, 0.35), 0.45 * size)
        turn = turn_about(b.uniform(-np.pi, np.pi), b.uniform(0.2, 0.9))
        b.turned_box(centre, (size, size, size), turn, "foliage", 1.4, b.uniform(0.7, 1.3))


def _tree(b: Builder, x: float, y: float) -> None:
    high = b.uniform(1.6, 3.0)
    b.box((x, y, high / 2), (0.3, 0.3, high), "bark", 1.0, yaw=b.uniform(0.0, 1.5))
    for lift in (0.2, 0.3, 0.8, 1.0, 1.4, 1.8, 2.2):
        size = b.uniform(0.9, 1.6) - 0.2 * lift
        centre = (x + b.uniform(-0.6, 0.6), y + b.uniform(-0.6, 0.6), high + lift)
        turn = turn_about(b.uniform(-np.pi, np.pi), b.uniform(0.2, 0.9))
        b.turned_box(centre, (size, size, size), turn, "foliage", 2.0, b.uniform(0.7, 1.3))


def _traffic(b: Builder) -> None:
    """Let two carts and three people come along the way, and others move in the middle."""
    loop = YARD_LOOP
    for number in range(2):
        start = loop.round_m * (number + b.uniform(0.2, 0.8)) / 2.0
        with b.body(LoopMotion(loop, 1.5, start, -b.uniform(1.6, 2.6))):
            forklift(b)
    with b.body(LoopMotion(_INNER_LOOP, 0.0, b.uniform(0.0, 30.0), b.uniform(1.2, 2.0))):
        forklift(b)
    lines = [(loop, -2.9), (loop, -2.9), (loop, 2.9), (_INNER_LOOP, -0.9), (_INNER_LOOP, 0.9)]
    for number, (line, lane_m) in enumerate(lines):
        speed = b.uniform(1.0, 1.6) * (1.0 if number % 2 else -1.0)
        start = b.uniform(0.0, line.round_m)
        with b.body(LoopMotion(line, lane_m, start, speed, bounce_m=0.03, bounce_hz=1.8)):
            person(b)
