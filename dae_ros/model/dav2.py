"""Depth Anything V2 (Yang et al. 2024, arXiv:2406.09414), relative and metric.

Same encoder and head as DepthAnyEvent; the last upsampling aligns corners. Input: an RGB
frame / 255, resized (bicubic) until both sides reach 518 px, multiples of 14, ImageNet mean
and deviation. The relative network returns inverse depth up to scale and shift, the metric
one metres.
"""

from __future__ import annotations

from dae_ros.errors import ConfigurationError
from dae_ros.model.configuration import Meaning, ModelConfig, variant
from dae_ros.model.dae_r import DepthAnyEvent
from dae_ros.model.extractor import Encoder

RELATIVE = Meaning(event_encoder="rgb", orientation="inverse_depth", scale="relative")
METRIC = Meaning(event_encoder="rgb", orientation="depth", scale="metric")


def relative_config(encoder: str) -> ModelConfig:
    """Return the configuration of the relative network; encoder is vits, vitb or vitl."""
    return variant(
        encoder,
        recurrence=None,
        activation="relu",
        head_align_corners=True,
        input_height=518,
        input_width=518,
    )


def metric_config(encoder: str, max_depth: float) -> ModelConfig:
    """Return the configuration of a metric network.

    Args:
        encoder: vits, vitb or vitl.
        max_depth: metres at the top of the sigmoid: 20 for the indoor weights (Hypersim), 80
            for the outdoor ones (Virtual KITTI).
    """
    return variant(
        encoder,
        recurrence=None,
        activation="sigmoid",
        head_align_corners=True,
        output_scale=max_depth,
        input_height=518,
        input_width=518,
    )


class DepthAnythingV2(DepthAnyEvent):
    """Depth from one RGB frame.

    Args:
        config: `relative_config` or `metric_config`.
        encoder: used in place of the one that `config.encoder` names; any `Encoder` module.
    """

    def __init__(self, config: ModelConfig, encoder: Encoder | None = None) -> None:
        if not config.head_align_corners:
            raise ConfigurationError(
                "Depth Anything V2 aligns corners in its head; start from relative_config or "
                "metric_config"
            )
        super().__init__(config, encoder)
