"""Differences between normalised depth maps: hybrid, local, global or none.

A label of unknown scale and shift is compared after both sides were normalised with the median and
the mean absolute deviation (MAD) of a context. Hierarchical contexts follow arXiv 2502.19204: the
RANGE of the teacher's depth is cut into S equal segments, and each segment is a context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from dae_ros.distillation.scale_and_shift import as_map, label_weight, only_valid
from dae_ros.errors import ConfigurationError

Mode: TypeAlias = Literal["hybrid", "local", "global", "none"]

SEGMENTS: dict[Mode, tuple[int, ...]] = {
    "hybrid": (1, 2, 4),
    "local": (4,),
    "global": (1,),
    "none": (),
}
# A MAD below this part of the median is rounding, not shape.
CONSTANT = 1e-5


@dataclass(frozen=True, slots=True)
class NormalisedLoss:
    """The loss and how many contexts carried it.

    Attributes:
        total: scalar with gradient; 0 where no context was usable.
        contexts: used, over the whole batch; with mode `none` 1 per image with valid px.
        dropped: contexts with pixels, but fewer than `minimum_pixels` or with a constant label.
    """

    total: Tensor
    contexts: int
    dropped: int


def normalised_depth_loss(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor,
    mode: Mode = "hybrid",
    minimum_pixels: int = 500,
) -> NormalisedLoss:
    """Compare a prediction with a label that is right up to scale and shift.

    N_u(d) = (d - median_u) / MAD_u; the loss of a pixel is the mean of |N_u(p) - N_u(d)| over the
    usable contexts u that hold it, of an image the mean over its pixels in any context, 0 where
    it has none, of a batch the mean over images. Mode `none` is mean |p - d|: only for a label in
    the student's own unit.

    Medians are lower medians and part of the graph.

    Args:
        prediction, target: (B, H, W) or (B, 1, H, W); raised to float32.
        mask: bool, or float weights >= 0 for the mean over pixels; 0, or a label that is not
            finite, is invalid.
        mode: which contexts.
        minimum_pixels: a smaller context is dropped, because its median is noise.

    Raises:
        ConfigurationError: an unknown mode, or `minimum_pixels` below 2.
        DistillationError: shapes that differ.
    """
    if mode not in SEGMENTS or minimum_pixels < 2:
        raise ConfigurationError(
            f"Normalisation is one of {', '.join(SEGMENTS)} with at least 2 px per context, "
            f"not '{mode}' with {minimum_pixels}.",
            mode=mode,
            minimum_pixels=minimum_pixels,
        )
    d_maps, weights = as_map(target), label_weight(target, mask)
    p_maps = only_valid(prediction, weights)
    losses: list[Tensor] = []
    used = dropped = 0
    for p_map, d_map, weight in zip(p_maps, d_maps, weights, strict=True):
        valid = weight > 0
        p, d, w = p_map[valid], d_map[valid], weight[valid]
        if mode == "none":
            errors, counts = (p - d).abs(), torch.ones_like(w)
            used += int(p.numel() > 0)
        else:
            errors, counts, kept, lost = _context_errors(p, d, SEGMENTS[mode], minimum_pixels)
            used += kept
            dropped += lost
        w = w * (counts > 0)
        # Where nothing is usable a 0 that keeps the graph, and counts as an image, so that the
        # means of parts of a batch add up to its own.
        usable = bool(w.any())
        losses.append(
            (w * errors / counts.clamp(min=1)).sum() / w.sum() if usable else p.sum() * 0.0
        )
    return NormalisedLoss(torch.stack(losses).mean(), used, dropped)


def _context_errors(
    p: Tensor, d: Tensor, segment_counts: tuple[int, ...], minimum_pixels: int
) -> tuple[Tensor, Tensor, int, int]:
    """Return per pixel the sum of errors and the number of contexts; then used and dropped."""
    errors, counts = torch.zeros_like(p), torch.zeros_like(p)
    used = dropped = 0
    if d.numel() == 0:
        return errors, counts, used, dropped
    lowest, highest = d.min(), d.max()
    for segments in segment_counts:
        place = (d - lowest) / torch.where(highest > lowest, highest - lowest, 1.0) * segments
        segment = place.long().clamp(max=segments - 1)  # the highest value closes its segment
        for index in range(segments):
            inside = segment == index
            size = int(inside.sum())
            if size == 0:
                continue
            d_here = d[inside]
            d_median, d_mad, varies = _median_and_mad(d_here)
            if size < minimum_pixels or not varies:
                dropped += 1
                continue
            p_here = p[inside]
            p_median, p_mad, _ = _median_and_mad(p_here)
            difference = (p_here - p_median) / p_mad - (d_here - d_median) / d_mad
            errors = errors.masked_scatter(inside, errors[inside] + difference.abs())
            counts = counts + inside
            used += 1
    return errors, counts, used, dropped


def _median_and_mad(values: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Return median, MAD (at least the rounding of the median) and whether the values vary."""
    median = values.median()
    mad = (values - median).abs().mean()
    floor = (CONSTANT * median.abs()).detach() + torch.finfo(values.dtype).tiny
    return median, torch.maximum(mad, floor), bool(mad > floor)
