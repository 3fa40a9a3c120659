"""From names to a loop that can run: student, anchors, teacher, folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.labels import DepthRange
from dae_ros.distillation.online.anchors import AnchorSet, anchors_of_store
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.loop import SNAPSHOTS, OnlineDistiller
from dae_ros.distillation.online.publisher import Publisher
from dae_ros.distillation.teacher import FrameTeacher, load_teacher
from dae_ros.errors import ConfigurationError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.device import device_of
from dae_ros.model.weights import load_weights
from dae_ros.parameters.distillation import OnlineParameters
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.snapshots import SnapshotStore, read_latest


@dataclass(frozen=True, eq=False)
class Student:
    """What learning needs beside a teacher and a folder.

    Attributes:
        loaded: the student before adaptation.
        anchors: what must not be forgotten.
        parameters: validated.
        device: where to learn.
    """

    loaded: LoadedModel
    anchors: AnchorSet
    parameters: OnlineParameters
    device: torch.device

    def teacher(self, name: str) -> FrameTeacher:
        """Load a teacher onto the same device.

        Raises:
            ConfigurationError, WeightsError: see `load_teacher`; or there is no name.
        """
        if not name:
            raise ConfigurationError(
                "no teacher: set 'teacher' to a network of frames, such as depth_anything_v2_vits "
                "(`dae-ros models list`), a checkpoint, or the manifest of an ONNX file",
                parameter="teacher",
            )
        depth_range = DepthRange(self.parameters.near_m, self.parameters.far_m)
        return load_teacher(name, depth_range, self.device)

    def kept(self, folder: Path) -> Announcement | None:
        """Return the version that depth should have while nobody can learn.

        Args:
            folder: as for `learn`.

        Returns:
            None where nothing was published there.

        Raises:
            ConfigurationError, DistillationError, WeightsError: as `learn`.
        """
        path = folder / SNAPSHOTS
        if read_latest(path) is None:
            return None
        original = ClipNetwork(self.loaded.network, self.loaded.meaning)
        with SnapshotStore(path, self.parameters.kept_snapshots) as store:
            return Publisher(store, original).live.announcement

    def learn(
        self,
        teacher: FrameTeacher,
        folder: Path,
        pause: Callable[[], None] = lambda: None,
        above: int = 0,
    ) -> OnlineDistiller:
        """Open the folder and go on from what is there; see `OnlineDistiller`.

        Raises:
            ConfigurationError, DistillationError: see there.
        """
        return OnlineDistiller(
            self.loaded, teacher, self.anchors, self.parameters, folder, self.device, pause, above
        )


def open_student(
    weights: str, anchors: Path | None, parameters: OnlineParameters, device: str
) -> Student:
    """Load student and anchors by name.

    Args:
        weights: as `load_weights` takes them.
        anchors: a folder of `dae-ros clips`; None to pin clips of the deployment only.
        parameters: validated.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ConfigurationError, WeightsError, RecordingError: what does not fit, or cannot be read.
    """
    if not weights:
        raise ConfigurationError(
            "no weights: set 'weights' to those that the depth node has, which learning begins "
            "with",
            parameter="weights",
        )
    place = device_of(device)
    loaded = load_weights(weights)
    chosen = AnchorSet(None, None, parameters)
    if anchors is not None:
        store = open_clip_store(anchors)
        chosen = anchors_of_store(store, loaded.meaning.event_encoder, parameters)
    return Student(loaded, chosen, parameters, place)
