"""The scores of a clip as the guard takes them, pixel by pixel."""

from __future__ import annotations

from typing import Any


def aligned_scores(
    maps: Any, depth: Any, weight: Any, trim: float, fewest: int
) -> tuple[float, float]:
    """Return mean Abs Rel and delta_1 over windows with enough pixels, after a trimmed fit."""
    errors, shares = [], []
    for p_map, d_map, w_map in zip(maps, depth, weight, strict=True):
        pixels = [
            (float(p), float(d), float(w))
            for p_row, d_row, w_row in zip(p_map, d_map, w_map, strict=True)
            for p, d, w in zip(p_row, d_row, w_row, strict=True)
            if w > 0
        ]
        if len(pixels) < fewest:
            continue
        scale, shift = _fit(pixels)
        by_residual = sorted(pixels, key=lambda one: abs(scale * one[0] + shift - one[1]))
        kept = by_residual[: len(pixels) - int(len(pixels) * trim)]
        scale, shift = _fit(kept)
        if scale <= 0:
            scale, shift = 0.0, _mean([d for _, d, _ in kept], [w for _, _, w in kept])
        weights = [w for _, _, w in pixels]
        moved = [(scale * p + shift, d) for p, d, _ in pixels]
        errors.append(_mean([abs(m - d) / d for m, d in moved], weights))
        shares.append(_mean([float(m > 0 and max(m / d, d / m) < 1.25) for m, d in moved], weights))
    return sum(errors) / len(errors), sum(shares) / len(shares)


def _fit(pixels: list[tuple[float, float, float]]) -> tuple[float, float]:
    weights = [w for _, _, w in pixels]
    p_mean = _mean([p for p, _, _ in pixels], weights)
    d_mean = _mean([d for _, d, _ in pixels], weights)
    variance = _mean([(p - p_mean) ** 2 for p, _, _ in pixels], weights)
    covariance = _mean([(p - p_mean) * (d - d_mean) for p, d, _ in pixels], weights)
    scale = covariance / variance
    return scale, d_mean - scale * p_mean


def _mean(values: list[float], weights: list[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
