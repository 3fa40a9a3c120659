"""What procedural textures are made of: periodic noise, grids and cells, in float64[DRAWN, DRAWN].

Patterns are drawn at twice the size of a texture, so that their edges can be low-passed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 512
DRAWN = 2 * SIZE
Image = NDArray[np.float64]


def noise(
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


def grid() -> tuple[Image, Image]:
    """Return the row and the column of every point, 0..1 over one period."""
    position = (np.arange(DRAWN) + 0.5) / DRAWN
    return position[:, None] * np.ones((1, DRAWN)), position[None, :] * np.ones((DRAWN, 1))


def cells(
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
