"""Understands the content of published checkpoint files; reads no files but `config.json`.

DepthAnyEvent(-R): {"state_dict": ..., "config": {"model": ..., ...}}, or a `config.json`
beside the file; keys may carry a `module.` prefix. Depth Anything V2: the tensors alone, so that
only the file's name tells metres from inverse depth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.configuration import (
    PUBLISHED,
    TRANSFORMERS,
    Meaning,
    ModelConfig,
    Recurrence,
    variant,
)
from dae_ros.model.dav2 import METRIC, RELATIVE, metric_config, relative_config
from dae_ros.model.networks import NetworkConfig
from dae_ros.model.published_e2depth import is_e2depth, read_e2depth

# What the published class takes where a configuration is silent about the input size.
_DEFAULT_INPUT_PX = 518
# How the official files of Depth Anything V2 are named, and metres at the top of the metric ones.
_OFFICIAL = re.compile(r"depth_anything_v2_(?:metric_(hypersim|vkitti)_)?([a-z]+)")
_MAX_DEPTH_M = {"hypersim": 20.0, "vkitti": 80.0}
# Settings of training and of the file's origin; they change nothing about the network.
_IRRELEVANT = {"model_type", "freeze_encoder", "nopretrain", "pretrained", "input_type"}
_RELEVANT = {
    "encoder", "activation", "inv_prediction", "input_size_width", "input_size_height",
    "recurrent_block_type", "scale_factor", "input_channels", "use_clstoken",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class PublishedFile:
    """What a checkpoint file says.

    Attributes:
        tensors: weights under the network's keys.
        config, meaning: see `configuration`.
        embedded: whether the file itself (or its `config.json`) determines `config`.
        notes: sentences about what the file leaves open.
    """

    tensors: Mapping[str, Tensor]
    config: NetworkConfig
    meaning: Meaning
    embedded: bool
    notes: tuple[str, ...] = ()


def read_published(path: Path, content: Any, config: NetworkConfig | None) -> PublishedFile:
    """Tell what an unpickled file holds.

    Args:
        path: where it came from, for `config.json` and for messages.
        content: what unpickling gave.
        config: taken where the file does not say what it is.

    Raises:
        WeightsError: if this is no checkpoint, or not clear of which network.
    """
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}, not a dictionary of tensors; save the "
            "state_dict",
            path=str(path),
        )
    nested = "state_dict" in content
    tensors = _tensors(path, content["state_dict"] if nested else content)
    if is_e2depth(tensors):
        e2depth, meaning, remarks = read_e2depth(path, content)
        return PublishedFile(tensors, e2depth, meaning, True, remarks)
    encoder = _encoder_of(path, tensors)
    recurrence = _recurrence_of(tensors)
    authors = content.get("config") if nested else None
    where = "the 'config' that is saved in the file"
    if authors is None:
        authors = _config_beside(path)
        where = str(path.with_name("config.json"))
    if authors is not None:
        embedded, notes = _authors_config(path, authors, where, encoder, recurrence)
        return PublishedFile(tensors, embedded, _authors_meaning(authors), True, notes)
    if isinstance(config, ModelConfig):
        # The digest of a manifest entry, or the caller, answers for this.
        meaning = (
            METRIC
            if config.head_align_corners and config.output_scale != 1.0
            else (RELATIVE if config.head_align_corners else Meaning())
        )
        return PublishedFile(tensors, config, meaning, False)
    if recurrence is None and not nested:
        return _depth_anything(path, tensors, encoder)
    raise WeightsError(
        f"{path} does not say with which activation and input size it was trained: it has no "
        f"'config', and there is no {path.with_name('config.json')}. Put the config.json of the "
        "training there",
        path=str(path),
    )


def _depth_anything(path: Path, tensors: Mapping[str, Tensor], encoder: str) -> PublishedFile:
    """Tell by its name whether an official file is relative or metric: the keys are the same."""
    named = _OFFICIAL.fullmatch(path.stem)
    if named is None:
        raise WeightsError(
            f"{path} holds a Depth Anything V2 {encoder}, and nothing in it says whether its "
            "number is inverse depth or metres. Name it as the official file is named: "
            f"depth_anything_v2_{encoder}.pth (relative), "
            f"depth_anything_v2_metric_hypersim_{encoder}.pth (metres up to 20, indoor) or "
            f"depth_anything_v2_metric_vkitti_{encoder}.pth (metres up to 80, outdoor)",
            path=str(path),
            encoder=encoder,
        )
    data, says = named.groups()
    if says != encoder:
        raise WeightsError(
            f"{path} is named as a {says} and holds a {encoder}; give it the name of the official "
            "file that it is",
            path=str(path),
            encoder=encoder,
        )
    if data is None:
        return PublishedFile(
            tensors, relative_config(encoder), RELATIVE, False,
            ("inverse depth up to scale and shift, as the file's name says",),
        )  # fmt: skip
    max_depth_m = _MAX_DEPTH_M[data]
    return PublishedFile(
        tensors, metric_config(encoder, max_depth_m), METRIC, False,
        (f"metres up to {max_depth_m:g}, as the file's name says",),
    )  # fmt: skip


def _tensors(path: Path, state: Any) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(
            f"{path} holds no weights (an empty or foreign state_dict)", path=str(path)
        )
    foreign = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if foreign:
        raise WeightsError(
            f"{path} is no state_dict: {', '.join(foreign[:3])} are no tensors. Expected are a "
            "'state_dict' (and a 'config'), or the tensors alone",
            path=str(path),
            keys=foreign,
        )
    # Written by DataParallel. All or none, so that a mixture is reported key by key.
    prefix = "module."
    if all(key.startswith(prefix) for key in state):
        return {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def _encoder_of(path: Path, tensors: Mapping[str, Tensor]) -> str:
    token = tensors.get("pretrained.cls_token")
    depth = sum(key.endswith(".norm1.weight") and ".blocks." in key for key in tensors)
    if token is not None:
        for name in (*PUBLISHED, "tiny"):
            size = TRANSFORMERS[name]
            if (size.width, size.depth) == (token.shape[-1], depth):
                return name
    raise WeightsError(
        f"{path} holds no encoder of a known size (cls_token "
        f"{None if token is None else tuple(token.shape)}, {depth} blocks; first keys: "
        f"{', '.join(list(tensors)[:3])}). Known are {', '.join(PUBLISHED)} with keys that begin "
        "with pretrained. and depth_head.",
        path=str(path),
        keys=list(tensors),
    )


def _recurrence_of(tensors: Mapping[str, Tensor]) -> Recurrence | None:
    if any(".recurrent_block.Gates." in key for key in tensors):
        return "convlstm"
    if any(".recurrent_block.reset_gate." in key for key in tensors):
        return "convgru"
    return None


def _config_beside(path: Path) -> Any:
    beside = path.with_name("config.json")
    if not beside.is_file():
        return None
    try:
        return json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(
            f"{beside} is no JSON ({error}); correct it or take it away", path=str(beside)
        ) from error


def _authors_config(
    path: Path, authors: Any, where: str, encoder: str, recurrence: Recurrence | None
) -> tuple[ModelConfig, tuple[str, ...]]:
    model = authors.get("model") if isinstance(authors, Mapping) else None
    if not isinstance(model, Mapping):
        raise WeightsError(
            f"{path}: its configuration has no section 'model'; put the config.json of the "
            "training beside the file",
            path=str(path),
        )
    problems = [f"'{key}' is missing" for key in ("encoder", "activation") if key not in model]
    for key, actual, what in (
        ("encoder", encoder, "encoder"),
        ("recurrent_block_type", recurrence, "recurrence"),
        ("input_channels", 3, "input channels"),
    ):
        said = model.get(key, actual)
        # The authors' factory ignores recurrent_block_type for the network without recurrence.
        if said != actual and not (key == "recurrent_block_type" and recurrence is None):
            spelling = isinstance(said, str) and said.lower() == actual
            remedy = f"; write {actual!r}, in small letters" if spelling else ""
            problems.append(f"it says {what} {said!r}, and the weights have {actual!r}{remedy}")
    if model.get("use_clstoken"):
        problems.append("use_clstoken is on, which no published network uses")
    fields: dict[str, Any] = {
        "recurrence": recurrence,
        "activation": model.get("activation"),
        "inv_prediction": bool(model.get("inv_prediction", False)),
        "output_scale": model.get("scale_factor", 1.0),
        "input_height": model.get("input_size_height", _DEFAULT_INPUT_PX),
        "input_width": model.get("input_size_width", _DEFAULT_INPUT_PX),
    }
    for key in ("output_scale", "input_height", "input_width"):
        value = fields[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            problems.append(f"{key} is {value!r}, not a number")
    representation = _section(authors, "data_loader", "event_representation").get(
        "representation_type", "tencode"
    )
    if representation != "tencode":
        problems.append(
            f"it was trained on '{representation}', and only tencode is built in; take others"
        )
    if not problems:
        try:
            fields["output_scale"] = float(fields["output_scale"])
            config = variant(encoder, **fields)
        except ConfigurationError as error:
            problems.append(error.message)
    if problems:
        raise WeightsError(
            f"{path}: its configuration cannot be used: {'; '.join(problems)}. Take the "
            f"configuration that these weights were trained with, or correct {where}",
            path=str(path),
            problems=problems,
        )
    notes = [
        f"the configuration's '{key}' is not known here and has no effect"
        for key in sorted(set(model) - _RELEVANT - _IRRELEVANT)
    ]
    trainer = _section(authors, "trainer")
    if trainer.get("use_logdepth"):
        notes.append(
            "trained on logarithmic depth: metres = 80 exp(3.70378 (p - 1)) up to scale, so the "
            "number is published as relative"
        )
    return config, tuple(notes)


def _authors_meaning(authors: Mapping[str, Any]) -> Meaning:
    loader = _section(authors, "data_loader")
    # The MVSEC loader encodes through five voxel bins where this is on; DSEC's ignores it.
    voxels = bool(loader.get("use_voxels")) and loader.get("dataset") == "mvsec"
    return Meaning(event_encoder="tencode_voxel" if voxels else "tencode")


def _section(values: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    found: Any = values
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
