"""Sizes and camera matrices under resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dae_ros.errors import ConfigurationError


def network_size(
    height: int, width: int, input_height: int, input_width: int, multiple: int = 14
) -> tuple[int, int]:
    """Return the size at which the network sees a sensor, in px.

    The published rule ("lower bound, keep aspect"): one scale for both axes, the larger of the
    two that reach the input size; then each axis to the nearest multiple (half to even), or to
    the next one above if that fell below the input size. The rounding is done in float64 in the
    published order: 640x480 for an input of 644x322 lies on a tie that floating-point noise
    decides (644x490).

    Args:
        height, width: of the sensor.
        input_height, input_width: of the checkpoint.
        multiple: of the patch size.

    Returns:
        (height, width), multiples of `multiple`, neither below the input size.

    Raises:
        ConfigurationError: a size that is not positive.
    """
    if min(height, width, input_height, input_width, multiple) <= 0:
        raise ConfigurationError(
            "Sensor size, input size and multiple must be positive.",
            height=height,
            width=width,
            input_height=input_height,
            input_width=input_width,
            multiple=multiple,
        )
    scale = max(input_height / height, input_width / width)
    return (
        _constrain(scale * height, input_height, multiple),
        _constrain(scale * width, input_width, multiple),
    )


def scale_camera_matrix(
    k: Sequence[float], from_size: tuple[int, int], to_size: tuple[int, int]
) -> list[float]:
    """Return the camera matrix of a resized image.

    Pixel centres lie at whole numbers and images are resized edge to edge (`align_corners` off),
    as the depth map is: fx' = s fx and cx' = s (cx + 0.5) - 0.5.

    Args:
        k: 9 floats, row by row (`CameraInfo.k`).
        from_size, to_size: (height, width) in px.

    Returns:
        9 floats; all zero (uncalibrated) stays all zero.

    Raises:
        ConfigurationError: not 9 numbers, or a size that is not positive.
    """
    return _scale_rows(k, 3, from_size, to_size)


def scale_projection_matrix(
    p: Sequence[float], from_size: tuple[int, int], to_size: tuple[int, int]
) -> list[float]:
    """Return the projection matrix of a resized image; see `scale_camera_matrix`.

    Args:
        p: 12 floats, row by row (`CameraInfo.p`); the baseline terms Tx, Ty scale like fx, fy.
        from_size, to_size: (height, width) in px.

    Returns:
        12 floats; all zero (uncalibrated) stays all zero.

    Raises:
        ConfigurationError: not 12 numbers, or a size that is not positive.
    """
    return _scale_rows(p, 4, from_size, to_size)


def _constrain(side: float, lower_bound: int, multiple: int) -> int:
    rounded = int(np.round(side / multiple)) * multiple
    return rounded if rounded >= lower_bound else math.ceil(side / multiple) * multiple


def _scale_rows(
    matrix: Sequence[float], columns: int, from_size: tuple[int, int], to_size: tuple[int, int]
) -> list[float]:
    if len(matrix) != 3 * columns or min(*from_size, *to_size) <= 0:
        raise ConfigurationError(
            f"A matrix of {3 * columns} numbers and positive sizes are needed.",
            length=len(matrix),
            from_size=from_size,
            to_size=to_size,
        )
    rows = np.asarray(matrix, np.float64).reshape(3, columns)
    scale_y, scale_x = (to / of for to, of in zip(to_size, from_size, strict=True))
    resize = np.array(
        [[scale_x, 0.0, 0.5 * scale_x - 0.5], [0.0, scale_y, 0.5 * scale_y - 0.5], [0.0, 0.0, 1.0]]
    )
    scaled: list[float] = (resize @ rows).ravel().tolist()
    return scaled
