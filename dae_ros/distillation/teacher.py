"""Networks that see camera frames and say what depth they show: the source of labels.

A teacher sees frames only. Its output becomes depth by what its checkpoint says the number means;
one whose orientation nobody measured is refused (`labels.py` says why).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from torch import Tensor
from torch.nn import functional

from dae_ros.distillation.configuration import DistillationParameters
from dae_ros.distillation.labels import (
    DepthLabel,
    DepthRange,
    SelfConsistency,
    depth_label,
    flip_consistency,
    self_consistency,
)
from dae_ros.distillation.preparation import FRAME_ENCODERS, frames_as_images
from dae_ros.errors import ConfigurationError, InferenceError, WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import Meaning
from dae_ros.model.fetch import digest_of
from dae_ros.model.weights import load_weights
from dae_ros.representation.geometry import network_size
from dae_ros.runtime.torch_estimator import Fitting

# Frames that go through a teacher at a time, to bound its memory.
CHUNK = 8


@dataclass(frozen=True, eq=False)
class TeacherLabel(DepthLabel):
    """A label and how much each pixel of it counts.

    Attributes:
        weight: float32 (N, H, W), 0 outside of the mask.
    """

    weight: Tensor


class FrameBackend(Protocol):
    """Runs a network on frames."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Return the network's number, float32 (N, H, W), of frames, uint8 (N, H, W)."""


class FrameTeacher:
    """A frame network with the meaning of its output.

    Args:
        name: for logs.
        digest: sha256 of its weights.
        backend: runs it.
        meaning: of its output.
        depth_range: of the place.

    Attributes:
        metric: whether its labels are metres.

    Raises:
        ConfigurationError: it takes events, or its orientation is unknown.
    """

    def __init__(
        self,
        name: str,
        digest: str,
        backend: FrameBackend,
        meaning: Meaning,
        depth_range: DepthRange,
    ) -> None:
        if meaning.event_encoder not in FRAME_ENCODERS:
            raise ConfigurationError(
                f"{name} takes {meaning.event_encoder}, not camera frames; a teacher sees frames "
                "only, such as micro_frames or Depth Anything V2",
                teacher=name,
            )
        if meaning.orientation == "unknown":
            raise ConfigurationError(
                f"nothing says whether the output of {name} grows with depth or with nearness; "
                "labels of the wrong kind would teach the student upside down. Measure it "
                "(docs/model.md) and write it into the manifest",
                teacher=name,
            )
        self.name = name
        self.digest = digest
        self.metric = meaning.scale == "metric" or meaning.metres_scale is not None
        self._backend = backend
        self._meaning = meaning
        self._range = depth_range

    def label(self, frames: Tensor, *, consistency: bool) -> TeacherLabel:
        """Return depth for frames.

        Args:
            frames: uint8 (N, H, W).
            consistency: whether to weigh pixels by agreement with the mirrored frame, at twice
                the cost.

        Returns:
            Label and weight of the frames' size.

        Raises:
            InferenceError: the network fails.
        """
        output = self._output(frames)
        label = depth_label(
            output, self._meaning.orientation, "metric" if self.metric else "relative", self._range
        )
        weight = label.mask.float()
        if consistency:
            mirrored = self._output(frames.flip(-1))
            weight = flip_consistency(output, mirrored, weight).confidence
        return TeacherLabel(label.depth, label.mask, label.metric, weight)

    def crop_consistency(
        self, frames: Tensor, box: tuple[int, int, int, int], tolerance: float
    ) -> SelfConsistency:
        """Return how far the teacher says of a part what it says of that part in the whole.

        A network that has learned where things mostly are, and not what they are, fails.

        Args:
            frames: uint8 (N, H, W).
            box: top, left, bottom and right of the part, px.
            tolerance: see `self_consistency`.

        Returns:
            Confidence of the part's size.
        """
        top, left, bottom, right = box
        whole = self._output(frames)[:, top:bottom, left:right]
        part = self._output(frames[:, top:bottom, left:right].contiguous())
        return self_consistency(whole, part, torch.isfinite(whole), tolerance)

    def _output(self, frames: Tensor) -> Tensor:
        try:
            with torch.no_grad():
                output = torch.cat([self._backend(part) for part in torch.split(frames, CHUNK)])
        except RuntimeError as error:
            raise InferenceError(
                f"the teacher {self.name} failed on frames of {tuple(frames.shape[1:])} px: "
                f"{error}. If memory ran out, use a smaller one",
                teacher=self.name,
            ) from error
        scale, shift = self._meaning.metres_scale, self._meaning.metres_shift
        return output if scale is None or shift is None else scale * output + shift


class TorchFrames:
    """A network of this package on frames.

    Args:
        loaded: with `grey` or `rgb` as its input.
        device: where it runs.
    """

    def __init__(self, loaded: LoadedModel, device: torch.device) -> None:
        self._network = loaded.network.to(device).eval().requires_grad_(False)
        # See `rollout.py`; the stubs of PyTorch do not know this form.
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._fitting = Fitting(loaded.config, loaded.network.multiple, device)

    def __call__(self, frames: Tensor) -> Tensor:
        """See `FrameBackend`."""
        images = self._fitting.prepare(frames_as_images(frames, self._fitting.format.channels))
        images = images.contiguous(memory_format=torch.channels_last)
        height, width = frames.shape[1:]
        state = self._network.initial_state(len(frames), images.shape[2], images.shape[3])
        prediction, _ = self._network(images, state)
        return self._fitting.restore(prediction, height, width)[:, 0]


class OnnxFrames:
    """An ONNX model on frames: one input (N, C, h, w), one output (N, h, w) or (N, 1, h, w).

    Args:
        path: the .onnx file.
        facts: the manifest; see `load_teacher`.

    Raises:
        ConfigurationError: onnxruntime is missing.
        WeightsError: it cannot be opened.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        try:
            onnxruntime: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise ConfigurationError(
                f"the teacher {path.name} needs onnxruntime, which is not installed; install the "
                "extra `onnx`"
            ) from error
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
        self._input = self._session.get_inputs()[0].name
        shape = (1, facts["channels"], 1, 1)
        self._mean = torch.tensor(facts["mean"]).reshape(shape)
        self._deviation = torch.tensor(facts["deviation"]).reshape(shape)
        self._size = (facts["height"], facts["width"])
        self._multiple = facts["multiple"]
        self._fixed = facts["fixed_size"]

    def __call__(self, frames: Tensor) -> Tensor:
        """See `FrameBackend`."""
        height, width = frames.shape[1:]
        target = self._size
        if not self._fixed:
            target = network_size(height, width, *target, self._multiple)
        images = frames_as_images(frames.cpu(), self._mean.shape[1])
        images = functional.interpolate(images, size=target, mode="bicubic", align_corners=False)
        images = (images - self._mean) / self._deviation
        try:
            (output,) = self._session.run(None, {self._input: images.numpy()})
        except self._failures as error:
            raise RuntimeError(str(error)) from error
        prediction = torch.from_numpy(output).float()
        prediction = prediction.reshape(len(frames), 1, *prediction.shape[-2:])
        restored = functional.interpolate(
            prediction, size=(height, width), mode="bilinear", align_corners=False
        )
        return restored[:, 0].to(frames.device)


_ONNX_FIELDS = {
    "file", "sha256", "licence", "channels", "mean", "deviation", "height", "width", "multiple",
    "fixed_size", "meaning",
}  # fmt: skip


def load_teacher(name: str, depth_range: DepthRange, device: torch.device) -> FrameTeacher:
    """Load a teacher.

    Args:
        name: weights as `load_weights` takes them, or a .yaml manifest of an ONNX file:
            file (beside the manifest), sha256, licence, channels (1 or 3), mean and deviation
            (a number per channel), height and width (lower bounds in px, the aspect is kept),
            multiple, fixed_size (true: exactly height x width), meaning (as in
            models/manifest.yaml).
        depth_range: of the place.
        device: where it runs; ONNX chooses itself.

    Raises:
        ConfigurationError: no frame network, a manifest that is not whole, or a missing package.
        WeightsError: the file is missing, damaged or another one.
    """
    if not name.endswith((".yaml", ".yml")):
        loaded = load_weights(name)
        backend: FrameBackend = TorchFrames(loaded, device)
        return FrameTeacher(name, loaded.digest, backend, loaded.meaning, depth_range)
    path = Path(name)
    facts = _read_manifest(path)
    file = path.parent / facts["file"]
    if not file.is_file():
        raise WeightsError(f"{path} names {file}, which is not there", path=str(file))
    digest = digest_of(file)
    if digest != facts["sha256"]:
        raise WeightsError(
            f"{file} has the sha256 {digest}, {path} says {facts['sha256']}; get the file again",
            path=str(file),
        )
    meaning = Meaning.from_dict(facts["meaning"])
    backend = OnnxFrames(file, facts)
    return FrameTeacher(path.stem, digest, backend, meaning, depth_range)


def load_teachers(
    settings: DistillationParameters, device: torch.device
) -> Mapping[str, FrameTeacher]:
    """Load every teacher that the settings name.

    Raises:
        ConfigurationError, WeightsError: as `load_teacher`.
    """
    depth_range = DepthRange(settings.near_m, settings.far_m)
    return {name: load_teacher(name, depth_range, device) for name in settings.shares}


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", path=str(path)) from error
    if not isinstance(facts, dict) or set(facts) != _ONNX_FIELDS:
        has = sorted(facts) if isinstance(facts, dict) else facts
        raise ConfigurationError(
            f"{path} must have exactly the keys {', '.join(sorted(_ONNX_FIELDS))}; it has {has}",
            path=str(path),
        )
    return facts
