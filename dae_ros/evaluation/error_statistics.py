"""Where errors lie: over depth, and over the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.scoring import ScoredMaps

EDGES_M = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0)


@dataclass(frozen=True, slots=True)
class DepthBin:
    """The pixels of a range of ground truth.

    Attributes:
        from_m, to_m: from_m <= depth < to_m.
        pixels: counted.
        abs_rel, delta_1: their mean and share, NaN of nothing.
    """

    from_m: float
    to_m: float
    pixels: int
    abs_rel: float
    delta_1: float


class ErrorOverDepth:
    """Sums errors by the depth of the ground truth; every pixel weighs the same."""

    def __init__(self) -> None:
        self._pixels = np.zeros(len(EDGES_M) - 1, np.int64)
        self._error = np.zeros(len(EDGES_M) - 1, np.float64)
        self._within = np.zeros(len(EDGES_M) - 1, np.int64)

    def add(self, maps: ScoredMaps) -> None:
        """Take the counted pixels of a frame; those beyond the last edge are left out."""
        target = maps.target[maps.counted].astype(np.float64)
        prediction = maps.prediction[maps.counted].astype(np.float64)
        index = np.digitize(target, EDGES_M) - 1
        inside = index < len(EDGES_M) - 1
        target, prediction, index = target[inside], prediction[inside], index[inside]
        bins = len(self._pixels)
        self._pixels += np.bincount(index, minlength=bins)
        self._error += np.bincount(index, np.abs(target - prediction) / target, minlength=bins)
        # A prediction at or below 0 is further away than any factor.
        near = (prediction < 1.25 * target) & (target < 1.25 * prediction)
        self._within += np.bincount(index[near], minlength=bins)

    def bins(self) -> tuple[DepthBin, ...]:
        """Return every range, empty ones included."""
        with np.errstate(invalid="ignore"):
            abs_rel, delta_1 = self._error / self._pixels, self._within / self._pixels
        return tuple(
            DepthBin(
                EDGES_M[k], EDGES_M[k + 1], int(self._pixels[k]), float(abs_rel[k]),
                float(delta_1[k]),
            )
            for k in range(len(self._pixels))
        )  # fmt: skip


class ErrorOverImage:
    """Sums errors by pixel over the frames of a sequence."""

    def __init__(self) -> None:
        self._error: NDArray[np.float64] | None = None
        self._count: NDArray[np.int64] | None = None

    def add(self, maps: ScoredMaps) -> None:
        """Take the counted pixels of a frame.

        Raises:
            ConfigurationError: a frame of another size than those before.
        """
        if self._error is None or self._count is None:
            self._error = np.zeros(maps.target.shape, np.float64)
            self._count = np.zeros(maps.target.shape, np.int64)
        if self._error.shape != maps.target.shape:
            raise ConfigurationError(
                f"The size changes from {self._error.shape} to {maps.target.shape} within a "
                "sequence; evaluate the two parts apart.",
                before=self._error.shape,
                after=maps.target.shape,
            )
        target = maps.target[maps.counted].astype(np.float64)
        self._error[maps.counted] += np.abs(target - maps.prediction[maps.counted]) / target
        self._count[maps.counted] += 1

    def mean(self) -> NDArray[np.float32] | None:
        """Return the mean Abs Rel of each pixel, float32[H, W], NaN where none was counted.

        None before the first frame.
        """
        if self._error is None or self._count is None:
            return None
        with np.errstate(invalid="ignore"):
            return (self._error / self._count).astype(np.float32)
