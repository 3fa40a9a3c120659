"""When there is something to learn, and what of the machine that may take.

A part of the parameters of online learning, see `distillation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import NodeParameters, declare


@dataclass(frozen=True, kw_only=True)
class PaceParameters(NodeParameters):
    """When there is something to learn, and what of the machine that may take."""

    # Pace: how often the teacher is asked, and when there is nothing to learn.
    shortest_stride: int = declare(
        2, "Least number of frames from one label to the next.", minimum=1, maximum=10_000
    )
    longest_stride: int = declare(
        16, "Largest number of frames from one label to the next.", minimum=1, maximum=10_000
    )
    surprise: float = declare(
        1.05,
        "A label surprises where the published weights err by more than this factor over the "
        "held-out labels' median.",
        minimum=1.0,
    )
    smallest_gain_rate: float = declare(
        2e-5,
        "Relative gain per second of work below which learning holds while no label surprises.",
        minimum=0.0,
    )
    retry_s: float = declare(
        60.0, "After so many seconds of holding, learning is tried again.", minimum=1.0
    )

    # Budget: how much of the machine learning may take.
    duty: float = declare(
        0.25,
        "Largest share of the time that learning works.",
        minimum=0.01,
        maximum=1.0,
        at_runtime=True,
    )
    latency_budget_ms: float = declare(
        0.0,
        "The share is halved where the 95 % quantile of depth's latency is above this, in ms; 0: a "
        "fifth above what it is while learning rests.",
        minimum=0.0,
        at_runtime=True,
    )
    recovery_s: float = declare(
        5.0,
        "After windows of depth were dropped, learning waits for so many seconds without.",
        minimum=1.0,
    )
    memory_mb: int = declare(
        4096,
        "Learning holds where the process takes more memory than this, in MB; mapped files, as "
        "anchors are, do not count.",
        minimum=1,
    )

    # Health: when nothing that comes in can be trusted.
    degraded_share: float = declare(
        0.7,
        "Where more than this share of frames and labels is refused, nothing is learned.",
        minimum=0.0,
        maximum=1.0,
    )
    degraded_s: float = declare(
        30.0, "Time in seconds over which that share is taken.", minimum=1.0, maximum=3600.0
    )

    # The place's nearest and farthest depth: over them a teacher of relative disparity is
    # stretched, and what a metric one sees beyond the farthest is no label.
    near_m: float = declare(
        0.3,
        "Nearest depth of the place, where a relative disparity teacher's nearest is put.",
        minimum=0.01,
    )
    far_m: float = declare(
        15.0,
        "Farthest depth of the place: a metric teacher's labels beyond it are invalid, a relative "
        "disparity teacher's farthest is put there. 15 is for rooms; outdoors 80.",
        minimum=0.02,
    )

    # On disk: what a kill may cost, and how far back depth can go.
    save_every_steps: int = declare(
        1,
        "Accepted steps between two saves of the learner's state, which is what a kill may cost; "
        "more of them spare a disk that wears.",
        minimum=1,
    )
    kept_snapshots: int = declare(
        5,
        "Published versions that stay, beside the first, the best and the announced one.",
        minimum=2,
        maximum=10_000,
    )
