"""How events and frames become clips to learn from.

A part of the parameters of online learning, see `distillation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import NodeParameters, declare, declare_as
from dae_ros.parameters.depth import DepthParameters


@dataclass(frozen=True, kw_only=True)
class ClipParameters(NodeParameters):
    """How events and frames become clips to learn from."""

    # Clips: windows that end at camera frames.
    window_s: float = declare(
        0.05, "Length of a window in seconds, as the depth node's.", minimum=0.001, maximum=2.0
    )
    lead: int = declare(
        8,
        "Windows at the beginning of a clip that stand in for a stored state which is too old.",
        minimum=0,
        maximum=256,
    )
    burn_in: int = declare(
        4,
        "Windows after them that only bring the recurrent state up, without gradient.",
        minimum=0,
        maximum=256,
    )
    unroll: int = declare(
        8, "Last windows of a clip, which are learned from.", minimum=1, maximum=256
    )
    ring_s: float = declare(
        3.0, "How much event time is kept to cut clips from, in seconds.", minimum=0.1, maximum=60.0
    )
    ring_mb: int = declare(
        256, "How much memory these events may take, in MB.", minimum=1, maximum=16_384
    )
    waiting_frames: int = declare(
        100, "Camera frames that may wait for their events.", minimum=1, maximum=10_000
    )
    hold_after_s: float = declare(
        1.0,
        "Where events or frames stay away for this many seconds, nothing is learned and the "
        "status says so.",
        minimum=0.05,
        maximum=3600.0,
    )
    image_stamp: str = declare_as(DepthParameters, "image_stamp")
    exposure_s: float = declare(
        0.0,
        "Exposure time of the camera frames in seconds; 0 where neither this nor the frame says "
        "it: blur is then judged by the frame alone.",
        minimum=0.0,
        maximum=1.0,
    )
    sync_tolerance_s: float = declare(
        0.005,
        "Furthest that a frame may lie from the end of its window, in seconds.",
        minimum=0.0,
        maximum=0.1,
    )
    largest_event_lag_s: float = declare(
        0.015,
        "Furthest that events may lag behind what the frames show, in seconds: pixels are slow in "
        "the dark. Ahead of them they may be by sync_tolerance_s.",
        minimum=0.0,
        maximum=0.03,
    )
