"""Seeded procedural textures: periodic, band-limited, with mean-preserving mip levels.

A texture is an albedo map, float32[SIZE, SIZE] in 0..1, that repeats in both directions. It
is drawn at twice its size and low-passed below its Nyquist frequency, so that bilinear
sampling of the level that fits the footprint of a pixel makes no false events by aliasing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SIZE = 512
LEVELS = 10
_DRAWN = 2 * SIZE
Image = NDArray[np.float64]


def _noise(
    generator: np.random.Generator, slope: float, lowest: float, stretch: float = 1.0
) -> Image:
    """Return periodic noise, mean 0 and deviation 1, with amplitude ~ 1 / frequency^slope.

    Args:
        generator: source of the phases.
        slope: exponent of the fall of the amplitude.
        lowest: cycles per period below which there is nothing.
        stretch: how many times longer the grain is in rows than in columns.
    """
    rows = np.fft.fftfreq(SIZE, 1.0 / SIZE)[:, None] * stretch
    columns = np.fft.rfftfreq(SIZE, 1.0 / SIZE)[None, :]
    frequency = np.hypot(rows, columns)
    amplitude = np.where(
        (frequency >= lowest) & (frequency <= SIZE * 0.45),
        np.maximum(frequency, 1.0) ** -slope,
        0.0,
    )
    phase = generator.uniform(0.0, 2.0 * np.pi, amplitude.shape)
    image = np.fft.irfft2(amplitude * np.exp(1j * phase), s=(SIZE, SIZE))
    image = (image - image.mean()) / image.std()
    # It has no detail below a texel, so that it need not be drawn at twice the size.
    drawn: Image = image.repeat(2, axis=0).repeat(2, axis=1)
    return drawn


def _grid() -> tuple[Image, Image]:
    position = (np.arange(_DRAWN) + 0.5) / _DRAWN
    return position[:, None] * np.ones((1, _DRAWN)), position[None, :] * np.ones((_DRAWN, 1))


def _cells(
    generator: np.random.Generator,
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    rows: int,
    columns: int,
    low: float,
    high: float,
) -> Image:
    """Give each cell of a grid its own albedo."""
    return generator.uniform(low, high, (rows, columns))[row % rows, column % columns]


def plaster(generator: np.random.Generator) -> Image:
    """Light wall paint with stains and grain."""
    return 0.62 + 0.05 * _noise(generator, 1.6, 2) + 0.035 * _noise(generator, 0.3, 40)


def wallpaper(generator: np.random.Generator) -> Image:
    """Vertical stripes with dots between them."""
    row, column = _grid()
    stripes = np.where((column * 8) % 1.0 < 0.5, 0.56, 0.47)
    dots = np.hypot((row * 16) % 1.0 - 0.5, (column * 16) % 1.0 - 0.5) < 0.16
    return np.where(dots, 0.34, stripes) + 0.02 * _noise(generator, 1.0, 4)


def bricks(generator: np.random.Generator) -> Image:
    """Running bond with light mortar."""
    row, column = _grid()
    course = np.floor(row * 16).astype(np.int64)
    across = column * 8 + 0.5 * (course % 2)
    brick = _cells(generator, course, np.floor(across).astype(np.int64), 16, 8, 0.22, 0.38)
    mortar = ((row * 16) % 1.0 < 0.12) | (across % 1.0 < 0.06)
    return np.where(mortar, 0.5, brick) + 0.03 * _noise(generator, 0.8, 8)


def planks(generator: np.random.Generator) -> Image:
    """Floor boards along the columns' direction, each with its own tone and grain."""
    row, column = _grid()
    board = np.floor(row * 12).astype(np.int64)
    shifted = column * 2 + 0.37 * board
    tone = _cells(generator, board, np.floor(shifted).astype(np.int64), 12, 2, 0.3, 0.5)
    gap = ((row * 12) % 1.0 < 0.04) | (shifted % 1.0 < 0.006)
    return np.where(gap, 0.15, tone) + 0.04 * _noise(generator, 0.7, 8, stretch=0.08)


def tiles(generator: np.random.Generator) -> Image:
    """A chequered floor with joints."""
    row, column = _grid()
    down, across = np.floor(row * 8).astype(np.int64), np.floor(column * 8).astype(np.int64)
    tone = np.where((down + across) % 2 == 0, 0.58, 0.36)
    tone = tone * _cells(generator, down, across, 8, 8, 0.85, 1.15)
    joint = ((row * 8) % 1.0 < 0.05) | ((column * 8) % 1.0 < 0.05)
    return np.where(joint, 0.22, tone) + 0.015 * _noise(generator, 0.9, 6)


def panels(generator: np.random.Generator) -> Image:
    """A light ceiling of square panels with pores."""
    row, column = _grid()
    joint = ((row * 4) % 1.0 < 0.03) | ((column * 4) % 1.0 < 0.03)
    return np.where(joint, 0.5, 0.76) + 0.045 * _noise(generator, 0.2, 30)


def crate(generator: np.random.Generator) -> Image:
    """A wooden crate: a frame, slats, and a brace from corner to corner; one per period."""
    row, column = _grid()
    slat = _cells(
        generator, np.floor(row * 6).astype(np.int64), np.zeros((1, 1), np.int64), 6, 1, 0.3, 0.44
    )
    slat = np.where((row * 6) % 1.0 < 0.06, 0.16, slat)
    frame = (np.minimum(row, 1 - row) < 0.1) | (np.minimum(column, 1 - column) < 0.1)
    brace = np.abs(row - column) < 0.07
    tone = np.where(frame | brace, 0.55, slat)
    return tone + 0.03 * _noise(generator, 0.8, 6)


def books(generator: np.random.Generator) -> Image:
    """Shelves of books: spines of many tones between dark boards."""
    row, column = _grid()
    shelf = np.floor(row * 4).astype(np.int64)
    spine = np.floor(column * 24).astype(np.int64)
    tone = _cells(generator, shelf, spine, 4, 24, 0.16, 0.55)
    height = _cells(generator, shelf, spine, 4, 24, 0.12, 0.3)
    within = (row * 4) % 1.0
    tone = np.where(within < height, 0.11, tone)
    tone = np.where((within > 0.55) & (within < 0.6), 1.2 * tone, tone)
    return np.where(within > 0.93, 0.32, tone) + 0.01 * _noise(generator, 0.6, 10)


def picture(generator: np.random.Generator) -> Image:
    """A framed picture of rectangles and clouds; one per period."""
    row, column = _grid()
    image = 0.5 + 0.16 * _noise(generator, 1.5, 1)
    for _ in range(14):
        top, left = generator.uniform(0.1, 0.8, 2)
        high, wide = generator.uniform(0.04, 0.3, 2)
        inside = (row > top) & (row < top + high) & (column > left) & (column < left + wide)
        image = np.where(inside, generator.uniform(0.12, 0.75), image)
    frame = (np.minimum(row, 1 - row) < 0.06) | (np.minimum(column, 1 - column) < 0.06)
    return np.where(frame, 0.12, image)


def fabric(generator: np.random.Generator) -> Image:
    """Woven cloth with a check."""
    row, column = _grid()
    check = 0.12 * ((row * 10) % 1.0 < 0.3) + 0.12 * ((column * 10) % 1.0 < 0.3)
    return 0.26 + check + 0.04 * _noise(generator, 0.2, 20)


def lamp(generator: np.random.Generator) -> Image:
    """A bright panel in a grey rim, brighter than any paint; one per period."""
    row, column = _grid()
    rim = (np.minimum(row, 1 - row) < 0.06) | (np.minimum(column, 1 - column) < 0.06)
    return np.where(rim, 0.45, 0.97) + 0.01 * _noise(generator, 0.5, 8)


DRAWERS: dict[str, Callable[[np.random.Generator], Image]] = {
    "plaster": plaster,
    "wallpaper": wallpaper,
    "bricks": bricks,
    "planks": planks,
    "tiles": tiles,
    "panels": panels,
    "crate": crate,
    "books": books,
    "picture": picture,
    "fabric": fabric,
    "lamp": lamp,
}


def _halve(image: Image) -> Image:
    result: Image = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2).mean(axis=(1, 3))
    return result


def draw(name: str, seed: int) -> NDArray[np.float32]:
    """Return one albedo map of a kind, float32[SIZE, SIZE] within 0.02 to 1.

    Args:
        name: a key of `DRAWERS`.
        seed: of this texture; equal seeds give equal pictures.
    """
    image = _halve(DRAWERS[name](np.random.default_rng([seed, 1, sorted(DRAWERS).index(name)])))
    # A Gaussian that is down to 1/10 at the Nyquist frequency takes off what is left of edges.
    rows = np.fft.fftfreq(SIZE)[:, None]
    columns = np.fft.rfftfreq(SIZE)[None, :]
    low_pass = np.exp(-9.2 * (rows**2 + columns**2))
    smooth = np.fft.irfft2(np.fft.rfft2(image) * low_pass, s=(SIZE, SIZE))
    # Paint cannot reflect more than it gets, nor nothing: the ends of the noise are cut here.
    return np.clip(smooth, 0.02, 1.0).astype(np.float32)


def pyramid(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return all `LEVELS` mip levels from SIZE to 1, flattened one after another, float32[M]."""
    levels = [image]
    while levels[-1].shape[0] > 1:
        levels.append(_halve(levels[-1].astype(np.float64)).astype(np.float32))
    return np.concatenate([level.ravel() for level in levels])
