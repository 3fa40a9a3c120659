"""A small deployment: a wall, a student, and a teacher that says the same with another scale.

An untrained student knows nothing of walls, so the truth of this place is what it says itself,
times a factor: that is quickly learned, and every label can be checked.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.distillation.clip_store import ClipStore
from dae_ros.distillation.labels import DepthRange
from dae_ros.distillation.online.anchors import AnchorSet, anchors_of_store
from dae_ros.distillation.online.budget import StepRate
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.loop import OnlineDistiller
from dae_ros.distillation.online.observation import LabelledClip, Observation
from dae_ros.distillation.online.pairing import Pairing
from dae_ros.distillation.online.reports import LoopReport
from dae_ros.distillation.teacher import FrameTeacher
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket, Events
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import Meaning
from dae_ros.parameters.distillation import OnlineParameters
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.weight_stages import Outcome, Verdict
from test.reference.online_clips import measuring
from test.reference.scrolling_wall import BASE_NS, MS, mono_packet

CPU = torch.device("cpu")
HEIGHT, WIDTH = 28, 42
# Clips of 0.2 s, blocks of 0.25 s of which every second is held out.
PARAMETERS = {
    "lead": 0, "burn_in": 1, "unroll": 3, "labels_per_clip": 2, "smallest_contrast": 10.0,
    "block_s": 0.25, "heldout_every": 2, "guard_band_s": 0.0, "largest_similarity": 1.0,
    "batch_clips": 1, "anchor_share": 0.0, "judged_blocks": 2, "judged_strata": 1,
    "judge_every_steps": 4, "pinned_clips": 0, "warm_up": 1, "average_decay": 0.5,
    "learning_rate": 1e-4, "pull": 0.0, "hold_after_s": 0.5, "save_every_steps": 2,
    "consistency_share": 0.0,
    # The shape of untrained depth is next to nothing and easily bent; scale is what is learned.
    "largest_forgetting": 0.5, "largest_departure": 0.5, "largest_jitter": 3.0,
    "largest_scale_step": 0.15,
}  # fmt: skip


def parameters(**changes: object) -> OnlineParameters:
    return OnlineParameters.from_mapping({**PARAMETERS, **changes})


@functools.cache
def items(seed: int, duration_ms: int) -> tuple[EventPacket | Frame, ...]:
    """Return a texture that moves a pixel every 10 ms: a packet for each, frames at 20 Hz."""
    random = np.random.default_rng(seed)
    grey = random.integers(60, 200, (HEIGHT, WIDTH + duration_ms // 10 + 1))
    found: list[EventPacket | Frame] = []
    for move in range(duration_ms // 10):
        before, after = grey[:, move : move + WIDTH], grey[:, move + 1 : move + 1 + WIDTH]
        change = np.log(after) - np.log(before)
        y, x = np.nonzero(np.abs(change) > 0.7)
        t = BASE_NS + move * 10 * MS + 10 * MS * np.arange(len(y)) // max(len(y), 1) // 1000 * 1000
        p = (change[y, x] > 0).astype(np.uint8)
        events = Events(t.astype(np.int64), x.astype(np.uint16), y.astype(np.uint16), p)
        found.append(mono_packet(events, HEIGHT, WIDTH, move, BASE_NS + move * 10 * MS))
        if move % 5 == 4 and move + 1 < duration_ms // 10:
            found.append(Frame(BASE_NS + (move + 1) * 10 * MS, after.astype(np.uint8), 0, "camera"))
    return tuple(sorted(found, key=lambda item: item.stamp_ns))


def observations(seen: Sequence[EventPacket | Frame]) -> list[Observation]:
    """Return a clip for each frame that has one."""
    pairing = Pairing(parameters())
    for item in seen:
        pairing.add_frame(item) if isinstance(item, Frame) else pairing.feed(item)
    found = []
    while (item := pairing.step()) is not None:
        if isinstance(item, Observation):
            found.append(item)
    return found


class EchoTeacher:
    """Says of every frame what the student says at that time, times a factor that may change."""

    def __init__(
        self, student: LoadedModel, seen: Sequence[EventPacket | Frame], factor: float
    ) -> None:
        self.factor, self.frames = factor, 0
        network = ClipNetwork(student.network, student.meaning)
        self.known: dict[bytes, NDArray[np.float32]] = {}
        for clip in observations(seen):
            maps = network.at_sensor_size(network.predict(clip, 0).maps, clip)
            for frame, depth in zip(clip.frames, maps, strict=True):
                self.known[frame.tobytes()] = depth

    def __call__(self, frames: Tensor) -> Tensor:
        self.frames += len(frames)
        known = [self.known[frame.tobytes()] for frame in frames.numpy()]
        return torch.from_numpy(np.stack(known)) * self.factor

    def teacher(self) -> FrameTeacher:
        meaning = Meaning(event_encoder="grey", orientation="depth", scale="metric")
        return FrameTeacher("echo", "0" * 64, self, meaning, DepthRange(0.01, 80.0))


def anchors(settings: OnlineParameters) -> AnchorSet:
    """Return an anchor on another wall, without a label."""
    clip = observations(items(8, 300))[-1]
    unlabelled = LabelledClip(
        observation=clip.without_frames(),
        labelled=np.empty(0, np.int64),
        depth=np.empty((0, *clip.windows.shape[1:]), np.float16),
        weight=np.empty((0, *clip.windows.shape[1:]), np.uint8),
        label_metric=False,
        teacher="",
        teacher_digest="",
    )
    return AnchorSet(None, measuring([unlabelled]), settings)


def run(
    distiller: OnlineDistiller, items: Sequence[EventPacket | Frame], steps_per_s: float = 20.0
) -> Iterator[LoopReport]:
    """Feed everything in order; yield all that is done."""
    rate = StepRate(steps_per_s)
    for item in items:
        distiller.add_frame(item) if isinstance(item, Frame) else distiller.feed(item)
        now_ns = item.stamp_ns - BASE_NS
        while distiller.take_in(now_ns):
            pass
        while (report := distiller.work(now_ns, learn=False)) is not None:
            yield report
        while rate.due(now_ns):
            rate.used(now_ns)
            report = distiller.work(now_ns)
            if report is not None:
                yield report


def depth_says(
    announcement: Announcement, outcome: Outcome, code: str, live: Announcement | None = None
) -> Verdict:
    """Return what depth says of a version; it has another in use, or what it began with."""
    has = (0, "0" * 64) if live is None else (live.version, live.sha256)
    return Verdict(announcement.version, announcement.sha256, outcome, code, "so", *has)


def deployment(
    student: LoadedModel,
    teacher: EchoTeacher,
    folder: Path,
    store: ClipStore | None = None,
    **changes: object,
) -> OnlineDistiller:
    """Return a learner with the anchors of a store; without one with one that has no label."""
    settings = parameters(**changes)
    held = anchors(settings) if store is None else anchors_of_store(store, "tencode", settings)
    return OnlineDistiller(student, teacher.teacher(), held, settings, folder, CPU)
