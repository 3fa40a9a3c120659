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
    return bool(_pack(image, code))


def unpack_tencode(code: NDArray[np.uint16]) -> FloatImage:
    """Return the image float32[3, H, W] that a code uint16[H, W] stands for."""
    level = (code >> 1).astype(np.float32)
    seen = (code != 0).astype(np.float32)
    on = (code & 1).astype(np.float32)
    return np.stack([on, (level - seen) / np.float32(LEVELS), seen - on])


@kernel
def _pack(image: FloatImage, code: NDArray[np.uint16]) -> bool:
    zero, one, levels = np.float32(0.0), np.float32(1.0), np.float32(LEVELS)
    for row in range(code.shape[0]):
        for column in range(code.shape[1]):
            red, blue = image[0, row, column], image[2, row, column]
            age = image[1, row, column]
            if (red == one and blue == zero) or (red == zero and blue == one):
                # Written so that NaN is refused.
                if not (age >= zero and age <= one):
                    return False
                level = np.uint16(age * levels + np.float32(0.5)) + np.uint16(1)
                code[row, column] = np.uint16(level << np.uint16(1)) | np.uint16(red)
            elif red == zero and blue == zero and age == zero:
                code[row, column] = np.uint16(0)
            else:
                return False
    return True
