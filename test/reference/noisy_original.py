"""Students between noise and truth, which need no training to be better or worse.

The truth of these worlds is what one network says. The original is that network with noise on its
weights; what lies between them is better the nearer it is to the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.replay import HeldoutBlock
from dae_ros.distillation.online.verdict import Verdict
from dae_ros.model.configuration import Meaning, variant
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.online_clips import changed, wedge_clip

Weights = Mapping[str, Tensor]

CONFIG = variant("micro", input_height=28, input_width=42, activation="exp", output_scale=4.0)
MEANING = Meaning(event_encoder="tencode", orientation="depth", scale="metric")
PARAMETERS = OnlineParameters(lead=0, burn_in=1, unroll=3, judged_blocks=6)
# The last layer: logarithmic depth.
LAST = "depth_head.scratch.output_conv2.2."
TRUTH: Weights = untrained("micro").network.state_dict()


def noisy(weights: Weights, seed: int, amount: float = 0.1) -> Weights:
    """Return weights with noise on the head's matrices, relative to their spread."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: w + amount * w.std() * torch.randn(w.shape, generator=generator)
        if name.startswith("depth_head") and w.ndim > 1
        else w
        for name, w in weights.items()
    }


def towards(start: Weights, end: Weights, part: float) -> Weights:
    return {
        name: torch.lerp(w, end[name], part) if w.is_floating_point() else w
        for name, w in start.items()
    }


def network_of(weights: Weights) -> ClipNetwork:
    network = build_network(CONFIG)
    network.load_state_dict(dict(weights))
    return ClipNetwork(network.eval().requires_grad_(False), MEANING)


def with_last(weights: Weights, change: Callable[[str, Tensor], Tensor]) -> Weights:
    return {
        name: change(name.removeprefix(LAST), w) if name.startswith(LAST) else w
        for name, w in weights.items()
    }


def scaled(weights: Weights, factor: float) -> Weights:
    """Return weights whose depth is so many times as large."""
    return with_last(weights, lambda name, w: w + math.log(factor) if name == "bias" else w)


def labelled(seed: int, by: Weights, teacher: str = "teacher") -> LabelledClip:
    """Return a clip whose label is what a network says."""
    clip = wedge_clip(seed, length=4)
    maps = network_of(by).predict(clip.observation, 0).maps.numpy()
    return changed(clip, depth=maps.astype(np.float16), teacher=teacher)


def blocks_of(clips: list[LabelledClip]) -> list[HeldoutBlock]:
    return [HeldoutBlock(index, (clip,), ((index % 2, 0),)) for index, clip in enumerate(clips)]


ORIGINAL = noisy(TRUTH, seed=0)


def at(part: float) -> Weights:
    return towards(ORIGINAL, TRUTH, part)


def shorter(part: float, factor: float) -> Weights:
    """Return weights of a shape between original and truth that say too few metres."""
    return scaled(at(part), 1 / factor)


# Each is nearer to the metres and 1.9 % further from the shape than the one before.
CHAIN = [shorter(1 - 0.7 * 1.019**step, 1.3 / 1.06**step) for step in range(4)]


Judge = Callable[[Weights], Verdict]
