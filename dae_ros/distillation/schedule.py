"""The learning rate over a run, and the weights' running average: functions of the step alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def learning_rate(step: int, *, peak: float, final: float, warm_up: int, steps: int) -> float:
    """Return the rate of an update: linear warm-up, then half a cosine down to final * peak.

    Args:
        step: of the update, from 0.
        peak: reached by update `warm_up`.
        final: relative to the peak, of the last update.
        warm_up: updates; the first has peak / (warm_up + 1).
        steps: of the run.
    """
    if step < warm_up:
        return peak * (step + 1) / (warm_up + 1)
    progress = (step - warm_up) / max(steps - 1 - warm_up, 1)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def average_decay(step: int, decay: float) -> float:
    """Return the decay of an update's average; small at first, so that the start is forgotten."""
    return min(decay, (1 + step) / (10 + step))


def update_average(
    average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float
) -> None:
    """Move each average towards its weight, in place: a <- decay a + (1 - decay) w."""
    with torch.no_grad():
        for name, value in weights.items():
            if value.is_floating_point():
                average[name].lerp_(value, 1.0 - decay)
            else:
                average[name].copy_(value)
