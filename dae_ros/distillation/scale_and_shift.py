"""Least squares between a prediction and a label, per image and inside the graph; its verdict.

A student's depth aligned to a disparity label gets a scale below zero, and the fit still looks
plausible: depths uniform in 2..60 m against 1/z give R^2 = 0.49. Trained on, it bends the student
into the wrong space. So a fit comes with a verdict, which is a value: what to do with a refused
label is the caller's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dae_ros.errors import DistillationError

# A spread below this part of the magnitude is rounding in float32, not shape.
CONSTANT = 1e-6


@dataclass(frozen=True, slots=True)
class AlignmentRule:
    """Which fits are usable; start values from the practice of online adaptation.

    Attributes:
        minimum_pixels: of valid weight > 0.
        minimum_correlation: between prediction and label.
        scale_ratio: accepted range of scale / reference scale, where a reference is given.
    """

    minimum_pixels: int = 500
    minimum_correlation: float = 0.3
    scale_ratio: tuple[float, float] = (0.2, 5.0)


@dataclass(frozen=True, slots=True)
class ScaleAndShift:
    """A fit target ~ scale prediction + shift, per image; all tensors are (B,).

    Attributes:
        scale, shift: with gradient; both 0 where the prediction is constant or nothing is valid.
        correlation: Pearson's, detached; 0 where either side is constant.
        pixels: number of valid px.
        determined: whether the prediction varied at all.
    """

    scale: Tensor
    shift: Tensor
    correlation: Tensor
    pixels: Tensor
    determined: Tensor

    def apply(self, prediction: Tensor) -> Tensor:
        """Return the moved prediction, (B, H, W)."""
        return self.scale[:, None, None] * prediction + self.shift[:, None, None]


@dataclass(frozen=True, slots=True)
class AlignmentVerdict:
    """What came of each image's label.

    Attributes:
        scale, shift, correlation: (B,), detached.
        accepted: bool (B,).
        reasons: per image `accepted`, or the first that holds of `few_pixels`, `not_finite`,
            `constant`, `negative_scale`, `uncorrelated`, `scale_jump`.
    """

    scale: Tensor
    shift: Tensor
    correlation: Tensor
    accepted: Tensor
    reasons: tuple[str, ...]


def as_map(values: Tensor) -> Tensor:
    """Return (B, H, W) in at least float32; bool and integers keep their type.

    Raises:
        DistillationError: neither (B, H, W) nor (B, 1, H, W).
    """
    if values.ndim == 4 and values.shape[1] == 1:
        values = values.squeeze(1)
    if values.ndim != 3:
        raise DistillationError(
            f"A depth map must be (B, H, W) or (B, 1, H, W), not {tuple(values.shape)}.",
            shape=tuple(values.shape),
        )
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def label_weight(target: Tensor, mask: Tensor) -> Tensor:
    """Return the weight of each label pixel, (B, H, W), detached: the mask where it is finite.

    Args:
        target: label; NaN and infinity mean invalid.
        mask: bool, or float weights >= 0.

    Raises:
        DistillationError: label and mask differ in shape.
    """
    target, weight = as_map(target).detach(), as_map(mask).detach()
    _same_shape(target, weight)
    weight = weight if weight.is_floating_point() else weight.to(target.dtype)
    return torch.where(torch.isfinite(target), weight, 0.0)


def only_valid(values: Tensor, weight: Tensor) -> Tensor:
    """Return the map with 0 where the weight is 0, so that NaN there cannot spread.

    Raises:
        DistillationError: map and weight differ in shape.
    """
    values = as_map(values)
    _same_shape(values, weight)
    return torch.where(weight > 0, values, 0.0)


def solve_scale_and_shift(
    prediction: Tensor, target: Tensor, mask: Tensor, ridge: float = 0.0
) -> ScaleAndShift:
    """Fit scale and shift of each image by least squares, in closed form.

    The published normal equations, with sums about the means: the same solution, without the
    cancellation of their determinant in float32.

    Args:
        prediction, target: (B, H, W) or (B, 1, H, W); ignored where the weight is 0.
        mask: bool or weights, of the same shape; see `label_weight`.
        ridge: added to the variance of the prediction; 0 as published.

    Returns:
        The fit, in at least float32.
    """
    weight = label_weight(target, mask)
    p, d = only_valid(prediction, weight), only_valid(target, weight)
    total = weight.sum((1, 2))
    share = weight / torch.where(total > 0, total, 1)[:, None, None]
    p_mean, d_mean = (share * p).sum((1, 2)), (share * d).sum((1, 2))
    p_centred, d_centred = p - p_mean[:, None, None], d - d_mean[:, None, None]
    p_variance = (share * p_centred.square()).sum((1, 2))
    d_variance = (share * d_centred.square()).sum((1, 2))
    covariance = (share * p_centred * d_centred).sum((1, 2))
    # Written so that NaN counts as determined and shows in the scale.
    determined = ~(p_variance.detach() <= (CONSTANT * p_mean.detach()).square())
    scale = torch.where(
        determined, covariance / torch.where(determined, p_variance + ridge, 1.0), 0.0
    )
    shift = torch.where(determined, d_mean - scale * p_mean, 0.0)
    spread = (p_variance * d_variance).detach().sqrt()
    varied = determined & (d_variance.detach() > (CONSTANT * d_mean.detach()).square())
    correlation = torch.where(varied, covariance.detach() / torch.where(varied, spread, 1.0), 0.0)
    return ScaleAndShift(scale, shift, correlation, (weight > 0).sum((1, 2)), determined)


def solve_trimmed(
    prediction: Tensor, target: Tensor, mask: Tensor, ridge: float = 0.0, trim: float = 0.1
) -> tuple[ScaleAndShift, Tensor]:
    """Fit, leave out the pixels of each image with the largest residual, and fit the rest.

    Args:
        prediction, target, mask, ridge: see `solve_scale_and_shift`.
        trim: fraction of the valid px to leave out; 0 is the plain fit.

    Returns:
        The second fit, and the weights (B, H, W) with 0 where a pixel was left out.
    """
    weight = label_weight(target, mask)
    solution = solve_scale_and_shift(prediction, target, weight, ridge)
    if trim == 0:
        return solution, weight
    residual = only_valid(solution.apply(as_map(prediction)) - as_map(target), weight)
    weight = without_largest(residual, weight, trim)
    return solve_scale_and_shift(prediction, target, weight, ridge), weight


def without_largest(residual: Tensor, weight: Tensor, trim: float) -> Tensor:
    """Return the weights (B, H, W) with 0 where an image's residual is largest.

    Args:
        residual: (B, H, W); only its size counts, and only where the weight is above 0.
        weight: (B, H, W).
        trim: fraction of each image's valid px to leave out.
    """
    size = torch.where(weight > 0, residual.detach().abs(), torch.inf)
    count = (weight > 0).sum((1, 2))
    last_kept = (count - (count * trim).long() - 1).clamp(min=0)
    limit = size.flatten(1).sort(dim=1).values.gather(1, last_kept[:, None])
    return torch.where(size <= limit[:, :, None], weight, 0.0)


def judge_alignment(
    solution: ScaleAndShift, rule: AlignmentRule | None, reference_scale: float | None = None
) -> AlignmentVerdict:
    """Say which images have a usable label.

    Args:
        solution: of `solve_scale_and_shift`.
        rule: None accepts every image, as the published loss does.
        reference_scale: the running median of accepted scales, or None while there is none.
    """
    scale, shift = solution.scale.detach(), solution.shift.detach()
    if rule is None:
        reasons = ("accepted",) * len(scale)
        accepted = torch.ones_like(scale, dtype=torch.bool)
        return AlignmentVerdict(scale, shift, solution.correlation, accepted, reasons)
    columns = torch.stack(
        [
            scale,
            solution.correlation,
            solution.pixels.to(scale.dtype),
            solution.determined.to(scale.dtype),
        ]
    )
    rows = columns.T.tolist()  # one transfer from the device
    reasons = tuple(_reason(rule, row, reference_scale) for row in rows)
    accepted = torch.tensor([reason == "accepted" for reason in reasons], device=scale.device)
    return AlignmentVerdict(scale, shift, solution.correlation, accepted, reasons)


def _reason(rule: AlignmentRule, values: list[float], reference_scale: float | None) -> str:
    scale, correlation, pixels, determined = values
    if pixels < rule.minimum_pixels:
        return "few_pixels"
    if not math.isfinite(scale):
        return "not_finite"
    if not determined:
        return "constant"
    if not scale > 0:
        return "negative_scale"
    if not correlation >= rule.minimum_correlation:
        return "uncorrelated"
    if reference_scale is not None:
        lower, upper = rule.scale_ratio
        if not lower <= scale / reference_scale <= upper:
            return "scale_jump"
    return "accepted"


def _same_shape(values: Tensor, weight: Tensor) -> None:
    if values.shape != weight.shape:
        raise DistillationError(
            f"Prediction, label and mask must have one shape: {tuple(values.shape)} is not "
            f"{tuple(weight.shape)}.",
            shape=tuple(values.shape),
            other=tuple(weight.shape),
        )
