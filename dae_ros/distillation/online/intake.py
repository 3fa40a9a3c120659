"""From the camera to the replay buffer: pairing, labels, the published weights' honest errors."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from dae_ros.distillation.online.anchor_streams import Excerpt
from dae_ros.distillation.online.anchors import AnchorSet, Pinned
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.health import RefusalMonitor
from dae_ros.distillation.online.label_gate import LabelGate
from dae_ros.distillation.online.learner import Learner
from dae_ros.distillation.online.lookalikes import Lookalikes
from dae_ros.distillation.online.measures import label_of, measure
from dae_ros.distillation.online.observation import LabelledClip, Observation, Refusal
from dae_ros.distillation.online.pairing import Pairing
from dae_ros.distillation.online.records import ClipKey
from dae_ros.distillation.online.replay import Admitted, ReplayBuffer
from dae_ros.distillation.online.reports import LabelReport
from dae_ros.distillation.online.stride import LabelStride
from dae_ros.distillation.teacher import FrameTeacher
from dae_ros.events.frame import FrameStamp
from dae_ros.parameters.distillation import OnlineParameters

LOGGER = logging.getLogger(__name__)

# What clips are cut and labelled by, beside the teacher: those of other settings teach other
# things, or lie on the other side of what is held out.
CUT_BY = ("window_s", "lead", "burn_in", "unroll", "near_m", "far_m")
SPLIT_BY = ("block_s", "heldout_every", "guard_band_s")


class Intake:
    """Takes in one camera.

    Args:
        learner: remembers states with clips.
        teacher: sees frames.
        anchors: clips of the deployment are pinned to it.
        parameters: validated.
        metric: whether the student gives metres.
        counts: `frame.<reason>`, `label.<reason>` and `replay.<reason>` are counted here.

    Attributes:
        pairing: of the present input; queue events and frames there.
        replay, anchors, stride, monitor: what the clips go to.
        pending: the clip that waits for a label, None without.
        error: Abs Rel of the published weights on the last label; NaN before.
    """

    def __init__(
        self,
        learner: Learner,
        teacher: FrameTeacher,
        anchors: AnchorSet,
        parameters: OnlineParameters,
        *,
        metric: bool,
        counts: Counter[str],
    ) -> None:
        self._parameters = parameters
        self._learner = learner
        self._metric = metric
        names = (*CUT_BY, *SPLIT_BY)
        self._origin = {"teacher": teacher.digest, **{n: getattr(parameters, n) for n in names}}
        self._encoder = learner.original.meaning.event_encoder
        self._gate = LabelGate(
            parameters,
            teacher,
            student_metric=metric,
            device=learner.original.device,
            seed=parameters.seed,
        )
        self.counts = counts
        self.replay = ReplayBuffer(parameters)
        self.anchors = anchors
        self._replayed_alike, self._measured_alike = (
            Lookalikes(learner.original, places, parameters.unroll, parameters.seed)
            for places in (anchors.places(), anchors.measured_places())
        )
        self.stride = LabelStride(parameters)
        self.monitor = RefusalMonitor(parameters)
        self.error = math.nan
        # What is added to event time, so that it only grows; and the newest time that has come.
        self._offset_ns = self._end_ns = 0
        self.begin()

    def begin(self) -> None:
        """Forget events and frames: another camera, or another recording, begins."""
        self.pairing = Pairing(self._parameters, self._encoder)
        self.pairing.wanted = self._lacks
        self.pending: Observation | None = None
        self._pending_frames: Mapping[int, FrameStamp] = {}
        self._labelled_last = False
        self._answered = 0  # frames of this pairing that the monitor knows of
        self._continues = False

    def take_in(self, now_ns: int) -> bool:
        """Judge one frame; False where nothing that was queued says more."""
        self.pairing.stride = self.stride.stride
        found = self.pairing.step()
        if isinstance(found, Refusal):
            self._count("frame", found)
            self.monitor.answered("frame", found, now_ns)
            self._answered += 1
        elif isinstance(found, Observation):
            self.counts["frame.superseded"] += self.pending is not None
            self.pending = self._on_one_timeline(found)
            self._pending_frames = self.pairing.last_cut
        else:
            # Frames between two strides give nothing, and have passed as well.
            for _ in range(self.pairing.counts().get("frames", 0) - self._answered):
                self.monitor.answered("frame", None, now_ns)
                self._answered += 1
        return found is not None

    def label_due(self, *, may_learn: bool) -> bool:
        """Say whether a label is the next piece of work.

        Where a clip waits at every call, labels and learning take turns: a slow machine would ask
        its teacher for ever, and learn nothing.

        Args:
            may_learn: whether the other may be done instead.
        """
        due = self.pending is not None and not (may_learn and self._labelled_last)
        self._labelled_last = due
        return due

    def label(
        self, published: ClipNetwork, now_ns: int
    ) -> tuple[LabelReport, Mapping[ClipKey, LabelledClip]]:
        """Label the clip that waits, score the published weights on it, and keep it.

        Args:
            published: weights of the learner's `version`.
            now_ns: for the monitor.

        Returns:
            What came of it, and the clips that belong on disk.
        """
        if self.pending is None:
            raise RuntimeError("no clip waits for a label")
        observation, self.pending = self.pending, None
        foreseen = self.replay.foresee(observation)
        if foreseen is not None:
            # Nobody would keep the clip, so the teacher is spared.
            if foreseen.reason != "split_border":
                # It is like one whose label was believed, so that only the others would be
                # counted, which are asked about again and again.
                self.monitor.answered("label", None, now_ns)
            return self._refused("replay", foreseen)
        prediction = published.predict(observation, self._learner.lead)
        clip = self._gate.label(
            observation,
            published.at_sensor_size(prediction.maps, observation),
            thorough=self.stride.stride >= self._parameters.longest_stride,
        )
        self.monitor.answered("label", clip if isinstance(clip, Refusal) else None, now_ns)
        if isinstance(clip, Refusal):
            return self._refused("label", clip)
        self.counts["label.accepted"] += 1
        frame = self._pending_frames[int(clip.labelled[-1])]
        self.error = self._error_of(clip, published, prediction.maps)
        clip = self._learner.remember(clip, prediction)
        admitted = self.replay.admit(clip)
        split = admitted.split if isinstance(admitted, Admitted) else ""
        self.stride.scored(self.error, heldout=split == "heldout")
        if isinstance(admitted, Refusal):
            self._count("replay", admitted)
            return LabelReport(clip, admitted, "", self.error, frame), {}
        self.counts[f"replay.{split}"] += 1
        kept: dict[ClipKey, LabelledClip] = {("clip", admitted.key): clip}
        # By turns a clip to replay and one to measure by, which nothing is learned from.
        if split == ("heldout" if self.anchors.state()["pinned"] % 2 else "train"):
            pinned = self.anchors.pin(clip)
            if isinstance(pinned, Pinned):
                kept[("anchor", pinned.key)] = clip
        return LabelReport(clip, None, split, self.error, frame), kept

    def draw(
        self, step: int, pause: Callable[[], None]
    ) -> tuple[tuple[LabelledClip, ...], tuple[LabelledClip | Excerpt, ...]]:
        """Draw clips to learn from, and anchors beside them.

        Args:
            step: its number.
            pause: called now and then while anchors are looked at.
        """
        parameters, clips, lookalikes = self._parameters, self.replay.clips, self._replayed_alike
        lookalikes.look(step, pause)
        anchors = self.anchors.draw(
            step,
            round(parameters.anchor_share * parameters.batch_clips),
            lambda: lookalikes.nearest(clips),
        )
        count = parameters.batch_clips - len(anchors)
        return self.replay.draw(step, count, lookalikes.farthest(clips, count)), anchors

    def measured(self, step: int, pause: Callable[[], None]) -> tuple[LabelledClip, ...]:
        """Return anchors to measure forgetting by, half of them like the deployment.

        Args:
            step: how many were made; what is alike depends on it and the clips alone.
            pause: called now and then while anchors are looked at.
        """
        self._measured_alike.look(step, pause)
        return self.anchors.measured(self._measured_alike.nearest(self.replay.clips))

    def weights_changed(self) -> None:
        """Forget what is usual for the published weights: others are published."""
        self.stride.forget()
        self._gate.forget_scales()

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside the clips."""
        return {
            "origin": self._origin,
            "replay": self.replay.state(),
            "anchors": self.anchors.state(),
            "gate": self._gate.state(),
            "end_ns": self._end_ns,
        }

    @property
    def live(self) -> list[ClipKey]:
        """The clips that the state refers to."""
        clips: list[ClipKey] = [("clip", key) for key in self.replay.keys]
        return clips + [("anchor", key) for key in range(self.anchors.state()["pinned"])]

    def restore(
        self,
        state: Mapping[str, Any],
        clips: Mapping[int, LabelledClip],
        anchors: Mapping[int, LabelledClip],
    ) -> int:
        """Go on from what `state` gave; return how many clips are missing.

        Where those of the state have another teacher, or were cut in another way, all of them are
        given up, pinned ones included: nothing of a teacher that was replaced is held for ever.
        """
        other = {name: was for name, was in state["origin"].items() if was != self._origin[name]}
        if other:
            LOGGER.warning(
                "%d clips are given up: they are of another %s",
                len(clips) + len(anchors),
                ", ".join(
                    f"{name} ({was}, now {self._origin[name]})" for name, was in other.items()
                ),
            )
            self.counts["clips_given_up"] += len(clips) + len(anchors)
            return 0
        self._end_ns = state["end_ns"]
        self._gate.restore(state["gate"])
        return self.replay.restore(state["replay"], clips) + self.anchors.restore(
            state["anchors"], anchors
        )

    def _lacks(self, start_ns: int, end_ns: int) -> bool:
        return self.replay.lacks(start_ns + self._offset_ns, end_ns + self._offset_ns)

    def _on_one_timeline(self, observation: Observation) -> Observation:
        """Move a clip behind those before it where the events' clock has begun anew."""
        if observation.end_ns + self._offset_ns <= self._end_ns or not self._continues:
            ahead_ns = self._end_ns - observation.start_ns
            self._offset_ns = max(ahead_ns, 0) if self._end_ns else 0
        self._continues = True
        self._end_ns = observation.end_ns + self._offset_ns
        if not self._offset_ns:
            return observation
        return dataclasses.replace(
            observation, end_ns=self._end_ns, frame_ns=observation.frame_ns + self._offset_ns
        )

    def _error_of(self, clip: LabelledClip, network: ClipNetwork, maps: Tensor) -> float:
        size, unroll = network.size(clip.observation), self._parameters.unroll
        label = label_of(clip, size, unroll, network.device, metric=self._metric)
        scores = measure(maps, unroll, label, self._parameters.trim).scores
        return scores.get("metric_abs_rel", scores.get("aligned_abs_rel", math.nan))

    def _refused(
        self, stage: str, refusal: Refusal
    ) -> tuple[LabelReport, Mapping[ClipKey, LabelledClip]]:
        self._count(stage, refusal)
        return LabelReport(None, refusal, "", math.nan, None), {}

    def _count(self, stage: str, refusal: Refusal) -> None:
        self.counts[f"{stage}.{refusal.reason}"] += 1
