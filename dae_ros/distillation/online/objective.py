"""What a step on one clip minimises: the teacher's label, and what keeps the student in place.

Source of the terms: docs/online.md. Maps are (U, h, w), the U windows of a clip that are learned
from, at the network's size.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dae_ros.distillation.losses import (
    LOG_EPSILON,
    ScaleAndShiftInvariantLoss,
    gradient_matching,
)
from dae_ros.distillation.normalisation import normalised_depth_loss
from dae_ros.distillation.scale_and_shift import (
    AlignmentRule,
    judge_alignment,
    only_valid,
    solve_scale_and_shift,
    without_largest,
)
from dae_ros.parameters.distillation import OnlineParameters

ALPHA = 0.25  # of the gradient term; the paper's lambda
# A scale this far from the original's is no drift but another scene in the fit; its logarithm
# would dominate the batch.
PIN_RATIO = 20.0


@dataclass(frozen=True, eq=False)
class Targets:
    """What the predictions of a clip are compared with.

    Attributes:
        depth: float32 (U, h, w), NaN unknown: metres, or depth up to scale and shift.
        weight: float32 (U, h, w) in 0..1; 0 where there is no label.
        sharp: bool (U,): whether edges may be compared.
        quiet: bool (U,): whether the camera stood still in this window.
        metric: whether `depth` is metres and so is the student's number.
        original: float32 (U, h, w), what the weights from before adaptation say.
        anchored: whether the label is beyond doubt, however far off the student is.
        held: whether to hold the student near the original on this clip.
    """

    depth: Tensor
    weight: Tensor
    sharp: Tensor
    quiet: Tensor
    metric: bool
    original: Tensor
    anchored: bool
    held: bool


@dataclass(frozen=True, eq=False)
class ClipLoss:
    """The loss of a clip.

    Attributes:
        total: scalar with gradient; of no use where `labels` is 0.
        parts: name -> value before its weight.
        labels: how many windows had a label that was used.
        verdicts: labels by what came of them; see `scale_and_shift.AlignmentVerdict`.
    """

    total: Tensor
    parts: dict[str, float]
    labels: int
    verdicts: Counter[str]


def clip_loss(predictions: Tensor, targets: Targets, parameters: OnlineParameters) -> ClipLoss:
    """Return the loss of predictions (U, h, w); sums are float32 whatever their dtype."""
    p = predictions.float()
    labelled = (targets.weight > 0).flatten(1).any(dim=1)
    rule = None if targets.anchored else AlignmentRule()
    verdict = judge_alignment(solve_scale_and_shift(p, targets.depth, targets.weight), rule)
    verdicts = Counter(
        reason for reason, there in zip(verdict.reasons, labelled.tolist(), strict=True) if there
    )
    used = labelled & verdict.accepted
    count = int(used.sum())
    if count == 0:
        return ClipLoss(p.sum() * 0.0, {}, 0, verdicts)
    compare = _log_depth if targets.metric else _up_to_scale
    label = compare(
        p[used], targets.depth[used], targets.weight[used], targets.sharp[used], parameters
    )
    terms = {
        "label": (1.0, label),
        "pin": (parameters.pin_weight, _pin(p, targets.original)),
        "quiet": (parameters.quiet_weight, _change(p, targets.quiet)),
    }
    if targets.held and targets.metric:
        terms["anchor"] = (parameters.metric_anchor_weight, _departure(p, targets.original))
    elif targets.held:
        everywhere = torch.ones_like(p)
        anchor = normalised_depth_loss(p, targets.original, everywhere).total
        terms["anchor"] = (parameters.anchor_weight, anchor)
    total = torch.stack([weight * term for weight, term in terms.values()]).sum()
    return ClipLoss(
        total, {name: float(term.detach()) for name, (_, term) in terms.items()}, count, verdicts
    )


def mean_parts(losses: Sequence[ClipLoss]) -> dict[str, float]:
    """Return the mean of each part over the losses that have it."""
    values: dict[str, list[float]] = {}
    for loss in losses:
        for name, value in loss.parts.items():
            values.setdefault(name, []).append(value)
    return {name: statistics.fmean(items) for name, items in values.items()}


def _log_depth(
    p: Tensor, depth: Tensor, weight: Tensor, sharp: Tensor, parameters: OnlineParameters
) -> Tensor:
    """Return the mean over images of |ln p - ln d|, trimmed, plus alpha L_reg of it."""
    valid_p = torch.where(weight > 0, only_valid(p, weight), 1.0)
    valid_d = torch.where(weight > 0, only_valid(depth, weight), 1.0)
    residual = torch.log(valid_p + LOG_EPSILON) - torch.log(valid_d + LOG_EPSILON)
    kept = without_largest(residual, weight, parameters.trim)
    data = (kept * residual.abs()).sum((1, 2)) / kept.sum((1, 2))
    edges = gradient_matching(residual, kept * sharp[:, None, None], reduction="image")
    return data.mean() + ALPHA * edges


def _up_to_scale(
    p: Tensor, depth: Tensor, weight: Tensor, sharp: Tensor, parameters: OnlineParameters
) -> Tensor:
    """Return L_si + alpha L_reg + the hybrid normalised term."""
    valid = weight > 0
    # The unit of a relative label is arbitrary, and L_si is a square of it.
    unit = torch.stack([_spread(label[here]) for label, here in zip(depth, valid, strict=True)])
    label = depth / unit[:, None, None]
    total = p.new_zeros(())
    for edges in (True, False):
        here = sharp if edges else ~sharp
        if here.any():
            loss = ScaleAndShiftInvariantLoss(
                alpha=ALPHA if edges else 0.0, reduction="image", ridge=1e-6, trim=parameters.trim
            )
            share = here.sum() / len(p)
            total = total + share * loss(p[here], label[here], weight[here]).total
    normalised = normalised_depth_loss(p, label, weight).total
    return total + parameters.normalised_weight * normalised


def _pin(p: Tensor, original: Tensor) -> Tensor:
    """Return the mean of |ln s| + |t| / MAD, s and t moving the prediction onto the original's.

    The label terms leave both free, or follow the teacher's drift; this brings them back weakly.
    Images where the fit makes no sense (s not above 0, or beyond `PIN_RATIO`) count nothing.
    """
    fit = solve_scale_and_shift(p, original, torch.ones_like(p))
    ratio = fit.scale.detach()
    usable = fit.determined & (ratio > 1 / PIN_RATIO) & (ratio < PIN_RATIO)
    if not usable.any():
        return p.sum() * 0.0
    spread = torch.stack([_spread(image) for image in original[usable]])
    return (fit.scale[usable].log().abs() + fit.shift[usable].abs() / spread).mean()


def _departure(p: Tensor, original: Tensor) -> Tensor:
    """Return the mean of |ln p - ln o|: metres that leave the original's in shape or in scale.

    Its slope is the same however near they are, so that it holds where other clips pull: the
    original is at an optimum on its own clips, where true depth alone has no slope to speak of.
    """
    everywhere = torch.ones_like(p)
    one, other = (only_valid(depth, everywhere).clamp(min=LOG_EPSILON) for depth in (p, original))
    return (one.log() - other.log()).abs().mean()


def _change(p: Tensor, quiet: Tensor) -> Tensor:
    """Return the mean relative change into the windows in which the camera stood still."""
    here = quiet[1:]
    if not here.any():
        return p.sum() * 0.0
    level = p[1:][here].detach().mean(dim=(1, 2)).clamp(min=LOG_EPSILON)
    return ((p[1:][here] - p[:-1][here]).abs().mean(dim=(1, 2)) / level).mean()


def _spread(values: Tensor) -> Tensor:
    """Return the mean absolute deviation from the median, a number above 0; no gradient."""
    values = values.detach().float().flatten()
    spread = (values - values.median()).abs().mean()
    return spread.clamp(min=torch.finfo(torch.float32).tiny)
