"""The numbers of one frame: as DepthAnyEvent publishes them, and as everyone else does.

| name | `published_metrics` (eps = 1e-5) | `standard_metrics` |
|---|---|---|
| `abs_rel` | mean |d - p| / (d + eps) | mean |d - p| / d |
| `sq_rel` | mean (d - p)^2 / (d^2 + eps), a ratio | mean (d - p)^2 / d, metres |
| `rmse` | sqrt mean (d - p)^2 | the same |
| `rmse_log` | sqrt mean L^2, L = ln(d + eps) - ln(p + eps) | L = ln d - ln max(p, 1e-5) |
| `si_log` | mean L^2 - (mean L)^2 | the same |
| `delta_k` | share of max(d / (p + eps), p / (d + eps)) <= 1.25^k | of max(d / p, p / d) < 1.25^k |
| `mean_error` | mean |d - p| | the same |
| over | 0 < d < max d AND 0 < p < max d | the mask |
| ground truth | `stretched_target`: a frame's farthest pixel becomes 80 m | as it is |
| per range of d | every metric, `..._10m`, `_20m`, `_30m` | `mean_error_10m`, ... |

The published mask drops what a network gets most wrong: a prediction clipped to 0 or 80 m counts
nowhere. The two families agree on `rmse` and `mean_error` of a frame that reaches 80 m, and on
nothing else; never put them into one table.

Sources: arXiv 2509.15224 and its published evaluation (after E2Depth, arXiv 2010.08350); the
standard ones are those of Eigen et al., arXiv 1406.2283.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.evaluation.alignment import DepthMap, Mask

PUBLISHED_EPSILON = 1e-5
FLOOR_M = 1e-5  # of a prediction in logarithms and ratios: an aligned one can be negative
RANGES_M = (10.0, 20.0, 30.0)

Values = NDArray[np.floating[Any]]


def stretched_target(depth: DepthMap, clip_distance_m: float = 80.0) -> NDArray[np.float32]:
    """Return ground truth as published: clipped, divided by the frame's maximum, times the clip.

    If the farthest valid pixel of a frame is at 60 m, every depth grows by a third.

    Args:
        depth: [H, W], metres; 0 or NaN is invalid and becomes 0.
        clip_distance_m: of the data set.

    Returns:
        float32[H, W]; all 0 where nothing is valid.
    """
    clipped = np.clip(np.nan_to_num(depth, nan=0.0), 0, clip_distance_m).astype(np.float32)
    farthest = clipped.max(initial=0.0)
    if farthest == 0:
        return clipped
    return np.asarray(clipped / farthest * np.float32(clip_distance_m), np.float32)


def published_pixels(prediction: DepthMap, target: DepthMap) -> Mask:
    """Return the pixels that the published metrics count, bool[H, W].

    Args:
        prediction, target: see `published_metrics`.
    """
    farthest = target.max(initial=0.0)
    within = (target > 0) & (target < farthest) & (prediction > 0) & (prediction < farthest)
    return np.asarray(within, np.bool_)


def published_metrics(
    prediction: DepthMap,
    target: DepthMap,
    mask: Mask,
    ranges_m: Sequence[float] = RANGES_M,
) -> dict[str, float]:
    """Return the published metrics of one frame, over all depths and below each range.

    Args:
        prediction: [H, W], metres, aligned and clipped to the clip distance.
        target: [H, W], of `stretched_target`.
        mask: bool[H, W], pixels to count besides the published conditions.
        ranges_m: upper ends, of the stretched target. The alignment stays that of the frame.

    Returns:
        Name -> value, NaN where no pixel counts: the metrics of the module's table and
        `mean_target`, `median_target`, `mean_prediction`, `median_prediction`,
        `median_difference` (metres), `valid_pixels`; each also with the suffix `_10m`, ...
    """
    counted = mask & published_pixels(prediction, target)
    metrics = _published(prediction[counted], target[counted])
    for range_m in ranges_m:
        below = counted & (target < range_m)
        part = _published(prediction[below], target[below])
        metrics |= {f"{name}_{range_m:g}m": value for name, value in part.items()}
    return metrics


def standard_metrics(
    prediction: DepthMap,
    target: DepthMap,
    mask: Mask,
    ranges_m: Sequence[float] = RANGES_M,
) -> dict[str, float]:
    """Return the usual metrics of one frame, and the mean error below each range.

    Args:
        prediction: [H, W], metres, aligned if it must be; finite inside the mask.
        target: [H, W], metres, > 0 inside the mask.
        mask: bool[H, W], pixels to count; all of them count.
        ranges_m: upper ends, of the ground truth.

    Returns:
        Name -> value, NaN where no pixel counts: the metrics of the module's table and
        `valid_pixels`.
    """
    p, d = prediction[mask].astype(np.float64), target[mask].astype(np.float64)
    error = np.abs(d - p)
    floored = np.maximum(p, FLOOR_M)
    log_error = np.log(d) - np.log(floored)
    ratio = np.maximum(floored / d, d / floored)
    metrics = {
        "abs_rel": mean(error / d),
        "sq_rel": mean(np.square(error) / d),
        "rmse": float(np.sqrt(mean(np.square(error)))),
        "rmse_log": float(np.sqrt(mean(np.square(log_error)))),
        "si_log": mean(np.square(log_error)) - mean(log_error) ** 2,
        "delta_1": mean(ratio < 1.25),
        "delta_2": mean(ratio < 1.25**2),
        "delta_3": mean(ratio < 1.25**3),
        "mean_error": mean(error),
        "valid_pixels": float(d.size),
    }
    return metrics | {f"mean_error_{r:g}m": mean(error[d < r]) for r in ranges_m}


def mean(values: Values | Mask) -> float:
    """Return the mean of a vector in float64; NaN of nothing, without a warning."""
    return float(values.mean(dtype=np.float64)) if values.size else np.nan


def _published(p: DepthMap, d: DepthMap) -> dict[str, float]:
    # The values stay float32, as published, and only the means are taken in float64: whether a
    # ratio is <= 1.25 must not depend on digits that the published code does not have.
    eps = np.float32(PUBLISHED_EPSILON)
    p, d = p.astype(np.float32), d.astype(np.float32)
    error = np.abs(d - p)
    log_error = np.log(d + eps) - np.log(p + eps)
    ratio = np.maximum(d / (p + eps), p / (d + eps))
    d_median, p_median = (float(np.median(v)) if v.size else np.nan for v in (d, p))
    return {
        "abs_rel": mean(error / (d + eps)),
        "sq_rel": mean(np.square(error) / (np.square(d) + eps)),
        "rmse": float(np.sqrt(mean(np.square(error)))),
        "rmse_log": float(np.sqrt(mean(np.square(log_error)))),
        "si_log": mean(np.square(log_error)) - mean(log_error) ** 2,
        "delta_1": mean(ratio <= 1.25),
        "delta_2": mean(ratio <= 1.25**2),
        "delta_3": mean(ratio <= 1.25**3),
        "mean_error": mean(error),
        "mean_target": mean(d),
        "median_target": d_median,
        "mean_prediction": mean(p),
        "median_prediction": p_median,
        "median_difference": abs(d_median - p_median),
        "valid_pixels": float(d.size),
    }
