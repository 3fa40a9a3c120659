"""The published losses between a predicted depth map and a label, safe where masks are empty.

Maps are (B, H, W) or (B, 1, H, W). A mask is either bool, or float weights >= 0 in which 0 means
invalid; a label pixel that is not finite is invalid as well. What the prediction holds at invalid
pixels, NaN included, reaches neither values nor gradients; a prediction that is not finite at a
valid pixel makes the loss NaN, for the trainer to see. Half precision is raised to float32 before
anything is summed: 90 000 px overflow float16, and bfloat16 loses the shift.

Source: arXiv 2509.15224 and the code that its authors published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from dae_ros.distillation.scale_and_shift import (
    AlignmentRule,
    AlignmentVerdict,
    as_map,
    judge_alignment,
    label_weight,
    only_valid,
    solve_trimmed,
)
from dae_ros.errors import ConfigurationError

Reduction: TypeAlias = Literal["batch", "image"]

LOG_EPSILON = 1e-6  # of the published SILog


@dataclass(frozen=True, slots=True)
class LossValue:
    """A loss and its parts, all scalars that carry gradient.

    Attributes:
        total: what to minimise.
        data, gradient: the two terms, `gradient` before its factor alpha.
        verdict: per image, how the label was aligned and whether it was used.
    """

    total: Tensor
    data: Tensor
    gradient: Tensor
    verdict: AlignmentVerdict


@dataclass(frozen=True, slots=True)
class ScaleAndShiftInvariantLoss:
    """L = L_si + alpha L_reg after moving the prediction onto the label by least squares.

    L_si = sum M (s p + t - d)^2 / (2 sum M), L_reg as in `gradient_matching`. The solve is part of
    the graph. With the defaults it is the published loss; `online()` gives the variant for labels
    that nobody has looked at.

    Attributes:
        alpha: weight of L_reg; the paper's lambda.
        scales: number of strides 1, 2, 4, ... of L_reg.
        reduction: `batch`: one mean over all valid px; `image`: the mean of per-image means, in
            which an image without valid px counts as 0.
        ridge: added to the variance of the prediction in the solve, in its unit squared.
        trim: fraction of each image's valid px that `solve_trimmed` leaves out; they are left out
            of both terms as well.
        rule: which labels are refused; None uses every one, as published.
    """

    alpha: float = 0.25
    scales: int = 4
    reduction: Reduction = "batch"
    ridge: float = 0.0
    trim: float = 0.0
    rule: AlignmentRule | None = None

    def __post_init__(self) -> None:
        if self.scales < 1 or self.alpha < 0 or self.ridge < 0 or not 0 <= self.trim < 1:
            raise ConfigurationError(
                "The loss needs scales >= 1, alpha >= 0, ridge >= 0 and 0 <= trim < 1.",
                scales=self.scales,
                alpha=self.alpha,
                ridge=self.ridge,
                trim=self.trim,
            )
        if self.reduction not in ("batch", "image"):
            raise ConfigurationError(
                f"There is no reduction '{self.reduction}'; use batch or image.",
                reduction=self.reduction,
            )

    @classmethod
    def online(cls, trim: float = 0.1) -> ScaleAndShiftInvariantLoss:
        """Return the variant for labels of a teacher: ridge, trimming, refusal."""
        return cls(ridge=1e-6, trim=trim, rule=AlignmentRule())

    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        mask: Tensor,
        reference_scale: float | None = None,
    ) -> LossValue:
        """Compare.

        Args:
            prediction, target, mask: see the module.
            reference_scale: the usual fitted scale of this label source, for the rule.

        Returns:
            The loss; 0 with zero gradient where nothing is valid or every label was refused.
        """
        weight = label_weight(target, mask)
        p, d = only_valid(prediction, weight), only_valid(target, weight)
        solution, weight = solve_trimmed(p, d, weight, self.ridge, self.trim)
        verdict = judge_alignment(solution, self.rule, reference_scale)
        weight = weight * verdict.accepted[:, None, None]
        residual = solution.apply(p) - d
        data = _reduce(
            (weight * residual.square()).sum((1, 2)), 2 * weight.sum((1, 2)), self.reduction
        )
        gradient = gradient_matching(residual, weight, self.scales, self.reduction)
        return LossValue(data + self.alpha * gradient, data, gradient, verdict)


def gradient_matching(
    residual: Tensor, mask: Tensor, scales: int = 4, reduction: Reduction = "batch"
) -> Tensor:
    """Return L_reg, the multi-scale gradient matching term of MiDaS (arXiv 1907.01341, eq. 11).

    For strides 1, 2, 4, ... (sub-sampled, not blurred): the sum of |dx R| + |dy R| over pairs of
    neighbours that are both valid, divided by the number of valid PIXELS at that stride; summed
    over strides.

    Args:
        residual: R = aligned prediction - label; where it is not finite it is invalid.
        mask: see the module; a pair weighs as much as the lesser of its two pixels.
        scales: number of strides.
        reduction: see `ScaleAndShiftInvariantLoss`.
    """
    weight = label_weight(residual, mask)
    residual = only_valid(residual, weight)
    total = residual.new_zeros(())
    for k in range(scales):
        r, w = residual[:, :: 2**k, :: 2**k], weight[:, :: 2**k, :: 2**k]
        dx = torch.minimum(w[:, :, 1:], w[:, :, :-1]) * (r[:, :, 1:] - r[:, :, :-1]).abs()
        dy = torch.minimum(w[:, 1:], w[:, :-1]) * (r[:, 1:] - r[:, :-1]).abs()
        total = total + _reduce(dx.sum((1, 2)) + dy.sum((1, 2)), w.sum((1, 2)), reduction)
    return total


def si_log_loss(prediction: Tensor, target: Tensor, mask: Tensor, lam: float = 0.5) -> Tensor:
    """Return SILog as published: sqrt(var(D) + lam mean(D)^2), D = ln target - ln prediction.

    The variance is unbiased and 1e-6 is added inside both logarithms. `lam` = 0 is invariant to
    scale: the usual formula writes 1 - lam here.

    Args:
        prediction, target: as in the module, both >= 0 inside the mask; a negative prediction
            has no logarithm and gives NaN, and an infinite one shows too, where the published
            code leaves it out.
        mask: bool.
        lam: weight of the mean.

    Returns:
        Scalar; 0 where fewer than two pixels are valid.
    """
    valid = label_weight(target, mask) > 0
    difference = torch.log(as_map(target)[valid] + LOG_EPSILON) - torch.log(
        as_map(prediction)[valid] + LOG_EPSILON
    )
    if difference.numel() < 2:
        return difference.sum() * 0.0
    squared = difference.var() + lam * difference.mean().square()
    # The slope of the root at 0 is infinite, and infinity times 0 would be NaN.
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1).sqrt(), squared)


def _reduce(numerator: Tensor, denominator: Tensor, reduction: Reduction) -> Tensor:
    """Divide sums per image (B,) by counts per image; 0 / 0 is 0 and has no gradient."""
    if reduction == "batch":
        numerator, denominator = numerator.sum()[None], denominator.sum()[None]
    empty = denominator == 0
    return (numerator / torch.where(empty, 1, denominator)).mean()
