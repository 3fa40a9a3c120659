"""Moving a relative prediction onto ground truth before it is scored, and what has to be beaten.

| method | fit over the mask |
|---|---|
| `none` | nothing: the prediction is metres |
| `median` | one factor, median depth / median prediction |
| `lstsq_published` | scale and shift, least squares, any sign, float32; 0 and 0 if undetermined |
| `lstsq` | scale and shift, least squares with scale >= 0, float64 |
| `lad` | scale and shift, exact least absolute deviations, any sign, float64 |

Ground truth is what a robot does not have: a score after alignment says nothing about metres.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError

Method: TypeAlias = Literal["none", "median", "lstsq_published", "lstsq", "lad"]
METHODS: tuple[Method, ...] = get_args(Method)

DepthMap: TypeAlias = NDArray[np.floating[Any]]
Mask: TypeAlias = NDArray[np.bool_]
Vector: TypeAlias = NDArray[np.float64]

# A spread below this part of the magnitude is the rounding of float32, not shape.
CONSTANT = 1e-6


@dataclass(frozen=True, slots=True)
class Alignment:
    """metres = scale prediction + shift.

    Attributes:
        method: how it was found.
        scale, shift: the fit. A scale of 0 means that the best that can be made of the
            prediction is a constant.
        determined: False where nothing was valid or the prediction does not vary.
    """

    method: Method
    scale: float
    shift: float
    determined: bool

    def apply(self, prediction: DepthMap) -> DepthMap:
        """Return the moved prediction; same dtype, metres."""
        dtype = prediction.dtype.type
        return np.asarray(dtype(self.scale) * prediction + dtype(self.shift))


def align(method: Method, prediction: DepthMap, target: DepthMap, mask: Mask) -> Alignment:
    """Fit a prediction to ground truth.

    Args:
        method: see the module.
        prediction: [H, W], any unit; growing with depth.
        target: [H, W], metres.
        mask: bool[H, W]; both maps must be finite there.

    Raises:
        ConfigurationError: an unknown method, or shapes that differ.
    """
    if not prediction.shape == target.shape == mask.shape:
        raise ConfigurationError(
            f"Prediction {prediction.shape}, ground truth {target.shape} and mask {mask.shape} "
            "must have one shape.",
            prediction=prediction.shape,
            target=target.shape,
            mask=mask.shape,
        )
    if method == "none":
        return Alignment(method, 1.0, 0.0, determined=True)
    if method == "lstsq_published":
        return _published_least_squares(
            prediction[mask].astype(np.float32), target[mask].astype(np.float32)
        )
    p, d = prediction[mask].astype(np.float64), target[mask].astype(np.float64)
    if method == "median":
        return _median_ratio(p, d)
    if method == "lstsq":
        return _least_squares(p, d)
    if method == "lad":
        return _least_absolute_deviations(p, d)
    raise ConfigurationError(
        f"There is no alignment '{method}'; use one of {', '.join(METHODS)}.", method=method
    )


def best_constant(target: DepthMap, mask: Mask) -> float:
    """Return the constant depth with the least Abs Rel on a frame, metres; NaN of nothing.

    What a network must beat to have seen anything. It is the median weighted with 1 / depth.

    Args:
        target: [H, W], metres, > 0 inside the mask.
        mask: bool[H, W].
    """
    d = target[mask].astype(np.float64)
    return weighted_median(d, 1.0 / d) if d.size else np.nan


def mean_depth_map(
    depths: Iterable[DepthMap], clip_distance_m: float = 80.0
) -> NDArray[np.float32]:
    """Return the mean depth of each pixel over a training set, metres.

    What a network must beat to have seen more than where cameras usually look.

    Args:
        depths: stacks [N, H, W] of one H and W, metres; 0, negative, NaN, infinity, and depth at or
            beyond the clip distance are invalid, as in scores.
        clip_distance_m: of the scoring.

    Returns:
        float32[H, W], NaN where no map was valid.

    Raises:
        ConfigurationError: no stack, or different sizes.
    """
    total: Vector | None = None
    count: NDArray[np.int64] | None = None
    for stack in depths:
        if total is None or count is None:
            total, count = np.zeros(stack.shape[1:]), np.zeros(stack.shape[1:], np.int64)
        if stack.shape[1:] != total.shape:
            raise ConfigurationError(
                f"A mean needs maps of one size, not {total.shape} and {stack.shape[1:]}.",
                before=total.shape,
                after=stack.shape[1:],
            )
        valid = (stack > 0) & (stack < clip_distance_m)
        total += stack.sum(axis=0, dtype=np.float64, where=valid)
        count += valid.sum(axis=0)
    if total is None or count is None:
        raise ConfigurationError("There is no depth to take a mean of.")
    mean = np.full(total.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.astype(np.float32)


def weighted_median(values: Vector, weights: Vector) -> float:
    """Return the value at which the weights below and above first balance (the lower one).

    Args:
        values, weights: of one length, at least 1; weights >= 0, not all 0.
    """
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(cumulated, 0.5 * cumulated[-1])]])


def _median_ratio(p: Vector, d: Vector) -> Alignment:
    # The lower median, as torch has it: always a value that occurs.
    middle = (d.size - 1) // 2
    if d.size == 0 or not (p_median := np.partition(p, middle)[middle]) > 0:
        return Alignment("median", 0.0, 0.0, determined=False)
    return Alignment("median", float(np.partition(d, middle)[middle] / p_median), 0.0, True)


def _published_least_squares(p: NDArray[np.float32], d: NDArray[np.float32]) -> Alignment:
    """Solve the published normal equations in float32, without a thought for their sign."""
    a00, a01, a11 = (p * p).sum(), p.sum(), np.float32(p.size)
    b0, b1 = (p * d).sum(), d.sum()
    determinant = a00 * a11 - a01 * a01
    if determinant == 0:
        return Alignment("lstsq_published", 0.0, 0.0, determined=False)
    scale = (a11 * b0 - a01 * b1) / determinant
    shift = (a00 * b1 - a01 * b0) / determinant
    return Alignment("lstsq_published", float(scale), float(shift), determined=True)


def _least_squares(p: Vector, d: Vector) -> Alignment:
    """Minimise over scale >= 0: below zero lies a map that says far where it is near."""
    if d.size == 0:
        return Alignment("lstsq", 0.0, 0.0, determined=False)
    p_mean, d_mean = p.mean(), d.mean()
    variance = np.square(p - p_mean).mean()
    if not variance > (CONSTANT * p_mean) ** 2:
        return Alignment("lstsq", 0.0, float(d_mean), determined=False)
    # The error is a parabola in the scale, so the bound is the minimum when its apex is below.
    scale = max(0.0, float(((p - p_mean) * (d - d_mean)).mean() / variance))
    return Alignment("lstsq", scale, float(d_mean - scale * p_mean), determined=True)


def _least_absolute_deviations(p: Vector, d: Vector) -> Alignment:
    """Descend over lines through data points (Bloomfield and Steiger) to the exact minimum.

    The best line through a pivot is a weighted median of the slopes to all other points, and
    goes through the point that gave it: the next pivot.
    """
    if d.size == 0:
        return Alignment("lad", 0.0, 0.0, determined=False)
    start = _least_squares(p, d)
    if not start.determined:
        return Alignment("lad", 0.0, float(np.median(d)), determined=False)
    pivot = int(np.argmin(np.abs(start.scale * p + start.shift - d)))
    best, scale, shift = np.inf, start.scale, start.shift
    while True:
        run, rise = p - p[pivot], d - d[pivot]
        others = np.flatnonzero(run)
        slopes = rise[others] / run[others]
        slope = weighted_median(slopes, np.abs(run[others]))
        cost = float(np.abs(slope * run - rise).sum())
        # Costs fall strictly and lines are finitely many; the margin is for rounding.
        if not cost < best * (1 - 1e-12):
            return Alignment("lad", scale, shift, determined=True)
        best, scale, shift = cost, slope, float(d[pivot] - slope * p[pivot])
        pivot = int(others[np.argmin(np.abs(slopes - slope))])
