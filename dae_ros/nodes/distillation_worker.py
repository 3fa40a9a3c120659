"""The thread that learns: it owns student, teacher, clips and folder.

Everything reaches it through one inbox, in order; what is more urgent than the piece of work in
hand makes that give way.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from dae_ros.bags.messages import read_frame
from dae_ros.distillation.online.live import Action, LiveDistillation
from dae_ros.distillation.online.reports import LiveStatus, LoopReport
from dae_ros.errors import ConfigurationError, PacketError, RecordingError
from dae_ros.events.cdr import read_packet
from dae_ros.nodes.depth_worker import COMMAND_BYTES, SerializedEvents, SerializedImage
from dae_ros.parameters import DistillationNodeParameters
from dae_ros.runtime.snapshots import Announcement
from dae_ros.runtime.weight_stages import Verdict
from dae_ros.runtime.worker import Inbox, Worker

# How long the thread sleeps at most with nothing to do; bounds the time to stop it.
TURN_S = 0.1
STATUS_PERIOD_S = 1.0
THREAD_NAME = "distillation_worker"
INTERRUPTED = "interrupted while student and teacher were being loaded"


@dataclass(frozen=True, slots=True)
class Activate:
    """Begin to learn, or pause."""

    active: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """What a user asks for; `answer` is called on the thread with success and a sentence."""

    action: Action
    answer: Callable[[bool, str], None]


@dataclass(frozen=True, slots=True)
class BeginInput:
    """Forget events and frames."""

    cause: str


@dataclass(frozen=True, slots=True)
class DepthImage:
    """Depth said how late an image came."""

    latency_ms: float


@dataclass(frozen=True, slots=True)
class DroppedWindows:
    """Depth said how many windows it lost."""

    count: int


# These make the piece of work in hand give way.
Command: TypeAlias = "Activate | Ask | BeginInput | Verdict | DistillationNodeParameters"
Feedback: TypeAlias = "DepthImage | DroppedWindows"
Item: TypeAlias = "SerializedEvents | SerializedImage | Command | Feedback"


@dataclass(frozen=True, slots=True)
class DistillationSnapshot:
    """What the thread last said about itself.

    Attributes:
        live: of learning.
        received: messages that could be read, `events` and `frames`.
        errors: messages that could not, by code, and `image` for camera frames.
        inbox_dropped: messages dropped because the inbox was full.
    """

    live: LiveStatus
    received: Mapping[str, int]
    errors: Mapping[str, int]
    inbox_dropped: int


class DistillationWorker:
    """One camera's learner on its own thread.

    Args:
        parameters: validated.
        announce: called on the thread with every version that depth should have.
        reported: called on the thread after each piece of work, with the steps so far.
        changed: called on the thread with its state, at least once a second and when its health
            changes.
        warn: called on the thread with a sentence that may repeat often.
        failed: called on the thread with a traceback once it cannot go on.

    Attributes:
        snapshot: None before the first.
    """

    def __init__(
        self,
        parameters: DistillationNodeParameters,
        *,
        announce: Callable[[Announcement], None],
        reported: Callable[[LoopReport, int], None],
        changed: Callable[[DistillationSnapshot], None],
        warn: Callable[[str], None],
        failed: Callable[[str], None],
    ) -> None:
        self._parameters = parameters
        self._announce = announce
        self._reported = reported
        self._changed = changed
        self._warn = warn
        self._failed = failed
        self.inbox: Inbox[Item] = Inbox(parameters.inbox_mb * 1_000_000)
        self.snapshot: DistillationSnapshot | None = None
        self._live: LiveDistillation | None = None
        self._active = False
        self._worked = False
        self._urgent = 0  # commands that wait; written under the lock
        self._lock = threading.Lock()
        self._received: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._health = ""
        self._next_status_s = 0.0
        self._started = threading.Event()
        self._leaving = threading.Event()
        self._start_error: BaseException | None = None
        self._thread = Worker(
            THREAD_NAME, self._turn, self._ended, opened=self._open, closed=self._close
        )

    def start(self) -> None:
        """Start the thread and wait until the student is loaded.

        Raises:
            ConfigurationError, WeightsError, RecordingError: see `LiveDistillation`.
            ConfigurationError: `interrupt` was called meanwhile.
        """
        self._thread.start()
        while not self._started.wait(TURN_S):
            if self._leaving.is_set():
                raise ConfigurationError(INTERRUPTED)
        if self._start_error is not None:
            raise self._start_error

    def interrupt(self) -> None:
        """Make every wait end soon; sets a flag only, so that a signal handler may call it."""
        self._leaving.set()

    def stop(self, timeout_s: float) -> bool:
        """Save and end the thread; return whether it ended in time."""
        self._leaving.set()
        self.inbox.close()
        return self._thread.stop(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.alive

    def put_events(self, data: bytes, type_name: str) -> None:
        """Hand over an event message."""
        item = SerializedEvents(data, type_name, time.perf_counter_ns())
        self.inbox.put(item, len(data))

    def put_image(self, data: bytes) -> None:
        """Hand over a camera frame."""
        self.inbox.put(SerializedImage(data), len(data))

    def put_feedback(self, item: Feedback) -> None:
        """Hand over what depth says of itself."""
        self.inbox.put(item, COMMAND_BYTES)

    def put_command(self, command: Command) -> None:
        """Hand over what cannot wait for the end of a judgement."""
        with self._lock:
            self._urgent += 1
        self.inbox.put(command, COMMAND_BYTES)

    def _open(self) -> None:
        # Linux has a priority for each thread; those that PyTorch starts inherit it.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._parameters.niceness)
        self._live = LiveDistillation(
            self._parameters,
            announce=self._announce,
            interrupted=lambda: self._urgent > 0 or self._leaving.is_set(),
        )
        if self._leaving.is_set():
            raise ConfigurationError(INTERRUPTED)
        self._tell(self._live)
        self._started.set()

    def _close(self) -> None:
        if self._live is not None:
            if self._active:
                self._live.end()
            self._live.close()
        self._started.set()

    def _ended(self, error: BaseException, text: str) -> None:
        if not self._started.is_set():
            self._start_error = error
            return
        self._failed(text)

    def _turn(self) -> None:
        live = self._live
        if live is None:
            raise RuntimeError("the worker turned before it was opened")
        rest_ns = live.rest_ns()
        wait_s = TURN_S if rest_ns is None else min(rest_ns / 1e9, TURN_S)
        for item in self.inbox.take(0.0 if self._worked else max(wait_s, 0.001)):
            self._handle(live, item)
        self._worked = False
        if self._active and not self._leaving.is_set():
            report = live.turn()
            if report is not None:
                self._worked = True
                loop = live.status().loop
                self._reported(report, 0 if loop is None else loop.steps)
        if time.monotonic() >= self._next_status_s or live.health.text != self._health:
            self._tell(live)

    def _handle(self, live: LiveDistillation, item: Item) -> None:
        if isinstance(item, SerializedEvents):
            try:
                live.feed(read_packet(item.type_name, item.data))
                self._received["events"] += 1
            except PacketError as error:
                self._errors[error.code] += 1
                self._warn(f"a message was dropped: {error} [{error.code}]")
        elif isinstance(item, SerializedImage):
            try:
                live.add_frame(read_frame(item.data))
                self._received["frames"] += 1
            except RecordingError as error:
                self._errors["image"] += 1
                self._warn(f"a camera frame was dropped: {error}")
        elif isinstance(item, DepthImage):
            live.depth(item.latency_ms)
        elif isinstance(item, DroppedWindows):
            live.dropped(item.count)
        else:
            with self._lock:
                self._urgent -= 1
            self._obey(live, item)

    def _obey(self, live: LiveDistillation, command: Any) -> None:
        if isinstance(command, Ask):
            command.answer(*live.ask(command.action))
            self._tell(live)
        elif isinstance(command, Verdict):
            live.depth_answered(command)
        elif isinstance(command, BeginInput):
            live.begin_input(command.cause)
        elif isinstance(command, Activate):
            self._active = command.active
            if command.active:
                live.begin()
            else:
                live.end()
        else:
            live.apply(command)

    def _tell(self, live: LiveDistillation) -> None:
        self._health = live.health.text
        self._next_status_s = time.monotonic() + STATUS_PERIOD_S
        self.snapshot = DistillationSnapshot(
            live.status(), dict(self._received), dict(self._errors), self.inbox.dropped
        )
        self._changed(self.snapshot)
