"""Local-global distillation: the teacher looks at parts of a frame, the student at the whole.

After Distill Any Depth (arXiv 2502.19204), for recurrent event students: the student runs once on
the whole window, with its real state; the teacher labels crops of the frame, larger in its input
than they were; one crop is the same through all windows of a clip. The other half of that paper,
shared context, is the crop of `batches.py`: student and teacher on the same part of every window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from dae_ros.distillation.configuration import DistillationParameters
from dae_ros.distillation.normalisation import Mode, normalised_depth_loss
from dae_ros.distillation.preparation import at_size, cut_out
from dae_ros.distillation.teacher import FrameTeacher

Box: TypeAlias = tuple[int, int, int, int]

# A stream of random numbers beside (seed, step).
_BOXES = 4


def local_boxes(
    size: tuple[int, int], settings: DistillationParameters, step: int
) -> list[list[Box]]:
    """Draw boxes of the student's image for the clips of all processes.

    Args:
        size: (height, width) of that image, px.
        settings: local_global_crops, local_global_size, batch, seed.
        step: of the update.

    Returns:
        Per crop, per clip of the global batch: (top, left, bottom, right) in px.
    """
    random = np.random.default_rng([settings.seed, step, _BOXES])
    crops, clips = settings.local_global_crops, settings.batch
    rows, columns = (round(side * settings.local_global_size) for side in size)
    tops = random.integers(size[0] - rows + 1, size=(crops, clips))
    lefts = random.integers(size[1] - columns + 1, size=(crops, clips))
    return [
        [
            (int(top), int(left), int(top) + rows, int(left) + columns)
            for top, left in zip(tops[crop], lefts[crop], strict=True)
        ]
        for crop in range(crops)
    ]


def local_global_loss(
    predictions: Tensor,
    frames: Tensor,
    has_frame: Tensor,
    teacher: FrameTeacher,
    settings: DistillationParameters,
    boxes: Sequence[Sequence[Box]],
) -> Tensor:
    """Return the mean, over crops, of the normalised loss inside of them.

    Args:
        predictions: (N, h, w) of the whole image, clip after clip.
        frames: uint8 (N, H, W).
        has_frame: bool (N,).
        teacher: who labels.
        settings: normalisation, flip_consistency.
        boxes: of these clips, see `local_boxes`.
    """
    height, width = predictions.shape[1:]
    losses = []
    mode = cast("Mode", settings.normalisation)
    for of_clips in boxes:
        windows = len(predictions) // len(of_clips)
        every = [box for box in of_clips for _ in range(windows)]
        rows, columns = every[0][2] - every[0][0], every[0][3] - every[0][1]
        parts = torch.tensor(every, dtype=torch.float64, device=frames.device) / torch.tensor(
            [height, width, height, width], dtype=torch.float64, device=frames.device
        )
        seen = (
            round(rows / height * frames.shape[1]),
            round(columns / width * frames.shape[2]),
        )
        crops = cut_out(frames.float(), parts, seen).round().to(torch.uint8)
        label = teacher.label(crops, consistency=settings.flip_consistency)
        weight = at_size(label.weight * has_frame[:, None, None], (rows, columns))
        inside = torch.stack(
            [
                one[top:bottom, left:right]
                for one, (top, left, bottom, right) in zip(predictions, every, strict=True)
            ]
        )
        target = at_size(label.depth, (rows, columns))
        losses.append(normalised_depth_loss(inside, target, weight, mode).total)
    return torch.stack(losses).mean()
