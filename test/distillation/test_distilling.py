"""Whole runs of training: from a teacher's file, on other clips, and those that never begin."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dae_ros.cli.main import main
from dae_ros.distillation.configuration import to_yaml
from dae_ros.distillation.runs import train
from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.checkpoint import read_provenance, save_checkpoint
from dae_ros.model.configuration import Meaning, variant
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.model.weights import load_weights
from test.reference.moving_wedge import WedgeSource, wedge_clips
from test.reference.wedge_teacher import METRIC_GREY, Settings, distillation

ROOT = Path(__file__).resolve().parents[2]


def test_distilling_from_a_file(
    tmp_path: Path,
    settings: Settings,
    clips: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`dae-ros distill` runs from a teacher's checkpoint, scores labels, and writes its meaning."""
    # Whether two untrained networks agree which way round depth is, is chance.
    monkeypatch.setattr("dae_ros.distillation.trainer.MEANINGFUL", 0.0)
    network = build_network(
        variant("micro_frames", input_height=56, input_width=84, recurrence=None)
    )
    network.load_state_dict(untrained("micro_frames").network.state_dict())
    save_checkpoint(tmp_path / "teacher.safetensors", network, METRIC_GREY)
    some = distillation(
        settings, teachers=str(tmp_path / "teacher.safetensors"), steps=4, normalised_weight=0.5,
        local_global_share=0.5, crop_height=42, crop_width=56, crop_share=0.5,
        flip_consistency=True, evaluate_every=2,
    )  # fmt: skip
    (tmp_path / "settings.yaml").write_text(to_yaml(some))
    out = tmp_path / "run"
    assert main(["distill", str(tmp_path / "settings.yaml"), "--out", str(out)]) == 0
    assert "4 updates, best score" in capsys.readouterr().out
    header = (out / "heldout.csv").read_text().splitlines()[0]
    assert "label_aligned_abs_rel" in header and "aligned_abs_rel" in header
    meaning = load_weights(str(out / "last.safetensors")).meaning
    report = json.loads((out / "report.json").read_text())
    assert (meaning.orientation, meaning.scale) == (report["orientation"].split(":")[0], "relative")
    assert report["updates"] == 4 and report["best"] > 0


def test_tencode_weights_learn_from_voxel_folders(
    tmp_path: Path, settings: Settings, clips: str
) -> None:
    """Weights for Tencode go on with Tencode through voxels, as MVSEC has it, and then say so."""
    voxels = wedge_clips(tmp_path / "voxels", [WedgeSource(1)], [WedgeSource(2)], "tencode_voxel")
    train(settings(clips=voxels, steps=3), tmp_path / "first")
    first = load_weights(str(tmp_path / "first" / "best.safetensors"))
    assert first.meaning.event_encoder == "tencode_voxel"
    again = settings(clips=clips, steps=3, weights=str(tmp_path / "first" / "last.safetensors"))
    train(again, tmp_path / "second")
    second = load_weights(str(tmp_path / "second" / "last.safetensors"))
    assert second.meaning.event_encoder == "tencode"


def test_weights_that_are_not_there_are_said_with_their_setting(
    tmp_path: Path, settings: Settings
) -> None:
    """Whoever named them, a preset or the user, the setting is in the sentence."""
    for changes in ({"weights": "gone.pt"}, {"encoder_weights": "gone.pt"}):
        with pytest.raises(WeightsError, match=rf"^'{next(iter(changes))}': .* gone.pt"):
            train(settings(**changes), tmp_path / "run")
    with pytest.raises(WeightsError, match="--set encoder_weights= begins without"):
        train(settings(encoder_weights="gone.pt"), tmp_path / "run")
    with pytest.raises(WeightsError, match=r"'teachers': .* gone.pt"):
        train(distillation(settings, teachers="gone.pt"), tmp_path / "run")


def test_the_recipe_for_a_recording_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of docs/training.md train on pairs of bags, with shipped weights and without."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    section = text.partition("## A recording of your own")[2].partition("\n## ")[0]
    section = re.sub(r"\\\n *", "", section)
    verbs = re.findall(r"^dae-ros ((?:clips|train) .*)$", section, re.MULTILINE)
    clips_of, train_on, from_nothing = verbs
    small = "--height 40 --width 56 --duration 0.5 --format mvsec"
    for name, seed in (("x", 1), ("y", 2)):
        assert main(f"simulate --out {name} --seed {seed} {small}".split()) == 0
    assert main(clips_of.replace("DIR", str(tmp_path)).split()) == 0
    few = ("steps=2", "batch=1", "unroll=2", "burn_in=1", "warm_up=1", "evaluate_every=2",
           "heldout_windows=2", "threads=1", "device=cpu")  # fmt: skip
    begun = []
    for command, folder in ((train_on, "my_recording"), (from_nothing, "from_nothing")):
        assert main([*command.split(), *(word for item in few for word in ("--set", item))]) == 0
        assert "2 updates" in capsys.readouterr().out
        last = tmp_path / "output" / folder / "last.safetensors"
        begun.append(read_provenance(last)["started_from"])
    assert begun == [load_weights("micro").digest, load_weights("untrained:micro").digest]


def test_what_does_not_fit_is_said_before_the_first_update(
    tmp_path: Path, settings: Settings, clips: str
) -> None:
    """Clips of another encoder, without depth or frames, and inverse students are refused."""
    grids = wedge_clips(tmp_path / "grids", [WedgeSource(1)], [], "voxel_grid")
    with pytest.raises(
        ConfigurationError, match=r"event_encoder: tencode \(of events\) or tencode_v"
    ):
        train(settings(clips=grids), tmp_path / "run")
    with pytest.raises(
        ConfigurationError, match=r"holds tencode; make .* event_encoder: voxel_grid"
    ):
        train(settings(weights="untrained:tiny_e2depth"), tmp_path / "run")
    voxels = wedge_clips(tmp_path / "voxels", [WedgeSource(1)], [], "tencode_voxel")
    with pytest.raises(ConfigurationError, match="a checkpoint says one"):
        train(settings(clips=f"{clips},{voxels}"), tmp_path / "run")
    bare = wedge_clips(tmp_path / "bare", [WedgeSource(1, depth=False, frames=False)], [])
    with pytest.raises(ConfigurationError, match="no depth to train on"):
        train(settings(clips=bare), tmp_path / "run")
    with pytest.raises(ConfigurationError, match="no camera frames"):
        train(distillation(settings, clips=bare, teachers="untrained:x"), tmp_path / "run")
    with pytest.raises(ConfigurationError, match="takes events"):
        train(distillation(settings, weights="untrained:micro_frames"), tmp_path / "run")
    inverse = Meaning(orientation="inverse_depth")
    save_checkpoint(tmp_path / "i.safetensors", untrained("tiny").network, inverse)
    with pytest.raises(ConfigurationError, match="gives inverse depth"):
        train(settings(weights=str(tmp_path / "i.safetensors")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
