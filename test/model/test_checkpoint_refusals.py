"""Files that are no usable checkpoint: each is refused with a sentence, and no code in it runs."""

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

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from dae_ros.model.configuration import Meaning
from test.reference.authors_checkpoint import AUTHORS, authors_file, weights_of


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


def test_other_safetensors_are_refused(tmp_path: Path, tiny: LoadedModel) -> None:
    """Safetensors of other projects say nothing about their meaning and are refused."""
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(weights_of(tiny), path)
    with pytest.raises(WeightsError, match="meta-data"):
        load_checkpoint(path)
