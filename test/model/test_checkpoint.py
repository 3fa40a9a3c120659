"""Checkpoints: every kind is understood, and what is saved here comes back."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint, read_provenance, save_checkpoint
from dae_ros.model.configuration import Meaning, variant
from dae_ros.model.dae_r import DepthAnyEvent, DepthAnyEventR
from dae_ros.model.dav2 import METRIC, DepthAnythingV2, metric_config
from dae_ros.model.fetch import digest_of
from dae_ros.model.networks import build_network
from dae_ros.model.weights import load_weights
from test.reference.authors_checkpoint import AUTHORS, authors_file, weights_of


def assert_same_weights(loaded: LoadedModel, expected: dict[str, Tensor]) -> None:
    actual = loaded.network.state_dict()
    assert set(actual) == set(expected)
    for key, value in expected.items():
        assert torch.equal(actual[key], value.float()), key


def test_authors_file_decides_everything(tmp_path: Path, tiny: LoadedModel) -> None:
    """Encoder, activation, input size, recurrence and event encoder come from the file."""
    path = authors_file(tmp_path / "synth.pth", weights_of(tiny))
    loaded = load_checkpoint(path)
    assert isinstance(loaded.network, DepthAnyEventR)
    assert not loaded.network.training
    assert loaded.config == variant("tiny", inv_prediction=True, input_height=266, input_width=350)
    assert loaded.meaning == Meaning(event_encoder="tencode_voxel", orientation="unknown")
    assert (loaded.name, loaded.path, loaded.digest) == ("synth.pth", path, digest_of(path))
    assert loaded.notes == ()
    assert_same_weights(loaded, weights_of(tiny))


def test_prefixes_of_parallel_training_are_taken_off(tmp_path: Path, tiny: LoadedModel) -> None:
    """Keys with `module.` load completely; a mixture is refused."""
    prefixed = {f"module.{key}": value for key, value in weights_of(tiny).items()}
    loaded = load_checkpoint(authors_file(tmp_path / "a.pth", prefixed))
    assert_same_weights(loaded, weights_of(tiny))
    prefixed["pretrained.cls_token"] = prefixed.pop("module.pretrained.cls_token")
    with pytest.raises(WeightsError, match="module"):
        load_checkpoint(authors_file(tmp_path / "b.pth", prefixed))


def test_config_beside_the_file_serves(tmp_path: Path, tiny: LoadedModel) -> None:
    """Without an embedded configuration the config.json beside it is read, else it is asked for."""
    path = tmp_path / "bare.pth"
    torch.save({"state_dict": weights_of(tiny)}, path)
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_checkpoint(path)
    (tmp_path / "config.json").write_text(json.dumps(AUTHORS))
    assert load_checkpoint(path).config.input_width == 350
    torch.save(weights_of(tiny), path)  # flat, as the authors' loader also accepts
    assert load_checkpoint(path).config.recurrence == "convlstm"
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="no JSON"):
        load_checkpoint(path)


def test_network_without_recurrence_and_gru(tmp_path: Path, tiny: LoadedModel) -> None:
    """The weights decide the recurrence: none, or a GRU."""
    path = authors_file(tmp_path / "frames.pth", weights_of(tiny, recurrent=False))
    frames = load_checkpoint(path)
    assert type(frames.network) is DepthAnyEvent
    gru = build_network(variant("tiny", recurrence="convgru")).state_dict()
    loaded = load_checkpoint(
        authors_file(tmp_path / "gru.pth", gru, recurrent_block_type="convgru")
    )
    assert loaded.config.recurrence == "convgru"
    with pytest.raises(WeightsError, match=r"recurrence 'convlstm'.*'convgru'"):
        load_checkpoint(authors_file(tmp_path / "lie.pth", gru))


def test_official_depth_anything(tmp_path: Path, tiny: LoadedModel) -> None:
    """The name of an official file says relative or metric; a configuration goes before it."""
    weights = weights_of(tiny, recurrent=False)
    path = tmp_path / "depth_anything_v2_tiny.pth"
    torch.save(weights, path)
    loaded = load_checkpoint(path)
    assert isinstance(loaded.network, DepthAnythingV2)
    assert loaded.config.head_align_corners
    assert (loaded.config.activation, loaded.config.input_height) == ("relu", 518)
    assert loaded.meaning.orientation == "inverse_depth"
    assert "inverse depth" in loaded.notes[0]
    metric = load_checkpoint(path, config=metric_config("tiny", 80.0))
    assert metric.meaning == METRIC
    assert metric.config.output_scale == 80.0
    for name, metres in (("hypersim", 20.0), ("vkitti", 80.0)):
        path = tmp_path / f"depth_anything_v2_metric_{name}_tiny.pth"
        torch.save(weights, path)
        loaded = load_weights(str(path))
        assert loaded.meaning == METRIC
        assert loaded.config == metric_config("tiny", metres)
        assert f"metres up to {metres:g}" in loaded.notes[0]


def test_open_questions_become_notes(tmp_path: Path, tiny: LoadedModel) -> None:
    """Unknown settings and logarithmic depth are told to the user, and do not stop him."""
    config = {
        **AUTHORS,
        "model": {**AUTHORS["model"], "novelty": 1},
        "trainer": {"use_logdepth": True},
    }
    path = tmp_path / "log.pth"
    torch.save({"state_dict": weights_of(tiny), "config": config}, path)
    notes = load_checkpoint(path).notes
    assert any("novelty" in note for note in notes)
    assert any("logarithmic" in note for note in notes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_own_files_keep_everything(tmp_path: Path, tiny: LoadedModel, dtype: torch.dtype) -> None:
    """Safetensors written here come back with weights, configuration, meaning and digest."""
    meaning = Meaning(
        event_encoder="tencode", orientation="depth", metres_scale=10.0, metres_shift=0.5
    )
    path = tmp_path / "own.safetensors"
    digest = save_checkpoint(path, tiny.network, meaning, dtype=dtype, extra={"step": "7"})
    loaded = load_checkpoint(path)
    assert loaded.digest == digest == digest_of(path)
    assert (loaded.config, loaded.meaning) == (tiny.config, meaning)
    assert_same_weights(loaded, {k: v.to(dtype) for k, v in weights_of(tiny).items()})
    assert {t.dtype for t in loaded.network.state_dict().values()} == {torch.float32}
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata()["step"] == "7"
    assert [p.name for p in tmp_path.iterdir()] == ["own.safetensors"]


@pytest.mark.parametrize("name", ["own.safetensors", "synth.pth"])
def test_a_file_that_is_overwritten_changes_no_weights(
    tmp_path: Path, tiny: LoadedModel, name: str
) -> None:
    """Whatever is copied over a file that is in use, in place, what was loaded stays as it was."""
    path = tmp_path / name
    if path.suffix == ".pth":
        authors_file(path, weights_of(tiny))
    else:
        save_checkpoint(path, tiny.network, Meaning())
    loaded = load_checkpoint(path)
    assert str(path) not in Path("/proc/self/maps").read_text()
    with path.open("r+b") as stream:
        stream.write(bytes(path.stat().st_size))
    assert_same_weights(loaded, weights_of(tiny))


def test_the_same_weights_give_the_same_bytes(tmp_path: Path, tiny: LoadedModel) -> None:
    """However often a file is written it has one digest; its header has the documented layout."""
    extra = {name: name.upper() for name in ("origin", "settings", "clips", "teachers", "step")}
    paths = [tmp_path / f"{index}.safetensors" for index in range(4)]
    for index, path in enumerate(paths):
        order = dict(sorted(extra.items(), reverse=bool(index % 2)))
        save_checkpoint(path, tiny.network, Meaning(), extra=order, notes=["true"])
    content = paths[0].read_bytes()
    assert all(path.read_bytes() == content for path in paths)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert header["__metadata__"]["clips"] == "CLIPS"
    assert (
        max(item["data_offsets"][1] for key, item in header.items() if key != "__metadata__")
        == len(content) - 8 - length
    )
    assert_same_weights(load_checkpoint(paths[0]), weights_of(tiny))


def test_notes_and_provenance_come_back(tmp_path: Path, tiny: LoadedModel) -> None:
    """What users should see goes with the file; where it comes from is told apart from meaning."""
    path = tmp_path / "own.safetensors"
    notes = ("trained on simulated worlds", "beta: \N{GREEK SMALL LETTER BETA}")
    save_checkpoint(path, tiny.network, Meaning(), extra={"step": "7"}, notes=notes)
    assert load_checkpoint(path).notes == notes
    assert read_provenance(path) == {"step": "7"}
    save_checkpoint(path, tiny.network, Meaning())
    assert load_checkpoint(path).notes == ()
    assert read_provenance(path) == {}
    for other in (tmp_path / "absent", authors_file(tmp_path / "synth.pth", weights_of(tiny))):
        with pytest.raises(WeightsError, match="no checkpoint of this project"):
            read_provenance(other)


def test_saving_is_whole_or_not_at_all(tmp_path: Path, tiny: LoadedModel) -> None:
    """Weights that are not finite in the stored type leave the earlier file as it was."""
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, tiny.network, Meaning())
    before = path.read_bytes()
    network = build_network(tiny.config)
    network.load_state_dict(tiny.network.state_dict())
    with torch.no_grad():
        network.depth_head.scratch.output_conv1.weight.fill_(1e6)
    with pytest.raises(WeightsError, match=r"output_conv1.*float16"):
        save_checkpoint(path, network, Meaning(), dtype=torch.float16)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
