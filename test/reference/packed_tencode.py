"""The Tencode of events as the 16-bit code that a surface is to give, made by way of the planes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.packet import Events
from dae_ros.representation.tencode import tencode
from dae_ros.representation.tencode_code import pack_tencode


def packed(image: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the code uint16[H, W] of a Tencode, float32[3, H, W]."""
    # No code, so that a pixel that is not written shows.
    code = np.full(image.shape[1:], 1, np.uint16)
    if not pack_tencode(image, code):
        raise ValueError("the image is no Tencode")
    return code


def packed_tencode(events: Events, height: int, width: int) -> NDArray[np.uint16]:
    """Return the code uint16[height, width] of all these events."""
    return packed(tencode(events, height, width))
