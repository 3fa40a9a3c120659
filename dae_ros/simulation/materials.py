"""Materials of rooms and halls: procedural albedo maps, each periodic in both directions.

Every drawer takes a generator and returns float64[DRAWN, DRAWN]; rows run down, columns right.
"""

from __future__ import annotations

import numpy as np

from dae_ros.simulation.pattern import Image, cells, grid, noise


def plaster(generator: np.random.Generator) -> Image:
    """Light wall paint with stains and grain."""
    return 0.62 + 0.05 * noise(generator, 1.6, 2) + 0.035 * noise(generator, 0.3, 40)


def wallpaper(generator: np.random.Generator) -> Image:
    """Vertical stripes with dots between them."""
    row, column = grid()
    stripes = np.where((column * 8) % 1.0 < 0.5, 0.56, 0.47)
    dots = np.hypot((row * 16) % 1.0 - 0.5, (column * 16) % 1.0 - 0.5) < 0.16
    return np.where(dots, 0.34, stripes) + 0.02 * noise(generator, 1.0, 4)


def bricks(generator: np.random.Generator) -> Image:
    """Running bond with light mortar."""
    row, column = grid()
    course = np.floor(row * 16).astype(np.int64)
    across = column * 8 + 0.5 * (course % 2)
    brick = cells(generator, course, np.floor(across).astype(np.int64), 16, 8, 0.22, 0.38)
    mortar = ((row * 16) % 1.0 < 0.12) | (across % 1.0 < 0.06)
    return np.where(mortar, 0.5, brick) + 0.03 * noise(generator, 0.8, 8)


def planks(generator: np.random.Generator) -> Image:
    """Floor boards along the columns' direction, each with its own tone and grain."""
    row, column = grid()
    board = np.floor(row * 12).astype(np.int64)
    shifted = column * 2 + 0.37 * board
    tone = cells(generator, board, np.floor(shifted).astype(np.int64), 12, 2, 0.3, 0.5)
    gap = ((row * 12) % 1.0 < 0.04) | (shifted % 1.0 < 0.006)
    return np.where(gap, 0.15, tone) + 0.04 * noise(generator, 0.7, 8, stretch=0.08)


def tiles(generator: np.random.Generator) -> Image:
    """A chequered floor with joints."""
    row, column = grid()
    down, across = np.floor(row * 8).astype(np.int64), np.floor(column * 8).astype(np.int64)
    tone = np.where((down + across) % 2 == 0, 0.58, 0.36)
    tone = tone * cells(generator, down, across, 8, 8, 0.85, 1.15)
    joint = ((row * 8) % 1.0 < 0.05) | ((column * 8) % 1.0 < 0.05)
    return np.where(joint, 0.22, tone) + 0.015 * noise(generator, 0.9, 6)


def panels(generator: np.random.Generator) -> Image:
    """A light ceiling of square panels with pores."""
    row, column = grid()
    joint = ((row * 4) % 1.0 < 0.03) | ((column * 4) % 1.0 < 0.03)
    return np.where(joint, 0.5, 0.76) + 0.045 * noise(generator, 0.2, 30)


def crate(generator: np.random.Generator) -> Image:
    """A wooden crate: a frame, slats, and a brace from corner to corner; one per period."""
    row, column = grid()
    slat = cells(
        generator, np.floor(row * 6).astype(np.int64), np.zeros((1, 1), np.int64), 6, 1, 0.3, 0.44
    )
    slat = np.where((row * 6) % 1.0 < 0.06, 0.16, slat)
    frame = (np.minimum(row, 1 - row) < 0.1) | (np.minimum(column, 1 - column) < 0.1)
    brace = np.abs(row - column) < 0.07
    tone = np.where(frame | brace, 0.55, slat)
    return tone + 0.03 * noise(generator, 0.8, 6)


def books(generator: np.random.Generator) -> Image:
    """Shelves of books: spines of many tones between dark boards."""
    row, column = grid()
    shelf = np.floor(row * 4).astype(np.int64)
    spine = np.floor(column * 24).astype(np.int64)
    tone = cells(generator, shelf, spine, 4, 24, 0.16, 0.55)
    height = cells(generator, shelf, spine, 4, 24, 0.12, 0.3)
    within = (row * 4) % 1.0
    tone = np.where(within < height, 0.11, tone)
    tone = np.where((within > 0.55) & (within < 0.6), 1.2 * tone, tone)
    return np.where(within > 0.93, 0.32, tone) + 0.01 * noise(generator, 0.6, 10)


def picture(generator: np.random.Generator) -> Image:
    """A framed picture of rectangles and clouds; one per period."""
    row, column = grid()
    image = 0.5 + 0.16 * noise(generator, 1.5, 1)
    for _ in range(14):
        top, left = generator.uniform(0.1, 0.8, 2)
        high, wide = generator.uniform(0.04, 0.3, 2)
        inside = (row > top) & (row < top + high) & (column > left) & (column < left + wide)
        image = np.where(inside, generator.uniform(0.12, 0.75), image)
    frame = (np.minimum(row, 1 - row) < 0.06) | (np.minimum(column, 1 - column) < 0.06)
    return np.where(frame, 0.12, image)


def fabric(generator: np.random.Generator) -> Image:
    """Woven cloth with a check."""
    row, column = grid()
    check = 0.12 * ((row * 10) % 1.0 < 0.3) + 0.12 * ((column * 10) % 1.0 < 0.3)
    return 0.26 + check + 0.04 * noise(generator, 0.2, 20)


def lamp(generator: np.random.Generator) -> Image:
    """A bright panel in a grey rim, brighter than any paint; one per period."""
    row, column = grid()
    rim = (np.minimum(row, 1 - row) < 0.06) | (np.minimum(column, 1 - column) < 0.06)
    return np.where(rim, 0.45, 0.97) + 0.01 * noise(generator, 0.5, 8)


def paint(generator: np.random.Generator) -> Image:
    """Smooth paint with hardly any texture: what gives an event camera nothing but its edges."""
    return 0.45 + 0.012 * noise(generator, 1.5, 1)


def concrete(generator: np.random.Generator) -> Image:
    """A grey floor with stains, pores and expansion joints."""
    row, column = grid()
    joint = ((row * 2) % 1.0 < 0.012) | ((column * 2) % 1.0 < 0.012)
    stained = 0.36 + 0.05 * noise(generator, 1.3, 2) + 0.03 * noise(generator, 0.4, 30)
    return np.where(joint, 0.16, stained)


def cardboard(generator: np.random.Generator) -> Image:
    """Stacked cartons with tape, labels and shadows between them."""
    row, column = grid()
    down, across = np.floor(row * 4).astype(np.int64), np.floor(column * 4).astype(np.int64)
    tone = cells(generator, down, across, 4, 4, 0.28, 0.5)
    v, u = (row * 4) % 1.0, (column * 4) % 1.0
    tape = np.abs(u - 0.5) < 0.05
    label = (np.abs(u - 0.3) < 0.12) & (np.abs(v - 0.55) < 0.1)
    gap = (np.minimum(u, 1 - u) < 0.02) | (np.minimum(v, 1 - v) < 0.02)
    tone = np.where(tape, 1.25 * tone, tone)
    tone = np.where(label, 0.7, tone)
    return np.where(gap, 0.08, tone) + 0.012 * noise(generator, 0.7, 8)


def rack(generator: np.random.Generator) -> Image:
    """A storage rack: uprights and beams, and goods of every size between them."""
    row, column = grid()
    shelf, bay = np.floor(row * 3).astype(np.int64), np.floor(column * 4).astype(np.int64)
    item = np.floor(column * 16).astype(np.int64)
    tone = cells(generator, shelf, item, 3, 16, 0.15, 0.6)
    height = cells(generator, shelf, item, 3, 16, 0.1, 0.5)
    v, u = (row * 3) % 1.0, (column * 4) % 1.0
    tone = np.where(v < height, 0.06, tone * (0.9 + 0.1 * ((bay + shelf) % 2)))
    beam, upright = v > 0.9, np.minimum(u, 1 - u) < 0.03
    tone = np.where(beam, 0.42, tone)
    return np.where(upright, 0.25, tone) + 0.02 * noise(generator, 0.6, 10)


def metal(generator: np.random.Generator) -> Image:
    """Corrugated sheet with screws and rust."""
    row, column = grid()
    ribs = 0.42 + 0.1 * np.sin(2 * np.pi * 16 * column)
    screw = np.hypot((row * 8) % 1.0 - 0.5, (column * 16) % 1.0 - 0.5) < 0.1
    rust = np.maximum(noise(generator, 1.4, 2), 0.0)
    return np.where(screw, 0.15, ribs - 0.07 * rust) + 0.01 * noise(generator, 0.6, 10)


def hazard(generator: np.random.Generator) -> Image:
    """Black and light stripes at 45 degrees, scratched."""
    row, column = grid()
    stripe = np.where(((row + column) * 6) % 1.0 < 0.5, 0.62, 0.07)
    return stripe + 0.03 * noise(generator, 0.6, 6)


def clothes(generator: np.random.Generator) -> Image:
    """A jacket with a zip, pockets and folds; one per period."""
    row, column = grid()
    tone = np.full(row.shape, generator.uniform(0.15, 0.55))
    for left in (0.2, 0.62):
        pocket = (np.abs(column - left - 0.09) < 0.09) & (np.abs(row - 0.6) < 0.12)
        tone = np.where(pocket, tone * 0.7, tone)
    tone = np.where(np.abs(column - 0.5) < 0.02, 0.65, tone)
    stripe = np.abs(row - 0.32) < 0.03
    return np.where(stripe, 0.75, tone) + 0.05 * noise(generator, 1.2, 3, stretch=0.3)
