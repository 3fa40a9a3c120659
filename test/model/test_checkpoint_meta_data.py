"""Files whose tensors are whole and whose meta-data may say anything."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dae_ros.model.untrained import TINY_NAMES, untrained
from test.reference.damaging import VALUES

CONFIG, MEANING = "dae_ros.config", "dae_ros.meaning"


class Kept:
    """A checkpoint, and copies of it that say something else of themselves."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / "changed.safetensors"
        whole = folder / "whole.safetensors"
        model = untrained(name)
        save_checkpoint(whole, model.network, model.meaning)
        with safetensors.safe_open(whole, framework="pt") as file:
            self.texts: dict[str, str] = file.metadata()
        self.tensors: dict[str, Tensor] = safetensors.torch.load_file(whole)

    def facts(self, part: str) -> dict[str, Any]:
        """Return what it says."""
        facts: dict[str, Any] = json.loads(self.texts[part])
        return facts

    def surprise(self, part: str = CONFIG, text: str | None = None, **tensors: Tensor) -> str:
        """Return what reading a changed copy raises but `WeightsError`; empty for nothing."""
        texts = self.texts if text is None else {**self.texts, part: text}
        safetensors.torch.save_file({**self.tensors, **tensors}, self.path, metadata=texts)
        try:
            load_checkpoint(self.path)
        except WeightsError as error:
            return "" if str(self.path) in error.message else f"no file in: {error.message}"
        except Exception as error:  # noqa: BLE001 - whatever it is
            return repr(error)[:200]
        return ""


@pytest.mark.parametrize("name", TINY_NAMES)
def test_no_field_of_the_meta_data_raises_anything_else(tmp_path: Path, name: str) -> None:
    """Of another type, out of every range, missing: read as it is, or refused with a sentence."""
    file = Kept(tmp_path, name)
    if name != "tiny":
        # One is enough to be refused by in the end; hundreds take long to write.
        file.tensors = dict(list(file.tensors.items())[:1])
    found = []
    for part in (CONFIG, MEANING):
        facts = file.facts(part)
        for field in facts:
            for value in VALUES:
                text = json.dumps({**facts, field: value})
                found.append((field, value, file.surprise(part, text)))
    assert [case for case in found if case[2]] == []


@pytest.mark.parametrize("part", [CONFIG, MEANING, "dae_ros.notes"])
def test_no_text_of_the_meta_data_raises_anything_else(tmp_path: Path, part: str) -> None:
    """No JSON, or JSON of something else; a depth that Python's parser does not follow."""
    file = Kept(tmp_path, "tiny")
    texts = ["", "nope", "{", "\x00", "[" * 100_000, '[["network","dpt"],[1,2]]', '{"a":1}']
    texts += [json.dumps(value) for value in VALUES]
    found = [(text[:20], file.surprise(part, text)) for text in texts]
    assert [case for case in found if case[1]] == []


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("encoder", None, "encoder must be a text, not None"),
        ("features", 1.0, "features must be a whole number, not 1.0"),
        ("features", True, "features must be a whole number, not True"),
        ("reassemble", "4688", "reassemble must be a list of whole numbers, not '4688'"),
        ("inv_prediction", 0, "inv_prediction must be true or false, not 0"),
        ("output_scale", "1", "output_scale must be a number, not '1'"),
        ("features", 1_000_000, "features must be even, from 2 to 65536"),
    ],
)
def test_what_a_field_must_be_is_said(
    tmp_path: Path, field: str, value: object, sentence: str
) -> None:
    """The sentence names the field, its kind and what was found."""
    file = Kept(tmp_path, "tiny")
    file.surprise(CONFIG, json.dumps({**file.facts(CONFIG), field: value}))
    with pytest.raises(WeightsError, match=sentence):
        load_checkpoint(file.path)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "complex64", "bool", "int8"])
def test_tensors_of_other_types_are_refused_by_name(tmp_path: Path, dtype: str) -> None:
    """A weight is a float of 16, 32 or 64 bit; PyTorch can do little with others."""
    file = Kept(tmp_path, "tiny")
    key = "pretrained.norm.bias"
    assert file.surprise(**{key: torch.ones(16).to(getattr(torch, dtype))}) == ""
    with pytest.raises(WeightsError, match=rf"{key} is torch\.{dtype}"):
        load_checkpoint(file.path)


def test_types_that_are_not_known_are_refused(tmp_path: Path) -> None:
    """The header may name any type, also such as PyTorch has not."""
    file = Kept(tmp_path, "tiny")
    assert file.surprise() == ""
    data = file.path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    for name in ("F4", "F6_E2M3", "F8_E8M0", "U16", "U64", "C64", "I4", "F128", ""):
        header = json.loads(data[8 : 8 + length])
        header["pretrained.norm.bias"]["dtype"] = name
        text = json.dumps(header).encode()
        file.path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        with pytest.raises(WeightsError, match=str(file.path)):
            load_checkpoint(file.path)


def test_a_number_that_float32_cannot_hold_is_not_finite(tmp_path: Path) -> None:
    """Stored as float64, it would be infinite in the network."""
    file = Kept(tmp_path, "tiny")
    key = "pretrained.norm.bias"
    assert file.surprise(**{key: torch.full((16,), 1e300, dtype=torch.float64)}) == ""
    with pytest.raises(WeightsError, match=rf"{key} holds NaN or infinity"):
        load_checkpoint(file.path)
