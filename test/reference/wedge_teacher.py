"""A teacher that sees the depth of wedges without error, and settings to distil from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dae_ros.distillation.configuration import DistillationParameters, TrainingParameters
from dae_ros.distillation.labels import DepthRange
from dae_ros.distillation.teacher import FrameTeacher
from dae_ros.model.configuration import Meaning
from test.reference.moving_wedge import depth_of_grey

Settings = Callable[..., TrainingParameters]
CPU = torch.device("cpu")
METRIC_GREY = Meaning(event_encoder="grey", orientation="depth", scale="metric")
RELATIVE_GREY = Meaning(event_encoder="grey", orientation="depth", scale="relative")


def seen_depth(frames: Tensor) -> Tensor:
    """A perfect frame network for wedges: metres."""
    return torch.from_numpy(depth_of_grey(frames.numpy().astype(np.float32)))


def teacher(
    backend: Callable[[Tensor], Tensor] = seen_depth, meaning: Meaning = METRIC_GREY
) -> FrameTeacher:
    return FrameTeacher("wedge", "0" * 64, backend, meaning, DepthRange(0.3, 15.0))


def distillation(settings: Settings, **changes: Any) -> DistillationParameters:
    known = settings()
    values = {name: getattr(known, name) for name in known.__dataclass_fields__}
    defaults = {
        "loss": "published", "teachers": "wedge", "trim": 0.0,
        "normalisation": "hybrid", "normalised_weight": 0.0,
    }  # fmt: skip
    return DistillationParameters.from_mapping({**values, **defaults, **changes})
