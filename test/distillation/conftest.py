"""What the tests of the trainer share: small clips, a batch, a small network, a trained student."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dae_ros.distillation.batches import ClipSampler
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.distillation.preparation import Preparation, Prepared
from dae_ros.distillation.runs import train
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.configuration import Meaning, variant
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.model.weights import load_weights
from dae_ros.runtime.torch_fitting import Fitting
from test.reference.moving_wedge import WedgeSource, wedge_clips

Settings = Callable[..., TrainingParameters]


@pytest.fixture(scope="session")
def small_micro(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained `micro` for 56x84 px, as a file."""
    network = build_network(variant("micro", input_height=56, input_width=84))
    network.load_state_dict(untrained("micro").network.state_dict())
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    save_checkpoint(path, network, Meaning(event_encoder="tencode"))
    return str(path)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three training sequences, one of them broken in the middle, and one held out."""
    train_set = [WedgeSource(1), WedgeSource(2, restart_at=4), WedgeSource(3, windows=5)]
    return wedge_clips(tmp_path_factory.mktemp("clips") / "store", train_set, [WedgeSource(9)])


@pytest.fixture(scope="session")
def settings(small_micro: str, clips: str) -> Settings:
    """Few and small updates; keywords change single settings."""

    def build(**changes: Any) -> TrainingParameters:
        values = {
            "weights": small_micro,
            "clips": clips,
            "steps": 6,
            "batch": 2,
            "unroll": 2,
            "burn_in": 1,
            "warm_up": 2,
            "learning_rate": 3e-3,
            "ema": 0.9,
            "save_every": 2,
            "evaluate_every": 3,
            "heldout_windows": 3,
            "threads": 1,
            "device": "cpu",
        }
        return TrainingParameters.from_mapping({**values, **changes})

    return build


@pytest.fixture(scope="module")
def batch(clips: str, settings: Settings, small_micro: str) -> Prepared:
    """Two clips of two windows, whole and mirrored."""
    cpu = torch.device("cpu")
    fitting = Fitting(load_weights(small_micro).config, 14, cpu)
    sampler = ClipSampler((open_clip_store(clips),), settings(flip=1.0))
    return Preparation(fitting, "tencode")(sampler.batch(0), cpu)


@pytest.fixture(scope="session")
def overfitted(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Path:
    """The run of a student that learned one clip by heart."""
    folder = tmp_path_factory.mktemp("overfitted")
    # The held-out sequence is the very same clip: here memory is what is measured.
    store = wedge_clips(folder / "clips", [WedgeSource(1, windows=2)], [WedgeSource(1, windows=2)])
    train(
        settings(
            clips=store, steps=260, batch=1, burn_in=0, cold_start=1.0, flip=0.0, warm_up=20,
            alpha=0.0, clip_norm=0.0, evaluate_every=260, save_every=260,
        ),
        folder / "run",
    )  # fmt: skip
    return folder / "run"
