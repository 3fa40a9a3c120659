"""A street canyon around a city block, with traffic and people. All in m, z up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dae_ros.simulation.indoors import person
from dae_ros.simulation.motion import Loop, LoopMotion
from dae_ros.simulation.scene import Builder

# Middle of the road. Right-hand traffic: the camera's lane is the outer one.
STREET_LOOP = Loop(62.0, 30.0, 20.0)
LANE_M = 1.9
# From the middle of the road to kerb and to house fronts.
KERB_M, FRONT_M = 5.6, 9.0
KERB_HEIGHT_M = 0.14
_SKY_M = 300.0
_FACADES = ("facade", "brick_facade", "office", "shop")


def street(b: Builder, lead: LoopMotion | None) -> None:
    """Build the street; `lead` is the car that drives ahead of the camera, if one does."""
    loop = STREET_LOOP
    half_x, half_y = loop.half_x_m, loop.half_y_m
    b.hall(
        (-_SKY_M, -_SKY_M, -_SKY_M),
        (_SKY_M, _SKY_M, _SKY_M),
        ("sky", "sky"),
        "sky",
        "sky",
        (400.0, 400.0, 400.0),
    )
    b.face((0.0, 0.0, -0.05), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0), 240.0, 240.0, "grass", 12.0)
    # The road reaches under the houses, which hide its corners.
    b.face(
        (0.0, 0.0, 0.0),
        (0.0, 0.0, 1.0),
        (0.0, -1.0, 0.0),
        2 * (half_x + FRONT_M) + 3.0,
        2 * (half_y + FRONT_M) + 3.0,
        "asphalt",
        7.0,
    )
    _markings(b)
    _inner_block(b, half_x - FRONT_M, half_y - FRONT_M)
    _outer_block(b, half_x + FRONT_M, half_y + FRONT_M)
    _furniture(b)
    for number in range(4):
        start = loop.round_m * (number + b.uniform(0.1, 0.9)) / 4.0
        with b.body(LoopMotion(loop, LANE_M, start, -b.uniform(7.0, 8.0))):
            car(b)
    if lead is not None:
        with b.body(lead):
            car(b)
    for number in range(8):
        lane_m = (-1.0 if number % 2 else 1.0) * (KERB_M + b.uniform(0.9, 1.5))
        speed = b.uniform(1.0, 1.6) * (1.0 if number % 4 < 2 else -1.0)
        with b.body(
            LoopMotion(
                loop, lane_m, b.uniform(0.0, loop.round_m), speed, bounce_m=0.03, bounce_hz=1.8
            )
        ):
            person(b)


def _markings(b: Builder) -> None:
    """Paint a dashed line in the middle of the road and two crossings, 1 cm above it."""
    loop = STREET_LOOP
    for along in np.arange(0.0, loop.length_m - 3.0, 6.0):
        heading, curvature = loop.heading(float(along))
        x, y = loop.point(float(along))
        if curvature < 0.01:
            _stripe(b, float(x), float(y), heading, 2.2, 0.16)
    for along in (12.0, loop.length_m / 2.0 + 8.0):
        heading, _ = loop.heading(along)
        x, y = loop.point(along)
        for lane in np.arange(-4.8, 5.0, 1.2):
            _stripe(
                b,
                float(x - lane * np.sin(heading)),
                float(y + lane * np.cos(heading)),
                heading,
                3.0,
                0.55,
            )


def _stripe(b: Builder, x: float, y: float, heading: float, length: float, width: float) -> None:
    across = (np.sin(heading), -np.cos(heading), 0.0)
    b.face((x, y, 0.01), (0.0, 0.0, 1.0), across, length, width, "marking", 2.0)


def _houses(
    b: Builder,
    start: Sequence[float],
    end: Sequence[float],
    outward: Sequence[float],
    depth_m: float,
) -> None:
    """Place a row of houses whose fronts run from start to end; `outward` leaves the road."""
    begin, finish, away = (np.asarray(v, float) for v in (start, end, outward))
    length = float(np.linalg.norm(finish - begin))
    direction = (finish - begin) / length
    along = 0.0
    while along < length - 1.0:
        width = min(b.uniform(9.0, 17.0), length - along)
        high = b.uniform(8.0, 19.0)
        setback = b.uniform(0.0, 0.7)
        middle = begin + direction * (along + width / 2) + away * (setback + depth_m / 2)
        size = np.abs(direction) * (width - 0.05) + np.abs(away) * depth_m
        kind = b.choice(*_FACADES)
        albedo = b.uniform(0.6, 1.35)
        period = 3.6 if kind == "shop" else b.uniform(10.0, 14.0)
        if kind == "shop":
            # Shops on the ground floor, flats above.
            b.box(
                (middle[0], middle[1], 1.8), (size[0], size[1], 3.6), "shop", period, albedo=albedo
            )
            b.box(
                (middle[0], middle[1], 1.8 + high / 2),
                (size[0], size[1], high - 3.6),
                "brick_facade",
                12.0,
                top="metal",
                albedo=albedo,
            )
        else:
            b.box(
                (middle[0], middle[1], high / 2),
                (size[0], size[1], high),
                kind,
                period,
                top="metal",
                albedo=albedo,
            )
        front = begin + direction * (along + width / 2) + away * (setback - 0.03)
        for _ in range(int(b.generator.integers(0, 4))):
            place = front + direction * b.uniform(-0.4, 0.4) * width
            b.face(
                (place[0], place[1], b.uniform(2.5, high - 1.0)),
                -np.append(away, 0.0),
                (0.0, 0.0, -1.0),
                1.1,
                1.5,
                "lit_windows",
            )
        along += width


def _inner_block(b: Builder, x: float, y: float) -> None:
    """Place the houses of the block that the road runs around, and its pavement."""
    b.box(
        (0.0, 0.0, KERB_HEIGHT_M / 2),
        (2 * (x + FRONT_M - KERB_M), 2 * (y + FRONT_M - KERB_M), KERB_HEIGHT_M),
        "pavement",
        4.0,
    )
    deep = 7.0
    _houses(b, (-x, -y), (x, -y), (0.0, 1.0), deep)
    _houses(b, (-x, y), (x, y), (0.0, -1.0), deep)
    _houses(b, (-x, -y + deep + 1.0), (-x, y - deep - 1.0), (1.0, 0.0), deep)
    _houses(b, (x, -y + deep + 1.0), (x, y - deep - 1.0), (-1.0, 0.0), deep)


def _outer_block(b: Builder, x: float, y: float) -> None:
    """Place the houses around the road, and their pavement."""
    wide = FRONT_M - KERB_M
    for side in (-1.0, 1.0):
        b.box(
            (0.0, side * (y - wide / 2), KERB_HEIGHT_M / 2),
            (2 * x, wide, KERB_HEIGHT_M),
            "pavement",
            4.0,
        )
        b.box(
            (side * (x - wide / 2), 0.0, KERB_HEIGHT_M / 2),
            (wide, 2 * (y - wide), KERB_HEIGHT_M),
            "pavement",
            4.0,
        )
    _houses(b, (-x, -y), (x, -y), (0.0, -1.0), 9.0)
    _houses(b, (-x, y), (x, y), (0.0, 1.0), 9.0)
    _houses(b, (-x, -y), (-x, y), (-1.0, 0.0), 9.0)
    _houses(b, (x, -y), (x, y), (1.0, 0.0), 9.0)


def _furniture(b: Builder) -> None:
    """Place street lamps, trees and parked cars along the kerbs."""
    loop = STREET_LOOP
    for along in np.arange(4.0, loop.length_m - 4.0, 13.0):
        heading, curvature = loop.heading(float(along))
        if curvature > 0.01:
            continue
        point, normal = loop.point(float(along)), np.array([-np.sin(heading), np.cos(heading)])
        x, y = (float(v) for v in point - normal * (KERB_M + 0.5))
        b.box((x, y, 2.6), (0.16, 0.16, 5.2), "paint", 1.0, albedo=0.4)
        b.lamp((x, y, 5.2), (0.5, 0.5, 0.18), 4.5)
        if b.uniform(0.0, 1.0) < 0.7:
            x, y = (float(v) for v in point + normal * (KERB_M + 0.6))
            high = b.uniform(1.9, 2.4)
            b.box((x, y, high / 2), (0.3, 0.3, high), "bark", 1.0)
            for lift in (0.0, 1.1):
                size = b.uniform(1.6, 2.3) - 0.5 * lift
                b.box(
                    (x, y, high + 0.5 + lift),
                    (size, size, 1.3),
                    "foliage",
                    2.0,
                    yaw=b.uniform(0.0, 1.5),
                    albedo=b.uniform(0.8, 1.3),
                )
        if b.uniform(0.0, 1.0) < 0.6:
            x, y = (float(v) for v in loop.point(float(along) + 6.0) - normal * (KERB_M - 1.05))
            car(b, x, y, heading)


def car(b: Builder, x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> None:
    """Place a car of 4.3 x 1.75 x 1.45 m, or a van, heading along +x turned by `yaw` rad."""
    tone, van = b.uniform(0.5, 1.5), b.uniform(0.0, 1.0) < 0.25
    length, width = (4.9, 1.9) if van else (4.3, 1.75)
    high = 2.1 if van else 0.95
    b.box(
        (x, y, 0.3 + (high - 0.3) / 2),
        (length, width, high - 0.3),
        "car_side",
        yaw=yaw,
        top="paint",
        ends="car_end",
        albedo=tone,
    )
    if not van:
        back = -0.25
        b.box(
            (x + back * np.cos(yaw), y + back * np.sin(yaw), 1.2),
            (2.2, 1.5, 0.5),
            "car_side",
            yaw=yaw,
            top="paint",
            ends="car_end",
            albedo=tone,
        )
    # What is beneath it, in its shadow.
    b.box((x, y, 0.16), (length - 0.9, width - 0.25, 0.3), "paint", 1.0, yaw=yaw, albedo=0.08)
