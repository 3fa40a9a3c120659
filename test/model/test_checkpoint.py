"""Checkpoints: every kind is understood, and everything else is refused with a sentence."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import (
    LoadedModel,
    load_checkpoint,
    read_provenance,
    save_checkpoint,
)
from dae_ros.model.configuration import Meaning, variant
from dae_ros.model.dae_r import DepthAnyEvent, DepthAnyEventR
from dae_ros.model.dav2 import METRIC, DepthAnythingV2, metric_config
from dae_ros.model.fetch import digest_of
from dae_ros.model.manifest import read_manifest
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.model.weights import load_weights

AUTHORS = {
    "model": {
        "model_type": "RecDAv2",
        "encoder": "tiny",
        "activation": "softplus",
        "scale_factor": 1.0,
        "inv_prediction": True,
        "input_size_width": 350,
        "input_size_height": 266,
        "freeze_encoder": False,
        "input_channels": 3,
        "recurrent_block_type": "convlstm",
    },
    "data_loader": {
        "dataset": "mvsec",
        "use_voxels": True,
        "event_representation": {"representation_type": "tencode", "normalize": True},
    },
}


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return untrained("tiny")


def weights_of(model: LoadedModel, *, recurrent: bool = True) -> dict[str, Tensor]:
    state = model.network.state_dict()
    return {key: value for key, value in state.items() if recurrent or ".gru_layer_" not in key}


def authors_file(path: Path, weights: dict[str, Tensor], **model: object) -> Path:
    config = {**AUTHORS, "model": {**AUTHORS["model"], **model}}
    torch.save({"state_dict": weights, "config": config, "epoch": 3}, path)
    return path


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


def test_a_configuration_in_capitals_is_refused_with_the_word_to_write(
    tmp_path: Path, tiny: LoadedModel
) -> None:
    """The refusal names the spelling, and whether it stands in the file or in config.json."""
    weights = weights_of(tiny)
    spelled = r"recurrence 'CONVLSTM'.*write 'convlstm', in small letters\. .*or correct "
    with pytest.raises(WeightsError, match=f"{spelled}the 'config' that is saved in the file"):
        load_checkpoint(
            authors_file(tmp_path / "loud.pth", weights, recurrent_block_type="CONVLSTM")
        )
    torch.save({"state_dict": weights}, tmp_path / "beside.pth")
    model = {**AUTHORS["model"], "recurrent_block_type": "CONVLSTM"}
    (tmp_path / "config.json").write_text(json.dumps({**AUTHORS, "model": model}))
    with pytest.raises(WeightsError, match=f"{spelled}{tmp_path / 'config.json'}"):
        load_checkpoint(tmp_path / "beside.pth")


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


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("latest.pth", r"inverse depth or metres. Name it .* depth_anything_v2_metric_vkitti_tiny"),
        ("depth_anything_v2_metric_tiny.pth", "inverse depth or metres"),
        ("depth_anything_v2_vits.pth", "is named as a vits and holds a tiny"),
        ("depth_anything_v2_metric_hypersim_vitb.pth", "is named as a vitb and holds a tiny"),
    ],
)
def test_a_depth_anything_of_unknown_kind_is_refused(
    tmp_path: Path, tiny: LoadedModel, name: str, problem: str
) -> None:
    """Metres are never read as inverse depth, nor the other way: a name that does not tell ends."""
    torch.save(weights_of(tiny, recurrent=False), tmp_path / name)
    with pytest.raises(WeightsError, match=problem):
        load_checkpoint(tmp_path / name)


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


class Payload:
    """Runs a command where it is unpickled carelessly."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_pickled_code_is_never_run(tmp_path: Path, tiny: LoadedModel) -> None:
    """A file with code is refused with a sentence, in both pickle layouts, and nothing ran."""
    mark = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    for zipped in (True, False):
        torch.save(
            {"state_dict": weights_of(tiny), "config": Payload(mark)},
            path,
            _use_new_zipfile_serialization=zipped,
        )
        with pytest.raises(WeightsError, match="could run code"):
            load_checkpoint(path)
    path.write_bytes(pickle.dumps(Payload(mark), protocol=2))
    with pytest.raises(WeightsError):
        load_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_cut_files_are_refused(tmp_path: Path, tiny: LoadedModel, kind: str) -> None:
    """A file cut anywhere is called damaged, never loaded in part, never another exception."""
    path = tmp_path / "whole"
    if kind == "safetensors":
        save_checkpoint(path, tiny.network, Meaning())
    else:
        torch.save(
            {"state_dict": weights_of(tiny), "config": AUTHORS},
            path,
            _use_new_zipfile_serialization=kind == "zip",
        )
    content = path.read_bytes()
    for share in (0.0, 0.0001, 0.01, 0.3, 0.6, 0.9, 0.999):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(WeightsError, match=str(path)) as caught:
            load_checkpoint(path)
        assert caught.value.code == "weights"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>Google Drive - Virus scan warning</html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"PK\x03\x04" + bytes(200),
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 1 << 60) + b"{}",
        pickle.dumps([1, 2, 3], protocol=2),
        pickle.dumps({}, protocol=2),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """Error pages, pointers of git-lfs and other files are refused by name."""
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"file\.pth"):
        load_checkpoint(path)


def test_texts_are_called_no_checkpoint_in_our_own_words(tmp_path: Path) -> None:
    """A README given as weights is told from a damaged checkpoint, without PyTorch's terms."""
    path = tmp_path / "README.md"
    for content, reason in (
        ("# dae_ros\n\nDepth from event cameras.\n" * 9, "is no checkpoint"),
        ("", "is empty"),
    ):
        path.write_text(content)
        with pytest.raises(WeightsError, match=reason) as caught:
            load_checkpoint(path)
        assert "Unsupported" not in caught.value.message
        assert "dae-ros models list" in caught.value.message


def test_wrong_keys_are_named(tmp_path: Path, tiny: LoadedModel) -> None:
    """Missing, unknown and misshapen keys are counted, the first are named, all are in the data."""
    weights = dict(weights_of(tiny))
    del weights["pretrained.norm.weight"]
    weights["pretrained.register_tokens"] = torch.zeros(1, 4, 16)
    weights["pretrained.norm.bias"] = torch.zeros(17)
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(authors_file(tmp_path / "wrong.pth", weights))
    message, data = caught.value.message, caught.value.data
    for part in ("wrong.pth", "1 keys are missing (pretrained.norm.weight)", "register_tokens"):
        assert part in message
    assert "pretrained.norm.bias is (17,), not (16,)" in message
    assert data["missing"] == ["pretrained.norm.weight"]
    assert data["unexpected"] == ["pretrained.register_tokens"]


def test_values_that_are_not_finite_are_named(tmp_path: Path, tiny: LoadedModel) -> None:
    """One NaN or infinity among the weights refuses the file and names its key."""
    for value in (float("nan"), float("inf")):
        weights = {key: tensor.clone() for key, tensor in weights_of(tiny).items()}
        weights["depth_head.gru_layer_2.recurrent_block.Gates.weight"][0, 0, 0, 0] = value
        with pytest.raises(WeightsError, match=r"gru_layer_2.*NaN or infinity"):
            load_checkpoint(authors_file(tmp_path / "nan.pth", weights))


def test_integer_weights_are_refused(tmp_path: Path, tiny: LoadedModel) -> None:
    """A quantised tensor under the right key and shape is not taken for a weight."""
    weights = {**weights_of(tiny), "pretrained.norm.bias": torch.zeros(16, dtype=torch.int8)}
    with pytest.raises(WeightsError, match=r"norm\.bias"):
        load_checkpoint(authors_file(tmp_path / "int8.pth", weights))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"encoder": "vits"}, "encoder 'vits'"),
        ({"input_channels": 5}, "input channels 5"),
        ({"activation": "tanh"}, "tanh"),
        ({"use_clstoken": True}, "use_clstoken"),
        ({"input_size_height": "big"}, "'big'"),
    ],
)
def test_unusable_configurations_are_refused(
    tmp_path: Path, tiny: LoadedModel, model: dict[str, object], reason: str
) -> None:
    """A configuration that contradicts the weights or asks for the unknown is refused."""
    with pytest.raises(WeightsError, match=reason):
        load_checkpoint(authors_file(tmp_path / "a.pth", weights_of(tiny), **model))


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


def test_other_safetensors_are_refused(tmp_path: Path, tiny: LoadedModel) -> None:
    """Safetensors of other projects say nothing about their meaning and are refused."""
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(weights_of(tiny), path)
    with pytest.raises(WeightsError, match="meta-data"):
        load_checkpoint(path)


def test_weights_by_name(
    tmp_path: Path, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Untrained names, manifest names, files and mistakes are told apart."""
    monkeypatch.setenv("DAE_ROS_MODELS", str(tmp_path))
    assert load_weights("untrained:tiny").digest == tiny.digest
    with pytest.raises(WeightsError, match="untrained:vits"):
        load_weights("untrained:resnet")
    with pytest.raises(WeightsError, match="there is no model 'vits'"):
        load_weights("vits")
    with pytest.raises(WeightsError, match="no checkpoint"):
        load_weights("nowhere/vits.pth")
    with pytest.raises(WeightsError, match="models fetch depth_anything_v2_vits"):
        load_weights("depth_anything_v2_vits")
    with pytest.raises(WeightsError, match=r"rec_dav2/synth/synth\.pth"):
        load_weights("rec_dav2_synth")
    path = authors_file(tmp_path / "mine.pth", weights_of(tiny))
    assert load_weights(str(path)).name == "mine.pth"
    # The file is read by the name of its entry, and refused where it is something else.
    for file in ("rec_dav2/synth/synth.pth", "depth_anything_v2_vits.pth"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(path.read_bytes())
    by_name = load_weights("rec_dav2_synth")
    assert (by_name.name, by_name.config.encoder) == ("rec_dav2_synth", "tiny")
    assert by_name.meaning.event_encoder == "tencode_voxel"
    with pytest.raises(WeightsError, match="its sha256 is"):
        load_weights("depth_anything_v2_vits")


def test_shipped_manifest_is_sound() -> None:
    """The manifest of this project reads, and its entries have what users need."""
    entries = read_manifest().entries
    assert {"rec_dav2_synth", "dav2_synth", "depth_anything_v2_vits"} <= {e.name for e in entries}
    for entry in entries:
        assert entry.how_to_get()
        assert entry.encoder in ("vits", "vitb", "vitl", None) or entry.shipped
        assert entry.url is None or entry.encoder is not None
        assert (entry.meaning.event_encoder == "rgb") == (entry.network == "depth_anything_v2")
    official = {
        (entry.encoder, entry.output_scale, entry.meaning.scale, entry.meaning.orientation)
        for entry in entries
        if entry.network == "depth_anything_v2"
    }
    assert official == {
        (encoder, *kind)
        for encoder in ("vits", "vitb", "vitl")
        for kind in (
            (1.0, "relative", "inverse_depth"), (20.0, "metric", "depth"), (80.0, "metric", "depth")
        )
    }  # fmt: skip
