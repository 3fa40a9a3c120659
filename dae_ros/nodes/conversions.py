"""Values to ROS messages. Every bulk field goes through `array.array`: the setters of all
distributions take it at once, where they check other sequences element by element.

The other direction needs no message objects: bytes are read by `dae_ros.events.cdr` and
`dae_ros.bags.messages`, by the live node and by the bag runner alike.
"""

from __future__ import annotations

import array
import sys
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo as CameraInfoMessage
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dae_ros.bags.messages import CameraInfo
from dae_ros.events.cdr import stamp_fields

# (sample type, dimensions) -> name in sensor_msgs/image_encodings
_ENCODINGS = {("float32", 2): "32FC1", ("uint8", 2): "mono8", ("uint8", 3): "rgb8"}


def ns_to_stamp(time_ns: int) -> Time:
    """Return ns as a stamp.

    Raises:
        ConfigurationError: it does not fit; the message's own setter would wrap it silently.
    """
    seconds, nanoseconds = stamp_fields(time_ns)
    return Time(sec=seconds, nanosec=nanoseconds)


def header(stamp_ns: int, frame_id: str) -> Header:
    """Return a header."""
    return Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)


def image_message(pixels: NDArray[Any], stamp_ns: int, frame_id: str) -> Image:
    """Return an image message.

    Args:
        pixels: float32[H, W] (32FC1), uint8[H, W] (mono8) or uint8[H, W, 3] (rgb8).
        stamp_ns: `header.stamp`.
        frame_id: optical frame.
    """
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels)
    return Image(
        header=header(stamp_ns, frame_id),
        height=height,
        width=width,
        encoding=_ENCODINGS[pixels.dtype.name, pixels.ndim],
        is_bigendian=sys.byteorder == "big",
        step=rows.strides[0],
        data=array.array("B", rows.tobytes()),
    )


def camera_info_message(camera: CameraInfo, stamp_ns: int, frame_id: str) -> CameraInfoMessage:
    """Return a calibration as a message with another header."""
    return CameraInfoMessage(
        header=header(stamp_ns, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model=camera.distortion_model,
        d=list(camera.d),
        k=list(camera.k),
        r=list(camera.r),
        p=list(camera.p),
    )
