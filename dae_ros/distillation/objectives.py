"""What an update minimises: true depth, or what a teacher says about frames.

Maps are (N, h, w), N = clips times windows; an image without label counts as 0 in a mean over
images, so that the parts of several processes add up to the whole.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from dae_ros.distillation.configuration import DistillationParameters, TrainingParameters
from dae_ros.distillation.cross_context import local_boxes, local_global_loss
from dae_ros.distillation.labels import agreement_mask, select_teacher
from dae_ros.distillation.losses import (
    LOG_EPSILON,
    Reduction,
    ScaleAndShiftInvariantLoss,
    gradient_matching,
    si_log_loss,
)
from dae_ros.distillation.normalisation import Mode, normalised_depth_loss
from dae_ros.distillation.preparation import Prepared, at_size, cut_out
from dae_ros.distillation.scale_and_shift import (
    AlignmentRule,
    AlignmentVerdict,
    judge_alignment,
    label_weight,
    only_valid,
    solve_scale_and_shift,
    without_largest,
)
from dae_ros.distillation.teacher import FrameTeacher
from dae_ros.errors import ConfigurationError

# Of the squared mean in `silog`: the usual 1 - 0.85.
SILOG_MEAN = 0.15
# A stream of random numbers beside (seed, step), apart from those of `batches.py`.
_LOCAL_GLOBAL = 3


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss of a batch.

    Attributes:
        total: scalar with gradient.
        parts: name -> value, for the log.
        verdicts: labels judged, by what came of them; empty where none was judged.
        fits, below: images whose scale was fitted, and of these those with a scale below 0;
            judged or not.
        labelled: images with a label on at least one pixel, usable or not.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    verdicts: Counter[str]
    fits: int = 0
    below: int = 0
    labelled: int = 0


class TrueDepthObjective:
    """Compares with depth in metres.

    Args:
        settings: loss, alpha, reduction, maximum_depth_m.
    """

    def __init__(self, settings: TrainingParameters) -> None:
        self._settings = settings

    def __call__(self, predictions: Tensor, batch: Prepared, step: int) -> Objective:
        """Return the loss of predictions (B, U, h, w)."""
        del step  # the same from the first update to the last
        settings = self._settings
        depth = batch.depth.flatten(0, 1)
        mask = torch.isfinite(depth) & (depth > 0) & (depth <= settings.maximum_depth_m)
        p = predictions.flatten(0, 1)
        objective, _ = _compare(settings, p, depth, mask, rule=None, trim=0.0)
        return _add_normalised(objective, settings, p, depth, mask)


class TeacherObjective:
    """Compares with labels that one teacher, drawn anew for each update, gives the frames.

    Args:
        settings: of the distillation.
        teachers: by the names of `settings.shares`.
        part: (index, count) of this process.

    Raises:
        ConfigurationError: a loss in metres and a teacher without.
    """

    def __init__(
        self,
        settings: DistillationParameters,
        teachers: Mapping[str, FrameTeacher],
        part: tuple[int, int] = (0, 1),
    ) -> None:
        vague = [name for name, teacher in teachers.items() if not teacher.metric]
        if vague and (settings.metric or settings.normalisation == "none"):
            raise ConfigurationError(
                f"{', '.join(vague)} gives depth up to scale and shift, and 'loss' "
                f"{settings.loss} compares metres; use 'loss' published",
                teachers=vague,
            )
        self._settings = settings
        self._teachers = teachers
        index, count = part
        size = settings.batch // count
        self._mine = slice(index * size, (index + 1) * size)

    def __call__(self, predictions: Tensor, batch: Prepared, step: int) -> Objective:
        """Return the loss of predictions (B, U, h, w)."""
        settings = self._settings
        name = select_teacher(settings.shares, settings.seed, step)
        p = predictions.flatten(0, 1)
        frames, has_frame = batch.frames.flatten(0, 1), batch.has_frame.flatten()
        label, weight = self._label(name, frames, batch, (p.shape[1], p.shape[2]))
        weight = weight * has_frame[:, None, None]
        rule = None
        if step >= settings.refuse_after:
            rule = AlignmentRule(settings.smallest_label_px, settings.smallest_correlation)
        objective, accepted = _compare(settings, p, label, weight, rule, settings.trim)
        # A label that is refused teaches nothing, by no term.
        weight = weight * accepted[:, None, None]
        objective = _add_normalised(objective, settings, p, label, weight)
        total, parts = objective.total, dict(objective.parts)
        # A number of the step alone, as everything that is drawn.
        if _share(settings.seed, step) < settings.local_global_share and batch.boxes is None:
            boxes = local_boxes((p.shape[1], p.shape[2]), settings, step)
            local = local_global_loss(
                p, frames, has_frame & accepted, self._teachers[name], settings,
                [of_clips[self._mine] for of_clips in boxes],
            )  # fmt: skip
            parts["local_global"] = local
            total = total + settings.local_global_weight * local
        return dataclasses.replace(objective, total=total, parts=parts)

    def _label(
        self, name: str, frames: Tensor, batch: Prepared, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return depth and weight at the student's size."""
        if batch.boxes is not None:
            frames = crop_frames(frames, batch.boxes, batch.has_frame.shape[1])
        settings = self._settings
        label = self._teachers[name].label(frames, consistency=settings.flip_consistency)
        weight = label.weight
        if settings.agreement_tolerance > 0:
            others = sorted(set(self._teachers) - {name})
            for other in others:
                second = self._teachers[other].label(frames, consistency=False)
                agreed = agreement_mask(
                    label.depth, second.depth, label.mask & second.mask,
                    settings.agreement_tolerance,
                )  # fmt: skip
                weight = weight * agreed
        # Weights and depth from the same pixels.
        return at_size(label.depth, size), at_size(weight, size)


def crop_frames(frames: Tensor, boxes: Tensor, windows: int) -> Tensor:
    """Cut each clip's box out of its frames, at the frames' own resolution.

    Args:
        frames: uint8 (N, H, W), clip after clip.
        boxes: (B, 4) in parts of the image.
        windows: of a clip, N / B.

    Returns:
        uint8 (N, height of a box, width of a box).
    """
    height, width = frames.shape[1:]
    rows = round(float(boxes[0, 2] - boxes[0, 0]) * height)
    columns = round(float(boxes[0, 3] - boxes[0, 1]) * width)
    every = boxes.repeat_interleave(windows, dim=0)
    cut = cut_out(frames.float(), every, (rows, columns))
    return cut.round().to(torch.uint8)


def _add_normalised(
    objective: Objective, settings: TrainingParameters, p: Tensor, depth: Tensor, mask: Tensor
) -> Objective:
    if settings.normalised_weight == 0:
        return objective
    mode = cast("Mode", settings.normalisation)
    normalised = normalised_depth_loss(p, depth, mask, mode).total
    return dataclasses.replace(
        objective,
        total=objective.total + settings.normalised_weight * normalised,
        parts={**objective.parts, "normalised": normalised},
    )


def _compare(
    settings: TrainingParameters,
    p: Tensor,
    depth: Tensor,
    mask: Tensor,
    rule: AlignmentRule | None,
    trim: float,
) -> tuple[Objective, Tensor]:
    """Return the term `loss`, and of each image, bool (N,), whether its label may be used."""
    reduction = cast("Reduction", settings.reduction)
    weight = label_weight(depth, mask)
    has_label = (weight > 0).flatten(1).any(dim=1)
    labelled = int(has_label.sum())
    if settings.loss == "published":
        loss = ScaleAndShiftInvariantLoss(
            alpha=settings.alpha,
            reduction=reduction,
            # As published where no pixel is left out either.
            ridge=1e-6 if trim > 0 else 0.0,
            trim=trim,
            rule=rule,
        )
        value = loss(p, depth / settings.maximum_depth_m, mask)
        verdicts = _judged(value.verdict, has_label) if rule else Counter[str]()
        signs = torch.sign(value.verdict.scale)
        objective = Objective(
            value.total,
            {"data": value.data, "gradient": value.gradient},
            verdicts,
            fits=int(signs.abs().nansum()),
            below=int((signs < 0).sum()),
            labelled=labelled,
        )
        return objective, value.verdict.accepted
    verdicts, accepted = Counter[str](), torch.ones(len(p), dtype=torch.bool, device=p.device)
    if rule is not None:
        verdict = judge_alignment(solve_scale_and_shift(p, depth, weight), rule)
        verdicts, accepted = _judged(verdict, has_label), verdict.accepted
        weight = weight * accepted[:, None, None]
    if settings.loss == "none":
        return Objective(p.sum() * 0.0, {}, verdicts, labelled=labelled), accepted
    valid_p = torch.where(weight > 0, only_valid(p, weight), 1.0)
    valid_d = torch.where(weight > 0, only_valid(depth, weight), 1.0)
    residual = torch.log(valid_p + LOG_EPSILON) - torch.log(valid_d + LOG_EPSILON)
    if trim > 0:
        # What is not a number stays, for the trainer to see.
        weight = torch.where(residual.isnan(), weight, without_largest(residual, weight, trim))
    if settings.loss == "silog":
        data = si_log_loss(valid_p, valid_d, weight > 0, SILOG_MEAN)
    else:
        data = _mean(residual.abs(), weight, reduction)
    gradient = gradient_matching(residual, weight, reduction=reduction)
    total = data + settings.alpha * gradient
    parts = {"data": data, "gradient": gradient}
    return Objective(total, parts, verdicts, labelled=labelled), accepted


def _judged(verdict: AlignmentVerdict, has_label: Tensor) -> Counter[str]:
    """Count what came of the labels; an image without one has nothing to judge."""
    judged = zip(verdict.reasons, has_label.tolist(), strict=True)
    return Counter(reason for reason, has in judged if has)


def _mean(values: Tensor, weight: Tensor, reduction: Literal["batch", "image"]) -> Tensor:
    sums, weights = (weight * values).sum((1, 2)), weight.sum((1, 2))
    if reduction == "batch":
        sums, weights = sums.sum()[None], weights.sum()[None]
    return (sums / torch.where(weights > 0, weights, 1.0)).mean()


def _share(seed: int, step: int) -> float:
    return float(np.random.default_rng([seed, step, _LOCAL_GLOBAL]).random())
