"""What the tests of online learning share: a small student and its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import Meaning, variant
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.parameters.distillation import OnlineParameters

Online = Callable[..., OnlineParameters]


@pytest.fixture(scope="session")
def student() -> LoadedModel:
    """An untrained metric `micro` for 28 x 42 px."""
    loaded = untrained("micro")
    config = variant("micro", input_height=28, input_width=42)
    network = build_network(config)
    network.load_state_dict(loaded.network.state_dict())
    meaning = Meaning(event_encoder="tencode", orientation="depth", scale="metric")
    return dataclasses.replace(loaded, network=network.eval(), config=config, meaning=meaning)


@pytest.fixture(scope="session")
def online() -> Online:
    """Parameters for clips of five windows; keywords change single ones."""

    def build(**changes: Any) -> OnlineParameters:
        values = {"lead": 1, "burn_in": 2, "unroll": 2, "labels_per_clip": 2}
        return OnlineParameters.from_mapping({**values, **changes})

    return build
