"""The losses between depth maps, one pixel at a time."""

from __future__ import annotations

import math

import numpy as np


def line_fit(p: list[float], d: list[float], w: list[float]) -> tuple[float, float]:
    """Scale and shift of weighted least squares, by the normal equations as published."""
    a00 = a01 = a11 = b0 = b1 = 0.0
    for x, y, m in zip(p, d, w, strict=True):
        a00 += m * x * x
        a01 += m * x
        a11 += m
        b0 += m * x * y
        b1 += m * y
    determinant = a00 * a11 - a01 * a01
    if determinant == 0:
        return 0.0, 0.0
    return (a11 * b0 - a01 * b1) / determinant, (a00 * b1 - a01 * b0) / determinant


def scale_and_shift_invariant(
    prediction: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    alpha: float,
    scales: int,
    reduction: str,
) -> float:
    """The published loss of (B, H, W) maps; weight 0 is invalid."""
    data_sums, data_counts = [], []
    slope_sums: list[list[float]] = [[] for _ in range(scales)]
    slope_counts: list[list[float]] = [[] for _ in range(scales)]
    for p, d, w in zip(prediction.tolist(), target.tolist(), weight.tolist(), strict=True):
        height, width = len(p), len(p[0])
        pixels = [(y, x) for y in range(height) for x in range(width) if w[y][x] > 0]
        scale, shift = line_fit(
            [p[y][x] for y, x in pixels], [d[y][x] for y, x in pixels], [w[y][x] for y, x in pixels]
        )
        residual = {(y, x): scale * p[y][x] + shift - d[y][x] for y, x in pixels}
        data_sums.append(sum(w[y][x] * r * r for (y, x), r in residual.items()))
        data_counts.append(2 * sum(w[y][x] for y, x in pixels))
        for k in range(scales):
            step = 2**k
            slopes = count = 0.0
            for y in range(0, height, step):
                for x in range(0, width, step):
                    if (y, x) not in residual:
                        continue
                    count += w[y][x]
                    for other in ((y, x + step), (y + step, x)):
                        if other in residual:
                            lesser = min(w[y][x], w[other[0]][other[1]])
                            slopes += lesser * abs(residual[other] - residual[y, x])
            slope_sums[k].append(slopes)
            slope_counts[k].append(count)
    loss = reduce(data_sums, data_counts, reduction)
    for sums, counts in zip(slope_sums, slope_counts, strict=True):
        loss += alpha * reduce(sums, counts, reduction)
    return loss


def reduce(sums: list[float], counts: list[float], reduction: str) -> float:
    """One mean over the batch, or the mean of the images' means; 0 / 0 is 0."""
    if reduction == "batch":
        return sum(sums) / sum(counts) if sum(counts) else 0.0
    return sum(s / c if c else 0.0 for s, c in zip(sums, counts, strict=True)) / len(sums)


def normalised_difference(
    prediction: np.ndarray,
    target: np.ndarray,
    mask: np.ndarray,
    segment_counts: tuple[int, ...],
    minimum_pixels: int,
) -> float:
    """The mean over images and pixels of |N(p) - N(d)|, averaged over the contexts of a pixel.

    An image without a context is 0.
    """
    images = []
    for p, d, m in zip(prediction, target, mask, strict=True):
        ps = [float(v) for v, ok in zip(p.ravel(), m.ravel(), strict=True) if ok]
        ds = [float(v) for v, ok in zip(d.ravel(), m.ravel(), strict=True) if ok]
        errors: list[list[float]] = [[] for _ in ds]
        low, high = min(ds, default=0.0), max(ds, default=0.0)
        for segments in segment_counts:
            for index in range(segments):
                start = low + (high - low) * index / segments
                end = low + (high - low) * (index + 1) / segments
                last = index == segments - 1
                inside = [
                    i for i, v in enumerate(ds) if start <= v and (v < end or (last and v <= high))
                ]
                if len(inside) < minimum_pixels:
                    continue
                p_normal = normalise([ps[i] for i in inside])
                d_normal = normalise([ds[i] for i in inside])
                for i, a, b in zip(inside, p_normal, d_normal, strict=True):
                    errors[i].append(abs(a - b))
        pixels = [sum(e) / len(e) for e in errors if e]
        images.append(sum(pixels) / len(pixels) if pixels else 0.0)
    return sum(images) / len(images)


def normalise(values: list[float]) -> list[float]:
    """(v - lower median) / mean absolute deviation."""
    median = sorted(values)[(len(values) - 1) // 2]
    deviation = math.fsum(abs(v - median) for v in values) / len(values)
    return [(v - median) / deviation for v in values]
