"""Tencode one event at a time, in plain Python with float64."""

from __future__ import annotations

import numpy as np


def tencode_pixels(
    times_ns: list[int], xs: list[int], ys: list[int], ps: list[int], height: int, width: int
) -> np.ndarray:
    """Return float64[3, H, W]: R last event ON, G age over the events' extent, B last event OFF."""
    image = np.zeros((3, height, width))
    for t, x, y, p in zip(times_ns, xs, ys, ps, strict=True):
        first, last = times_ns[0] // 1000, times_ns[-1] // 1000
        age = 0.0 if first == last else (t // 1000 - first) / (last - first)
        image[:, y, x] = (1.0, 1.0 - age, 0.0) if p == 1 else (0.0, 1.0 - age, 1.0)
    return image
