"""Settings of training: presets load and fit their clips; what contradicts itself is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
import yaml

from dae_ros.cli.train import EPILOG
from dae_ros.distillation.configuration import (
    DistillationParameters,
    TrainingParameters,
    load_settings,
    presets,
    to_yaml,
)
from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.protocols import PROTOCOLS
from dae_ros.installation import share_folder
from dae_ros.model.configuration import same_input
from dae_ros.model.dav2 import relative_config
from dae_ros.model.encoder_transfer import take_encoder
from dae_ros.model.manifest import find_entry, read_manifest
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.model.weights import load_weights


@pytest.mark.parametrize("name", presets())
def test_presets_are_valid(name: str) -> None:
    """Every preset loads; those of distillation name teachers."""
    text = (share_folder() / "config" / "train" / f"{name}.yaml").read_text()
    kind = DistillationParameters if "\nteachers:" in text else TrainingParameters
    some = load_settings(kind, name)
    assert kind.from_mapping(yaml.safe_load(to_yaml(some))) == some


@pytest.mark.parametrize("name", presets())
def test_presets_fit_their_clips(name: str) -> None:
    """The recipe that a preset's clips are made by gives what its first weights take."""
    folder = share_folder() / "config" / "train"
    some = yaml.safe_load((folder / f"{name}.yaml").read_text())
    clips = Path(some["clips"]).name
    own = {"clips": "clips_first_weights", "clips_wider": "clips_wider_worlds"}
    recipe = folder / f"{own.get(clips, clips)}.yaml"
    encoder = yaml.safe_load(recipe.read_text())["event_encoder"]
    known = {entry.name: entry.meaning.event_encoder for entry in read_manifest().entries}
    weights = some["weights"]
    if weights.startswith("output/"):
        run = Path(weights).parent
        before = f"first_weights_{run.name}" if run.parent.name == "first_weights" else run.name
        weights = yaml.safe_load((folder / f"{before}.yaml").read_text())["weights"]
    takes = known.get(weights) or load_weights(weights).meaning.event_encoder
    assert takes == "grey" or same_input(takes, encoder)
    if "teachers" in some and not name.startswith("first_"):
        train_set = yaml.safe_load(recipe.read_text())["train"]
        assert all(entry["ends"] == "frame" for entry in train_set)


@pytest.mark.parametrize("name", ["mvsec", "mvsec_frames", "dsec", "dsec_frames"])
def test_clips_are_encoded_as_they_are_scored(name: str) -> None:
    """Students of one data set see in training what the published protocol shows them in tests."""
    recipe = yaml.safe_load((share_folder() / f"config/train/clips_{name}.yaml").read_text())
    assert recipe["event_encoder"] == PROTOCOLS[name.removesuffix("_frames")].event_encoder


def test_published_settings() -> None:
    """The authors' numbers: 75 000 updates of 10 clips at 5e-6 with lambda 0.25, after DAv2."""
    for name in ("eventscape_supervised", "mvsec_supervised", "dsec_supervised"):
        some = load_settings(TrainingParameters, name)
        assert (some.steps, some.batch, some.learning_rate) == (75_000, 10, 5e-6)
        assert (some.loss, some.alpha, some.reduction) == ("published", 0.25, "batch")
    first = load_settings(TrainingParameters, "eventscape_supervised")
    assert (first.weights, first.encoder_weights) == ("untrained:vits", "depth_anything_v2_vits")
    for name in ("mvsec_distilled", "dsec_distilled"):
        taught = load_settings(DistillationParameters, name)
        assert (taught.steps, taught.batch, taught.learning_rate) == (75_000, 10, 5e-6)


def test_published_settings_of_baselines() -> None:
    """E2Depth goes at 1e-4, EReFormer at 3.2e-5 by twos: EventScape first, targets then."""
    for network, rate, batch in (("e2depth", 1e-4, 10), ("ereformer", 3.2e-5, 2)):
        for place in ("eventscape", "mvsec", "dsec"):
            some = load_settings(TrainingParameters, f"{place}_{network}")
            assert (some.steps, some.batch, some.learning_rate) == (75_000, batch, rate)
            assert (some.loss, some.alpha, some.reduction) == ("published", 0.25, "batch")
            begin = f"output/eventscape_{network}/last.safetensors"
            assert some.weights == (f"untrained:{network}" if place == "eventscape" else begin)
    taught = load_settings(DistillationParameters, "mvsec_e2depth_distilled")
    assert (taught.steps, taught.batch, taught.learning_rate) == (75_000, 10, 1e-4)
    assert taught.weights == "output/eventscape_e2depth/last.safetensors"


def test_documented_processes_divide_the_batch() -> None:
    """Every command for several processes that is written down can run: they share a batch."""
    root = Path(__file__).parents[2]
    texts = [EPILOG, *(path.read_text() for path in (root / "docs").glob("*.md"))]
    commands = [re.findall(r"--nproc-per-node (\d+) -m dae_ros.cli train (\S+)", t) for t in texts]
    assert commands[0] and any(commands[1:])
    for processes, preset in (command for found in commands for command in found):
        assert load_settings(TrainingParameters, preset).batch % int(processes) == 0, preset


def test_the_encoder_of_depth_anything_fits() -> None:
    """All of the encoder of `eventscape_supervised` comes from an official vits, by its layout."""
    entry = find_entry(read_manifest(), "depth_anything_v2_vits")
    assert (entry.network, entry.encoder) == ("depth_anything_v2", "vits")
    # The layout that its file is loaded into, strictly; the numbers are not fetched for a test.
    target = untrained("vits")
    network = build_network(relative_config("vits"))
    source = dataclasses.replace(target, network=network, name=entry.name)
    assert take_encoder(target, source) == []
    taken, theirs = target.network.state_dict(), network.state_dict()
    assert torch.equal(taken["pretrained.pos_embed"], theirs["pretrained.pos_embed"])


@pytest.mark.parametrize("name", presets())
def test_students_that_know_depth_refuse_from_the_beginning(name: str) -> None:
    """Labels upside down are never learned from by a preset that begins with trained weights."""
    some = yaml.safe_load((share_folder() / "config" / "train" / f"{name}.yaml").read_text())
    if "teachers" in some:
        taught = load_settings(DistillationParameters, name)
        assert (taught.refuse_after == 0) == (not taught.weights.startswith("untrained:"))


def test_first_weights_are_taught_by_every_pixel() -> None:
    """The settings that the shipped table was measured with: no pixel of a label is left out."""
    assert load_settings(DistillationParameters, "first_weights_distilled").trim == 0.0


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("step=3", "no parameter 'step'"),
        ("batch=0", "at least 1"),
        ("batch=2.5", "must be a whole number"),
        ("loss=l2", "one of published"),
        ("crop_height=28", "belong together"),
        ("warm_up=99999999", "must be below 'steps'"),
        ("teachers=''", "at least one name"),
        ("teachers=a:b", "is not NAME or NAME:SHARE"),
        ("teachers=a:-1", "shares above 0"),
        ("near_m=90", "must be below 'far_m'"),
        ("agreement_tolerance=0.1", "needs two teachers"),
        ("normalisation=none", "compares metres"),
        ("seed", "is not name=value"),
        ("seed=99999999999999", "'seed' must be at most"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, override: str, sentence: str) -> None:
    """Unknown names, ranges and rules between settings are refused with a sentence."""
    path = tmp_path / "some.yaml"
    path.write_text("clips: here\nteachers: untrained:micro_frames\n")
    load_settings(DistillationParameters, path)
    with pytest.raises(ConfigurationError, match=sentence):
        load_settings(DistillationParameters, path, [override])


def test_an_empty_text_can_be_set(tmp_path: Path) -> None:
    """What a preset begins with is switched off by `name=`; a number is not."""
    assert load_settings(TrainingParameters, "first_weights_micro").encoder_weights
    some = load_settings(TrainingParameters, "first_weights_micro", ["encoder_weights="])
    assert some.encoder_weights == ""
    with pytest.raises(ConfigurationError, match="'steps' must be a whole number, not ''"):
        load_settings(TrainingParameters, "first_weights_micro", ["steps= "])


@pytest.mark.parametrize("text", ["", "- clips", "clips"])
@pytest.mark.parametrize("overrides", [[], ["steps=5"]])
def test_a_file_without_names_is_refused(tmp_path: Path, text: str, overrides: list[str]) -> None:
    """An empty file, a list and a word are no settings, also where something is set beside them."""
    path = tmp_path / "some.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="must be a mapping of names to values"):
        load_settings(TrainingParameters, path, overrides)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"clips: [", b"clips: 2020-13-40"])
def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    """A checkpoint in place of its settings, or half a file: the sentence names it."""
    path = tmp_path / "some.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"some\.yaml cannot be read .* a text in YAML"):
        load_settings(TrainingParameters, path)
    path.write_text("clips: x\non: 1\nstep: 2")
    with pytest.raises(ConfigurationError, match=r"some\.yaml: .*'True'"):
        load_settings(TrainingParameters, path)


@pytest.mark.parametrize("value", ["[", "2020-13-40"])
def test_a_value_that_is_no_yaml_is_named(value: str) -> None:
    """What --set cannot read is not blamed on the file."""
    with pytest.raises(ConfigurationError, match=r"'steps=.*' is not name=value"):
        load_settings(TrainingParameters, "first_weights_micro", [f"steps={value}"])


def test_metres_cannot_be_taught_on_crops(tmp_path: Path) -> None:
    """A metric loss and a shared crop exclude each other."""
    path = tmp_path / "some.yaml"
    path.write_text("{clips: x, teachers: t, loss: log_depth, crop_height: 28, crop_width: 28}")
    with pytest.raises(ConfigurationError, match="does not see metres on a crop"):
        load_settings(DistillationParameters, path)
    with pytest.raises(ConfigurationError, match="there is no configuration nothing"):
        load_settings(DistillationParameters, "nothing")
