"""What an exported file says about itself, and what is refused as damaged or foreign."""

from __future__ import annotations

from pathlib import Path

import pytest

from dae_ros.errors import WeightsError
from dae_ros.model.configuration import Meaning
from dae_ros.runtime.onnx_description import (
    OnnxDescription,
    graph_of,
    metadata_bytes,
    model_fields,
    read_description,
)
from dae_ros.runtime.parity_reference import ParityReference

# ModelProto with ir_version 8 (a number), producer_name "me", and a graph (field 7) of 300 bytes.
GRAPH = bytes(range(250)) + b"\x00" * 50
MODEL = b"\x08\x08" + b"\x12\x02me" + b"\x3a\xac\x02" + GRAPH
DESCRIPTION = OnnxDescription(
    name="mine",
    digest="ab" * 32,
    notes=("a note",),
    meaning=Meaning(orientation="inverse_depth", metres_scale=0.5, metres_shift=0.25),
    config={"network": "dpt", "features": 8},
    height=60,
    width=80,
    channels=3,
    states=((1, 8, 2, 3), (1, 8, 4, 6)),
    precision="float32",
    opset=18,
    deviation=1.5e-5,
    version="0.1.0",
    parity=ParityReference("cd" * 32, 2, bytes(range(8))),
)


def test_fields_of_handmade_bytes() -> None:
    """Texts, numbers, and fixed words of a message are told apart; lengths may have two bytes."""
    words = b"\x0d\x01\x02\x03\x04" + b"\x11" + bytes(8)
    found = [(number, bytes(part)) for number, part in model_fields(memoryview(words + MODEL))]
    assert found == [(2, b"me"), (7, GRAPH)]
    assert graph_of(MODEL) == GRAPH


@pytest.mark.parametrize("data", [b"\x12\x05abc", b"\x80", b"\x13\x00", b"\x0d\x01", b"\xff" * 11])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """Cut fields and numbers, groups and endless numbers raise."""
    with pytest.raises(ValueError, match=r"cut off|wire type|ends|end"):
        list(model_fields(memoryview(data)))


def test_metadata_is_what_the_onnx_library_reads(tmp_path: Path) -> None:
    """The appended bytes are metadata_props of the model, and read back as the description."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "nothing", [], [])
    model = onnx.helper.make_model(graph).SerializeToString()
    path = tmp_path / "x.onnx"
    path.write_bytes(model + metadata_bytes(graph_of(model), DESCRIPTION))
    assert read_description(path) == DESCRIPTION
    read = {item.key: item.value for item in onnx.load(path).metadata_props}
    assert read["dae_ros.name"] == '"mine"'
    assert onnx.load(path).graph.name == "nothing"


def test_damaged_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    """A changed byte, a cut, a foreign file, an empty and an absent one say what to do."""
    path = tmp_path / "x.onnx"
    whole = MODEL + metadata_bytes(GRAPH, DESCRIPTION)
    path.write_bytes(whole)
    assert read_description(path) == DESCRIPTION
    flipped = bytearray(whole)
    flipped[100] ^= 1
    cases = {
        bytes(flipped): "its graph is not the one",
        whole[:-3]: "is damaged or no ONNX file",
        whole[:200]: "is damaged or no ONNX file",
        b"": "is damaged or no ONNX file",
        MODEL: "was not written by",
        whole.replace(b'"float32"', b'"float3"}'): "meta-data cannot be read",
    }
    for content, sentence in cases.items():
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=f"{sentence}.*export"):
            read_description(path)
    with pytest.raises(WeightsError, match="there is no ONNX file"):
        read_description(tmp_path / "absent.onnx")
