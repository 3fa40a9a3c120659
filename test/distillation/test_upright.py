"""Which way round depth was learned: measured, said in checkpoints, and noticed early."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dae_ros.cli.main import main
from dae_ros.distillation.configuration import TrainingParameters, to_yaml
from dae_ros.distillation.runs import train
from dae_ros.distillation.upright import UprightWatch
from dae_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dae_ros.model.configuration import Meaning
from dae_ros.model.weights import load_weights

Settings = Callable[..., TrainingParameters]


def test_signs_of_the_last_updates_count() -> None:
    """Early nothing is said; then the last updates decide, and held-out windows go before them."""
    watch = UprightWatch(metric=False)
    watch.update(0, 199, 199)
    assert (watch.share, watch.orientation, watch.warning) == (None, "unknown", "")
    watch.update(1, 1, 1)
    assert watch.share == 0
    assert "upside down on 100% of the last updates" in watch.warning
    for step in range(2, 400):
        watch.update(step, 20, 1)
    assert watch.share == pytest.approx(0.95, abs=1e-2)
    assert (watch.orientation, watch.warning) == ("depth", "")
    watch.score(0.3)
    assert (watch.share, watch.orientation) == (0.3, "unknown")
    assert "upside down on 70% of held-out windows" in watch.warning
    watch.score(float("nan"))
    assert watch.share == 0.3
    again = UprightWatch(metric=False)
    again.load(json.loads(json.dumps(watch.state())))
    assert (again.share, again.warning) == (watch.share, watch.warning)
    watch.score(0.9)
    assert watch.measured == "depth: scale above 0 on 0.900 of held-out windows"
    watch.score(0.89)
    assert (watch.orientation, watch.warning) == ("unknown", "")


def test_metres_need_no_watch() -> None:
    """What was compared with metres is depth, whatever the scales of fits."""
    watch = UprightWatch(metric=True)
    watch.update(1, 1000, 1000)
    assert (watch.orientation, watch.warning) == ("depth", "")


@pytest.fixture
def turned(overfitted: Path, tmp_path: Path) -> str:
    """The student that knows its clip, with its number turned into 1 / depth."""
    loaded = load_checkpoint(overfitted / "best.safetensors")
    last = loaded.network.depth_head.scratch.output_conv2[2]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.neg_()
    path = tmp_path / "turned.safetensors"
    save_checkpoint(path, loaded.network, Meaning(event_encoder="tencode"))
    return str(path)


def published(settings: Settings, overfitted: Path, weights: str) -> TrainingParameters:
    return settings(
        weights=weights, clips=str(overfitted.parent / "clips"), loss="published", steps=6,
        batch=1, burn_in=0, flip=0.0, learning_rate=1e-6, evaluate_every=3, save_every=3,
    )  # fmt: skip


def test_depth_upside_down_is_noticed(
    tmp_path: Path,
    settings: Settings,
    overfitted: Path,
    turned: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A student whose number falls with depth is warned of at once, and never called depth."""
    monkeypatch.setattr("dae_ros.distillation.upright.FITS_AT_LEAST", 4)
    told: list[str] = []
    notes: list[str] = []
    some = published(settings, overfitted, turned)
    train(some, tmp_path / "run", report=lambda _, text: told.append(text), note=notes.append)
    assert ["UPSIDE DOWN" in text for text in told] == [False, True, True, True, True, True]
    assert len(notes) == 1 and "loss=log_depth" in notes[0]
    # Its scores are those of constants: there is nothing to choose the best of.
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert load_weights(str(tmp_path / "run/last.safetensors")).meaning.orientation == "unknown"
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["orientation"] == "unknown: scale above 0 on 0.000 of held-out windows"
    assert "upside down" in report["warning"]
    (tmp_path / "some.yaml").write_text(to_yaml(some))
    assert main(["train", str(tmp_path / "some.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert "warning: depth is upside down" in capsys.readouterr().err


def test_depth_the_right_way_up_is_called_depth(
    tmp_path: Path, settings: Settings, overfitted: Path
) -> None:
    """The published loss gives weights of orientation depth where held-out windows say so."""
    some = published(settings, overfitted, str(overfitted / "best.safetensors"))
    result = train(some, tmp_path / "run")
    assert result.warning == "" and result.orientation.startswith("depth: scale above 0 on 1.000")
    meaning = load_weights(str(tmp_path / "run" / "best.safetensors")).meaning
    assert (meaning.orientation, meaning.scale) == ("depth", "relative")
