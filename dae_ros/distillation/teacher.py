"""Networks that see camera frames and say what depth they show: the source of labels.

A teacher sees frames only. Its output becomes depth by what its checkpoint says the number means;
one whose orientation nobody measured is refused (`labels.py` says why).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dae_ros.distillation.configuration import DistillationParameters
from dae_ros.distillation.labels import (
    DepthLabel,
    DepthRange,
    SelfConsistency,
    depth_label,
    flip_consistency,
    self_consistency,
)
from dae_ros.distillation.onnx_frames import OnnxFrames, read_manifest
from dae_ros.distillation.preparation import FRAME_ENCODERS, frames_as_images
from dae_ros.errors import ConfigurationError, InferenceError, WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import Meaning
from dae_ros.model.fetch import digest_of
from dae_ros.model.weights import load_weights
from dae_ros.runtime.torch_fitting import Fitting

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


def load_teacher(name: str, depth_range: DepthRange, device: torch.device) -> FrameTeacher:
    """Load a teacher.

    Args:
        name: weights as `load_weights` takes them, or a .yaml manifest of an ONNX file
            (`OnnxManifest`).
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
    manifest = read_manifest(path)
    file = path.parent / manifest.file
    if not file.is_file():
        raise WeightsError(f"{path} names {file}, which is not there", path=str(file))
    digest = digest_of(file)
    if digest != manifest.sha256:
        raise WeightsError(
            f"{file} has the sha256 {digest}, {path} says {manifest.sha256}; get the file again",
            path=str(file),
        )
    backend = OnnxFrames(file, manifest)
    return FrameTeacher(path.stem, digest, backend, manifest.meaning, depth_range)


def load_teachers(
    settings: DistillationParameters, device: torch.device
) -> Mapping[str, FrameTeacher]:
    """Load every teacher that the settings name.

    Raises:
        ConfigurationError, WeightsError: as `load_teacher`.
    """
    depth_range = DepthRange(settings.near_m, settings.far_m)
    return {name: load_teacher(name, depth_range, device) for name in settings.shares}
