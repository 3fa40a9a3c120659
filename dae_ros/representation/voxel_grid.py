"""Voxel grid: events as signed weights, shared between the two nearest time bins.

Reference: Zhu et al., "Unsupervised Event-based Learning of Optical Flow, Depth, and Egomotion"
(CVPR 2019), in the two forms that event depth networks use: whole pixels (E2Depth) and
coordinates between pixels, shared between four neighbours (DSEC, rectified events).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError
from dae_ros.events.compilation import kernel
from dae_ros.events.packet import Events

FloatImage: TypeAlias = NDArray[np.float32]


def voxel_grid(
    events: Events,
    height: int,
    width: int,
    bins: int,
    normalise: bool = False,
    *,
    extent_ns: tuple[int, int] | None = None,
) -> FloatImage:
    """Accumulate events, ON as +1 and OFF as -1, bilinear in time over the events' extent.

    Events at one instant all fall into bin 0; no events give zeros.

    Args:
        events: sorted by time.
        height, width: sensor size in px.
        bins: time bins, at least 2; the first event lies at bin 0, the last at `bins - 1`.
        normalise: give the non-zero voxels mean 0 and standard deviation 1; where they are all
            equal, only their mean is taken off.
        extent_ns: times of the first and the last event of the window, where `events` are a part
            of it; None where they are all.

    Returns:
        float32[B, H, W], oldest bin first.

    Raises:
        ConfigurationError: an event outside the sensor or the extent, or fewer than 2 bins.
    """
    _require_bins(bins)
    grid = np.zeros((bins, height, width), np.float32)
    if len(events) == 0:
        return grid
    if int(events.x.max()) >= width or int(events.y.max()) >= height:
        raise ConfigurationError(
            f"Events lie outside the sensor of {width}x{height} px; decode them with the size of "
            "the camera that made them.",
            height=height,
            width=width,
        )
    extent_ns = extent_of(events.t, extent_ns)
    _accumulate(events.x, events.y, _bin_position(events.t, bins, extent_ns), events.p, grid)
    return _normalised(grid) if normalise else grid


def voxel_grid_of_points(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    t_ns: NDArray[np.int64],
    p: NDArray[np.uint8],
    height: int,
    width: int,
    bins: int,
    normalise: bool = False,
) -> FloatImage:
    """Accumulate events with coordinates between pixels (rectified events), trilinear.

    As published, coordinates are cut towards zero before weighting: a point within a pixel left
    of or above the frame still reaches the first column or row. Corners outside are left out.

    Args:
        x, y: float32[N], px.
        t_ns: int64[N], ns, sorted.
        p: uint8[N], 1 ON, 0 OFF.
        height, width, bins, normalise: as `voxel_grid`.

    Returns:
        float32[B, H, W], oldest bin first.

    Raises:
        ConfigurationError: fewer than 2 bins.
    """
    _require_bins(bins)
    grid = np.zeros((bins, height, width), np.float32)
    if t_ns.size > 0:
        _accumulate_points(x, y, _bin_position(t_ns, bins, extent_of(t_ns, None)), p, grid)
    return _normalised(grid) if normalise else grid


def extent_of(t_ns: NDArray[np.int64], extent_ns: tuple[int, int] | None) -> tuple[int, int]:
    """Return the times that events are placed between: the given ones, or the first and last.

    Args:
        t_ns: int64[N], sorted, N >= 1.
        extent_ns: see `voxel_grid`.

    Raises:
        ConfigurationError: an event outside the extent.
    """
    first_ns, last_ns = int(t_ns[0]), int(t_ns[-1])
    if extent_ns is None:
        return first_ns, last_ns
    if first_ns < extent_ns[0] or last_ns > extent_ns[1]:
        raise ConfigurationError(
            f"Events from {first_ns} to {last_ns} ns lie outside the extent {extent_ns} ns of "
            "their own window; give its first and last event.",
            extent_ns=extent_ns,
        )
    return extent_ns


def normalise_voxel_grid(grid: FloatImage) -> FloatImage:
    """Return a stored grid as `voxel_grid` with `normalise` would have made it.

    Args:
        grid: float32[B, H, W], signed and not normalised.
    """
    return _normalised(grid.copy())


def _require_bins(bins: int) -> None:
    if bins < 2:
        raise ConfigurationError("A voxel grid needs at least 2 bins.", bins=bins)


def _bin_position(
    t_ns: NDArray[np.int64], bins: int, extent_ns: tuple[int, int]
) -> NDArray[np.float32]:
    """Return where each event lies between bin 0 and bin B - 1, float32[N]."""
    first_ns, last_ns = extent_ns
    elapsed: NDArray[np.float32] = (t_ns - first_ns).astype(np.float32)
    if last_ns > first_ns:
        elapsed *= np.float32(bins - 1)
        elapsed /= np.float32(last_ns - first_ns)
    return elapsed


def _normalised(grid: FloatImage) -> FloatImage:
    occupied = grid != 0
    values = grid[occupied].astype(np.float64)
    if values.size == 0:
        return grid
    deviation = float(values.std())
    grid[occupied] = (values - values.mean()) / (deviation if deviation > 0.0 else 1.0)
    return grid


@kernel
def _accumulate(
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    position: NDArray[np.float32],
    p: NDArray[np.uint8],
    grid: FloatImage,
) -> None:
    """Add the weights of all earlier bins, then of all later ones, the order of the publication."""
    last = grid.shape[0] - 1
    one = np.float32(1.0)
    for k in range(x.size):
        lower = int(position[k])
        sign = one if p[k] != 0 else -one
        grid[lower, y[k], x[k]] += sign * (one - (position[k] - np.float32(lower)))
    for k in range(x.size):
        lower = int(position[k])
        sign = one if p[k] != 0 else -one
        if lower < last:
            grid[lower + 1, y[k], x[k]] += sign * (position[k] - np.float32(lower))


@kernel
def _accumulate_points(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    position: NDArray[np.float32],
    p: NDArray[np.uint8],
    grid: FloatImage,
) -> None:
    bins, height, width = grid.shape
    one = np.float32(1.0)
    for k in range(x.size):
        left, top, lower = int(x[k]), int(y[k]), int(position[k])
        sign = one if p[k] != 0 else -one
        for b in range(lower, lower + 2):
            for row in range(top, top + 2):
                for column in range(left, left + 2):
                    if 0 <= b < bins and 0 <= row < height and 0 <= column < width:
                        grid[b, row, column] += (
                            sign
                            * (one - abs(np.float32(column) - x[k]))
                            * (one - abs(np.float32(row) - y[k]))
                            * (one - abs(np.float32(b) - position[k]))
                        )
