"""Camera images in the encodings of sensor_msgs, as grey frames and as metres."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import RecordingError

_BAYER = {
    # OpenCV names a pattern by its second row, ROS by its first.
    "bayer_rggb8": cv2.COLOR_BayerBG2GRAY,
    "bayer_bggr8": cv2.COLOR_BayerRG2GRAY,
    "bayer_gbrg8": cv2.COLOR_BayerGR2GRAY,
    "bayer_grbg8": cv2.COLOR_BayerGB2GRAY,
}
_COLOUR = {
    "rgb8": cv2.COLOR_RGB2GRAY,
    "bgr8": cv2.COLOR_BGR2GRAY,
    "rgba8": cv2.COLOR_RGBA2GRAY,
    "bgra8": cv2.COLOR_BGRA2GRAY,
}
# encoding -> (bytes per value, values per pixel)
_LAYOUTS = {
    "mono8": (1, 1),
    "8UC1": (1, 1),
    **dict.fromkeys(_BAYER, (1, 1)),
    "rgb8": (1, 3),
    "bgr8": (1, 3),
    "rgba8": (1, 4),
    "bgra8": (1, 4),
    "mono16": (2, 1),
    "16UC1": (2, 1),
    "rgb16": (2, 3),
    "rgba16": (2, 4),
    "32FC1": (4, 1),
}


def grey_image(
    data: NDArray[np.uint8], height: int, width: int, encoding: str, step: int, big_endian: bool
) -> NDArray[np.uint8]:
    """Return a camera image as uint8[H, W] grey.

    16-bit encodings are taken as left-justified, as libcaer_driver publishes them: the upper
    eight bits remain. Bayer patterns and colours are converted by OpenCV.

    Args:
        data: uint8[N], rows of `step` bytes.
        height, width: in px.
        encoding: a name of sensor_msgs/image_encodings.
        step: bytes per row, padding included.
        big_endian: byte order of 16-bit values.

    Raises:
        RecordingError: an encoding without a grey image, or data that contradict their size.
    """
    values = _pixels(data, height, width, encoding, step, big_endian)
    if encoding == "32FC1":
        raise RecordingError(
            "an image of encoding 32FC1 is no camera frame; choose the topic of the camera",
            encoding=encoding,
        )
    if values.dtype.itemsize == 2:
        values = (values >> 8).astype(np.uint8)
        encoding = {"rgb16": "rgb8", "rgba16": "rgba8"}.get(encoding, "mono8")
    if encoding in _BAYER:
        return np.asarray(cv2.cvtColor(values, _BAYER[encoding]), np.uint8)
    if encoding in _COLOUR:
        return np.asarray(cv2.cvtColor(values, _COLOUR[encoding]), np.uint8)
    return np.ascontiguousarray(values, np.uint8)


def depth_image(
    data: NDArray[np.uint8], height: int, width: int, encoding: str, step: int, big_endian: bool
) -> NDArray[np.float32]:
    """Return a depth image as float32[H, W] metres, NaN invalid (REP 118).

    Args:
        data, height, width, step, big_endian: as for `grey_image`.
        encoding: `32FC1` metres, or `16UC1` millimetres where 0 is invalid.

    Raises:
        RecordingError: another encoding, or data that contradict their size.
    """
    if encoding not in {"32FC1", "16UC1"}:
        raise RecordingError(
            f"an image of encoding {encoding} holds no depth; choose a topic with 32FC1 or 16UC1",
            encoding=encoding,
        )
    values = _pixels(data, height, width, encoding, step, big_endian)
    if encoding == "32FC1":
        return np.ascontiguousarray(values, np.float32)
    metres: NDArray[np.float32] = values.astype(np.float32) / np.float32(1000)
    metres[values == 0] = np.nan
    return metres


def _pixels(
    data: NDArray[np.uint8], height: int, width: int, encoding: str, step: int, big_endian: bool
) -> NDArray[Any]:
    if encoding not in _LAYOUTS:
        raise RecordingError(
            f"images of encoding '{encoding}' cannot be read; known are {', '.join(_LAYOUTS)}",
            encoding=encoding,
        )
    size, channels = _LAYOUTS[encoding]
    row = width * size * channels
    if step < row or len(data) < step * height:
        raise RecordingError(
            f"an image of {width}x{height} px in {encoding} needs rows of {row} bytes, but it has "
            f"{len(data)} bytes in rows of {step}; the message is damaged",
            encoding=encoding,
            step=step,
            size_bytes=len(data),
        )
    kind = {1: "u1", 2: "u2", 4: "f4"}[size]
    rows = data[: step * height].reshape(height, step)[:, :row]
    values = np.ascontiguousarray(rows).view((">" if big_endian else "<") + kind)
    values = values.astype(kind)
    return values.reshape(height, width, channels) if channels > 1 else values
