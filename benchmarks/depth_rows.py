"""One moment of a held-out sequence as a row of pictures: events, truth, and what networks say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from benchmarks.heldout import MAXIMUM_DEPTH_M, FloatImage
from dae_ros.distillation.clip_codes import tencode_of_code
from dae_ros.distillation.clip_store import ClipSequence
from dae_ros.representation.render import (
    METRES,
    Picture,
    color_range,
    depth_color,
    events_image,
    legend,
    side_by_side,
    titled,
)
from dae_ros.runtime.preview import fit, panel_rows


def depth_row(sequence: ClipSequence, index: int, found: Mapping[str, FloatImage]) -> Picture:
    """Draw one window of a world and depths of it, all in the colours of its truth.

    Args:
        sequence: with true depth.
        index: of the window.
        found: title -> depth of the window in metres, float32[H, W].
    """
    if sequence.depth is None:
        raise ValueError(f"{sequence.name} has no true depth to draw")
    rows = panel_rows(sequence.windows.shape[-2])
    code = torch.from_numpy(np.array(sequence.windows[index]))
    truth = sequence.depth[index].astype(np.float32)
    near, far = color_range(truth, METRES)
    world = sequence.facts["source"].get("world", {})
    words = [sequence.name.partition("_")[2], str(world.get("light", ""))]
    panels = [
        titled(fit(events_image(tencode_of_code(code).numpy()), rows), " ".join(words).strip()),
        titled(fit(depth_color(truth, near, far, METRES), rows), "ground truth"),
        titled(legend(rows, near, far, "m", METRES), ""),
    ]
    valid = (truth > 0) & (truth < MAXIMUM_DEPTH_M)
    for name, depth in found.items():
        counted = valid & np.isfinite(depth)
        error = np.abs(depth - truth)[counted] / truth[counted]
        title = f"{name}: Abs Rel {error.mean():.2f}" if counted.any() else name
        panels.append(titled(fit(depth_color(depth, near, far, METRES), rows), title))
    return side_by_side(panels)
