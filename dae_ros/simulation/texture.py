"""Seeded procedural textures: periodic, band-limited, with mean-preserving mip levels.

A texture is an albedo map, float32[SIZE, SIZE] in 0..1, that repeats in both directions. It
is drawn at twice its size and low-passed below its Nyquist frequency, so that bilinear
sampling of the level that fits the footprint of a pixel makes no false events by aliasing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dae_ros.simulation import materials, outdoors
from dae_ros.simulation.pattern import SIZE, Image

LEVELS = 10

DRAWERS: dict[str, Callable[[np.random.Generator], Image]] = {
    drawer.__name__: drawer
    for drawer in (
        materials.plaster, materials.wallpaper, materials.bricks, materials.planks,
        materials.tiles, materials.panels, materials.crate, materials.books, materials.picture,
        materials.fabric, materials.lamp, materials.paint, materials.concrete,
        materials.cardboard, materials.rack, materials.metal, materials.hazard,
        materials.clothes, outdoors.sky, outdoors.asphalt, outdoors.pavement, outdoors.marking,
        outdoors.grass, outdoors.foliage, outdoors.bark, outdoors.facade, outdoors.brick_facade,
        outdoors.office, outdoors.shop, outdoors.lit_windows, outdoors.car_side,
        outdoors.car_end, outdoors.gravel, outdoors.container, outdoors.container_door,
        outdoors.pallet,
    )
}  # fmt: skip


def _halve(image: Image) -> Image:
    result: Image = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2).mean(axis=(1, 3))
    return result


def draw(name: str, seed: int) -> NDArray[np.float32]:
    """Return one albedo map of a kind, float32[SIZE, SIZE] within 0.02 to 1.

    Args:
        name: a key of `DRAWERS`.
        seed: of this texture; equal seeds give equal pictures.
    """
    image = _halve(DRAWERS[name](np.random.default_rng([seed, 1, zlib.crc32(name.encode())])))
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
