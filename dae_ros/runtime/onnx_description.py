"""What an exported ONNX file says about itself, read without any ONNX library.

A file is a serialized `ModelProto` (onnx/onnx.proto). Concatenated messages merge, so the meta-data
that describes the graph is appended behind the graph's bytes, with their sha256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.configuration import Meaning
from dae_ros.runtime.accuracy_report import AccuracyReport, digest_of_text
from dae_ros.runtime.parity_reference import ParityReference

FORMAT = "2"
PREFIX = "dae_ros."
IMAGE, PREDICTION, CHECK = "image", "prediction", "check"
# Fields of ModelProto and of StringStringEntryProto.
_GRAPH, _METADATA = 7, 14
_KEY, _VALUE = 1, 2


@dataclass(frozen=True, kw_only=True)
class OnnxDescription:
    """What is in an exported file.

    The graph takes `image` float32[1, channels, height, width] and `state_<k>_in`, and gives
    `prediction` float32[height, width], `state_<k>_out` and `check`, a number that is finite where
    image and outputs are. Everything is of fixed size; fitting to the network and back is inside.

    Attributes:
        name, digest, notes, meaning: of the weights, see `LoadedModel`.
        config: of the network, see `config_to_dict`.
        height, width: of the sensor in px.
        channels: of the image.
        states: shape of each tensor of the recurrent state, float32.
        precision: `float32` or `float16`: of weights and arithmetic. `int8`: of convolutions and
            products with weights; the rest is what the accuracy report says.
        opset: version of the ONNX operators.
        deviation: largest root mean square difference from PyTorch over the steps of the check,
            where the output's standard deviation is 1.
        version: of dae_ros.
        accuracy: what int8 costs; None of other precisions.
        parity: what PyTorch put out, for the runtime that is to run the graph. Exports have it.
    """

    name: str
    digest: str
    notes: tuple[str, ...]
    meaning: Meaning
    config: Mapping[str, Any]
    height: int
    width: int
    channels: int
    states: tuple[tuple[int, ...], ...]
    precision: str
    opset: int
    deviation: float
    version: str
    accuracy: AccuracyReport | None = None
    parity: ParityReference | None = None

    def to_metadata(self) -> dict[str, str]:
        """Return the fields as texts, JSON under prefixed names."""
        values = {name: getattr(self, name) for name in _PLAIN}
        values |= {"meaning": self.meaning.to_dict()}
        texts = {name: json.dumps(value, sort_keys=True) for name, value in values.items()}
        if self.accuracy is not None:
            report = self.accuracy.to_json()
            texts |= {_ACCURACY: report, _ACCURACY_DIGEST: digest_of_text(report)}
        if self.parity is not None:
            texts[_PARITY] = self.parity.to_json()
        return {f"{PREFIX}{name}": text for name, text in texts.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> OnnxDescription:
        """Build from what `to_metadata` gave.

        Raises:
            KeyError, TypeError, ValueError, ConfigurationError: it is something else.
        """
        values = {name: json.loads(metadata[f"{PREFIX}{name}"]) for name in _PLAIN}
        values["meaning"] = Meaning.from_dict(values["meaning"])
        values["notes"] = tuple(map(str, values["notes"]))
        values["states"] = tuple(tuple(map(int, shape)) for shape in values["states"])
        report = metadata.get(f"{PREFIX}{_ACCURACY}")
        if report is not None:
            if metadata.get(f"{PREFIX}{_ACCURACY_DIGEST}") != digest_of_text(report):
                raise ValueError("the accuracy report is not the one that was written")
            values["accuracy"] = AccuracyReport.from_json(report)
        kept = metadata.get(f"{PREFIX}{_PARITY}")
        if kept is not None:
            values["parity"] = ParityReference.from_json(kept)
        return cls(**values)


_ACCURACY, _ACCURACY_DIGEST, _PARITY = "accuracy", "accuracy_sha256", "parity"
_PLAIN = tuple(
    f.name for f in dataclasses.fields(OnnxDescription) if f.name not in (_ACCURACY, _PARITY)
)


def metadata_bytes(graph: bytes, description: OnnxDescription) -> bytes:
    """Return what to append to the serialized model whose graph has these bytes."""
    entries = {
        f"{PREFIX}format": FORMAT,
        f"{PREFIX}graph_sha256": hashlib.sha256(graph).hexdigest(),
        **description.to_metadata(),
    }
    return b"".join(
        _field(_METADATA, _field(_KEY, key.encode()) + _field(_VALUE, value.encode()))
        for key, value in entries.items()
    )


def read_description(path: Path) -> OnnxDescription:
    """Read and verify an exported file.

    Raises:
        WeightsError: it is missing, damaged, or was not written by `dae-ros export`.
    """
    if not path.is_file():
        raise WeightsError(f"there is no ONNX file {path}; `dae-ros export` writes one", path=path)
    metadata: dict[str, str] = {}
    digest = ""
    try:
        with path.open("rb") as file:
            # Unmapped with the last slice of it.
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        for number, part in model_fields(data):
            if number == _GRAPH:
                digest = hashlib.sha256(part).hexdigest()
            elif number == _METADATA:
                entry = {key: bytes(text).decode() for key, text in model_fields(part)}
                metadata[entry[_KEY]] = entry.get(_VALUE, "")
    except (ValueError, KeyError, OSError) as error:
        raise WeightsError(
            f"{path} is damaged or no ONNX file ({error}); write it again with `dae-ros export`",
            path=str(path),
        ) from error
    if metadata.get(f"{PREFIX}format") != FORMAT:
        raise WeightsError(
            f"{path} was not written by `dae-ros export` (format {FORMAT}), so nothing says what "
            "goes in and what comes out; export the checkpoint that it was made from",
            path=str(path),
            format=metadata.get(f"{PREFIX}format"),
        )
    if metadata.get(f"{PREFIX}graph_sha256") != digest:
        raise WeightsError(
            f"{path} is damaged: its graph is not the one that was exported; write it again with "
            "`dae-ros export`",
            path=str(path),
            digest=digest,
        )
    try:
        description = OnnxDescription.from_metadata(metadata)
    except (KeyError, TypeError, ValueError, ConfigurationError) as error:
        raise WeightsError(
            f"{path}: its meta-data cannot be read ({error}); write it again with `dae-ros export`",
            path=str(path),
        ) from error
    report = description.accuracy
    if report is not None and report.int8_graph_sha256 != digest:
        raise WeightsError(
            f"{path}: its report is of another graph; write it again with `dae-ros export`",
            path=str(path),
            digest=digest,
            expected=report.int8_graph_sha256,
        )
    return description


def graph_of(model: bytes) -> bytes:
    """Return the bytes of the graph inside of a serialized model."""
    return b"".join(bytes(part) for number, part in model_fields(memoryview(model))
                    if number == _GRAPH)  # fmt: skip


def graph_digest(model: bytes) -> str:
    """Return the sha256 of the graph inside of a serialized model."""
    return hashlib.sha256(graph_of(model)).hexdigest()


def model_fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the length-delimited fields of a protobuf message.

    Numbers are skipped. Wire format: protobuf.dev/programming-guides/encoding.

    Raises:
        ValueError: the bytes are no such message.
    """
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _, position = _varint(data, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        elif wire == 2:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError(f"field {number} is cut off")
            yield number, data[position : position + length]
            position += length
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        if number == 0 or position > len(data):
            raise ValueError(f"no field ends at byte {position}")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return a number of 7 bits per byte, lowest first, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("a number is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number does not end before byte {position}")


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field."""
    return _as_varint(number << 3 | 2) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
