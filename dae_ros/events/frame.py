"""A camera frame that shares its clock with the events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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


class FrameStamp(NamedTuple):
    """Which frame of which camera: what is said beside an image that is made of it.

    Attributes:
        stamp_ns: `header.stamp`.
        frame_id: `header.frame_id`.
    """

    stamp_ns: int
    frame_id: str


def middle_of_exposure(stamp_ns: int, exposure_ns: int, image_stamp: str, exposure_s: float) -> int:
    """Return when a frame's exposure was half over: what its pixels show, in the mean.

    Args:
        stamp_ns: of the frame.
        exposure_ns: of the frame; 0 where it is not known.
        image_stamp: what the stamp marks: the `start`, `mid` or `end` of the exposure.
        exposure_s: of frames that do not tell.

    Returns:
        ns, on the clock of the stamp.
    """
    exposure_ns = exposure_ns or round(exposure_s * 1e9)
    return stamp_ns + {"start": exposure_ns // 2, "mid": 0, "end": -(exposure_ns // 2)}[image_stamp]
