"""Materials of street, park and yard: procedural albedo maps, as in `simulation.materials`."""

from __future__ import annotations

import numpy as np

from dae_ros.simulation.pattern import Image, cells, grid, noise


def sky(generator: np.random.Generator) -> Image:
    """Clouds."""
    cloud = noise(generator, 1.9, 1)
    return 0.62 + 0.28 * np.tanh(1.2 * cloud)


def asphalt(generator: np.random.Generator) -> Image:
    """A road: grain, tar seams and patches."""
    row, column = grid()
    tone = 0.2 + 0.03 * noise(generator, 1.3, 1) + 0.03 * noise(generator, 0.15, 60)
    seam = np.abs(noise(generator, 2.2, 1)) < 0.015
    patch = (np.abs(row - 0.3) < 0.08) & (np.abs(column - 0.62) < 0.14)
    return np.where(seam, 0.08, np.where(patch, tone * 0.75, tone))


def pavement(generator: np.random.Generator) -> Image:
    """Slabs of many tones with joints."""
    row, column = grid()
    down = np.floor(row * 12).astype(np.int64)
    across = column * 12 + 0.5 * (down % 2)
    tone = cells(generator, down, np.floor(across).astype(np.int64), 12, 12, 0.3, 0.46)
    joint = ((row * 12) % 1.0 < 0.05) | (across % 1.0 < 0.05)
    return np.where(joint, 0.16, tone) + 0.02 * noise(generator, 0.5, 12)


def marking(generator: np.random.Generator) -> Image:
    """Worn road paint."""
    return 0.7 + 0.06 * noise(generator, 0.9, 3)


def grass(generator: np.random.Generator) -> Image:
    """A lawn."""
    return 0.2 + 0.04 * noise(generator, 1.2, 2) + 0.06 * noise(generator, 0.3, 40)


def foliage(generator: np.random.Generator) -> Image:
    """Leaves and the dark between them."""
    clumps = noise(generator, 1.1, 5) + 0.7 * noise(generator, 0.6, 25)
    return np.where(clumps > 0.2, 0.32, 0.09) + 0.05 * noise(generator, 0.5, 20)


def bark(generator: np.random.Generator) -> Image:
    """A trunk: furrows along it."""
    return 0.2 + 0.07 * noise(generator, 0.8, 6, stretch=0.15)


def _windows(
    generator: np.random.Generator,
    wall: Image,
    rows: int,
    columns: int,
    width: float,
    height: float,
) -> Image:
    """Put a grid of windows with frames, sills and crosses on a wall."""
    row, column = grid()
    v, u = (row * rows) % 1.0 - 0.5, (column * columns) % 1.0 - 0.5
    glass = cells(
        generator,
        np.floor(row * rows).astype(np.int64),
        np.floor(column * columns).astype(np.int64),
        rows,
        columns,
        0.05,
        0.3,
    )
    glass = glass + 0.15 * np.maximum(-v, 0.0)
    inside = (np.abs(u) < width) & (np.abs(v) < height)
    frame = (np.abs(u) < width + 0.04) & (np.abs(v) < height + 0.04)
    cross = (np.abs(u) < 0.02) | (np.abs(v + 0.1) < 0.02)
    sill = (np.abs(u) < width + 0.07) & (v > height + 0.04) & (v < height + 0.09)
    wall = np.where(sill, 0.6, np.where(frame, 0.66, wall))
    return np.where(inside & ~cross, glass, wall)


def facade(generator: np.random.Generator) -> Image:
    """Plastered storeys with tall windows."""
    row, _ = grid()
    wall = 0.48 + 0.05 * noise(generator, 1.3, 2) + 0.02 * noise(generator, 0.4, 30)
    ledge = (row * 4) % 1.0 < 0.04
    return _windows(generator, np.where(ledge, 0.65, wall), 4, 5, 0.2, 0.3)


def brick_facade(generator: np.random.Generator) -> Image:
    """Brick storeys with wide windows."""
    row, column = grid()
    course = np.floor(row * 64).astype(np.int64)
    across = column * 32 + 0.5 * (course % 2)
    brick = cells(generator, course, np.floor(across).astype(np.int64), 64, 32, 0.18, 0.34)
    mortar = ((row * 64) % 1.0 < 0.14) | (across % 1.0 < 0.07)
    wall = np.where(mortar, 0.42, brick) + 0.03 * noise(generator, 1.2, 2)
    return _windows(generator, wall, 4, 4, 0.28, 0.24)


def office(generator: np.random.Generator) -> Image:
    """Bands of glass between bands of light panels."""
    row, column = grid()
    storey, pane = np.floor(row * 6).astype(np.int64), np.floor(column * 10).astype(np.int64)
    glass = cells(generator, storey, pane, 6, 10, 0.08, 0.34)
    v, u = (row * 6) % 1.0, (column * 10) % 1.0
    mullion = np.minimum(u, 1 - u) < 0.04
    glass = np.where(mullion, 0.5, glass)
    return np.where(v < 0.38, 0.56 + 0.03 * noise(generator, 1.2, 3), glass)


def shop(generator: np.random.Generator) -> Image:
    """Shop windows with goods, doors, and a sign above them; the period is one storey high."""
    row, column = grid()
    bay = np.floor(column * 3).astype(np.int64)
    u = (column * 3) % 1.0
    goods = 0.2 + 0.14 * noise(generator, 1.0, 6)
    tone = np.where(row > 0.85, 0.3, goods)
    letter = (
        cells(
            generator,
            np.floor(row * 40).astype(np.int64),
            np.floor(column * 60).astype(np.int64),
            40,
            60,
            0.0,
            1.0,
        )
        > 0.5
    )
    sign = cells(generator, np.zeros((1, 1), np.int64), bay, 1, 3, 0.1, 0.35)
    band = (row > 0.06) & (row < 0.24)
    tone = np.where(band, np.where(letter & (np.abs(u - 0.5) < 0.36), 0.75, sign), tone)
    pillar = np.minimum(u, 1 - u) < 0.06
    return np.where(pillar | (row < 0.05), 0.5, tone)


def lit_windows(generator: np.random.Generator) -> Image:
    """Windows with light behind curtains; glows by itself."""
    row, column = grid()
    frame = (np.minimum(row, 1 - row) < 0.05) | (np.minimum(column, 1 - column) < 0.05)
    cross = (np.abs(column - 0.5) < 0.02) | (np.abs(row - 0.3) < 0.02)
    curtain = 0.3 + 0.08 * np.sin(2 * np.pi * 9 * column) + 0.03 * noise(generator, 1.0, 3)
    return np.where(frame | cross, 0.03, curtain)


def car_side(generator: np.random.Generator) -> Image:
    """The side of a car: windows, doors, wheels; one per period."""
    row, column = grid()
    tone = np.full(row.shape, generator.uniform(0.25, 0.6))
    window = (row > 0.1) & (row < 0.4) & (column > 0.18) & (column < 0.86)
    post = np.abs(column - 0.52) < 0.015
    tone = np.where(window & ~post, 0.06, tone)
    for door in (0.3, 0.52, 0.75):
        tone = np.where((np.abs(column - door) < 0.005) & (row > 0.4) & (row < 0.85), 0.1, tone)
    for wheel in (0.2, 0.8):
        distance = np.hypot((column - wheel) * 2.9, row - 0.82)
        tone = np.where(distance < 0.23, 0.04, tone)
        tone = np.where(distance < 0.13, 0.45, tone)
    return tone + 0.01 * noise(generator, 1.2, 3)


def car_end(generator: np.random.Generator) -> Image:
    """The front or the back of a car: screen, lights, plate; one per period."""
    row, column = grid()
    tone = np.full(row.shape, generator.uniform(0.25, 0.6))
    tone = np.where((row > 0.08) & (row < 0.4) & (np.abs(column - 0.5) < 0.4), 0.08, tone)
    light = (np.abs(np.abs(column - 0.5) - 0.37) < 0.08) & (np.abs(row - 0.58) < 0.06)
    tone = np.where(light, 0.85, tone)
    tone = np.where((np.abs(column - 0.5) < 0.16) & (np.abs(row - 0.76) < 0.05), 0.8, tone)
    return np.where(row > 0.9, 0.05, tone) + 0.01 * noise(generator, 1.0, 4)


def gravel(generator: np.random.Generator) -> Image:
    """Trodden stones, with puddles and two tracks of wheels."""
    row, column = grid()
    stones = 0.33 + 0.05 * noise(generator, 0.9, 2) + 0.07 * noise(generator, 0.1, 50)
    stones = np.where(noise(generator, 2.4, 2) > 1.3, 0.14, stones)
    waves = 0.02 * np.sin(2 * np.pi * 2 * row)
    for track in (0.3, 0.48):
        stones = np.where(np.abs(column - track - waves) < 0.022, 0.8 * stones, stones)
    return stones


def container(generator: np.random.Generator) -> Image:
    """The long side of a shipping container: folded sheet in a frame, letters; one per period."""
    row, column = grid()
    tone = generator.uniform(0.2, 0.5)
    fold = (column * 22) % 1.0
    sheet = tone * np.where(fold < 0.4, 1.15, np.where(fold < 0.5, 0.6, np.where(fold < 0.9, 0.95,
                                                                              1.3)))  # fmt: skip
    sheet = sheet * (1.0 - 0.12 * np.maximum(noise(generator, 1.5, 2), 0.0))
    letter = cells(generator, np.floor(row * 40).astype(np.int64),
                   np.floor(column * 90).astype(np.int64), 40, 90, 0.0, 1.0) > 0.45  # fmt: skip
    name = (np.abs(row - 0.3) < 0.07) & (np.abs(column - 0.3) < 0.2)
    number = (np.abs(row - 0.16) < 0.025) & (np.abs(column - 0.85) < 0.09)
    sheet = np.where((name | number) & letter, 0.75, sheet)
    frame = (np.minimum(row, 1 - row) < 0.05) | (np.minimum(column, 1 - column) < 0.02)
    return np.where(frame, 0.7 * tone, sheet)


def container_door(generator: np.random.Generator) -> Image:
    """The end of a shipping container: two doors with four locking bars; one per period."""
    row, column = grid()
    tone = generator.uniform(0.2, 0.5)
    sheet = tone * np.where((row * 5) % 1.0 < 0.08, 0.6, 1.0) + 0.02 * noise(generator, 1.2, 3)
    for bar in (0.14, 0.36, 0.64, 0.86):
        sheet = np.where(np.abs(column - bar) < 0.018, 0.62, sheet)
        handle = (np.abs(column - bar - 0.04) < 0.05) & (np.abs(row - 0.6) < 0.018)
        sheet = np.where(handle, 0.7, sheet)
    gap = np.abs(column - 0.5) < 0.008
    frame = (np.minimum(row, 1 - row) < 0.05) | (np.minimum(column, 1 - column) < 0.04)
    return np.where(gap, 0.05, np.where(frame, 0.7 * tone, sheet))


def pallet(generator: np.random.Generator) -> Image:
    """Boards of a pallet over the dark beneath, with nails; one per period."""
    row, column = grid()
    board = np.floor(row * 7).astype(np.int64)
    tone = cells(generator, board, np.zeros((1, 1), np.int64), 7, 1, 0.35, 0.6)
    tone = tone + 0.04 * noise(generator, 0.7, 8, stretch=0.1)
    v = (row * 7) % 1.0
    beneath = (v < 0.28) & (np.abs((column * 3) % 1.0 - 0.5) < 0.36)
    nail = np.hypot(v - 0.64, ((column * 3 + 0.5) % 1.0 - 0.5) * 2.3) < 0.07
    return np.where(beneath, 0.06, np.where(nail, 0.15, tone))
