"""A small student that has seen a few wedges, so that its depth has a shape."""

from __future__ import annotations

import copy
import dataclasses
import functools

import torch

from dae_ros.distillation.online.learner import Learner
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import Meaning, variant
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.online_clips import wedge_clip


def taught_student() -> LoadedModel:
    """Return a metric `micro` for 28 x 42 px whose depth correlates with that of wedges.

    Its weights are the caller's own; teaching is done once in a process.
    """
    taught = _taught()
    return dataclasses.replace(taught, network=copy.deepcopy(taught.network))


@functools.cache
def _taught() -> LoadedModel:
    loaded = untrained("micro")
    config = variant("micro", input_height=28, input_width=42)
    network = build_network(config)
    network.load_state_dict(loaded.network.state_dict())
    meaning = Meaning(event_encoder="tencode", orientation="depth", scale="metric")
    untaught = dataclasses.replace(loaded, network=network.eval(), config=config, meaning=meaning)
    parameters = OnlineParameters.from_mapping({
        "lead": 1, "burn_in": 2, "unroll": 2, "labels_per_clip": 2,
        "tier": 2, "learning_rate": 3e-3, "average_decay": 0.8, "warm_up": 2, "pull": 0.0,
        "pin_weight": 0.0, "anchor_weight": 0.0, "largest_norm_ratio": 1e9,
    })  # fmt: skip
    learner = Learner(untaught, parameters, torch.device("cpu"))
    clips = [wedge_clip(seed, length=5) for seed in range(4, 8)]
    for step in range(40):
        learner.step([], [clips[step % 4], clips[(step + 1) % 4]], step)
    return dataclasses.replace(untaught, network=learner.candidate().network)
