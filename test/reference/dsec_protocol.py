"""One window of DSEC, event by event, as the published code encodes it."""

from __future__ import annotations

import math

import numpy as np


def dsec_tencode(
    events: list[tuple[int, int, int, int]], rectify_map: np.ndarray, start_ns: int, end_ns: int
) -> np.ndarray:
    """Return float64[3, H, W] of the events (t in ns, x, y, p) in [start, end).

    Ages count from the first to the last event of the window on the sensor. An event is moved by
    the map and used where its place, not yet cut to whole pixels, lies on the image.
    """
    height, width = rectify_map.shape[:2]
    image = np.zeros((3, height, width))
    window = [event for event in events if start_ns <= event[0] < end_ns]
    for t, x, y, p in window:
        first, last = window[0][0], window[-1][0]
        age = (t - first) / (last - first) if last > first else 0.0
        u, v = (float(np.float32(place)) for place in rectify_map[y, x])
        if 0 <= u < width and 0 <= v < height:
            red, blue = (1.0, 0.0) if p else (0.0, 1.0)
            image[:, math.floor(v), math.floor(u)] = red, 1.0 - age, blue
    return image


def dsec_voxel_grid(
    events: list[tuple[int, int, int, int]],
    rectify_map: np.ndarray,
    start_ns: int,
    end_ns: int,
    bins: int = 5,
) -> np.ndarray:
    """Return float64[bins, H, W], not normalised, of the events (t in ns, x, y, p) in [start, end).

    An event is moved by the map, not cut to whole pixels, and shared between the eight corners of
    pixels and bins around it, those outside of the image left out. What lies left of or above the
    image by less than a pixel is cut towards zero first, so that its corners are those of column
    or row 0.
    """
    height, width = rectify_map.shape[:2]
    grid = np.zeros((bins, height, width))
    window = [event for event in events if start_ns <= event[0] < end_ns]
    for t, x, y, p in window:
        first, last = window[0][0], window[-1][0]
        place = (bins - 1) * (t - first) / (last - first) if last > first else 0.0
        u, v = (float(np.float32(part)) for part in rectify_map[y, x])
        for b in (math.trunc(place), math.trunc(place) + 1):
            for row in (math.trunc(v), math.trunc(v) + 1):
                for column in (math.trunc(u), math.trunc(u) + 1):
                    if 0 <= b < bins and 0 <= row < height and 0 <= column < width:
                        share = (1 - abs(column - u)) * (1 - abs(row - v)) * (1 - abs(b - place))
                        grid[b, row, column] += share if p else -share
    return grid
