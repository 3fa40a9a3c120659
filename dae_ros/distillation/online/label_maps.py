"""The label of a clip as a network's loss and score take it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.preparation import at_size


def label_maps(clip: LabelledClip, first: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return what is known at the end of each window, at a network's size by the nearest pixel.

    Args:
        clip: T windows, some of them with a label.
        first: the window to begin with.
        size: (h, w) of the network's input in px.

    Returns:
        float32 (T - first, h, w) each: depth, NaN where nothing is known, and confidence, 0..1.
    """
    length = len(clip.observation) - first
    depth, weight = torch.full((length, *size), torch.nan), torch.zeros(length, *size)
    kept = clip.labelled >= first
    for maps, values in ((depth, clip.depth), (weight, clip.weight)):
        known = torch.from_numpy(values[kept].astype(np.float32))
        if len(known):
            maps[torch.from_numpy(clip.labelled[kept] - first)] = at_size(known, size)
    return depth, weight / 255.0
