"""Any ONNX network of camera frames as a teacher: a manifest says what the file does not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional

from dae_ros.distillation.preparation import frames_as_images
from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.configuration import Meaning
from dae_ros.representation.geometry import network_size
from dae_ros.runtime.onnxruntime_loading import load_onnxruntime

_NUMBERS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True, kw_only=True)
class OnnxManifest:
    """What must be known of an ONNX file to take frames to depth.

    Attributes:
        file: name beside the manifest.
        sha256: of the file, 64 hex digits.
        licence: of the weights.
        channels: 1 or 3; grey frames are repeated.
        mean, deviation: a number per channel, of frames in 0..1.
        height, width: lower bounds in px, the aspect is kept.
        multiple: of which both sides are.
        fixed_size: the input is exactly height x width instead.
        meaning: of the output.
    """

    file: str
    sha256: str
    licence: str
    channels: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    height: int
    width: int
    multiple: int
    fixed_size: bool
    meaning: Meaning


def read_manifest(path: Path) -> OnnxManifest:
    """Read the manifest of an ONNX file, YAML with exactly the fields of `OnnxManifest`.

    Raises:
        ConfigurationError: not readable, or a field that is missing, unknown or out of range.
    """
    try:
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", path=str(path)) from error
    names = {field.name for field in dataclasses.fields(OnnxManifest)}
    if not isinstance(facts, dict) or set(facts) != names:
        has = sorted(map(str, facts)) if isinstance(facts, dict) else facts
        raise ConfigurationError(
            f"{path} must have exactly the keys {', '.join(sorted(names))}; it has {has}",
            path=str(path),
        )
    problems = [f"'{name}' must be a text" for name in ("file", "sha256", "licence")
                if not isinstance(facts[name], str)]  # fmt: skip
    problems += [f"'{name}' must be a whole number above 0"
                 for name in ("height", "width", "multiple")
                 if type(facts[name]) is not int or facts[name] <= 0]  # fmt: skip
    if type(facts["channels"]) is not int or facts["channels"] not in (1, 3):
        problems.append("'channels' must be 1 or 3")
    if not isinstance(facts["fixed_size"], bool):
        problems.append("'fixed_size' must be true or false")
    if not isinstance(facts["meaning"], dict):
        problems.append("'meaning' must be a mapping")
    for name in ("mean", "deviation"):
        if not _are_numbers(facts[name], facts["channels"], positive=name == "deviation"):
            above = " above 0" if name == "deviation" else ""
            problems.append(f"'{name}' must be a list with a number{above} per channel")
    if problems:
        raise ConfigurationError(f"{path}: {'; '.join(problems)}", path=str(path))
    try:
        meaning = Meaning.from_dict(facts["meaning"])
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.message}", path=str(path)) from error
    lists = {name: tuple(map(float, facts[name])) for name in ("mean", "deviation")}
    return OnnxManifest(**{**facts, **lists, "meaning": meaning})


def _are_numbers(values: object, count: object, *, positive: bool) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) in (int, float) for value in values)
        and all(np.isfinite(value) and (value > 0 or not positive) for value in values)
    )


class OnnxFrames:
    """An ONNX model on frames: one input (N, C, h, w), one output (N, h, w) or (N, 1, h, w).

    N may be fixed by the file, as exporters often do; frames go through it in such parts. Numbers
    are float32 or float16.

    Args:
        path: the .onnx file.
        manifest: of it.

    Raises:
        ConfigurationError: onnxruntime is missing.
        WeightsError: it cannot be opened, or is no such network.
    """

    def __init__(self, path: Path, manifest: OnnxManifest) -> None:
        onnxruntime = load_onnxruntime(f"the teacher {path.name}")
        state = onnxruntime.capi.onnxruntime_pybind11_state
        failures = (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument)
        # Those of a run are no RuntimeErrors, unlike PyTorch's.
        self._failures = (state.Fail, state.InvalidArgument, state.RuntimeException)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), providers=onnxruntime.get_available_providers()
            )
        except (*failures, state.NotImplemented, RuntimeError) as error:
            raise WeightsError(f"{path} cannot be opened: {error}", path=str(path)) from error
        self._manifest = manifest
        self._check(path)
        entry = self._session.get_inputs()[0]
        self._input, self._kind = entry.name, _NUMBERS[entry.type]
        # A name, or nothing, stands for any number.
        self._batch: int | None = entry.shape[0] if isinstance(entry.shape[0], int) else None
        shape = (1, manifest.channels, 1, 1)
        self._mean = torch.tensor(manifest.mean).reshape(shape)
        self._deviation = torch.tensor(manifest.deviation).reshape(shape)

    def __call__(self, frames: Tensor) -> Tensor:
        """See `FrameBackend`."""
        manifest = self._manifest
        height, width = frames.shape[1:]
        target = (manifest.height, manifest.width)
        if not manifest.fixed_size:
            target = network_size(height, width, *target, manifest.multiple)
        images = frames_as_images(frames.cpu(), manifest.channels)
        images = functional.interpolate(images, size=target, mode="bicubic", align_corners=False)
        images = (images - self._mean) / self._deviation
        prediction = torch.cat(
            [self._run(part) for part in torch.split(images, self._batch or len(images))]
        )
        restored = functional.interpolate(
            prediction, size=(height, width), mode="bilinear", align_corners=False
        )
        return restored[:, 0].to(frames.device)

    def _run(self, images: Tensor) -> Tensor:
        """Return (N, 1, h', w') of at most as many images as the file takes at once."""
        count, batch = len(images), self._batch or len(images)
        # The last part is filled up; what comes of the filling is left out.
        whole = torch.cat((images, images[-1:].expand(batch - count, -1, -1, -1)))
        try:
            (output,) = self._session.run(None, {self._input: whole.numpy().astype(self._kind)})
        except self._failures as error:
            raise RuntimeError(str(error)) from error
        shape = tuple(output.shape)
        if len(shape) not in (3, 4) or shape[0] != batch or (len(shape) == 4 and shape[1] != 1):
            raise RuntimeError(
                f"its output is {shape}, and depth of {batch} frames is (N, h, w) or (N, 1, h, w)"
            )
        prediction = torch.from_numpy(output).float().reshape(batch, 1, *shape[-2:])
        return prediction[:count]

    def _check(self, path: Path) -> None:
        """Refuse a network that is fed or answers otherwise."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        channels, shape = self._manifest.channels, inputs[0].shape if inputs else []
        if len(inputs) != 1 or len(outputs) != 1:
            problem = (
                f"has the inputs {', '.join(item.name for item in inputs)} and the outputs "
                f"{', '.join(item.name for item in outputs)}; export it with frames in and depth "
                "out alone"
            )
        elif inputs[0].type not in _NUMBERS or outputs[0].type not in _NUMBERS:
            problem = (
                f"takes {inputs[0].type} and gives {outputs[0].type}; export it with float32 or "
                "float16"
            )
        elif len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != channels):
            problem = (
                f"takes {shape}, and its manifest says frames of {channels} channels, (N, C, h, w)"
            )
        else:
            return
        raise WeightsError(f"{path} {problem}", path=str(path))
