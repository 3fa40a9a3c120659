"""A camera frame that shares its clock with the events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One grey frame of the camera.

    Attributes:
        stamp_ns: `header.stamp`; which instant of the exposure it marks is a parameter.
        image: uint8[H, W].
        exposure_ns: exposure time, 0 where it is not known.
        frame_id: `header.frame_id`.
    """

    stamp_ns: int
    image: NDArray[np.uint8]
    exposure_ns: int = 0
    frame_id: str = ""
