"""The thread that learns: it owns student, teacher, clips and folder.

What is more urgent than the piece of work in hand makes that give way; what depth says is heard
meanwhile, and the status goes on.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from dae_ros.bags.messages import read_frame
from dae_ros.distillation.online.live import Action, LiveDistillation
from dae_ros.distillation.online.reports import LiveStatus, LoopReport
from dae_ros.events.cdr import read_packet
from dae_ros.nodes.sensor_worker import (
    TURN_S,
    Fault,
    SensorWorker,
    SerializedEvents,
    SerializedImage,
)
from dae_ros.parameters import DistillationNodeParameters
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.weight_stages import Verdict

STATUS_PERIOD_S = 1.0


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
    """Depth said how many windows it lost; where messages were shed, at least so many."""

    count: int


# These make the piece of work in hand give way.
Command: TypeAlias = "Activate | Ask | BeginInput | Verdict | DistillationNodeParameters"
Feedback: TypeAlias = "DepthImage | DroppedWindows"
Item: TypeAlias = "SerializedEvents | SerializedImage | Command"
FEEDBACK = (DepthImage, DroppedWindows)


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


class DistillationWorker(SensorWorker["Command"]):
    """One camera's learner on its own thread.

    Args:
        parameters: validated.
        announce: called on the thread with every version that depth should have.
        reported: called on the thread after each piece of work, with the steps so far.
        changed: called on the thread with its state, at least once a second and when its health
            changes.
        warn, failed: see `SensorWorker`.

    Attributes:
        snapshot: None before the first.
    """

    THREAD_NAME = "distillation_worker"
    LOADED = "student and teacher were"

    def __init__(
        self,
        parameters: DistillationNodeParameters,
        *,
        announce: Callable[[Announcement], None],
        reported: Callable[[LoopReport, int], None],
        changed: Callable[[DistillationSnapshot], None],
        warn: Callable[[str], None],
        failed: Callable[[Fault], None],
    ) -> None:
        super().__init__(parameters.inbox_mb, warn=warn, failed=failed)
        self._parameters = parameters
        self._announce = announce
        self._reported = reported
        self._changed = changed
        self.snapshot: DistillationSnapshot | None = None
        self._live: LiveDistillation | None = None
        self._active = False
        self._worked = False
        # Not in the inbox: events that wait there, and the work in hand, must not delay it.
        self._said: deque[Feedback] = deque()
        self._urgent = 0  # commands that wait; written under the lock
        self._lock = threading.Lock()
        self._received: Counter[str] = Counter()
        self._health = ""
        self._next_status_s = 0.0

    def put_command(self, command: Command | Feedback) -> None:
        """Hand over what depth says, or what cannot wait for the end of a judgement."""
        if isinstance(command, FEEDBACK):
            self._said.append(command)
            return
        with self._lock:
            self._urgent += 1
        super().put_command(command)

    def _open(self) -> None:
        # Linux has a priority for each thread; those that PyTorch starts inherit it.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._parameters.niceness)
        self._live = LiveDistillation(
            self._parameters,
            announce=self._announce,
            interrupted=self._interrupted,
        )
        self._give_way()
        self._tell(self._live)

    def _close(self) -> None:
        if self._live is not None:
            if self._active:
                self._live.end()
            self._live.close()

    def _turn(self) -> None:
        live = self._live
        if live is None:
            raise RuntimeError("the worker turned before it was opened")
        rest_ns = live.rest_ns()
        wait_s = TURN_S if rest_ns is None else min(rest_ns / 1e9, TURN_S)
        for item in self.inbox.take(0.0 if self._worked else max(wait_s, 0.001)):
            self._handle(live, item)
        self._hear(live)
        self._worked = False
        if self._active and not self._leaving.is_set():
            report = live.turn()
            if report is not None:
                self._worked = True
                loop = live.status().loop
                self._reported(report, 0 if loop is None else loop.steps)
        self._tell_in_time(live)

    def _interrupted(self) -> bool:
        """Do what a piece of work must not hold up; return whether it should give way."""
        if self._live is not None:  # it is opened already
            self._hear(self._live)
            self._tell_in_time(self._live)
        return self._urgent > 0 or self._leaving.is_set()

    def _hear(self, live: LiveDistillation) -> None:
        while self._said:
            said = self._said.popleft()
            if isinstance(said, DepthImage):
                live.depth(said.latency_ms)
            else:
                live.dropped(said.count)

    def _tell_in_time(self, live: LiveDistillation) -> None:
        if time.monotonic() >= self._next_status_s or live.health.text != self._health:
            self._tell(live)

    def _handle(self, live: LiveDistillation, item: Item) -> None:
        if isinstance(item, SerializedEvents):
            with self._dropping():
                live.feed(read_packet(item.type_name, item.data))
                self._received["events"] += 1
        elif isinstance(item, SerializedImage):
            with self._dropping():
                live.add_frame(read_frame(item.data))
                self._received["frames"] += 1
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
