"""The loop on recordings, beside depth that takes over its weights: the same every time.

Two pipelines step every window: one keeps the original weights, the other changes them as the loop
publishes, by the same `WeightSwap` as the depth node. Where the recordings have true depth, both
are compared with it; recordings of other places are scored with every version afterwards.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dae_ros.bags.container import RecordedMessage
from dae_ros.bags.messages import read_depth
from dae_ros.bags.recording import Recording
from dae_ros.bags.topics import choose_depth_topic, choose_events_topic, choose_image_topic
from dae_ros.distillation.online.budget import StepRate
from dae_ros.distillation.online.loop import OnlineDistiller
from dae_ros.distillation.online.reports import LoopReport
from dae_ros.errors import PacketError, RecordingError
from dae_ros.evaluation.sequence_scorer import TableChoice, default_scorings
from dae_ros.evaluation.truth_comparison import ComparedFrame, Prediction, TruthComparison
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator, follow_weights
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.runtime.weight_stages import Verdict

BIN_S = 10.0
_REPORT_NS = 200_000_000
# A canary compares durations as well, and these are no two times the same.
_ANY_LATENCY = 1e9


@dataclass(slots=True)
class ErrorCurve:
    """Mean Abs Rel and delta_1 in bins of time.

    Attributes:
        bins: number of the bin -> sum of Abs Rel, sum of delta_1, windows.
    """

    bins: dict[int, list[float]] = field(default_factory=dict)

    def add(self, time_s: float, abs_rel: float, delta_1: float) -> None:
        """Add a window; one whose error is no number is left out."""
        if math.isfinite(abs_rel):
            entry = self.bins.setdefault(int(time_s // BIN_S), [0.0, 0.0, 0])
            entry[:] = entry[0] + abs_rel, entry[1] + delta_1, entry[2] + 1

    def rows(self) -> list[dict[str, float]]:
        """Return begin of the bin in s, means, number of windows."""
        return [
            {
                "from_s": number * BIN_S,
                "abs_rel": abs_rel / windows,
                "delta_1": delta_1 / windows,
                "windows": int(windows),
            }
            for number, (abs_rel, delta_1, windows) in sorted(self.bins.items())
        ]

    def mean(self) -> dict[str, float] | None:
        """Return the means over all windows; None without one."""
        windows = sum(entry[2] for entry in self.bins.values())
        if not windows:
            return None
        sums = [sum(entry[index] for entry in self.bins.values()) for index in (0, 1)]
        return {
            "abs_rel": sums[0] / windows,
            "delta_1": sums[1] / windows,
            "windows": int(windows),
        }


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
        interrupted: whether it was stopped before its end.
    """

    seconds: float = 0.0
    frozen: ErrorCurve = field(default_factory=ErrorCurve)
    online: ErrorCurve = field(default_factory=ErrorCurve)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    swaps: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class _Topics:
    events: str
    image: str
    truth: str | None

    @classmethod
    def of(cls, recording: Recording) -> _Topics:
        events = choose_events_topic(recording.topics, None)
        image = choose_image_topic(recording.topics, events)
        if image is None:
            raise RecordingError(
                f"{recording.name} has no camera frames of the events' pixels, and a teacher sees "
                "frames only; learn on a recording of a sensor that gives both",
                recording=recording.name,
            )
        return cls(events, image, choose_depth_topic(recording.topics, events))

    @property
    def all(self) -> set[str]:
        return {self.events, self.image} | ({self.truth} if self.truth else set())


class ScoredPipeline:
    """A pipeline whose windows are compared with true depth."""

    def __init__(self, pipeline: DepthPipeline, curve: ErrorCurve) -> None:
        self.pipeline = pipeline
        self._curve = curve
        self._choice = TableChoice("all", default_scorings(pipeline.kind, published=False)[0])
        self.begin(0, 0.0)

    def begin(self, start_ns: int, elapsed_s: float) -> None:
        """Begin another recording: stamp of its beginning, and the time before it."""
        self._start_ns, self._elapsed_s = start_ns, elapsed_s
        self._comparison = TruthComparison("adapt", [self._choice])

    def truth(self, stamp_ns: int, depth: Any) -> None:
        """Take a true depth."""
        self._score(self._comparison.add_truth(stamp_ns, depth))

    def step(self) -> Iterator[DepthFrame]:
        """Step every window that is closed."""
        while (frame := self.pipeline.step()) is not None:
            prediction = Prediction(frame.depth, frame.image, frame.event_count)
            self._score(self._comparison.add_prediction(frame.stamp_ns, prediction))
            yield frame

    def end(self) -> None:
        """Score what is left of a recording."""
        self._score(self._comparison.flush())

    def _score(self, found: list[ComparedFrame]) -> None:
        for frame in found:
            time_s = self._elapsed_s + (frame.stamp_ns - self._start_ns) / 1e9
            metrics = frame.score.metrics
            self._curve.add(time_s, metrics["abs_rel"], metrics["delta_1"])


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
            RecordingError: no frames, or a recording is damaged.
            InferenceError: depth failed.
        """
        for recording in recordings:
            self._run_one(recording, report, stopped)
            if self.result.interrupted:
                break
        self._distiller.save()
        return self.result

    def _run_one(
        self,
        recording: Recording,
        report: Callable[[float, str], None],
        stopped: Callable[[], bool],
    ) -> None:
        topics = _Topics.of(recording)
        before_ns = self._now_ns
        first_ns: int | None = None
        self._distiller.begin_input()
        for scored in (self._frozen, self._online):
            scored.pipeline.restart("recording")
        for message in recording.messages(topics.all):
            if stopped():
                self.result.interrupted = True
                break
            if first_ns is None:
                first_ns = message.time_ns
                for scored in (self._frozen, self._online):
                    scored.begin(first_ns, before_ns / 1e9)
            self._now_ns = before_ns + max(message.time_ns - first_ns, 0)
            self._feed(recording, topics, message)
            self._learn()
            if self._now_ns >= self._reported_ns + _REPORT_NS:
                self._reported_ns = self._now_ns
                report(self._now_ns / 1e9, self._words())
        for scored in (self._frozen, self._online):
            scored.end()
        self.result.seconds = self._now_ns / 1e9

    def _feed(self, recording: Recording, topics: _Topics, message: RecordedMessage) -> None:
        pipelines = (self._frozen, self._online)
        if message.topic == topics.truth:
            truth = read_depth(recording.to_cdr(message))
            for scored in pipelines:
                scored.truth(truth.stamp_ns, truth.depth)
            return
        try:
            if message.topic == topics.image:
                frame = recording.read_frame(message)
                self._distiller.add_frame(frame)
                for scored in pipelines:
                    scored.pipeline.add_frame(frame)
            else:
                packet = recording.read_packet(message)
                self._distiller.feed(packet)
                for scored in pipelines:
                    scored.pipeline.feed(packet)
        except PacketError:
            return  # counted by the pipelines; what follows is whole
        for scored in pipelines:
            for _ in scored.step():
                pass
        self._follow_depth()

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


def score_elsewhere(recording: Recording, depth: DepthParameters) -> Mapping[str, float] | None:
    """Return the error of weights on a recording with true depth; None where it has none."""
    topics = _Topics.of(recording)
    if topics.truth is None:
        return None
    depth = dataclasses.replace(depth, overload="queue")
    curve = ErrorCurve()
    scored = ScoredPipeline(DepthPipeline(depth, create_estimator(depth)), curve)
    for message in recording.messages({topics.events, topics.truth}):
        if message.topic == topics.truth:
            truth = read_depth(recording.to_cdr(message))
            scored.truth(truth.stamp_ns, truth.depth)
        else:
            scored.pipeline.feed(recording.read_packet(message))
            for _ in scored.step():
                pass
    scored.end()
    return curve.mean()
