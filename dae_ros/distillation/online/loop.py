"""The loop: from events and frames to published weights, one bounded piece of work at a time.

`OnlineDistiller` drives the gates, the replay buffer, the learner and the guard. It has no threads
and no clock: time comes in as an argument, and whoever calls decides how often it may work
(`budget.DutyCycle` live, `budget.StepRate` on a recording). Equal calls give equal weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from dae_ros.distillation.online.anchors import AnchorSet
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.consequences import Consequences
from dae_ros.distillation.online.expected_gain import ExpectedGain
from dae_ros.distillation.online.guard import Guard
from dae_ros.distillation.online.health import STOPPED, Health
from dae_ros.distillation.online.intake import Intake
from dae_ros.distillation.online.learner import Learner
from dae_ros.distillation.online.observation import Refusal
from dae_ros.distillation.online.persistence import OnlineStore
from dae_ros.distillation.online.publisher import Publisher
from dae_ros.distillation.online.reports import LoopReport, LoopStatus
from dae_ros.distillation.online.verdict import Verdict
from dae_ros.distillation.teacher import FrameTeacher
from dae_ros.errors import DistillationError, WeightsError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.parameters.distillation import OnlineParameters
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.snapshots import SnapshotStore
from dae_ros.runtime.weight_stages import Verdict as DepthVerdict

T = TypeVar("T")

SNAPSHOTS, LEARNER = "snapshots", "learner"


class OnlineDistiller:
    """Learns from one camera and publishes into one folder.

    Args:
        loaded: the student before adaptation.
        teacher: sees frames.
        anchors: what must not be forgotten; clips of the deployment are pinned to it.
        parameters: validated.
        folder: `snapshots/` and `learner/` are made in it; learning goes on from what is there.
        device: where to learn.
        pause: called often during work; what it raises ends that, as if it had not begun.
        above: see `Publisher`.

    Attributes:
        health: as of the last call of `work`, `look` or `stop`.
        running: whether it learns; `start` and `stop`.

    Raises:
        ConfigurationError: the student does not learn online, or the folder is of another one.
        DistillationError: another process learns in the folder, or it cannot be written.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        teacher: FrameTeacher,
        anchors: AnchorSet,
        parameters: OnlineParameters,
        folder: Path,
        device: torch.device,
        pause: Callable[[], None] = lambda: None,
        above: int = 0,
    ) -> None:
        self._parameters = parameters
        self._pause = pause
        metric = loaded.meaning.scale == "metric"
        self._learner = Learner(loaded, parameters, device, anchors.known)
        self._guard = Guard(self._learner.original, parameters, metric=metric)
        self._counts: Counter[str] = Counter()
        self._intake = Intake(
            self._learner, teacher, anchors, parameters, metric=metric, counts=self._counts
        )
        self._gain = ExpectedGain(parameters)
        self._steps = self._saved_step = self._judged_step = 0
        self._judged_ns: int | None = None
        self._consequences = Consequences()
        self._loss = math.nan
        self._last_verdict = ""
        self._problems: dict[str, str] = {}  # by what could not be written
        self.running = True
        self.health = Health("holding", "no_events", "nothing has come yet")
        self._store = OnlineStore(folder / LEARNER)
        try:
            snapshots = SnapshotStore(folder / SNAPSHOTS, parameters.kept_snapshots)
        except (DistillationError, WeightsError):
            self._store.close()
            raise
        try:
            self._publisher = Publisher(snapshots, self._learner.original, above)
            self._learner.lineage = self._publisher.lineage()
            self._resume()
        except BaseException:
            snapshots.close()
            self._store.close()
            raise

    def close(self) -> None:
        """Free the folder; what came after the last `save` is lost."""
        self._publisher.close()
        self._store.close()

    @property
    def announcement(self) -> Announcement:
        """The version that depth should have."""
        return self._publisher.live.announcement

    def kept_versions(self) -> dict[int, Path]:
        """Return the files of the versions that are kept, oldest first."""
        return {found.version: found.path for found in self._publisher.kept()}

    def begin_input(self) -> None:
        """Forget events and frames: another camera, or another recording, begins."""
        self._intake.begin()

    def feed(self, packet: EventPacket) -> None:
        """Queue an event packet."""
        self._intake.pairing.feed(packet)

    def add_frame(self, frame: Frame) -> None:
        """Queue a camera frame."""
        self._intake.pairing.add_frame(frame)

    def take_in(self, now_ns: int) -> bool:
        """Judge one frame of those that were queued; to be called until it returns False.

        A clip that is due waits for `work`, the newest only.
        """
        return self._intake.take_in(now_ns)

    def work(
        self, now_ns: int, *, ros_ns: int | None = None, learn: bool = True
    ) -> LoopReport | None:
        """Do one piece of work: label a clip, else judge a candidate, else a step of learning.

        Args:
            now_ns: any clock that only grows.
            ros_ns: ROS time, to notice that events or frames have stopped; None without.
            learn: whether more than a label may be worked on.

        Returns:
            What was done; None where there is nothing to do, or `health` says why nothing may be.
        """
        self.look(now_ns, ros_ns)
        if not self.running:
            return None
        may_learn = learn and self.health.state == "active"
        if self._intake.label_due(may_learn=may_learn):
            return self._label(now_ns)
        if not may_learn:
            return None
        return self._judge(now_ns) if self._judgement_due(now_ns) else self._step()

    def worked(self, duration_ns: int) -> None:
        """Say how long learning and judging took, which weighs what they gain."""
        self._gain.worked(duration_ns)

    def start(self) -> None:
        """Learn."""
        self.running = True

    def stop(self) -> bool:
        """Do nothing until `start`; what waits is forgotten, the rest saved, see `save`."""
        self.running, self.health = False, STOPPED
        self._intake.pending = None
        return self.save()

    def save(self) -> bool:
        """Write everything to disk; return whether that was possible (`problem` of the status)."""
        state = {
            "learner": self._learner.state(),
            "intake": self._intake.state(),
            "steps": self._steps,
            "judged_step": self._judged_step,
            "consequences": self._consequences.state(),
            "counts": dict(self._counts),
        }
        self._written("state", self._store.save, state, self._intake.live)
        if "state" in self._problems:
            return False
        self._problems.pop("clip", None)  # written with it
        self._saved_step = self._learner.accepted_steps
        return True

    def rollback(self) -> Announcement | None:
        """Go back to the version that the published one was trained from; None without one."""
        parent = self._publisher.live.parent
        return None if parent is None else self._go_back(parent, "it was asked for")

    def reset_to_anchor(self) -> Announcement | None:
        """Publish the original and learn anew from it; None where that cannot be written."""
        return self._go_back(self._publisher.first.version, "the original was asked for")

    def answered(self, answer: DepthVerdict) -> Announcement | None:
        """Follow what depth says of a version, the announced one or another.

        What it has watched and kept is noted as that. What it took back, or refused for what it
        does, is withdrawn with all that came after it, and learning begins anew from the version
        that is announced instead; see `Publisher.way_back`.

        Returns:
            What to announce; None where nothing changed.
        """
        before = self.announcement
        if answer.watched:
            self._written("answer", self._publisher.confirm, answer.sha256)
        elif answer.harmful:
            target = self._written("answer", self._publisher.way_back, answer)
            reason = f"depth does not want it: {answer.reason}"
            if target is not None and self._go_back(target, reason) is not None:
                self._counts["rejected"] += 1
        return None if self.announcement == before else self.announcement

    def status(self) -> LoopStatus:
        """Return how learning is doing."""
        live, intake = self._publisher.live, self._intake
        return LoopStatus(
            health=self.health,
            version=live.version,
            sha256=live.sha256,
            steps=self._steps,
            accepted_steps=self._learner.accepted_steps,
            saved_step=self._saved_step,
            loss=self._loss,
            error=intake.error,
            stride=intake.stride.stride,
            clips=len(intake.replay),
            heldout_blocks=len(intake.replay.heldout()),
            anchors=len(intake.anchors),
            tier=self._learner.tier,
            published=self._counts["published"],
            verdicts=self._counts["verdicts"],
            resets=self._learner.interventions["hard_reset"],
            rollbacks=self._counts["rollbacks"],
            last_verdict=self._last_verdict,
            counts=dict(sorted(self._counts.items())),
            problem="; ".join(self._problems.values()),
        )

    def look(self, now_ns: int, ros_ns: int | None = None) -> None:
        """Find out how learning is doing (`health`), without work; arguments as for `work`."""
        if self._judged_ns is None:
            self._judged_ns = now_ns
        missing = self._intake.pairing.holding(ros_ns)
        small = self._gain.update(now_ns, surprised=self._intake.stride.surprised)
        damage, full = self._publisher.damage(), self._intake.replay.no_room
        holds = [hold for hold in (damage, missing, full, small) if hold is not None]
        clips, wanted = len(self._intake.replay), self._parameters.batch_clips
        if not holds and clips < wanted:
            holds.append(Refusal("few_clips", f"{clips} of {wanted} clips to learn from are there"))
        self.health = self._intake.monitor.health(now_ns, holds) if self.running else STOPPED

    def release_memory(self) -> None:
        """Give up what can be computed again; no step and no verdict changes."""
        self._learner.release_memory()
        self._guard.release_memory()

    def number_above(self, version: int) -> None:
        """Number what is published from now on above a version that depth has seen."""
        self._publisher.above = max(self._publisher.above, version)

    def _label(self, now_ns: int) -> LoopReport:
        report, kept = self._intake.label(self._publisher.network, now_ns)
        for (kind, key), clip in kept.items():
            self._written("clip", self._store.append, kind, key, clip)
        return LoopReport("labelled", label=report)

    def _step(self) -> LoopReport:
        clips, anchors = self._intake.draw(self._steps, self._pause)
        report = self._learner.step(clips, anchors, self._steps, self._pause)
        self._steps += 1
        self._counts[f"step.{report.reason}"] += 1
        self._loss = report.loss
        unsaved = self._learner.accepted_steps - self._saved_step
        if unsaved >= self._parameters.save_every_steps:
            self.save()
        return LoopReport("learned", step=report)

    def _judgement_due(self, now_ns: int) -> bool:
        if self._consequences.part < 1.0:
            return True
        steps, limits = self._learner.accepted_steps - self._judged_step, self._parameters
        elapsed_s = (now_ns - (self._judged_ns or 0)) / 1e9
        late = steps > 0 and elapsed_s >= limits.judge_every_s
        return steps >= limits.judge_every_steps or late

    def _judge(self, now_ns: int) -> LoopReport:
        part = self._consequences.part
        candidate = self._learner.candidate()
        if part < 1.0:
            candidate = candidate.between(self._publisher.network, part)
        verdict = self._guard.judge(
            candidate,
            self._publisher.network,
            self._intake.replay.heldout(),
            self._intake.measured(self._steps, self._pause),
            self._pause,
        )
        self._gain.judged(verdict)
        self._note(verdict)
        self._judged_ns, self._judged_step = now_ns, self._learner.accepted_steps
        consequence = self._consequences.of(verdict)
        announcement, reset = None, ""
        if consequence == "publish":
            announcement = self._publish(candidate, verdict)
        elif consequence == "take_back":
            # Another version may be better here than either, but the original is surely no worse.
            detail = verdict.refusals[-1].detail
            announcement = self._go_back(self._publisher.first.version, detail)
            reset = "" if announcement is None else "original"
        elif consequence == "begin_at_published":
            self._learner.reset(self._publisher.network.network.state_dict())
            reset = "published"
        elif consequence == "begin_at_original":
            self._learner.reset()
            reset = "original"
        # Also what only counts: a process that is killed again and again must not forget harm.
        self.save()
        return LoopReport(
            "judged", verdict=verdict, part=part, reset=reset, announcement=announcement
        )

    def _note(self, verdict: Verdict) -> None:
        self._counts["verdicts"] += 1
        for reason in verdict.reasons or ("accepted",):
            self._counts[f"verdict.{reason}"] += 1
        self._last_verdict = ", ".join(verdict.reasons) or "accepted"

    def _publish(self, candidate: ClipNetwork, verdict: Verdict) -> Announcement | None:
        step = self._learner.accepted_steps
        snapshot = self._written("version", self._publisher.publish, candidate, verdict, step)
        if snapshot is None:
            return None
        self._counts["published"] += 1
        self._learner.lineage = self._publisher.lineage()
        self._consequences.published()
        self._intake.weights_changed()
        return snapshot.announcement

    def _go_back(self, version: int, reason: str) -> Announcement | None:
        snapshot = self._written("version", self._publisher.go_back, version, reason)
        if snapshot is None:
            return None
        self._counts["rollbacks"] += 1
        self._begin_at_published()
        self.save()
        return snapshot.announcement

    def _begin_at_published(self) -> None:
        self._learner.lineage = self._publisher.lineage()
        self._learner.reset(self._publisher.network.network.state_dict())
        self._consequences.went_back()
        self._intake.weights_changed()

    def _written(self, what: str, write: Callable[..., T], *arguments: object) -> T | None:
        """Write; where that is not possible, go on without it and say so until it is."""
        self._problems.pop(what, None)
        try:
            return write(*arguments)
        except (DistillationError, WeightsError) as error:
            self._counts["not_written"] += 1
            self._problems[what] = error.message
            return None

    def _resume(self) -> None:
        """Go on from the disk."""
        state = self._store.load()
        self._counts.update(self._store.losses)
        if state is None:
            if self._publisher.live.version != self._publisher.first.version:
                self._begin_at_published()  # what was learned since is lost
            self.save()
            return
        self._learner.restore(state["learner"])
        clips, anchors = self._store.clips("clip"), self._store.clips("anchor")
        self._counts.update(state["counts"], resumed=1)
        self._counts["clips_missing"] += self._intake.restore(state["intake"], clips, anchors)
        self._steps, self._judged_step = state["steps"], state["judged_step"]
        self._consequences.restore(state["consequences"])
        if self._learner.lineage[0] > self._publisher.live.version:
            self._begin_at_published()  # killed on a way back: what it learned from is withdrawn
        # A publication whose state was not saved any more: the file is what depth has.
        self._learner.lineage = self._publisher.lineage()
        self._saved_step = self._learner.accepted_steps
        if state["intake"]["origin"] != self._intake.state()["origin"]:
            self.save()  # keys begin anew: the clips that the state refers to are others soon
