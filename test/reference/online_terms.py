"""The terms of online learning, pixel by pixel, as the formulas of the documentation read."""

from __future__ import annotations

import math
from statistics import fmean, median
from typing import Any

Image = list[list[float]]


def log_depth_term(p: Any, d: Any, w: Any, sharp: Any, trim: float, alpha: float) -> float:
    """Mean over images of the trimmed |ln p - ln d|, plus alpha times the gradient term."""
    data, edges = [], []
    for image in range(len(p)):
        height, width = len(p[image]), len(p[image][0])
        residual = {}
        for y in range(height):
            for x in range(width):
                if w[image][y][x] > 0:
                    r = math.log(p[image][y][x] + 1e-6) - math.log(d[image][y][x] + 1e-6)
                    residual[y, x] = r
        count = len(residual) - int(len(residual) * trim)
        kept = dict(sorted(residual.items(), key=lambda item: abs(item[1]))[:count])
        weight = {place: w[image][place[0]][place[1]] for place in kept}
        data.append(sum(weight[k] * abs(kept[k]) for k in kept) / sum(weight.values()))
        total = 0.0
        if sharp[image]:
            for stride in (1, 2, 4, 8):
                grid = {k: v for k, v in kept.items() if k[0] % stride == k[1] % stride == 0}
                slope = 0.0
                for (y, x), value in grid.items():
                    for near in ((y, x + stride), (y + stride, x)):
                        if near in grid:
                            pair = min(weight[y, x], weight[near])
                            slope += pair * abs(grid[near] - value)
                size = sum(weight[k] for k in grid)
                total += slope / size if size else 0.0
        edges.append(total)
    return fmean(data) + alpha * fmean(edges)


def pin_term(p: Any, original: Any) -> float:
    """Mean over images of |ln s| + |t| / MAD, from the normal equations."""
    values = []
    for image, wanted in zip(p, original, strict=True):
        x = [value for row in image for value in row]
        y = [value for row in wanted for value in row]
        mean_x, mean_y = fmean(x), fmean(y)
        s = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum(
            (a - mean_x) ** 2 for a in x
        )
        t = mean_y - s * mean_x
        middle = sorted(y)[(len(y) - 1) // 2] if len(y) % 2 == 0 else median(y)
        values.append(abs(math.log(s)) + abs(t) / fmean(abs(b - middle) for b in y))
    return fmean(values)
