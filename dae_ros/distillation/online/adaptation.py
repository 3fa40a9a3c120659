"""The loop on recordings, beside depth that takes over its weights: the same every time.

Two pipelines step every window: one keeps the original weights, the other changes them as the loop
publishes, by the same `WeightSwap` as the depth node. Where the recordings have true depth, both
are compared with it; recordings of other places are scored with every kept version afterwards.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dae_ros.bags.container import RecordedMessage
from dae_ros.bags.messages import read_depth
from dae_ros.bags.recording import Recording
from dae_ros.distillation.online.adaptation_topics import Topics, check_topics
from dae_ros.distillation.online.budget import StepRate
from dae_ros.distillation.online.loop import OnlineDistiller
from dae_ros.distillation.online.reports import LoopReport
from dae_ros.distillation.online.scored_pipeline import ErrorCurve, ScoredPipeline
from dae_ros.distillation.online.stamps import Stamps
from dae_ros.errors import PacketError
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator, follow_weights
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.runtime.weight_stages import Verdict

_REPORT_NS = 200_000_000
# A canary compares durations as well, and these are no two times the same.
_ANY_LATENCY = 1e9


@dataclass(slots=True)
class AdaptationResult:
    """What came of it.

    Attributes:
        seconds: of the recordings.
        frozen, online: errors of the original and of the changing weights.
        verdicts: of the guard, with the time.
        versions: what was announced, with the time; the original first.
        swaps: what depth made of them, with the time.
        losses: of the steps, with the time.
        packet_errors: event messages that could not be used, by error code.
        clock: `clock_jump`, and `other_clock` (frames of before one, left out), as of the node.
        interrupted: whether it was stopped before its end.
    """

    seconds: float = 0.0
    frozen: ErrorCurve = field(default_factory=ErrorCurve)
    online: ErrorCurve = field(default_factory=ErrorCurve)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    swaps: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    packet_errors: Counter[str] = field(default_factory=Counter)
    clock: Counter[str] = field(default_factory=Counter)
    interrupted: bool = False


class Adaptation:
    """One run over recordings, one after the other.

    Args:
        distiller: learns.
        depth: parameters of both pipelines; their weights are the original's.
        steps_per_s: of learning, per second of the recordings.
        label_s: how long a label takes, s of the recordings; asked before each. Nothing else is
            worked on meanwhile, as in the node.
    """

    def __init__(
        self,
        distiller: OnlineDistiller,
        depth: DepthParameters,
        steps_per_s: float,
        label_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        depth = dataclasses.replace(depth, overload="queue", canary_latency=_ANY_LATENCY)
        self._distiller = distiller
        self._rate = StepRate(steps_per_s)
        self.result = AdaptationResult()
        self._swap = follow_weights(create_estimator(depth), depth, self._judged, background=False)
        self._online = ScoredPipeline(DepthPipeline(depth, self._swap), self.result.online)
        frozen = DepthPipeline(depth, create_estimator(depth))
        self._frozen = ScoredPipeline(frozen, self.result.frozen)
        self._label_s = label_s
        self._now_ns = self._reported_ns = self._busy_until_ns = 0
        self._began = 0, 0.0  # the present recording: as `ScoredPipeline.begin` takes it
        self._stamps = Stamps()
        self._fed = self._jumped = False  # events of it have come, and their stamps have jumped
        self._answers: list[Verdict] = []
        self._tell(distiller.announcement.version, "original")

    def run(
        self,
        recordings: Sequence[Recording],
        *,
        report: Callable[[float, str], None],
        stopped: Callable[[], bool],
    ) -> AdaptationResult:
        """Run everything.

        Args:
            recordings: opened; each begins anew, as a camera that was restarted does.
            report: called often, with the seconds that are done and a few words.
            stopped: asked between messages; True ends the run.

        Raises:
            RecordingError: see `check_topics`, before anything is learned; or a recording is
                damaged.
            InferenceError: depth failed.
        """
        check_topics(recordings, ())
        for recording in recordings:
            self._run_one(recording, report, stopped)
            if self.result.interrupted:
                break
        self._distiller.save()
        self.result.packet_errors = self._online.packet_errors
        return self.result

    def _run_one(
        self,
        recording: Recording,
        report: Callable[[float, str], None],
        stopped: Callable[[], bool],
    ) -> None:
        topics = Topics.to_learn(recording)
        before_ns = self._now_ns
        first_ns: int | None = None
        self._begin_input()
        self._fed = self._jumped = False
        for scored in (self._frozen, self._online):
            scored.pipeline.restart("recording")
        for message in recording.messages(topics.all):
            if stopped():
                self.result.interrupted = True
                break
            if first_ns is None:
                first_ns = message.time_ns
                self._began = first_ns, before_ns / 1e9
                for scored in (self._frozen, self._online):
                    scored.begin(*self._began)
            self._now_ns = before_ns + max(message.time_ns - first_ns, 0)
            self._feed(recording, topics, message)
            self._learn()
            if self._now_ns >= self._reported_ns + _REPORT_NS:
                self._reported_ns = self._now_ns
                report(self._now_ns / 1e9, self._words())
        for scored in (self._frozen, self._online):
            scored.end()
        self.result.seconds = self._now_ns / 1e9

    def _feed(self, recording: Recording, topics: Topics, message: RecordedMessage) -> None:
        pipelines = (self._frozen, self._online)
        if message.topic == topics.truth:
            truth = read_depth(recording.to_cdr(message))
            for scored in pipelines:
                scored.truth(truth.stamp_ns, truth.depth)
            return
        try:
            if message.topic == topics.image:
                frame = recording.read_frame(message)
                if self._jumped and self._stamps.foreign(frame.stamp_ns):
                    self.result.clock["other_clock"] += 1
                else:
                    self._distiller.add_frame(frame)
                for scored in pipelines:
                    scored.pipeline.add_frame(frame)
            else:
                packet = recording.read_packet(message)
                self._follow_clock(packet.stamp_ns)
                self._distiller.feed(packet)
                for scored in pipelines:
                    scored.pipeline.feed(packet)
        except PacketError as error:
            self._online.unreadable[error.code] += 1
            return  # what follows is whole
        for scored in pipelines:
            scored.recorded(message.time_ns)
            for _ in scored.step():
                pass
        self._follow_depth()

    def _begin_input(self) -> None:
        self._stamps.clear()
        self._distiller.begin_input()

    def _follow_clock(self, stamp_ns: int) -> None:
        """Begin anew where the stamps of events jump, as the node does."""
        if self._fed and self._stamps.jumped(stamp_ns):
            self.result.clock["clock_jump"] += 1
            self._jumped = True
            self._begin_input()
            for scored in (self._frozen, self._online):
                scored.end()
                scored.begin(*self._began)
        self._fed = True
        self._stamps.take(stamp_ns, self._now_ns, events=True)

    def _learn(self) -> None:
        distiller, now_ns = self._distiller, self._now_ns
        while distiller.take_in(now_ns):
            pass
        while not self._busy:
            duration_ns = round(self._label_s() * 1e9)
            report = distiller.work(now_ns, learn=False)
            if report is None:
                break
            self._busy_until_ns = now_ns + duration_ns
            self._note(report)
        while self._rate.due(now_ns):
            self._rate.used(now_ns)
            report = None if self._busy else distiller.work(now_ns)
            if report is not None:
                # As if a step took all of its time.
                distiller.worked(self._rate.period_ns)
                self._note(report)

    @property
    def _busy(self) -> bool:
        """Whether a label is still being worked on."""
        return self._now_ns < self._busy_until_ns

    def _note(self, report: LoopReport) -> None:
        time_s = self._now_ns / 1e9
        if report.verdict is not None:
            facts = {"at_s": time_s, "part": report.part, "reset": report.reset}
            self.result.verdicts.append({**facts, **report.verdict.to_dict()})
        if report.step is not None and report.step.accepted:
            self.result.losses.append({"at_s": time_s, "loss": report.step.loss})
        if report.announcement is not None:
            self._swap.announce(report.announcement)
            back = report.announcement.rollback
            self._tell(report.announcement.version, "rolled_back" if back else "published")

    def _judged(self, verdict: Verdict) -> None:
        self.result.swaps.append(
            {
                "at_s": self._now_ns / 1e9,
                "version": verdict.version,
                "live_version": verdict.live_version,
                "outcome": verdict.outcome,
                "code": verdict.code,
                "reason": verdict.reason,
            }
        )
        self._answers.append(verdict)

    def _follow_depth(self) -> None:
        """Tell the loop what depth wants to keep and what not."""
        while self._answers:
            verdict = self._answers.pop(0)
            announcement = self._distiller.answered(verdict)
            if announcement is not None and verdict.harmful:
                self._tell(announcement.version, "rolled_back")
                if verdict.live_version > 0:  # else depth has the original, with another number
                    self._swap.announce(announcement)

    def _tell(self, version: int, why: str) -> None:
        self.result.versions.append({"at_s": self._now_ns / 1e9, "version": version, "why": why})

    def _words(self) -> str:
        status = self._distiller.status()
        return (
            f"version {status.version}, {status.accepted_steps} steps, {status.clips} clips, "
            f"{status.heldout_blocks} blocks to judge by, {status.health.text}"
        )
