"""Tencode in 16 bits per pixel instead of 96: what a window is from the surface to the device.

0 is a pixel without event. Otherwise bit 0 is the polarity and the 15 bits above it hold
`LEVELS` G + 1, rounded, ties to even: 614 kB instead of 3.7 MB for VGA. R and B come back exactly,
G within `LARGEST_ERROR`.

`LEVELS` is an odd multiple of the levels of the 8-bit code of clips (`distillation.clip_codes`), so
that no level lies in the middle between two of theirs: rounding a level on to 8 bits gives what
rounding G itself gives. That holds for every float32, because the product is taken in two steps.
The first is what the clips round; where it is in the middle, the second is exactly so too, and goes
the same way.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel
from dae_ros.representation.tencode import FloatImage

TencodeCode: TypeAlias = NDArray[np.uint16]

# Levels of G in the 8-bit code, and in how many each of them is parted here. G = 0 is level 0 and
# G = 1 the last one; 15 bits less one number, which means no event, have room for 32766.
CLIP_LEVELS: Final = 126
PARTS: Final = 259
LEVELS: Final = CLIP_LEVELS * PARTS
# Half a level, and what float32 rounds.
LARGEST_ERROR: Final = 0.5 / LEVELS + 2.0**-22


def pack_tencode(image: FloatImage, code: TencodeCode) -> bool:
    """Write the code of an event image that is not from a `TencodeSurface`.

    Args:
        image: float32[3, H, W], as `tencode` and `tencode_voxel` give it.
        code: uint16[H, W], written.

    Returns:
        False, and `code` undefined, where the image is not Tencode: a pixel is neither black nor
        of one polarity with an age in 0..1.
    """
    return _pack(image, code)


def unpack_tencode(code: TencodeCode, image: FloatImage | None = None) -> FloatImage:
    """Return the image that a code stands for.

    Args:
        code: uint16[H, W].
        image: float32[3, H, W], written and returned; None: a new one.
    """
    if image is None:
        image = np.empty((3, *code.shape), np.float32)
    _unpack(code, image)
    return image


@kernel
def _pack(image: FloatImage, code: TencodeCode) -> bool:
    """Without branches, so that it becomes vector instructions bound by memory."""
    zero, one = np.float32(0.0), np.float32(1.0)
    levels, parts = np.float32(CLIP_LEVELS), np.float32(PARTS)
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
            # One is added before it is rounded, which turns the ties to where 8 bits have them.
            level = np.int32(np.rint(age * levels * parts + one))
            packed[column] = np.uint16(np.int32(seen) * (np.int32(2) * level) + np.int32(on))
    return bool(strange == 0)


@kernel
def _unpack(code: TencodeCode, image: FloatImage) -> None:
    """Without branches, as `_pack`."""
    levels = np.float32(LEVELS)
    for row in range(code.shape[0]):
        red, green, blue, packed = image[0, row], image[1, row], image[2, row], code[row]
        for column in range(packed.size):
            value = np.int32(packed[column])
            on, seen = np.int32(value & np.int32(1)), np.int32(value != 0)
            red[column] = np.float32(on)
            green[column] = np.float32(np.int32((value >> np.int32(1)) - seen)) / levels
            blue[column] = np.float32(np.int32(seen - on))
