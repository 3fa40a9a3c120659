"""Metrics and alignments of one depth map, one pixel at a time."""

from __future__ import annotations

import itertools
import math
import statistics


def published(prediction: list[float], target: list[float]) -> dict[str, float]:
    """The authors' metrics of already prepared values, over the pixels that they count."""
    eps = 1e-5
    farthest = max(target)
    pairs = [
        (p, d)
        for p, d in zip(prediction, target, strict=True)
        if 0 < d < farthest and 0 < p < farthest
    ]
    logs = [math.log(d + eps) - math.log(p + eps) for p, d in pairs]
    ratios = [max(d / (p + eps), p / (d + eps)) for p, d in pairs]
    ps, ds = [p for p, _ in pairs], [d for _, d in pairs]
    return {
        "abs_rel": statistics.fmean(abs(d - p) / (d + eps) for p, d in pairs),
        "sq_rel": statistics.fmean((d - p) ** 2 / (d * d + eps) for p, d in pairs),
        "rmse": math.sqrt(statistics.fmean((d - p) ** 2 for p, d in pairs)),
        "rmse_log": math.sqrt(statistics.fmean(v * v for v in logs)),
        "si_log": statistics.pvariance(logs),
        "delta_1": sum(r <= 1.25 for r in ratios) / len(ratios),
        "delta_2": sum(r <= 1.25**2 for r in ratios) / len(ratios),
        "delta_3": sum(r <= 1.25**3 for r in ratios) / len(ratios),
        "mean_error": statistics.fmean(abs(d - p) for p, d in pairs),
        "mean_target": statistics.fmean(ds),
        "median_target": statistics.median(ds),
        "mean_prediction": statistics.fmean(ps),
        "median_prediction": statistics.median(ps),
        "median_difference": abs(statistics.median(ds) - statistics.median(ps)),
        "valid_pixels": len(pairs),
    }


def standard(prediction: list[float], target: list[float]) -> dict[str, float]:
    """The usual metrics over all given pixels."""
    pairs = list(zip(prediction, target, strict=True))
    logs = [math.log(d) - math.log(max(p, 1e-5)) for p, d in pairs]
    ratios = [max(max(p, 1e-5) / d, d / max(p, 1e-5)) for p, d in pairs]
    metrics = {
        "abs_rel": statistics.fmean(abs(p - d) / d for p, d in pairs),
        "sq_rel": statistics.fmean((p - d) ** 2 / d for p, d in pairs),
        "rmse": math.sqrt(statistics.fmean((p - d) ** 2 for p, d in pairs)),
        "rmse_log": math.sqrt(statistics.fmean(v * v for v in logs)),
        "si_log": statistics.pvariance(logs),
        "mean_error": statistics.fmean(abs(p - d) for p, d in pairs),
        "valid_pixels": len(pairs),
    }
    for k in (1, 2, 3):
        metrics[f"delta_{k}"] = sum(r < 1.25**k for r in ratios) / len(ratios)
    for limit in (10, 20, 30):
        errors = [abs(p - d) for p, d in pairs if d < limit]
        metrics[f"mean_error_{limit}m"] = statistics.fmean(errors) if errors else math.nan
    return metrics


def deviation(prediction: list[float], target: list[float], scale: float, shift: float) -> float:
    """The sum of absolute errors of a fit."""
    return math.fsum(abs(scale * p + shift - d) for p, d in zip(prediction, target, strict=True))


def least_deviation(prediction: list[float], target: list[float]) -> float:
    """The least possible `deviation`: a best line goes through two of the points."""
    best = math.inf
    for (p, d), (q, e) in itertools.combinations(zip(prediction, target, strict=True), 2):
        if p != q:
            scale = (d - e) / (p - q)
            best = min(best, deviation(prediction, target, scale, d - scale * p))
    return best


def robust_scale(prediction: list[float], target: list[float]) -> float:
    """The fork's `scale`: ten steps of reweighting towards least absolute deviations."""
    scale = statistics.fmean(target) / statistics.fmean(prediction)
    for _ in range(10):
        above = below = 0.0
        for p, d in zip(prediction, target, strict=True):
            weight = 1 / (abs(scale * p - d) + 1e-8)
            above += weight * p * d
            below += weight * p * p
        scale = above / below
    return max(scale, 1e-3)
