"""Indoor worlds: a furnished room, a corridor, a cluttered warehouse. All in m, z up.

Each takes a builder, which it fills, and returns the paths that are free.
"""

from __future__ import annotations

import numpy as np

from dae_ros.simulation.motion import Loop, LoopMotion
from dae_ros.simulation.scene import Builder

# The loop through the warehouse, about its middle racks.
WAREHOUSE_LOOP = Loop(12.0, 4.0, 9.0)


def room(b: Builder) -> None:
    """Furnish a room of 8 x 6 x 2.8 m; x up to 1.7 and y up to 1.4 m are free to walk."""
    walls = b.choice("wallpaper", "plaster", "paint"), b.choice("bricks", "plaster", "wallpaper")
    b.hall((-4, -3, 0), (4, 3, 2.8), walls, b.choice("planks", "tiles"), "panels", (2.6, 2.8, 2.4))
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
    b.box((2.3, 2.5, 0.25), (0.5, 0.5, 0.5), "paint", yaw=b.uniform(-0.5, 0.5))
    b.box((-2.6, -2.2, 1.4), (0.3, 0.3, 2.8), "plaster", 1.0)
    b.box((2.6, -1.9, 1.4), (0.25, 0.25, 2.8), "bricks", 1.2)
    b.box((-2.2, 2.1, 0.3), (0.5, 0.5, 0.6), "fabric", 0.7, yaw=b.uniform(-0.7, 0.7))
    b.box((0.0, 0.0, 0.2), (1.1, 0.5, 0.4), "fabric", 0.8, yaw=b.uniform(-0.8, 0.8))
    for x in (-1.8, 1.8):
        b.lamp((x, 0.0, 2.77), (1.2, 0.4, 0.06), 1.6)


def corridor(b: Builder) -> None:
    """Build a corridor of 44 x 2.8 x 2.6 m; y within 0.55 m is free to walk, x within 14 m."""
    b.hall(
        (-22, -1.4, 0),
        (22, 1.4, 2.6),
        ("bricks", b.choice("plaster", "paint", "wallpaper")),
        "tiles",
        "panels",
        (2.6, 2.8, 2.4),
    )
    for index, x in enumerate(np.arange(-20.0, 21.0, 4.0)):
        place, size = (float(x), 0.0, 2.58), (1.2, 0.35, 0.05)
        # After hours every third lamp is on.
        if index % 3 == 0:
            b.lamp(place, size, 1.8)
        else:
            b.box(place, size, "paint")
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
        side_m = b.uniform(0.3, 0.5)
        b.box(
            (float(x) + b.uniform(-1.0, 1.0), side * b.uniform(1.0, 1.05), side_m / 2),
            (side_m, side_m, side_m),
            "crate",
            yaw=b.uniform(-0.4, 0.4),
        )
    b.box((21.97, 0.0, 1.05), (0.06, 1.0, 2.1), "wallpaper", 1.6)
    b.box((-21.97, 0.0, 1.05), (0.06, 1.0, 2.1), "wallpaper", 1.6)


def warehouse(b: Builder) -> None:
    """Build a warehouse of 40 x 26 x 6.5 m: racks, stacks and clutter beside a loop for traffic.

    Within 1.6 m of the line of `WAREHOUSE_LOOP` the ground is free.
    """
    loop = WAREHOUSE_LOOP
    b.hall((-20, -13, 0), (20, 13, 6.5), ("metal", "metal"), "concrete", "metal", (3.2, 5.0, 4.0))
    inner_x, inner_y = loop.half_x_m - 2.4, loop.half_y_m - 2.4
    # Racks in the middle, end to end, with a gap to look through.
    for side in (-1.0, 1.0):
        for x in np.arange(-inner_x + 1.8, inner_x - 1.7, 3.7):
            high = b.uniform(2.0, 4.4)
            b.box(
                (float(x), side * (inner_y - 0.7), high / 2),
                (3.2, 1.1, high),
                "rack",
                3.2,
                albedo=b.uniform(0.7, 1.3),
            )
    # Racks along the walls, broken by pillars and doors.
    for side in (-1.0, 1.0):
        for x in np.arange(-17.0, 17.5, 4.2):
            high = b.uniform(2.4, 5.0)
            kind = b.choice("rack", "rack", "cardboard", "paint")
            b.box(
                (float(x), side * 12.2, high / 2),
                (3.4, 1.3, high),
                kind,
                3.0,
                albedo=b.uniform(0.6, 1.3),
            )
            b.box((float(x) + 2.1, side * 11.2, 3.25), (0.35, 0.35, 6.5), "hazard", 1.5)
        for y in np.arange(-9.0, 9.5, 3.6):
            high = b.uniform(1.0, 4.0)
            b.box(
                (side * 19.0, float(y), high / 2),
                (1.4, 2.8, high),
                b.choice("rack", "cardboard", "metal"),
                2.4,
                albedo=b.uniform(0.6, 1.3),
            )
    # Clutter on both sides of the way.
    for _ in range(26):
        along, left = b.uniform(0.0, loop.length_m), b.choice("in", "out")
        size = (b.uniform(0.4, 1.1), b.uniform(0.4, 1.1), b.uniform(0.3, 1.7))
        lane_m = b.uniform(2.9, 3.4) if left == "in" else -b.uniform(2.9, 4.5)
        heading, curvature = loop.heading(along)
        if curvature * lane_m > 0.35:
            continue  # inside of a bend there is no room
        x, y = loop.point(along) + lane_m * np.array([-np.sin(heading), np.cos(heading)])
        kind = b.choice("crate", "cardboard", "paint", "metal", "hazard")
        b.box(
            (float(x), float(y), size[2] / 2),
            size,
            kind,
            0.0 if kind == "crate" else 1.2,
            yaw=b.uniform(-1.5, 1.5),
            albedo=b.uniform(0.6, 1.4),
        )
    for x in np.arange(-16.0, 16.5, 8.0):
        for y in (-8.0, 0.0, 8.0):
            place, size = (float(x), y, 6.2), (1.6, 0.3, 0.1)
            # After hours two of three lamps are off.
            if b.uniform(0.0, 1.0) < 0.4:
                b.lamp(place, size, 2.8)
            else:
                b.box(place, size, "paint")
    with b.body(LoopMotion(loop, 0.75, b.uniform(20.0, 40.0), -1.6)):
        forklift(b)
    for number in range(5):
        speed = b.uniform(1.0, 1.4) * (1.0 if number % 2 else -1.0)
        with b.body(
            LoopMotion(
                loop, -1.75, b.uniform(0.0, loop.round_m), speed, bounce_m=0.02, bounce_hz=1.8
            )
        ):
            person(b)


def forklift(b: Builder) -> None:
    """Place a forklift with its load about the origin of a body, 2.6 x 1.1 x 2.2 m."""
    b.box((-0.4, 0.0, 0.55), (1.6, 1.1, 0.8), "hazard", 1.4)
    b.box((-0.4, 0.0, 2.1), (1.3, 1.0, 0.08), "paint", 1.0, albedo=0.4)
    for x in (-0.95, 0.2):
        for y in (-0.45, 0.45):
            b.box((x, y, 1.5), (0.1, 0.1, 1.2), "paint", 0.5, albedo=0.4)
    b.box((0.55, 0.0, 1.2), (0.15, 0.8, 2.2), "metal", 0.8, albedo=0.6)
    b.box((1.15, 0.0, 0.7), (1.0, 1.0, 0.9), "cardboard", 1.0)


def person(b: Builder) -> None:
    """Place a walking person about the origin of a body, 1.75 m high."""
    tone = b.uniform(0.6, 1.4)
    for y in (-0.11, 0.11):
        b.box((0.0, y, 0.42), (0.16, 0.15, 0.84), "fabric", 0.5, albedo=0.8 * tone)
    b.box((0.0, 0.0, 1.14), (0.26, 0.46, 0.62), "clothes", albedo=tone)
    b.box((0.02, 0.0, 1.6), (0.2, 0.17, 0.26), "plaster", 0.6, albedo=0.8)
