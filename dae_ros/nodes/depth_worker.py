"""The thread that owns one camera's decoder, ring, network and state."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dae_ros.bags.messages import read_frame
from dae_ros.errors import InferenceError, NonFiniteState
from dae_ros.events.cdr import read_packet
from dae_ros.nodes.garbage import Collections, GarbageCollection
from dae_ros.nodes.sensor_worker import (
    TURN_S,
    Fault,
    SensorWorker,
    SerializedEvents,
    SerializedImage,
)
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.backend_choice import BackendChoice, ChangingBackend, choose_backend
from dae_ros.runtime.backends import create_estimator, follow_weights
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.estimator import ClosableEstimator, DepthEstimator, hampered_by
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.runtime.rhythm import Rhythm
from dae_ros.runtime.stage_times import Quantiles, StageLatencies
from dae_ros.runtime.statistics import PipelineStatistics
from dae_ros.runtime.warm_up import warm_up
from dae_ros.runtime.weight_stages import Verdict
from dae_ros.runtime.weight_swap import WeightSwap

SNAPSHOT_PERIOD_S = 0.5
# What an estimator does beside the steps has so long to end.
BACKGROUND_S = 10.0
# A backend that fails this often in a row will not get better by itself.
FAILURES_IN_A_ROW = 10
# The longest wait for the step in hand when everything is forgotten.
FORGET_TIMEOUT_S = 10.0
# How often a receiver that is held back looks whether there is room. Polled, because a signal
# handler may set a flag but not notify a condition.
ROOM_POLL_S = 0.001


@dataclass(frozen=True, slots=True)
class ResetState:
    """Forget the recurrent state."""

    cause: str


@dataclass(frozen=True, slots=True)
class RollBack:
    """Go back to the weights of before."""


Command: TypeAlias = "ResetState | DepthParameters | Announcement | RollBack"
Item: TypeAlias = "SerializedEvents | SerializedImage | Command"
# What was accepted holds, also where everything that was received is forgotten.
LASTING = (DepthParameters, Announcement, RollBack)
MESSAGES = (SerializedEvents, SerializedImage)


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """What the worker last said about itself.

    Attributes:
        pipeline: counters of the pipeline.
        errors: messages that could not be read, by code, and `image` for camera frames.
        inbox_dropped: messages dropped because the inbox was full.
        inbox_late: messages dropped because decoding fell behind by `largest_lag_s`.
        verdicts: on versions of the weights, `outcome.code` -> count.
        last_verdict: None before the first.
        stages: how long each stage of the latest published windows took, and all of them.
        collections: of garbage, None where that is left to Python.
    """

    pipeline: PipelineStatistics
    errors: Mapping[str, int]
    inbox_dropped: int
    inbox_late: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    last_verdict: Verdict | None = None
    stages: Mapping[str, Quantiles] = field(default_factory=dict)
    collections: Collections | None = None


def _ignore(_: Verdict) -> None:
    """Do nothing: verdicts are counted anyway."""


class DepthWorker(SensorWorker[Command]):
    """One camera's pipeline on its own thread.

    Args:
        parameters: validated.
        publish: called on the thread with every result.
        warn, failed: see `SensorWorker`.
        judged: called on the thread with every verdict on a version of the weights.
        load: makes the estimator, on the thread.
        garbage: collects between windows; None leaves it to Python.

    Attributes:
        estimator: None before `start` returned; others read what it is called, no more.
        swap: the same where weights are followed, else None.
        snapshot: None before the first.
    """

    THREAD_NAME = "depth_worker"
    LOADED = "the network was"

    def __init__(
        self,
        parameters: DepthParameters,
        *,
        publish: Callable[[DepthFrame], None],
        warn: Callable[[str], None],
        failed: Callable[[Fault], None],
        judged: Callable[[Verdict], None] = _ignore,
        load: Callable[[DepthParameters], DepthEstimator] = create_estimator,
        garbage: GarbageCollection | None = None,
    ) -> None:
        super().__init__(parameters.inbox_mb, warn=warn, failed=failed)
        self._parameters = parameters
        self._publish = publish
        self._judged = judged
        self._load = load
        self._garbage = garbage
        self.estimator: DepthEstimator | None = None
        self.swap: WeightSwap | None = None
        self.snapshot: WorkerSnapshot | None = None
        self._choice: BackendChoice | None = None
        self._pipeline: DepthPipeline | None = None
        # Why to forget everything before the next turn; set by `forget`, taken by the thread.
        self._forgotten: str | None = None
        self._verdicts: Counter[str] = Counter()
        self._last_verdict: Verdict | None = None
        self._rhythm = Rhythm()
        self._latencies = StageLatencies()
        self._late = 0
        self._seen_dropped = 0
        self._failures = 0
        self._seen_windows = 0
        self._seen_non_finite = 0
        self._faulty = False
        self._next_snapshot_s = 0.0

    @property
    def backend(self) -> BackendChoice | None:
        """What runs the network now, and why; None before it is loaded."""
        choice, estimator = self._choice, self.estimator
        if isinstance(estimator, ChangingBackend):
            return estimator.choice
        if choice is None:
            return None
        hampered = hampered_by(estimator if self.swap is None else self.swap.live)
        return BackendChoice(choice.backend, "; ".join([choice.reason, *hampered]))

    @property
    def parameters(self) -> DepthParameters:
        """What the thread has taken over last; results of before have been published by then."""
        return self._parameters

    @property
    def kind(self) -> str:
        """`metric` or `relative`, as the parameters and weights have it now."""
        return "relative" if self._pipeline is None else self._pipeline.kind

    @property
    def orientation(self) -> str:
        """`depth`, `inverse_depth` or `unknown`."""
        return "unknown" if self._pipeline is None else self._pipeline.orientation

    def _put(self, item: SerializedEvents | SerializedImage, size_bytes: int) -> None:
        """Put a message into the inbox.

        With `overload: queue` only when nothing is pushed out by it, so that a reliable publisher
        is held back instead of messages being lost. The thread takes one message at a time then,
        so that the wait is for a message's windows and not for those of the whole inbox.
        """
        if self._parameters.overload == "queue":
            while not self.inbox.has_room(size_bytes) and self.alive and not self._leaving.is_set():
                time.sleep(ROOM_POLL_S)
        self.inbox.put(item, size_bytes)

    def forget(self, cause: str) -> None:
        """Drop what was received and not stepped yet, the recurrent state and failures with it.

        At once and not behind what waits: depth of before must not come out later. New parameters
        and weights were accepted and stay. Returns when the thread has done so, which is after the
        step in hand, so that nothing that comes afterwards is dropped with it.
        """
        self._forgotten = cause
        for item in self.inbox.take(0.0):
            if isinstance(item, LASTING):
                self.put_command(item)
        deadline_s = time.monotonic() + FORGET_TIMEOUT_S
        while self._forgotten is not None and self.alive and time.monotonic() < deadline_s:
            time.sleep(0.001)

    def stop(self, timeout_s: float) -> bool:
        """See `SensorWorker`; the thread may be waiting for an export, which ends at once."""
        self._close_estimator(0.0)
        return super().stop(timeout_s)

    def _close(self) -> None:
        self._close_estimator(BACKGROUND_S)

    def _close_estimator(self, timeout_s: float) -> None:
        if isinstance(self.estimator, ClosableEstimator):
            self.estimator.close(timeout_s)

    def _open(self) -> None:
        self._choice = choose_backend(self._parameters)
        estimator = self._load(self._parameters)
        self._give_way()
        warm_up(estimator)
        if self._parameters.follow_snapshots:
            estimator = self.swap = follow_weights(estimator, self._parameters, self._judge)
        self._pipeline = DepthPipeline(
            self._parameters, estimator, on_packet_error=self._packet_error
        )
        self.estimator = estimator
        self._take_snapshot(self._pipeline)

    def _turn(self) -> None:
        pipeline = self._pipeline
        if pipeline is None:
            raise RuntimeError("the worker turned before it was opened")
        if self._forgotten is not None:
            pipeline.restart(self._forgotten)
            self._hope(pipeline)
            self._forgotten = None
        # One at a time where none is skipped, so that a stop is noticed between messages and
        # whoever waits for room gets it soon.
        if self._parameters.overload == "queue":
            for item in self.inbox.take(TURN_S, 1):
                self._handle(pipeline, item)
        else:
            self._catch_up(pipeline)
        stepped = self._step_all(pipeline)
        # The next window is a hop away, or nothing waits at all.
        if self._garbage is not None and (stepped or not len(self.inbox)):
            self._garbage.rest()
        self._use_idle_time()
        if time.monotonic() >= self._next_snapshot_s:
            self._take_snapshot(pipeline)

    def _catch_up(self, pipeline: DepthPipeline) -> None:
        """Decode all that waits, or as much as there is time for; what waits behind that is old.

        A network that is slow makes messages wait as well, but those are decoded soon: only where
        more comes than can be decoded would each turn take longer than the one before.
        """
        items = self.inbox.take(TURN_S)
        dropped = self.inbox.dropped
        if dropped > self._seen_dropped:
            self._seen_dropped = dropped
            pipeline.note_drop()
        deadline_s = time.monotonic() + self._parameters.largest_lag_s
        late = 0
        for item in items:
            if isinstance(item, MESSAGES) and (late or time.monotonic() > deadline_s):
                late += 1
            else:
                self._handle(pipeline, item)
                pipeline.absorb()
        if late or time.monotonic() > deadline_s:
            late += self.inbox.forget()
        if late:
            pipeline.note_drop()
            self._late += late
            self._warn(
                f"{late} messages were dropped, because decoding what waited took longer than "
                f"largest_lag_s ({self._parameters.largest_lag_s:g} s): more events come than this "
                "machine decodes. Let the camera send fewer (a region of interest, its event rate "
                "controller) or give the node a core of its own"
            )

    def _handle(self, pipeline: DepthPipeline, item: Item) -> None:
        if self._faulty and isinstance(item, MESSAGES):
            return
        if isinstance(item, SerializedEvents):
            with self._dropping():
                pipeline.feed(read_packet(item.type_name, item.data), item.arrival_ns)
        elif isinstance(item, SerializedImage):
            with self._dropping():
                pipeline.add_frame(read_frame(item.data), item.arrival_ns)
        elif isinstance(item, ResetState):
            # What was fed before the reset still belongs to the old state.
            self._step_all(pipeline)
            pipeline.reset_state(item.cause)
        elif isinstance(item, Announcement):
            if self.swap is not None:
                self.swap.announce(item)
        elif isinstance(item, RollBack):
            if self.swap is not None:
                self.swap.roll_back()
        else:
            self._step_all(pipeline)
            pipeline.apply(item)
            # Last: who sees these parameters sees their kind as well.
            self._parameters = item

    def _step_all(self, pipeline: DepthPipeline) -> int:
        """Step what has closed; return how many windows that were."""
        stepped = 0
        while not (self._faulty or self._leaving.is_set() or self._forgotten is not None):
            try:
                frame = pipeline.step()
            except InferenceError as error:
                self._failures += 1
                self._warn(f"a window was dropped: {error} [{error.code}]")
                if self._failures >= FAILURES_IN_A_ROW:
                    self._give_up(f"{FAILURES_IN_A_ROW} windows in a row failed; the last: {error}")
                continue
            if frame is None:
                break
            stepped += 1
            self._failures = 0
            self._rhythm.closed(frame.times.arrival_ns)
            if self._forgotten is None:
                self._publish(frame)
                self._latencies.add(frame.times, time.perf_counter_ns())
        return stepped

    def _use_idle_time(self) -> None:
        """Go on with a change of weights until something comes or the next window is due."""
        while (
            self.swap is not None
            and not (len(self.inbox) or self._leaving.is_set())
            and self.swap.work(self._rhythm.due_ns)
        ):
            pass

    def _judge(self, verdict: Verdict) -> None:
        self._verdicts[f"{verdict.outcome}.{verdict.code}"] += 1
        self._last_verdict = verdict
        self._judged(verdict)

    def _give_up(self, message: str) -> None:
        self._faulty = True
        self._failed(Fault(message, internal=False))

    def _hope(self, pipeline: DepthPipeline) -> None:
        """Begin to count failures anew: what caused them may have passed."""
        statistics = pipeline.statistics()
        self._seen_windows = statistics.windows
        self._seen_non_finite = statistics.errors.get(NonFiniteState.code, 0)
        self._failures = 0
        self._faulty = False

    def _take_snapshot(self, pipeline: DepthPipeline) -> None:
        self._next_snapshot_s = time.monotonic() + SNAPSHOT_PERIOD_S
        statistics = pipeline.statistics()
        self.snapshot = WorkerSnapshot(
            statistics,
            dict(self._errors),
            self.inbox.dropped,
            self._late,
            dict(self._verdicts),
            self._last_verdict,
            self._latencies.quantiles(),
            None if self._garbage is None else self._garbage.collections,
        )
        non_finite = statistics.errors.get(NonFiniteState.code, 0)
        if statistics.windows > self._seen_windows:
            self._seen_windows, self._seen_non_finite = statistics.windows, non_finite
        elif non_finite - self._seen_non_finite >= FAILURES_IN_A_ROW and not self._faulty:
            self._give_up(
                f"{non_finite - self._seen_non_finite} windows in a row gave NaN or infinity; the "
                "weights do not suit this input or this precision"
            )
