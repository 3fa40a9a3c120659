"""Reads and writes checkpoints: weights together with what their number means.

Four kinds of file are understood: the authors' of DepthAnyEvent(-R) (pickled, a nested
`state_dict` and a `config`), the official ones of Depth Anything V2 (pickled, flat), those of
E2Depth (pickled, nested), and this project's (safetensors with meta-data). Loading is strict:
pickled code is never run, and every key, shape and value is accounted for.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.configuration import Meaning
from dae_ros.model.networks import (
    Network,
    NetworkConfig,
    build_network,
    config_from_dict,
    config_to_dict,
)
from dae_ros.model.published import PublishedFile, read_published

FORMAT = "1"

# What torch.save begins a file with: a zip archive, or in old files a pickle (protocol 2 on).
_PICKLES = (b"PK\x03\x04", b"\x80")
# What torch.load raises for cut and foreign files depends on where the bytes end.
_LOAD_FAILURES = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OSError,
)
# Types that a weight may be stored in; those of 8 bits have no meaning without a scale.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# How PyTorch's restricted unpickler words that a file asks for more than tensors.
_FORBIDDEN = re.compile(
    r"(unsupported (?:global|class|function)[: ]+\S+(?: \S+)?|unrecognized function \S+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network with weights, and everything that is known about it.

    Attributes:
        name: the file's name, a name from the manifest, or `untrained:<variant>`.
        network: in eval mode, float32, on the CPU.
        config: what it is made of.
        meaning: what its number means.
        digest: sha256 of the file (for untrained weights, of the tensors), 64 hex digits.
        path: the file, None for untrained weights.
        notes: sentences that a user should see: what the file leaves open.
    """

    name: str
    network: Network
    config: NetworkConfig
    meaning: Meaning
    digest: str
    path: Path | None = None
    notes: tuple[str, ...] = ()


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    config: NetworkConfig | None = None,
    name: str | None = None,
) -> LoadedModel:
    """Read a checkpoint, strictly.

    Args:
        path: a file of one of the four kinds.
        config: what the network is made of, for a file that does not say it itself (an
            official metric Depth Anything V2, say).
        name: what to call it; the file's name if not given.

    Raises:
        WeightsError: if the file is missing, damaged, holds pickled code, not finite values,
            or does not cover the network's keys and shapes exactly; the sentence names the
            file, the first offending keys and what to do, and `.data` holds them all.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"there is no checkpoint {path}. `dae-ros models list` shows the known ones and "
            "where to put them; untrained:vits runs without weights",
            path=str(path),
        )
    # Read once, so that the digest is that of the weights whatever becomes of the file: a mapped
    # one that is overwritten changes weights in use, and one that is cut ends the process.
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if _is_safetensors(data):
        found = _read_safetensors(path, data)
    else:
        found = _read_pickle(path, data, config)
    del data
    used = found.config if config is None else config
    # The file is trusted about itself; a configuration from outside must agree with it.
    if found.embedded and used != found.config:
        raise WeightsError(
            f"{path}: the file says {found.config}, but {config} was asked for. Leave the "
            "configuration out",
            path=str(path),
        )
    network = _fill(path, used, found.tensors)
    return LoadedModel(
        name=path.name if name is None else name,
        network=network,
        config=used,
        meaning=found.meaning,
        digest=digest,
        path=path,
        notes=found.notes,
    )


def save_checkpoint(
    path: str | os.PathLike[str],
    network: Network,
    meaning: Meaning,
    *,
    dtype: torch.dtype = torch.float32,
    extra: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Write weights, configuration and meaning as safetensors; complete or not at all.

    The same input gives the same bytes.

    Args:
        path: the file, replaced atomically (temporary file, fsync, rename).
        network: its configuration is written from `network.config`.
        meaning: what its number means.
        dtype: of the stored floats; float16 halves the file.
        extra: more meta-data, kept beside (`origin`, `step`, ...); see `read_provenance`.
        notes: sentences that whoever loads the file should see, see `LoadedModel.notes`.

    Returns:
        The sha256 of the file.

    Raises:
        WeightsError: if a weight is not finite, or not in `dtype`.
    """
    path = Path(path)
    tensors = {}
    for key, value in network.state_dict().items():
        stored = value.detach().to("cpu", dtype) if value.is_floating_point() else value.cpu()
        if not torch.isfinite(stored).all():
            raise WeightsError(
                f"{path} is not written: {key} is not finite as {dtype}", path=str(path), key=key
            )
        tensors[key] = stored.contiguous()
    metadata = {
        **(extra or {}),
        "dae_ros.format": FORMAT,
        "dae_ros.config": json.dumps(config_to_dict(network.config), sort_keys=True),
        "dae_ros.meaning": json.dumps(meaning.to_dict(), sort_keys=True),
        **({"dae_ros.notes": json.dumps(list(notes))} if notes else {}),
    }
    data = _in_order(safetensors.torch.save(tensors, metadata=metadata))
    with _replacing(path) as descriptor, os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return hashlib.sha256(data).hexdigest()


def read_provenance(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return what `save_checkpoint` was given as `extra`: where the weights come from.

    Raises:
        WeightsError: the file is missing, damaged, or not of this project.
    """
    path = Path(path)
    data = path.read_bytes() if path.is_file() else b""
    if not _is_safetensors(data):
        raise WeightsError(f"{path} is no checkpoint of this project", path=str(path))
    metadata = _metadata_and_tensors(path, data)[0]
    return {key: value for key, value in metadata.items() if not key.startswith("dae_ros.")}


def _in_order(data: bytes) -> bytes:
    """Sort the header of a safetensors file, which comes in another order every time.

    Layout (github.com/huggingface/safetensors, README, Format): length of the header as u64 LE,
    the header as JSON with blanks behind it, tensors at offsets that count from the header's end.
    """
    (length,) = struct.unpack_from("<Q", data)
    header = json.dumps(
        json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[int]:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        yield descriptor
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _is_safetensors(data: bytes) -> bool:
    # By content: 8 bytes of header length, then JSON. Pickles begin with PK or 0x80.
    return data[8:9] == b"{"


def _read_safetensors(path: Path, data: bytes) -> PublishedFile:
    metadata, tensors = _metadata_and_tensors(path, data)
    try:
        config = config_from_dict(json.loads(metadata["dae_ros.config"]))
        meaning = Meaning.from_dict(json.loads(metadata["dae_ros.meaning"]))
        notes = tuple(str(note) for note in json.loads(metadata.get("dae_ros.notes", "[]")))
    except (KeyError, TypeError, ValueError, RecursionError, ConfigurationError) as error:
        raise WeightsError(
            f"{path}: its meta-data cannot be read ({error}). Write it with save_checkpoint",
            path=str(path),
        ) from error
    return PublishedFile(tensors, config, meaning, embedded=True, notes=notes)


def _metadata_and_tensors(path: Path, data: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise WeightsError(
            f"{path} is damaged: {error}. Get the file again", path=str(path)
        ) from error
    except KeyError as error:
        raise WeightsError(
            f"{path} holds weights of type {error.args[0]}, which PyTorch cannot read. Store "
            "floats of 16, 32 or 64 bit",
            path=str(path),
        ) from error
    # Checked above, all of it; see `_in_order` for the layout.
    (length,) = struct.unpack_from("<Q", data)
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    if metadata.get("dae_ros.format") != FORMAT:
        raise WeightsError(
            f"{path} is a safetensors file without this project's meta-data (format {FORMAT}), "
            "so nothing says what its weights mean. Use the .pth file of the authors, or write "
            "it with save_checkpoint",
            path=str(path),
            format=metadata.get("dae_ros.format"),
        )
    return metadata, tensors


def _read_pickle(path: Path, data: bytes, config: NetworkConfig | None) -> PublishedFile:
    if not data.startswith(_PICKLES):
        what = "is empty" if not data else "is no checkpoint: it begins like none"
        raise WeightsError(
            f"{path} {what}. Checkpoints are .pth files of PyTorch and this project's "
            ".safetensors; `dae-ros models list` shows the known ones",
            path=str(path),
        )
    try:
        content: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _LOAD_FAILURES as error:
        text = " ".join(str(error).split())
        forbidden = _FORBIDDEN.search(text)
        if forbidden:
            reason = forbidden[0]
            raise WeightsError(
                f"{path} holds pickled objects other than tensors and plain values, which could "
                f"run code, so it is not opened ({reason}). If you trust its origin, open it in "
                "a throw-away environment and save its tensors and plain configuration again",
                path=str(path),
                reason=reason,
            ) from error
        # PyTorch wraps what it found into a page of advice.
        reason = text.split("WeightsUnpickler error: ")[-1].split(". ")[0][:120]
        raise WeightsError(
            f"{path} is damaged or no checkpoint ({reason or type(error).__name__}). Get the "
            "file again, and compare its size and sha256",
            path=str(path),
            reason=reason,
        ) from error
    return read_published(path, content, config)


def _fill(path: Path, config: NetworkConfig, tensors: Mapping[str, Tensor]) -> Network:
    try:
        # Shapes only: no memory and no time for weights that are replaced at once.
        with torch.device("meta"):
            network = build_network(config)
    except ConfigurationError as error:
        raise WeightsError(f"{path}: {error.message}", path=str(path)) from error
    expected = network.state_dict()
    _compare(path, config, expected, tensors)
    weights = {key: tensors[key].to(value.dtype).contiguous() for key, value in expected.items()}
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise WeightsError(
                f"{path}: {key} holds NaN or infinity; the training of this file diverged or "
                "the file is damaged. Use another one",
                path=str(path),
                key=key,
            )
    network.load_state_dict(weights, assign=True)
    return network.eval()


def _compare(
    path: Path,
    config: NetworkConfig,
    expected: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
) -> None:
    missing = [key for key in expected if key not in tensors]
    unexpected = [key for key in tensors if key not in expected]
    common = {key: (tensors[key], value) for key, value in expected.items() if key in tensors}
    mismatched = [
        f"{key} is {tuple(found.shape)}, not {tuple(value.shape)}"
        for key, (found, value) in common.items()
        if found.shape != value.shape
    ] + [
        f"{key} is {found.dtype}, not {value.dtype}"
        for key, (found, value) in common.items()
        if found.dtype != value.dtype and not {found.dtype, value.dtype} <= set(_FLOATS)
    ]
    if not (missing or unexpected or mismatched):
        return
    parts = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (
            ("keys are missing", missing),
            ("keys are unknown", unexpected),
            ("shapes or types differ", mismatched),
        )
        if keys
    ]
    network = ", ".join(f"{key} {value}" for key, value in config.summary().items())
    raise WeightsError(
        f"{path} does not fit a network with {network}: {'; '.join(parts)}. Compare "
        "it with `dae-ros models list`; it may be of another network, or only a part of one",
        path=str(path),
        missing=missing,
        unexpected=unexpected,
        mismatched=mismatched,
    )
