"""A Tencode image in one byte per pixel, for clips on disk: 0 no event, else age and polarity.

code = 1 + 2 round(126 G) + (1 where the last event was ON). The oldest and the newest event (G = 1
and 0) and the five levels of `tencode_voxel` but for 1/252 come back exactly; G is at most 1/252
off, far less than the network's resizing and a two-hundredth of the step of the voxel protocol.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.representation.event_image import EventImage, is_code
from dae_ros.representation.tencode_code import CLIP_LEVELS, PARTS, TencodeCode


def code_of_tencode(image: EventImage) -> NDArray[np.uint8]:
    """Return the code of a Tencode image, the same for planes and for what they are packed to.

    Args:
        image: float32[3, H, W] in 0..1, or uint16[H, W] (`representation.tencode_code`).

    Returns:
        uint8[H, W].
    """
    if is_code(image):
        return _rounded_on(image)
    on = image[0] > 0
    level = np.rint(image[1] * np.float32(CLIP_LEVELS)).astype(np.uint8)
    code = np.uint8(1) + np.uint8(2) * level + on
    return np.where(on | (image[2] > 0), code, 0).astype(np.uint8)


def tencode_of_code(code: Tensor) -> Tensor:
    """Return float32 (..., 3, H, W) of codes, uint8 (..., H, W), on their device."""
    value = code.to(torch.int16) - 1
    seen = (value >= 0).float()
    on = (value & 1).float() * seen
    green = (value >> 1).float() / CLIP_LEVELS * seen
    return torch.stack((on, green, seen - on), dim=-3)


def _rounded_on(code: TencodeCode) -> NDArray[np.uint8]:
    # Half a step, less the one that the levels of 16 bits are counted from.
    level = ((code >> 1) + (PARTS // 2 - 1)) // PARTS
    return np.where(code != 0, 1 + 2 * level + (code & 1), 0).astype(np.uint8)
