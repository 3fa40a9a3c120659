"""Which frames a teacher may see, and which labels are believed.

A part of the parameters of online learning, see `distillation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dae_ros.parameters.declaration import NodeParameters, declare


@dataclass(frozen=True, kw_only=True)
class GateParameters(NodeParameters):
    """Which frames a teacher may see, and which labels are believed."""

    # Frame gate: which frames a teacher may see.
    saturated_share: float = declare(
        0.2,
        "A frame with at least this share of pixels at 0 or 255 is refused; with less they are "
        "masked.",
        minimum=0.0,
        maximum=1.0,
    )
    saturated_margin_px: int = declare(
        3, "How far around saturated pixels is masked, in px.", minimum=0, maximum=32
    )
    darkest_mean: float = declare(
        25.0, "A frame darker than this mean grey level is refused.", minimum=0.0, maximum=255.0
    )
    brightest_mean: float = declare(
        230.0, "A frame brighter than this mean grey level is refused.", minimum=0.0, maximum=255.0
    )
    smallest_contrast: float = declare(
        40.0,
        "A frame is refused whose 5 % and 95 % quantiles are less than this many grey levels "
        "apart.",
        minimum=0.0,
        maximum=255.0,
    )
    sharp_blur_px: float = declare(
        3.0, "A frame with more motion blur gives no gradient term, in px.", minimum=0.0
    )
    largest_blur_px: float = declare(
        6.0, "A frame with more motion blur is refused, in px.", minimum=0.0
    )
    smallest_sharpness: float = declare(
        0.3,
        "Where the exposure is not known: a frame is refused whose Laplacian's variance is below "
        "this share of the running median.",
        minimum=0.0,
        maximum=1.0,
    )
    fewest_active_share: float = declare(
        0.005,
        "A window with events at fewer pixels than this share is not learned from.",
        minimum=0.0,
        maximum=1.0,
    )
    smallest_on_ratio: float = declare(
        0.2, "A clip is refused in which a window has fewer ON per OFF events.", minimum=0.0
    )
    largest_on_ratio: float = declare(
        5.0, "A clip is refused in which a window has more ON per OFF events.", minimum=0.0
    )
    flash_share: float = declare(
        0.6,
        "A clip is refused in which more than this share of pixels has events within 5 ms.",
        minimum=0.0,
        maximum=1.0,
    )
    hot_share: float = declare(
        0.5,
        "A clip is refused in whose last window more than this share of events comes from pixels "
        "that fire above 1 kHz.",
        minimum=0.0,
        maximum=1.0,
    )

    # Label gate: which labels are believed.
    labels_per_clip: int = declare(
        4, "Frames of a clip that the teacher labels, the last among them.", minimum=1, maximum=256
    )
    smallest_correlation: float = declare(
        0.3,
        "A label is refused that correlates less with the student's own depth.",
        minimum=-1.0,
        maximum=1.0,
    )
    largest_scale_ratio: float = declare(
        5.0,
        "A label is refused whose scale differs by more than this factor from the running median.",
        minimum=1.0,
    )
    consistency_share: float = declare(
        0.25,
        "Share of labels that are compared with those of the mirrored and of the cropped frame.",
        minimum=0.0,
        maximum=1.0,
    )
    smallest_confidence: float = declare(
        0.4,
        "A label is refused whose mean confidence in these comparisons is less.",
        minimum=0.0,
        maximum=1.0,
    )
    largest_flicker: float = declare(
        0.15,
        "A label is refused that differs from the last by more than this, relative to its spread, "
        "where no events are.",
        minimum=0.0,
    )
    far_share: float = declare(
        0.02, "Share of a label's farthest pixels that is masked.", minimum=0.0, maximum=0.5
    )
    full_density: float = declare(
        0.2,
        "Share of active pixels in a patch of 14 px from which its label has full weight.",
        minimum=0.001,
        maximum=1.0,
    )
