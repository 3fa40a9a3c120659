"""From what a frame network puts out to labels in the student's space, and how far to trust them.

A label is depth: metres where the teacher is metric, else depth up to scale and shift. A relative
teacher of the Depth Anything family puts out affine inverse depth; taken as it is, it would teach
a depth student the wrong function (`scale_and_shift.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dae_ros.distillation.scale_and_shift import as_map, label_weight, solve_trimmed
from dae_ros.errors import ConfigurationError, DistillationError

# Between these quantiles of an image a disparity map counts as shape, beyond them as tail.
DISPARITY_QUANTILES = (0.02, 0.98)


@dataclass(frozen=True, slots=True)
class DepthRange:
    """The nearest and the farthest depth of a place, metres."""

    minimum_m: float
    maximum_m: float

    def __post_init__(self) -> None:
        if not 0 < self.minimum_m < self.maximum_m < math.inf:
            raise ConfigurationError(
                f"A depth range needs 0 < minimum < maximum, not {self.minimum_m} m to "
                f"{self.maximum_m} m.",
                minimum_m=self.minimum_m,
                maximum_m=self.maximum_m,
            )


OUTDOOR = DepthRange(1.5, 80.0)


@dataclass(frozen=True, slots=True)
class DepthLabel:
    """What a teacher says about a batch of frames.

    Attributes:
        depth: float32 (B, H, W), NaN where the mask is False.
        mask: bool (B, H, W).
        metric: whether depth is metres; otherwise only its shape counts.
    """

    depth: Tensor
    mask: Tensor
    metric: bool


@dataclass(frozen=True, slots=True)
class SelfConsistency:
    """How much a teacher agrees with itself on the mirrored frame, or on a part of it.

    Attributes:
        confidence: float32 (B, H, W) in 0..1, 0 outside of the mask; a weight for the losses.
        mean: (B,), over valid px.
    """

    confidence: Tensor
    mean: Tensor


def depth_label(
    output: Tensor, orientation: str, scale: str, depth_range: DepthRange
) -> DepthLabel:
    """Convert a teacher's output by what its checkpoint says the number means.

    | orientation | scale | label |
    |---|---|---|
    | depth | metric | as it is |
    | depth | relative | as it is, not metric |
    | inverse_depth | metric | 1 / output |
    | inverse_depth | relative | `depth_from_disparity` |

    Args:
        output: (B, H, W) or (B, 1, H, W).
        orientation, scale: of the checkpoint's meaning.
        depth_range: of the place. Metric depth beyond the maximum is invalid: a metric head
            saturates there.

    Raises:
        DistillationError: an unknown orientation or scale.
    """
    values = as_map(output).detach().float()
    if orientation == "inverse_depth" and scale == "relative":
        return depth_from_disparity(values, depth_range)
    if orientation not in ("depth", "inverse_depth") or scale not in ("metric", "relative"):
        raise DistillationError(
            f"A teacher whose output is '{orientation}', '{scale}' cannot give labels: measure "
            "its orientation against any ground truth and write it into its manifest.",
            orientation=orientation,
            scale=scale,
        )
    mask = torch.isfinite(values) & (values > 0)
    depth = torch.where(mask, values, torch.nan)
    if orientation == "inverse_depth":
        depth = depth.reciprocal()
    if scale == "metric":
        mask = mask & (depth <= depth_range.maximum_m)
        depth = torch.where(mask, depth, torch.nan)
    return DepthLabel(depth, mask, metric=scale == "metric")


def depth_from_disparity(disparity: Tensor, depth_range: DepthRange) -> DepthLabel:
    """Turn affine inverse depth into depth up to scale and shift.

    With the 2 % and 98 % quantiles of each image, q = (d - d_2) / (d_98 - d_2), then
    1 / z = q (1 / z_min - 1 / z_max) + 1 / z_max.
    Pixels with q < 0 are the far tail (sky, whose edge a student must not learn) and invalid; the
    near tail, q > 1, goes on below z_min, which stays positive. Compare the result in log depth
    or up to scale and shift: z_min and z_max are only the right order of magnitude.

    Args:
        disparity: (B, H, W) or (B, 1, H, W), growing with nearness.
        depth_range: z_min, z_max.

    Returns:
        The label; an image without spread or with a pixel that is not finite is invalid whole.
    """
    values = as_map(disparity).detach().float()
    finite = torch.isfinite(values).all(dim=2).all(dim=1)
    values = torch.where(finite[:, None, None], values, 0.0)
    low, high = _quantiles(values)
    spread = (high - low)[:, None, None]
    # Less spread than rounding is a flat map, not a shape.
    usable = spread > 1e-6 * torch.maximum(low.abs(), high.abs())[:, None, None]
    q = (values - low[:, None, None]) / torch.where(usable, spread, 1.0)
    far = 1.0 / depth_range.maximum_m
    mask = usable & (q >= 0)
    inverse = torch.where(mask, q * (1.0 / depth_range.minimum_m - far) + far, torch.nan)
    return DepthLabel(inverse.reciprocal(), mask, metric=False)


def self_consistency(
    output: Tensor, other: Tensor, mask: Tensor, tolerance: float = 0.05
) -> SelfConsistency:
    """Compare two outputs of one teacher on the same pixels, seen in two ways.

    confidence = exp(-|difference| / tolerance) of `relative_difference`, so that any output space
    will do.

    Args:
        output, other: (B, H, W) or (B, 1, H, W).
        mask: bool or weights.
        tolerance: at which confidence falls to 1/e.
    """
    difference = relative_difference(output, other, mask)
    valid = label_weight(output, mask) > 0
    confidence = torch.where(valid, torch.exp(-difference / tolerance), 0.0)
    mean = confidence.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
    return SelfConsistency(confidence, mean)


def flip_consistency(output: Tensor, mirrored_output: Tensor, mask: Tensor) -> SelfConsistency:
    """Compare a teacher's output with its output on the mirrored frame (`self_consistency`).

    Args:
        output: (B, H, W) or (B, 1, H, W).
        mirrored_output: the same teacher on frames flipped left to right, not flipped back.
        mask: see `self_consistency`.
    """
    return self_consistency(output, as_map(mirrored_output).flip(2), mask)


def agreement_mask(first: Tensor, second: Tensor, mask: Tensor, tolerance: float = 0.1) -> Tensor:
    """Return where two teachers agree; bool (B, H, W).

    Teachers are never averaged (arXiv 2502.19204: ETH3D Abs Rel 0.228 averaged, 0.054 selected,
    0.131 and 0.096 alone); their disagreement is a mask on the label of the one that was selected.

    Args:
        first, second: outputs in one orientation; the second is moved onto the first by a
            trimmed fit. Where that needs a scale <= 0 they agree nowhere.
        mask: bool or weights; False stays False.
        tolerance: largest difference, in parts of the spread of `first`.
    """
    return (label_weight(first, mask) > 0) & (relative_difference(first, second, mask) <= tolerance)


def select_teacher(weights: Mapping[str, float], seed: int, iteration: int) -> str:
    """Draw the one teacher of a training iteration.

    Depends on its arguments alone, so that a resumed run goes on as if it had never stopped.

    Args:
        weights: name -> relative frequency; the published ratio is 7 to 3 for the assistant.
        seed: of the run, >= 0.
        iteration: >= 0.

    Raises:
        ConfigurationError: no teacher, or a weight that is not positive and finite.
    """
    if not weights or not all(0 < weight < math.inf for weight in weights.values()):
        raise ConfigurationError(
            "Give at least one teacher, each with a weight > 0.", weights=dict(weights)
        )
    names = sorted(weights)
    shares = np.array([weights[name] for name in names])
    random = np.random.default_rng((seed, iteration))
    return names[int(random.choice(len(names), p=shares / shares.sum()))]


def relative_difference(reference: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """Return |reference - aligned other| / spread of the reference, (B, H, W).

    Args:
        reference, other: (B, H, W) or (B, 1, H, W); the other is moved by a trimmed fit.
        mask: bool or weights.

    Returns:
        Infinity outside of the mask, and everywhere in an image whose fit needs a scale <= 0 or
        whose reference has no spread.
    """
    reference, other = as_map(reference).detach(), as_map(other).detach()
    weight = label_weight(reference, mask) * label_weight(other, mask)
    # Trimmed, because plain least squares bends towards the very pixels that differ.
    solution, _ = solve_trimmed(other, reference, weight)
    low, high = _quantiles(torch.where(weight > 0, reference, torch.nan))
    spread = high - low
    usable = ((solution.scale > 0) & (spread > 0))[:, None, None] & (weight > 0)
    difference = (reference - solution.apply(other)).abs() / spread[:, None, None]
    return torch.where(usable, difference, torch.inf)


def _quantiles(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return both quantiles of each image over what is not NaN; NaN of nothing."""
    at = torch.tensor(DISPARITY_QUANTILES, dtype=values.dtype, device=values.device)
    low, high = torch.nanquantile(values.flatten(1), at, dim=1)
    return low, high
