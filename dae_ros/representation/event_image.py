"""What a network takes of a window: float planes, or the 16-bit code of a Tencode.

Which of the two an array is, its dtype says.
"""

from __future__ import annotations

from typing import Final, TypeAlias, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from dae_ros.representation.tencode import FloatImage
from dae_ros.representation.tencode_code import TencodeCode, unpack_tencode

# float32[C, H, W], or uint16[H, W] as `TencodeSurface` gives it.
EventImage: TypeAlias = "FloatImage | TencodeCode"
# Planes that a code stands for: red, green, blue.
TENCODE_CHANNELS: Final = 3


def is_code(image: EventImage) -> TypeGuard[TencodeCode]:
    """Say whether an event image is a Tencode code."""
    return image.dtype == np.uint16


def size_of(image: EventImage) -> tuple[int, int]:
    """Return (height, width) of an event image in px."""
    height, width = image.shape[-2:]
    return height, width


def planes_of(image: EventImage, planes: FloatImage | None = None) -> FloatImage:
    """Return the planes of an event image.

    Args:
        image: planes are returned as they are.
        planes: float32[3, H, W], where those of a code are written; None: new ones.

    Returns:
        float32[C, H, W], three planes of a code.
    """
    return unpack_tencode(image, planes) if is_code(image) else cast("FloatImage", image)


def pixels_with_events(image: EventImage) -> NDArray[np.bool_]:
    """Return where a Tencode shows an event, bool[H, W].

    Args:
        image: a code, or float32[3, H, W].
    """
    seen: NDArray[np.bool_] = image != 0 if is_code(image) else (image[0] > 0) | (image[2] > 0)
    return seen
