"""Which labels of the teacher are believed, and how far.

A teacher that fails must not reach the student: one that is random, constant, upside down, frozen
or noisy is told from a good one by the student's own depth, by the label before, by the mirrored
frame and by a part of the frame. One bad label refuses the whole clip: a teacher that fails in one
of the frames of half a second has not understood the others either. Reasons: `docs/online.md`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dae_ros.distillation.labels import relative_difference
from dae_ros.distillation.online.observation import LabelledClip, Observation, Refusal
from dae_ros.distillation.scale_and_shift import (
    AlignmentRule,
    ScaleAndShift,
    judge_alignment,
    solve_trimmed,
)
from dae_ros.distillation.teacher import FrameTeacher, TeacherLabel
from dae_ros.parameters.distillation import OnlineParameters

# Less spread between the 5 % and 95 % quantiles than this part of the median is no shape.
_CONSTANT_SPREAD = 0.05
# The median pixel of true depth is less than a thousandth of the spread off its neighbours' mean;
# that of a label with 20 % of noise is a twentieth off.
_LARGEST_ROUGHNESS = 0.02
# Labels of different frames that agree better than this, relative to their spread, are one label.
_FROZEN_DIFFERENCE = 1e-4
# Frames are different from this mean difference in grey levels on: above the noise of a sensor.
_FRAMES_DIFFER = 2.0
_CROP_SIDE = 0.7
_CROP_TOLERANCE = 0.1
_PATCH_PX = 14
# Scales are compared with the median of so many labels, and not before there are a few.
_REMEMBERED = 65
_FEWEST_REMEMBERED = 5


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A label, when it was given, and the first frame that it was given for."""

    middle_ns: int
    image: NDArray[np.uint8]
    depth: Tensor


class LabelGate:
    """Asks a teacher about the frames of a clip and judges the answers.

    Args:
        parameters: validated.
        teacher: sees frames.
        student_metric: whether the student puts out metres.
        device: of the teacher.
        seed: of where frames are cropped.
    """

    def __init__(
        self,
        parameters: OnlineParameters,
        teacher: FrameTeacher,
        *,
        student_metric: bool,
        device: torch.device,
        seed: int = 0,
    ) -> None:
        self._parameters = parameters
        self._teacher = teacher
        self._logarithmic = student_metric and teacher.metric
        self._device = device
        self._seed = seed
        self._labels = 0
        self._scales: deque[float] = deque(maxlen=_REMEMBERED)
        self._last: _Seen | None = None
        self._rule = AlignmentRule(
            minimum_correlation=parameters.smallest_correlation,
            scale_ratio=(1 / parameters.largest_scale_ratio, parameters.largest_scale_ratio),
        )

    def label(
        self,
        observation: Observation,
        prediction: NDArray[np.float32],
        *,
        thorough: bool = False,
        state: tuple[NDArray[np.float16], ...] = (),
        state_version: int = -1,
    ) -> LabelledClip | Refusal:
        """Label a clip.

        Args:
            observation: the clip.
            prediction: float32[T, H, W], the student's depth at the end of each window.
            thorough: compare every label with those of the mirrored and the cropped frame.
            state, state_version: kept with the clip, see `LabelledClip`.

        Returns:
            The clip with labels on `labels_per_clip` of the frames to learn from, or the refusal
            `few_events`, `student_not_finite`, `not_finite`, `few_pixels`, `constant`, `noisy`,
            `frozen`, `student_constant`, `negative_scale`, `uncorrelated`, `scale_jump`,
            `flicker`, `inconsistent_flip` or `inconsistent_crop`.
        """
        chosen = self._choose(observation)
        if len(chosen) == 0:
            return Refusal("few_events", "no window with a frame has enough events")
        student = torch.from_numpy(prediction[chosen]).to(self._device)
        if not bool(torch.isfinite(student).all()):
            return Refusal("student_not_finite", "the student's own depth is not finite")
        frames = torch.from_numpy(observation.frames[chosen]).to(self._device)
        label = self._teacher.label(frames, consistency=False)
        mask = torch.from_numpy(observation.masks[chosen]).to(self._device) & label.mask
        mask = self._without_far(label, mask)
        # The sequence first: what it remembers must not depend on the student.
        refusal = (
            _refuse_shape(label.depth, mask)
            or self._refuse_sequence(observation, chosen, label.depth, mask)
            or self._refuse_alignment(student, label.depth, mask)
        )
        if refusal is not None:
            return refusal
        confidence = mask.float()
        checked = self._checked(len(chosen), thorough)
        if checked:
            inconsistency = self._compare(frames[checked], mask[checked])
            if isinstance(inconsistency, Refusal):
                return inconsistency
            confidence[checked] = inconsistency
        return self._assemble(observation, chosen, label, mask, confidence, state, state_version)

    def forget_scales(self) -> None:
        """Forget how many times the student's depth labels are: the student is another."""
        self._scales.clear()

    def state(self) -> dict[str, Any]:
        """Return what later labels are judged by: plain values and tensors, none of them shared.

        Without it a teacher that fails after a restart would say itself what is usual.
        """
        last = self._last
        return {
            "labels": self._labels,
            "scales": list(self._scales),
            "last": None
            if last is None
            else {
                "middle_ns": last.middle_ns,
                "image": torch.from_numpy(last.image.copy()),
                "depth": last.depth.cpu().clone(),
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._labels = state["labels"]
        self._scales = deque(state["scales"], maxlen=_REMEMBERED)
        last = state["last"]
        self._last = last and _Seen(
            last["middle_ns"], last["image"].numpy(), last["depth"].to(self._device)
        )

    def _choose(self, observation: Observation) -> NDArray[np.intp]:
        """Return the windows to label: evenly among the possible ones, the last among them."""
        possible = observation.has_frame & observation.supported
        possible[: len(observation) - self._parameters.unroll] = False
        indices = np.flatnonzero(possible)
        if len(indices) <= self._parameters.labels_per_clip:
            return indices
        steps = np.arange(1, self._parameters.labels_per_clip + 1)
        return indices[steps * len(indices) // self._parameters.labels_per_clip - 1]

    def _checked(self, count: int, thorough: bool) -> list[int]:
        """Return which of `count` labels are compared with the teacher's other answers."""
        first, self._labels = self._labels, self._labels + count
        share = 1.0 if thorough else self._parameters.consistency_share
        return [
            index
            for index in range(count)
            if math.floor((first + index + 1) * share) > math.floor((first + index) * share)
        ]

    def _without_far(self, label: TeacherLabel, mask: Tensor) -> Tensor:
        """Mask the farthest pixels; a relative label has lost them by its conversion."""
        if not label.metric or self._parameters.far_share == 0:
            return mask
        depth = torch.where(mask, label.depth, torch.nan).flatten(1)
        limit = torch.nanquantile(depth, 1 - self._parameters.far_share, dim=1)
        return mask & (label.depth <= limit[:, None, None])

    def _refuse_alignment(self, student: Tensor, depth: Tensor, mask: Tensor) -> Refusal | None:
        """Compare the labels with what the student sees."""
        reference = (
            float(np.median(self._scales)) if len(self._scales) >= _FEWEST_REMEMBERED else None
        )
        if self._logarithmic:
            mask = mask & (student > 0)
            student, depth = student.log(), depth.log()
        solution, _ = solve_trimmed(student, depth, mask)
        verdict = judge_alignment(solution, self._rule, None if self._logarithmic else reference)
        scales = self._scale(solution, student, depth, mask)
        for reason, scale in zip(verdict.reasons, scales, strict=True):
            if reason in ("accepted", "scale_jump"):
                # Refused jumps count too, so that a lasting change of the place is taken up.
                self._scales.append(scale)
        for index, (reason, scale) in enumerate(zip(verdict.reasons, scales, strict=True)):
            correlation = float(verdict.correlation[index])
            if reason == "accepted" and reference is not None:
                low, high = self._rule.scale_ratio
                reason = reason if low <= scale / reference <= high else "scale_jump"
            if reason != "accepted":
                reason = "student_constant" if reason == "constant" else reason
                return Refusal(
                    reason,
                    f"label = {float(solution.scale[index]):.3g} student + "
                    f"{float(solution.shift[index]):.3g}, correlation {correlation:.2f}, scale "
                    f"{scale:.3g} (usual {reference or math.nan:.3g}), "
                    f"{int(solution.pixels[index])} px",
                )
        return None

    def _scale(
        self, solution: ScaleAndShift, student: Tensor, depth: Tensor, mask: Tensor
    ) -> list[float]:
        """Return how many times the student's depth each label is."""
        if not self._logarithmic:
            return [float(scale) for scale in solution.scale]
        ratio = torch.where(mask, depth - student, torch.nan).flatten(1)
        return [float(value) for value in ratio.nanmedian(dim=1).values.exp()]

    def _refuse_sequence(
        self, observation: Observation, chosen: NDArray[np.intp], depth: Tensor, mask: Tensor
    ) -> Refusal | None:
        """Compare each label with the one before it."""
        for index, label, valid in zip(chosen, depth, mask, strict=True):
            refusal = self._refuse_step(observation, index, label, valid)
            if refusal is not None:
                return refusal
        return None

    def _refuse_step(
        self, observation: Observation, index: np.intp, depth: Tensor, mask: Tensor
    ) -> Refusal | None:
        """Compare one label with the last one, which it replaces."""
        image, middle_ns = observation.frames[index], int(observation.frame_ns[index])
        last, self._last = self._last, _Seen(middle_ns, image, depth)
        if last is None or last.image.shape != image.shape:
            return None
        # Nearness of a disparity label is the disparity but for scale and shift; its depth is not
        # that of another frame, whose quantiles differ.
        difference = relative_difference(1 / depth[None], 1 / last.depth[None], mask[None])[0]
        valid = mask & torch.isfinite(difference)
        if bool(valid.any()) and float(difference[valid].median()) < _FROZEN_DIFFERENCE:
            # The same label as before: compare with the frame that it was first given for.
            self._last = _Seen(middle_ns, last.image, depth)
            changed = float(np.abs(image.astype(np.int16) - last.image).mean())
            if changed > _FRAMES_DIFFER:
                return Refusal(
                    "frozen",
                    f"the label stays the same while frames changed by {changed:.0f} grey levels",
                )
        ends_ns = observation.ends_ns
        between = (ends_ns > last.middle_ns) & (ends_ns <= ends_ns[index])
        # Clips overlap: where this label is older than the last, `between` is empty.
        if last.middle_ns < observation.start_ns or not between.any():
            return None
        quiet = torch.from_numpy(~observation.windows[between].any(axis=0)).to(self._device) & mask
        if int(quiet.sum()) < self._rule.minimum_pixels:
            return None
        flicker = float(difference[quiet].median())
        if flicker > self._parameters.largest_flicker:
            return Refusal(
                "flicker",
                f"the label changed by {flicker:.2f} of its spread where no events were (inf: what "
                "was near is far)",
            )
        return None

    def _compare(self, frames: Tensor, mask: Tensor) -> Tensor | Refusal:
        """Return the confidence of frames whose mirror image and part the teacher saw too."""
        mirrored = self._teacher.label(frames, consistency=True).weight
        confidence = torch.where(mask, mirrored, 0.0)
        means = confidence.sum((1, 2)) / mask.sum((1, 2))
        refusal = self._refuse_confidence("inconsistent_flip", "mirrored", means)
        if refusal is not None:
            return refusal
        height, width = frames.shape[1:]
        rows, columns = round(_CROP_SIDE * height), round(_CROP_SIDE * width)
        random = np.random.default_rng((self._seed, self._labels))
        top = int(random.integers(height - rows + 1))
        left = int(random.integers(width - columns + 1))
        box = (top, left, top + rows, left + columns)
        of_part = self._teacher.crop_consistency(frames, box, _CROP_TOLERANCE).confidence
        inside = mask[:, top : top + rows, left : left + columns]
        of_part = torch.where(inside, of_part, 0.0)
        means = of_part.sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        refusal = self._refuse_confidence("inconsistent_crop", "cropped", means)
        if refusal is not None:
            return refusal
        part = confidence[:, top : top + rows, left : left + columns]
        part.copy_(torch.minimum(part, of_part))
        return confidence

    def _refuse_confidence(self, reason: str, what: str, means: Tensor) -> Refusal | None:
        least = float(means.min())
        # Written so that NaN is refused.
        if least >= self._parameters.smallest_confidence:
            return None
        return Refusal(
            reason, f"on the {what} frame the teacher says otherwise: mean confidence {least:.2f}"
        )

    def _assemble(
        self,
        observation: Observation,
        chosen: NDArray[np.intp],
        label: TeacherLabel,
        mask: Tensor,
        confidence: Tensor,
        state: tuple[NDArray[np.float16], ...],
        state_version: int,
    ) -> LabelledClip | Refusal:
        depth = torch.where(mask, label.depth, torch.nan).cpu().numpy().astype(np.float16)
        density = _local_density(observation.windows[chosen]) / self._parameters.full_density
        support = 0.3 + 0.7 * np.minimum(density, 1.0)
        values = np.rint(255 * confidence.cpu().numpy() * support).astype(np.uint8)
        return LabelledClip(
            observation=observation.without_frames(),
            labelled=chosen.astype(np.int64),
            depth=depth,
            weight=np.where(np.isfinite(depth), values, 0).astype(np.uint8),
            label_metric=label.metric,
            teacher=self._teacher.name,
            teacher_digest=self._teacher.digest,
            state=state,
            state_version=state_version,
        )


def _refuse_shape(depth: Tensor, mask: Tensor) -> Refusal | None:
    """Look for labels that cannot be depth of anything."""
    for image, valid in zip(depth, mask, strict=True):
        values = image[valid]
        if len(values) == 0 or float(values.max()) > float(np.finfo(np.float16).max):
            return Refusal("not_finite", f"{len(values)} px of the label are usable numbers")
        low, middle, high = torch.quantile(
            values, torch.tensor([0.05, 0.5, 0.95], device=values.device)
        ).tolist()
        if not high - low > _CONSTANT_SPREAD * middle:
            return Refusal("constant", f"the label is {low:.3g} to {high:.3g} nearly everywhere")
        roughness = _roughness(image, valid) / (high - low)
        if roughness > _LARGEST_ROUGHNESS:
            return Refusal(
                "noisy",
                f"neighbouring pixels of the label differ by {roughness:.2f} of its spread",
            )
    return None


def _roughness(image: Tensor, valid: Tensor) -> float:
    """Return the median difference between a pixel and the mean of its four neighbours."""
    inner = valid[1:-1, 1:-1] & valid[:-2, 1:-1] & valid[2:, 1:-1] & valid[1:-1, :-2]
    inner = inner & valid[1:-1, 2:]
    around = image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]
    difference = (image[1:-1, 1:-1] - around / 4).abs()[inner]
    return float(difference.median()) if len(difference) else 0.0


def _local_density(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the share of active pixels around each, float32[N, H, W]; inside of the image only."""
    active = torch.from_numpy((windows > 0).astype(np.float32))[:, None]
    before = (_PATCH_PX - 1) // 2
    padded = functional.pad(active, (before, _PATCH_PX - 1 - before) * 2)
    counted = functional.pad(torch.ones_like(active[:1]), (before, _PATCH_PX - 1 - before) * 2)
    total = functional.avg_pool2d(padded, _PATCH_PX, stride=1)
    inside = functional.avg_pool2d(counted, _PATCH_PX, stride=1)
    density: NDArray[np.float32] = (total / inside)[:, 0].numpy()
    return density
