"""Where in the image the events of a clip are, and how alike two clips are in that."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.distillation.online.observation import EventClip

# Cells of a map, rows and columns.
DENSITY_CELLS = 12, 16


def density_map(observation: EventClip) -> NDArray[np.float32]:
    """Return the share of pixels with events in each of 12 x 16 cells, over all windows."""
    active: NDArray[np.float64] = np.count_nonzero(observation.windows, axis=0) / len(observation)
    for axis, cells in enumerate(DENSITY_CELLS):
        edges = np.arange(cells + 1) * active.shape[axis] // cells
        sums = np.add.reduceat(active, edges[:-1], axis=axis)
        active = sums / np.expand_dims(np.diff(edges), 1 - axis)
    return np.asarray(active, np.float32)


def map_correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the correlation of two maps; 1 where both are even, 0 where one is.

    Noise of pixels is much the same everywhere, and would make any two maps alike.
    """
    one, other = (values.astype(np.float64) - float(values.mean()) for values in (first, second))
    a, b = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if min(a, b) <= 1e-6 * first.size:
        return float(max(a, b) <= 1e-6 * first.size)
    return float(np.sum(one * other)) / (a * b)
