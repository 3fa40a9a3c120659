"""Labelled clips as bytes, and records of them one after the other in a file.

A record is magic, length, CRC-32 of the payload, CRC-32 of these three, payload. The payload is a
line of JSON and the arrays as safetensors, compressed: most pixels have no event, so the fastest
compression saves most of it.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from dae_ros.distillation.online.observation import EventClip, LabelledClip

Kind: TypeAlias = Literal["clip", "anchor"]
ClipKey: TypeAlias = tuple[Kind, int]

MAGIC = b"DAEREC02"
_HEADER = struct.Struct("<8sQII")
_CHECKED = struct.Struct("<8sQI")


def pack_record(key: ClipKey, clip: LabelledClip) -> bytes:
    """Return a clip as a record."""
    arrays: dict[str, NDArray[Any]] = {}
    facts: dict[str, Any] = {"kind": key[0], "key": key[1], "states": len(clip.state)}
    for owner, value in (("observation", clip.observation), ("clip", clip)):
        for item in dataclasses.fields(value):
            content = getattr(value, item.name)
            if isinstance(content, np.ndarray):
                arrays[f"{owner}.{item.name}"] = np.ascontiguousarray(content)
            elif item.name not in ("observation", "state"):
                facts[f"{owner}.{item.name}"] = content
    for index, column in enumerate(clip.state):
        arrays[f"state.{index}"] = np.ascontiguousarray(column)
    payload = json.dumps(facts).encode() + b"\n"
    payload += zlib.compress(safetensors.numpy.save(arrays), level=1)
    checked = _CHECKED.pack(MAGIC, len(payload), zlib.crc32(payload))
    return checked + struct.pack("<I", zlib.crc32(checked)) + payload


def unpack_record(record: bytes) -> LabelledClip | None:
    """Return the clip of a record; None where it is not whole."""
    payload = _payload(record, 0)
    if payload is None:
        return None
    line, _, packed = payload.partition(b"\n")
    facts: dict[str, Any] = json.loads(line)
    arrays: dict[str, NDArray[Any]] = safetensors.numpy.load(zlib.decompress(packed))

    def of(owner: str) -> dict[str, Any]:
        fields = {**facts, **arrays}
        return {
            name.removeprefix(f"{owner}."): value
            for name, value in fields.items()
            if name.startswith(f"{owner}.")
        }

    return LabelledClip(
        observation=EventClip(**of("observation")),
        state=tuple(arrays[f"state.{index}"] for index in range(facts["states"])),
        **of("clip"),
    )


def whole_records(path: Path) -> Iterator[tuple[int, int, ClipKey]]:
    """Yield offset, size and key of every whole record of a file.

    Past damage the search goes on with the next record.
    """
    if path.stat().st_size == 0:
        return
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        offset = data.find(MAGIC)
        while offset >= 0:
            payload = _payload(data, offset)
            size = 1  # past what is no record
            if payload is not None:
                size = _HEADER.size + len(payload)
                facts = json.loads(payload.partition(b"\n")[0])
                yield offset, size, (facts["kind"], facts["key"])
            offset = data.find(MAGIC, offset + size)


def _payload(data: bytes | mmap.mmap, offset: int) -> bytes | None:
    header = data[offset : offset + _HEADER.size]
    if len(header) < _HEADER.size:
        return None
    magic, length, checksum, header_checksum = _HEADER.unpack(header)
    if magic != MAGIC or zlib.crc32(header[: _CHECKED.size]) != header_checksum:
        return None
    begin = offset + _HEADER.size
    payload = data[begin : begin + length]
    return payload if len(payload) == length and zlib.crc32(payload) == checksum else None
