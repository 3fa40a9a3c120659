"""Tencode: the last event of each pixel as a colour, red ON, blue OFF, green its age.

Reference: Bartolomei et al., "Depth AnyEvent" (ICCV 2025), after Huang et al., "EventPoint:
Self-Supervised Interest Point Detection and Description for Event-based Camera" (WACV 2023).
Two protocols: `tencode` encodes events (their DSEC path), `tencode_voxel` goes through a voxel
grid, which rounds the age to the grid's bins (their MVSEC path).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError
from dae_ros.events.compilation import kernel
from dae_ros.events.packet import Events
from dae_ros.representation.voxel_grid import extent_of, voxel_grid

FloatImage: TypeAlias = NDArray[np.float32]


def tencode(
    events: Events,
    height: int,
    width: int,
    window: tuple[int, int] | None = None,
    *,
    extent_ns: tuple[int, int] | None = None,
) -> FloatImage:
    """Encode events as R = last event ON, G = its age, B = last event OFF; no event is black.

    G = 1 - (t - t_first) / (t_last - t_first) in whole microseconds, 1 for the oldest and 0 for
    the newest event, as the published weights were trained. One event, or several at one instant,
    give G = 1. The last event of a pixel in stream order wins all three channels.

    Args:
        events: sorted by time.
        height, width: sensor size in px.
        window: (start_ns, end_ns), whole microseconds; takes the place of t_first and t_last.
        extent_ns: t_first and t_last of the window's events where `events` are a part of them:
            those that stayed on the image when they were rectified. Without `window` only.

    Returns:
        float32[3, H, W] within 0..1.

    Raises:
        ConfigurationError: an event outside the sensor, the window or the extent, or a window
            without length.
    """
    image = np.zeros((3, height, width), np.float32)
    if window is None:
        if len(events) == 0:
            return image
        first_ns, last_ns = extent_of(events.t, extent_ns)
        first_us, last_us = first_ns // 1000, last_ns // 1000
    elif extent_ns is not None:
        raise ConfigurationError("Ages count from a window or an extent; give one of them.")
    else:
        first_us, last_us = _window_us(events, *window)
    outside = _encode(events.t, events.x, events.y, events.p, first_us, last_us, image)
    require_inside(outside, height, width)
    return image


def tencode_voxel(
    events: Events,
    height: int,
    width: int,
    bins: int = 5,
    *,
    extent_ns: tuple[int, int] | None = None,
) -> FloatImage:
    """Encode events through a voxel grid: the protocol of the published MVSEC evaluation.

    The age is rounded up to the next of `bins` levels, and the polarity of a pixel is the sign of
    the sum in its newest bin.

    Args:
        events: sorted by time.
        height, width: sensor size in px.
        bins: of the grid, at least 2; 5 in the publication.
        extent_ns: see `tencode`.

    Returns:
        float32[3, H, W] within 0..1.

    Raises:
        ConfigurationError: an event outside the sensor or the extent, or fewer than 2 bins.
    """
    grid = voxel_grid(events, height, width, bins, extent_ns=extent_ns)
    return tencode_from_voxel_grid(grid)


def tencode_from_voxel_grid(grid: FloatImage) -> FloatImage:
    """Encode a voxel grid: per pixel the newest bin that is not exactly zero.

    Args:
        grid: float32[B, H, W], B >= 2, signed and not normalised (a mean taken off would turn
            signs); oldest bin first.

    Returns:
        float32[3, H, W]: (1, 1 - i / (B - 1), 0) where bin i is positive, (0, same, 1) where it
        is negative, black where all bins are zero.

    Raises:
        ConfigurationError: fewer than 2 bins.
    """
    bins = grid.shape[0]
    if bins < 2:
        raise ConfigurationError("Tencode needs a voxel grid of at least 2 bins.", bins=bins)
    image = np.zeros((3, *grid.shape[1:]), np.float32)
    for index, values in enumerate(grid):
        occupied = values != 0
        image[0][occupied] = values[occupied] > 0
        image[1][occupied] = np.float32(1.0 - index / (bins - 1))
        image[2][occupied] = values[occupied] < 0
    return image


def require_inside(outside: int, height: int, width: int) -> None:
    """Raise ConfigurationError if a kernel met `outside` events that do not lie on the sensor."""
    if outside:
        raise ConfigurationError(
            f"{outside} events lie outside the sensor of {width}x{height} px; decode them with "
            "the size of the camera that made them.",
            outside=outside,
            height=height,
            width=width,
        )


def require_whole_microseconds(start_ns: int, end_ns: int) -> None:
    """Raise ConfigurationError unless the window has a length and bounds in whole microseconds.

    Event times are encoded in whole microseconds, and only such bounds cut them unambiguously.
    """
    if start_ns % 1000 or end_ns % 1000 or end_ns <= start_ns:
        raise ConfigurationError(
            f"The window [{start_ns}, {end_ns}) ns must have a positive length and bounds that "
            "are whole microseconds; round them.",
            start_ns=start_ns,
            end_ns=end_ns,
        )


def _window_us(events: Events, start_ns: int, end_ns: int) -> tuple[int, int]:
    require_whole_microseconds(start_ns, end_ns)
    if len(events) > 0 and (int(events.t[0]) < start_ns or int(events.t[-1]) >= end_ns):
        raise ConfigurationError(
            f"Events from {events.t[0]} to {events.t[-1]} ns lie outside the window "
            f"[{start_ns}, {end_ns}) ns; cut them first.",
            start_ns=start_ns,
            end_ns=end_ns,
        )
    return start_ns // 1000, end_ns // 1000


@kernel
def _encode(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    first_us: int,
    last_us: int,
    image: FloatImage,
) -> int:
    """Find each pixel's last event, then colour the pixels; return how many events lie outside."""
    height, width = image.shape[1], image.shape[2]
    rows, columns = np.uint64(height), np.uint64(width)
    last = np.zeros(height * width, np.int64)  # index of the event + 1
    outside = 0
    for k in range(t.size):
        row, column = np.uint64(y[k]), np.uint64(x[k])
        if row >= rows or column >= columns:
            outside += 1
        else:
            last[row * columns + column] = k + 1
    # 1 - dt / 1 with dt = 0 gives the G = 1 of a single instant.
    one, span = np.float32(1.0), np.float32(max(last_us - first_us, 1))
    for row in range(height):
        for column in range(width):
            k = last[row * width + column] - 1
            if k >= 0:
                image[0 if p[k] != 0 else 2, row, column] = one
                image[1, row, column] = one - np.float32(t[k] // 1000 - first_us) / span
    return outside
