"""What one network makes of one clip, in numbers that two networks can be compared by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.distillation.online.label_maps import label_maps
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.scale_and_shift import solve_trimmed

# With fewer labelled pixels of a window a fit of two numbers says little.
FEWEST_PIXELS = 100
# As near to the least or the largest value as this part of the range is at it.
_AT_THE_END = 1e-3
# Windows that jitter needs.
JITTER_WINDOWS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """What predictions are scored against.

    Attributes:
        depth: float32 (U, h, w); of no meaning where the weight is 0.
        weight: float32 (U, h, w), 0 or more.
        metric: whether both this and the predictions are metres.
    """

    depth: Tensor
    weight: Tensor
    metric: bool


@dataclass(frozen=True, slots=True, eq=False)
class ClipMeasure:
    """What a network makes of the last U windows of a clip.

    Attributes:
        finite: whether all of its output is, and all of what is measured of it: squares of finite
            numbers need not be. Otherwise the numbers below are NaN, and there are no scores.
        scores: `aligned_abs_rel`, `aligned_delta_1`, and where metres meet metres
            `metric_abs_rel`, `metric_delta_1`: means over the labelled windows. Empty without a
            label.
        positive_scale: share of the labelled windows whose label grows with the prediction.
        log_median: float64[U], of the prediction; minus infinity where it is not above 0.
        spread: mean standard deviation over the image.
        saturated: share of pixels at the least or the largest value of their image.
        jitter: mean |p[t-1] - 2 p[t] + p[t+1]| over the mean absolute deviation from the median,
            free of scale and shift: what moves evenly counts nothing, what trembles does.
    """

    finite: bool
    scores: Mapping[str, float] = field(default_factory=dict)
    positive_scale: float = math.nan
    log_median: NDArray[np.float64] = field(default_factory=lambda: np.full(1, np.nan))
    spread: float = math.nan
    saturated: float = math.nan
    jitter: float = math.nan


def label_of(
    clip: LabelledClip, size: tuple[int, int], unroll: int, device: torch.device, *, metric: bool
) -> Label | None:
    """Return the label of a clip's last windows at a network's size.

    None where no window has enough of it to be scored against.

    Args:
        clip: with or without a label.
        size: of the network's input.
        unroll: how many windows.
        device: where to put it.
        metric: whether the network gives metres.
    """
    depth, weight = label_maps(clip, len(clip.observation) - unroll, size)
    usable = torch.isfinite(depth) & (depth > 0)
    if not bool(((usable & (weight > 0)).sum(dim=(1, 2)) >= FEWEST_PIXELS).any()):
        return None
    return Label(
        torch.where(usable, depth, 1.0).to(device),
        torch.where(usable, weight, 0.0).to(device),
        metric and clip.label_metric,
    )


def measure(maps: Tensor, unroll: int, label: Label | None, trim: float) -> ClipMeasure:
    """Measure predictions.

    Args:
        maps: float32 (T, h, w), of the last windows of a clip, at the network's size; those that
            jitter needs at least.
        unroll: how many of the last windows count.
        label: of these windows, from `label_of`; None for none.
        trim: share of the pixels that the fit of scale and shift leaves out; scores count all.
    """
    # Where less is learned from than jitter needs, it looks further back.
    long = maps[-max(unroll, JITTER_WINDOWS) :]
    # What is fitted is differences of two, squared and summed.
    if not bool(torch.isfinite((2.0 * long).square().sum())):
        return ClipMeasure(finite=False)
    p = maps[-unroll:]
    flat = p.flatten(1)
    medians = [float(value) for value in flat.median(dim=1).values]
    scores, positive = _scores(p, label, trim) if label is not None else ({}, math.nan)
    if not all(map(math.isfinite, scores.values())):
        return ClipMeasure(finite=False)
    return ClipMeasure(
        finite=True,
        scores=scores,
        positive_scale=positive,
        log_median=np.array([math.log(m) if m > 0 else -math.inf for m in medians]),
        spread=float(flat.std(dim=1, correction=0).mean()),
        saturated=_saturated(flat),
        jitter=_jitter(long),
    )


def _scores(p: Tensor, label: Label, trim: float) -> tuple[dict[str, float], float]:
    """Return the mean scores of the labelled windows, and the share with a scale above 0."""
    enough = (label.weight > 0).sum(dim=(1, 2)) >= FEWEST_PIXELS
    p, depth, weight = p[enough], label.depth[enough], label.weight[enough]
    fit, kept = solve_trimmed(p, depth, weight, trim=trim)
    mean = (kept * depth).sum((1, 2)) / kept.sum((1, 2))
    # A scale below 0 says far where it is near: what is left of such a map is a constant.
    positive = fit.scale > 0
    scale = torch.where(positive, fit.scale, 0.0)[:, None, None]
    shift = torch.where(positive, fit.shift, mean)[:, None, None]
    scores = {f"aligned_{name}": v for name, v in _errors(scale * p + shift, depth, weight)}
    if label.metric:
        scores |= {f"metric_{name}": v for name, v in _errors(p, depth, weight)}
    return scores, float(positive.float().mean())


def _errors(p: Tensor, depth: Tensor, weight: Tensor) -> tuple[tuple[str, float], ...]:
    """Return Abs Rel and delta_1, weighted within a window, each window alike."""
    total = weight.sum((1, 2))
    error = (weight * (p - depth).abs() / depth).sum((1, 2)) / total
    # As products: a prediction at or below 0 is within no factor of anything.
    near = (p > depth / 1.25) & (p < depth * 1.25)
    share = (weight * near).sum((1, 2)) / total
    return ("abs_rel", float(error.mean())), ("delta_1", float(share.mean()))


def _saturated(flat: Tensor) -> float:
    low, high = flat.min(dim=1, keepdim=True).values, flat.max(dim=1, keepdim=True).values
    margin = _AT_THE_END * (high - low)
    return float(((flat <= low + margin) | (flat >= high - margin)).float().mean())


def _jitter(p: Tensor) -> float:
    if len(p) < JITTER_WINDOWS:
        return math.nan
    flat = p.flatten(1)
    deviation = float((flat - flat.median(dim=1, keepdim=True).values).abs().mean())
    trembling = float((p[:-2] - 2 * p[1:-1] + p[2:]).abs().mean())
    # A constant does not tremble.
    return trembling / deviation if deviation > 0 else 0.0
