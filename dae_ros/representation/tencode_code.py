"""Tencode in 16 bits per pixel instead of 96, for the way to a device.

0 is a pixel without event. Otherwise bit 0 is the polarity and the 15 bits above it hold
1 + round(G * 32766): 614 kB instead of 3.7 MB for VGA. R and B come back exactly, G within
`LARGEST_ERROR`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel
from dae_ros.representation.tencode import FloatImage

# G = 0 is the first level and G = 1 the last of 15 bits; level 0 means: no event.
LEVELS: Final = 2**15 - 2
LARGEST_ERROR: Final = 2e-5


def pack_tencode(image: FloatImage, code: NDArray[np.uint16]) -> bool:
    """Write the code of an event image.

    Args:
        image: float32[3, H, W], as `tencode` and `tencode_voxel` give it.
        code: uint16[H, W], written.

    Returns:
        False, and `code` undefined, where the image is not Tencode: a pixel is neither black nor
        of one polarity with an age in 0..1.
    """
    return _pack(image, code)


def unpack_tencode(code: NDArray[np.uint16]) -> FloatImage:
    """Return the image float32[3, H, W] that a code uint16[H, W] stands for."""
    level = (code >> 1).astype(np.float32)
    seen = (code != 0).astype(np.float32)
    on = (code & 1).astype(np.float32)
    return np.stack([on, (level - seen) / np.float32(LEVELS), seen - on])


@kernel
def _pack(image: FloatImage, code: NDArray[np.uint16]) -> bool:
    """Without branches, so that it becomes vector instructions bound by memory."""
    zero, half, one, levels = np.float32(0.0), np.float32(0.5), np.float32(1.0), np.float32(LEVELS)
    strange = np.int32(0)
    for row in range(code.shape[0]):
        red, green, blue, packed = image[0, row], image[1, row], image[2, row], code[row]
        for column in range(packed.size):
            on, age, off = red[column], green[column], blue[column]
            seen = on + off
            # Written so that NaN is strange.
            black_or_seen = (
                ((on == zero) | (on == one))
                & ((off == zero) | (off == one))
                & ((seen == zero) | (seen == one))
                & (age >= zero)
                & (age <= seen)
            )
            strange |= np.int32(1) - np.int32(black_or_seen)
            level = np.int32(age * levels + half) + np.int32(1)
            packed[column] = np.uint16(np.int32(seen) * (np.int32(2) * level) + np.int32(on))
    return bool(strange == 0)
