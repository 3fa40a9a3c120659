"""A student may begin with the image encoder of a network that knows something already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.distillation.runs import train
from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from dae_ros.model.encoder_transfer import take_encoder
from dae_ros.model.untrained import untrained

Settings = Callable[..., TrainingParameters]


def test_the_encoder_comes_and_the_rest_stays() -> None:
    """All of `pretrained` is the source's, but the first layer, which sees other channels."""
    target, source, before = untrained("micro"), untrained("micro_frames", 1), untrained("micro")
    stays = take_encoder(target, source)
    assert stays == ["pretrained.stem.0.weight"]
    theirs, was = source.network.state_dict(), before.network.state_dict()
    for name, value in target.network.state_dict().items():
        wanted = theirs if name.startswith("pretrained.") and name not in stays else was
        assert torch.equal(value, wanted[name]), name


def test_another_encoder_is_refused() -> None:
    """Of a network of another kind nothing is taken, and the sentence says what did not fit."""
    target, before = untrained("micro"), untrained("micro")
    with pytest.raises(WeightsError, match="take weights with the same encoder"):
        take_encoder(target, untrained("vitt"))
    for name, value in target.network.state_dict().items():
        assert torch.equal(value, before.network.state_dict()[name])


def test_a_run_begins_with_it_and_says_so(
    tmp_path: Path, small_micro: str, settings: Settings
) -> None:
    """A run starts from the encoder, names its digest, and goes on with no other one."""
    source = untrained("micro", 3)
    chosen = settings(encoder_weights=str(_saved(source, tmp_path / "source.safetensors")), steps=3)
    train(chosen, tmp_path / "run")
    train(settings(steps=3), tmp_path / "plain")
    digest = load_checkpoint(tmp_path / "source.safetensors").digest
    with safe_open(tmp_path / "run" / "last.safetensors", "pt") as file:
        assert file.metadata()["encoder_from"] == digest
        assert file.metadata()["started_from"] == load_checkpoint(small_micro).digest
    with safe_open(tmp_path / "plain" / "last.safetensors", "pt") as file:
        assert "encoder_from" not in file.metadata()
    name = "pretrained.stages.2.1.expand.weight"
    wanted = source.network.state_dict()[name]
    found = load_checkpoint(tmp_path / "run" / "last.safetensors").network.state_dict()[name]
    plain = load_checkpoint(tmp_path / "plain" / "last.safetensors").network.state_dict()[name]
    assert (found - wanted).norm() < 0.2 * (plain - wanted).norm()
    _saved(untrained("micro", 4), tmp_path / "source.safetensors")
    with pytest.raises(ConfigurationError, match="other settings: data"):
        train(chosen, tmp_path / "run")


def _saved(loaded: LoadedModel, path: Path) -> Path:
    save_checkpoint(path, loaded.network, loaded.meaning)
    return path
