"""Which candidates may be published.

A part of the parameters of online learning, see `distillation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import NodeParameters, declare


@dataclass(frozen=True, kw_only=True)
class GuardParameters(NodeParameters):
    """Which candidates may be published."""

    # Guard: which candidates may be published.
    judge_every_steps: int = declare(
        50, "Accepted steps after which a candidate is judged.", minimum=1
    )
    judge_every_s: float = declare(
        30.0, "Seconds after which a candidate is judged that has fewer steps.", minimum=0.1
    )
    judged_blocks: int = declare(
        12, "Held-out blocks that a judgement needs.", minimum=2, maximum=1000
    )
    judged_strata: int = declare(
        2,
        "Kinds of scene (terciles of event rate and luminance) that they must be of.",
        minimum=1,
        maximum=9,
    )
    confidence: float = declare(
        0.9,
        "The interval of the gain holds it with this probability; its lower end must be above 0.",
        minimum=0.5,
        maximum=0.999,
    )
    smallest_gain: float = declare(
        0.01,
        "A candidate is refused whose error on held-out clips is not less by this share.",
        minimum=0.0,
        maximum=1.0,
    )
    largest_forgetting: float = declare(
        0.02,
        "A candidate is refused whose error on anchors is above the original's by more than this "
        "share.",
        minimum=0.0,
    )
    largest_true_forgetting: float = declare(
        0.01, "The same on anchors whose depth was measured or simulated.", minimum=0.0
    )
    largest_place_forgetting: float = declare(
        0.3,
        "The same in any one place with such depth; where a place has no label, |depth - the "
        "original's| over the original's.",
        minimum=0.0,
    )
    largest_departure: float = declare(
        0.1,
        "On anchors without a label: largest mean |depth - the original's| over the original's.",
        minimum=0.0,
    )
    largest_scale_step: float = declare(
        0.05,
        "Largest |ln| of a candidate's median depth over the published one's.",
        minimum=0.0,
    )
    largest_metric_scale_step: float = declare(
        0.3,
        "The same where metres are compared with metres, so that a wrong scale shows as an error.",
        minimum=0.0,
    )
    largest_scale_drift: float = declare(
        0.3, "Largest |ln| of a candidate's median depth over the original's.", minimum=0.0
    )
    largest_jitter: float = declare(
        1.05,
        "Largest trembling of a candidate's depth from window to window, relative to the "
        "published one's.",
        minimum=1.0,
    )
    smallest_spread: float = declare(
        0.3,
        "Smallest spread of a candidate's depth over the image, relative to the published one's.",
        minimum=0.0,
        maximum=1.0,
    )
    largest_saturation: float = declare(
        0.05,
        "Largest share of pixels at an end of their image's range; as many as the published one "
        "has are allowed.",
        minimum=0.0,
        maximum=1.0,
    )
