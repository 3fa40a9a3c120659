"""Images and camera calibrations to and from ROS 2 messages (CDR), without ROS."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.images import depth_image, grey_image
from dae_ros.bags.message_types import (
    CAMERA_INFO,
    IMAGE,
    SERIALIZATION_DAMAGE,
    known_types,
)
from dae_ros.errors import RecordingError
from dae_ros.events.cdr import stamp_fields
from dae_ros.events.frame import Frame

_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """A calibration, as in sensor_msgs/CameraInfo; all zero where the camera is uncalibrated.

    Attributes:
        height, width: sensor size in px.
        distortion_model: `plumb_bob`, `equidistant`, ...
        d: distortion coefficients.
        k: 3x3 intrinsics, row by row, in px.
        r: 3x3 rectifying rotation.
        p: 3x4 projection, in px.
        frame_id: the optical frame.
    """

    height: int
    width: int
    distortion_model: str = ""
    d: tuple[float, ...] = ()
    k: tuple[float, ...] = (0.0,) * 9
    r: tuple[float, ...] = (0.0,) * 9
    p: tuple[float, ...] = (0.0,) * 12
    frame_id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class DepthTruthImage:
    """A recorded depth image: float32[H, W] metres, NaN invalid."""

    stamp_ns: int
    depth: NDArray[np.float32]
    frame_id: str


def _header(stamp_ns: int, frame_id: str) -> Any:
    types: Any = known_types().types
    seconds, nanoseconds = stamp_fields(stamp_ns)
    time = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def write_image(
    image: NDArray[np.uint8] | NDArray[np.float32], stamp_ns: int, frame_id: str
) -> bytes:
    """Serialize a sensor_msgs/msg/Image.

    Args:
        image: float32[H, W] (`32FC1`), uint8[H, W] (`mono8`) or uint8[H, W, 3] (`rgb8`).
        stamp_ns: `header.stamp`.
        frame_id: `header.frame_id`.

    Raises:
        ConfigurationError: the stamp does not fit `builtin_interfaces/Time`.
    """
    types: Any = known_types().types
    encodings = {("float32", 2): "32FC1", ("uint8", 2): "mono8", ("uint8", 3): "rgb8"}
    pixels = np.ascontiguousarray(image)
    message = types[IMAGE](
        header=_header(stamp_ns, frame_id),
        height=image.shape[0],
        width=image.shape[1],
        encoding=encodings[image.dtype.name, image.ndim],
        is_bigendian=0,
        step=pixels.strides[0],
        data=np.empty(0, np.uint8),
    )
    # Pixels come last, behind their number: they are copied once.
    before = bytes(known_types().serialize_cdr(message, IMAGE))[:-4]
    return b"".join((before, pixels.nbytes.to_bytes(4, "little"), pixels.data.cast("B")))


def write_camera_info(camera: CameraInfo, stamp_ns: int, frame_id: str) -> bytes:
    """Serialize a sensor_msgs/msg/CameraInfo with the stamp and frame of its image."""
    types: Any = known_types().types
    region = types["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    message = types[CAMERA_INFO](
        header=_header(stamp_ns, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model=camera.distortion_model,
        d=np.array(camera.d, np.float64),
        k=np.array(camera.k, np.float64),
        r=np.array(camera.r, np.float64),
        p=np.array(camera.p, np.float64),
        binning_x=0,
        binning_y=0,
        roi=region,
    )
    return bytes(known_types().serialize_cdr(message, CAMERA_INFO))


def read_frame(cdr: bytes | memoryview, exposure_ns: int = 0) -> Frame:
    """Read a sensor_msgs/msg/Image as a grey camera frame.

    Args:
        cdr: the message.
        exposure_ns: what the container knows of its exposure.

    Raises:
        RecordingError: damaged bytes, or an encoding without a grey image.
    """
    message = _read(cdr, IMAGE)
    grey = grey_image(
        message.data,
        message.height,
        message.width,
        message.encoding,
        message.step,
        bool(message.is_bigendian),
    )
    return Frame(_stamp_ns(message), grey, exposure_ns, message.header.frame_id)


def read_depth(cdr: bytes | memoryview) -> DepthTruthImage:
    """Read a sensor_msgs/msg/Image as depth in metres.

    Raises:
        RecordingError: damaged bytes, or an encoding without depth.
    """
    message = _read(cdr, IMAGE)
    depth = depth_image(
        message.data,
        message.height,
        message.width,
        message.encoding,
        message.step,
        bool(message.is_bigendian),
    )
    return DepthTruthImage(_stamp_ns(message), depth, message.header.frame_id)


def read_picture(cdr: bytes | memoryview) -> NDArray[np.uint8]:
    """Read a sensor_msgs/msg/Image of encoding rgb8 as uint8[H, W, 3].

    Raises:
        RecordingError: damaged bytes, or another encoding.
    """
    message = _read(cdr, IMAGE)
    size = message.height * message.width * 3
    if message.encoding != "rgb8" or message.step != message.width * 3 or message.data.size != size:
        raise RecordingError(
            f"an image of encoding '{message.encoding}' is no packed rgb8 picture",
            encoding=message.encoding,
        )
    picture: NDArray[np.uint8] = message.data.reshape(message.height, message.width, 3)
    return picture


def stamp_of(cdr: bytes | memoryview) -> int:
    """Return `header.stamp` in ns of any little-endian message that begins with a header."""
    if len(cdr) < 12:
        raise RecordingError("a message of less than 12 bytes has no header", size_bytes=len(cdr))
    seconds, nanoseconds = struct.unpack_from("<iI", cdr, 4)
    return int(seconds) * _NS_PER_S + int(nanoseconds)


def read_header(cdr: bytes | memoryview) -> tuple[int, str]:
    """Return `header.stamp` in ns and `header.frame_id` of a little-endian message with a header.

    Raises:
        RecordingError: the message ends before its header does.
    """
    stamp_ns = stamp_of(cdr)
    size = int.from_bytes(cdr[12:16], "little")
    if size < 1 or len(cdr) < 16 + size:
        raise RecordingError(
            f"a message of {len(cdr)} bytes ends before its header does", size_bytes=len(cdr)
        )
    return stamp_ns, bytes(cdr[16 : 15 + size]).decode("utf-8", "replace")


def read_camera_info(cdr: bytes | memoryview) -> CameraInfo:
    """Read a sensor_msgs/msg/CameraInfo.

    Raises:
        RecordingError: damaged bytes.
    """
    message = _read(cdr, CAMERA_INFO)
    return CameraInfo(
        message.height,
        message.width,
        message.distortion_model,
        tuple(message.d.tolist()),
        tuple(message.k.tolist()),
        tuple(message.r.tolist()),
        tuple(message.p.tolist()),
        message.header.frame_id,
    )


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * _NS_PER_S + int(stamp.nanosec)


def _read(cdr: bytes | memoryview, kind: str) -> Any:
    try:
        return known_types().deserialize_cdr(cdr, kind)
    except SERIALIZATION_DAMAGE as error:
        raise RecordingError(
            f"a {kind} of {len(cdr)} bytes is damaged ({error}); it was skipped",
            type=kind,
            size_bytes=len(cdr),
        ) from error
