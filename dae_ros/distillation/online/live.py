"""Online learning beside a running camera and a running depth node, without ROS.

`LiveDistillation` gives the loop what it has not: a clock, a budget, an ear for what depth says,
and patience where teacher or folder are missing. One thread makes all calls.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch

from dae_ros.distillation.online.board import Board
from dae_ros.distillation.online.budget import DutyCycle
from dae_ros.distillation.online.depth_answers import DepthAnswers
from dae_ros.distillation.online.health import Health
from dae_ros.distillation.online.loop import OnlineDistiller
from dae_ros.distillation.online.observation import Refusal
from dae_ros.distillation.online.opening import open_student
from dae_ros.distillation.online.reports import LiveStatus, LoopReport, LoopStatus
from dae_ros.distillation.online.stamps import Stamps
from dae_ros.errors import ConfigurationError, DistillationError, InferenceError, WeightsError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket
from dae_ros.parameters import DistillationNodeParameters
from dae_ros.paths import named_path
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.cores import usable_cores
from dae_ros.runtime.torch_process import release_unused, used_bytes
from dae_ros.runtime.weight_stages import Verdict

SECOND = 1_000_000_000
# How often what was missing is looked for again, and a failed teacher is asked again.
RETRY_NS = 10 * SECOND
# How often depth is looked after in the middle of a piece of work that waits for it.
LOOK_S = 0.02
Action: TypeAlias = Literal["start", "stop", "save", "rollback", "reset_to_anchor"]
ACTIONS: tuple[Action, ...] = get_args(Action)


class _Abandoned(Exception):
    """Ends the piece of work in hand."""


class LiveDistillation:
    """Learns as a camera and a machine allow.

    Args:
        parameters: validated.
        announce: called with every version that depth should have.
        interrupted: asked during work; where it says True, the piece in hand is given up and done
            again later. It may call `depth`, `dropped` and `status`.
        clock_ns: monotonic time.

    Raises:
        ConfigurationError, WeightsError, RecordingError: student or anchors cannot be used.
        A missing teacher, or a folder in which another process learns, is waited for instead.
    """

    def __init__(
        self,
        parameters: DistillationNodeParameters,
        *,
        announce: Callable[[Announcement], None],
        interrupted: Callable[[], bool] = lambda: False,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._parameters = parameters
        self._announce = announce
        self._interrupted = interrupted
        self._clock_ns = clock_ns
        self._folder = named_path(parameters.folder)
        torch.set_num_threads(parameters.threads or max(1, usable_cores() // 2))
        anchors = named_path(parameters.anchors) if parameters.anchors else None
        self._student = open_student(parameters.weights, anchors, parameters, parameters.device)
        if self._student.device.type == "cuda":
            # Of this thread; streams have the lowest priority unless they ask for another.
            # PyTorch does not type them.
            stream = torch.cuda.Stream(self._student.device)  # type: ignore[no-untyped-call]
            torch.cuda.set_stream(stream)
        self._distiller: OnlineDistiller | None = None
        self._board: Board | None = None
        self._active = False
        self._answers = DepthAnswers(announce, clock_ns)
        self._counts: Counter[str] = Counter()
        self._missing = Refusal("no_teacher", "")
        self._failed: Refusal | None = None
        now_ns = clock_ns()
        self._retry_ns = self._memory_ns = now_ns
        self._waited_ns = 0  # within the piece of work in hand
        self._budget = DutyCycle(parameters, now_ns)
        self._stamps = Stamps()
        self._open(now_ns)

    @property
    def health(self) -> Health:
        """Whether it learns, and why not."""
        if self._distiller is None:
            return Health("holding", self._missing.reason, self._missing.detail)
        hold = self._hold(self._distiller)
        if self._distiller.running and not self._active:
            hold = Refusal("inactive", "until it is activated it neither learns nor publishes")
        if hold is None or not self._distiller.running:
            return self._distiller.health
        return Health("holding", hold.reason, hold.detail)

    def begin(self) -> None:
        """Begin to learn, and tell depth which version it should have."""
        self._active = True
        self._budget = DutyCycle(self._parameters, self._clock_ns())
        if self._distiller is not None:
            self._announce(self._distiller.announcement)
        elif self._missing.reason == "no_teacher":
            self._announce_kept()

    def end(self) -> None:
        """Save everything and forget events and frames."""
        self._active = False
        if self._distiller is not None:
            self._distiller.save()
        self.begin_input("")

    def close(self) -> None:
        """Free the folder; what came after the last save is lost."""
        if self._distiller is not None:
            self._distiller.close()
        if self._board is not None:
            self._board.close()
        self._distiller = self._board = None

    def apply(self, parameters: DistillationNodeParameters) -> None:
        """Take over what may change at run time."""
        # Both: `begin` makes another budget.
        self._parameters = self._budget.parameters = parameters

    def begin_input(self, cause: str) -> None:
        """Forget events and frames: time has jumped, or another camera begins."""
        if cause:
            self._counts[cause] += 1
        self._stamps.clear()
        if self._distiller is not None:
            self._distiller.begin_input()

    def feed(self, packet: EventPacket) -> None:
        """Queue an event packet."""
        distiller = self._distiller
        if distiller is None or not distiller.running:
            return
        if self._stamps.jumped(packet.stamp_ns):
            self.begin_input("clock_jump")
        self._stamps.take(packet.stamp_ns, self._clock_ns(), events=True)
        distiller.feed(packet)

    def add_frame(self, frame: Frame) -> None:
        """Queue a camera frame."""
        distiller = self._distiller
        if distiller is None or not distiller.running:
            return
        if self._stamps.foreign(frame.stamp_ns):
            self._counts["other_clock"] += 1
            return
        self._stamps.take(frame.stamp_ns, self._clock_ns(), events=False)
        distiller.add_frame(frame)

    def depth(self, latency_ms: float) -> None:
        """Take the latency of a depth image."""
        self._budget.depth(latency_ms)

    def dropped(self, windows: int) -> None:
        """Take a number of windows that depth lost since the last call."""
        self._budget.dropped(windows)

    def depth_answered(self, verdict: Verdict) -> None:
        """Follow what depth says about a version."""
        self._answers.take(verdict, self._distiller)

    def turn(self) -> LoopReport | None:
        """Take in what was queued, and do a piece of work where that may be.

        Returns:
            What was done; None where there was nothing to do, or nothing may be done.
        """
        now_ns = self._clock_ns()
        if self._distiller is None and now_ns >= self._retry_ns:
            try:
                self._open(now_ns)
            except ConfigurationError as error:
                self._missing = Refusal("configuration", error.message)
        self._budget.update(now_ns)
        distiller = self._distiller
        if distiller is None:
            return None
        while not self._interrupted() and distiller.take_in(now_ns):
            pass
        self._look_around(distiller, now_ns)
        if self._hold(distiller) is not None or self._budget.rest_ns(now_ns) != 0:
            distiller.look(now_ns, self._stamps.time_ns(now_ns))
            return None
        return self._work(distiller, now_ns)

    def rest_ns(self) -> int | None:
        """Return until when nothing may be done, 0 for now; None where nothing says when."""
        return self._budget.rest_ns(self._clock_ns())

    def ask(self, action: Action) -> tuple[bool, str]:
        """Do what a user asks for.

        Args:
            action: `start`: learn. `stop`: do nothing until `start`, what was learned is saved.
                `save`: write everything to disk. `rollback`: go back to the version that the
                published one was trained from. `reset_to_anchor`: publish the original, and learn
                anew from it.

        Returns:
            Whether it was done, and a sentence.
        """
        distiller = self._distiller
        if distiller is None:
            return False, f"learning has not begun: {self._missing.detail}"
        if action in ("rollback", "reset_to_anchor"):
            back = distiller.rollback() if action == "rollback" else distiller.reset_to_anchor()
            if back is not None:
                if not self._active:
                    return True, f"version {back.version} is announced when this is activated"
                self._announce(back)
                return True, f"version {back.version} is announced; depth says when it is in use"
            version = distiller.announcement.version
            return False, distiller.status().problem or f"there is nothing before version {version}"
        if action == "start":
            if not distiller.running:
                self.begin_input("")
            distiller.start()
            return True, "learning" if self._active else "it learns when it is activated"
        saved = distiller.stop() if action == "stop" else distiller.save()
        problem = distiller.status().problem
        done = "stopped" if action == "stop" else "saved"
        return saved, f"{done}, {problem or f'all is in {self._folder}'}"

    def status(self) -> LiveStatus:
        """Return how learning is doing."""
        answer = self._answers.last
        return LiveStatus(
            health=self.health,
            loop=self._loop_status(),
            duty=self._budget.duty,
            rest_ns=self.rest_ns(),
            depth_version=None if answer is None else answer.live_version,
            depth_verdict=""
            if answer is None
            else f"version {answer.version} {answer.outcome} [{answer.code}]: {answer.reason}",
            counts=dict(sorted(self._counts.items())),
        )

    def _loop_status(self) -> LoopStatus | None:
        if self._distiller is None:
            return None
        loop = self._distiller.status()
        problems = [loop.problem, "" if self._board is None else self._board.problem]
        return dataclasses.replace(loop, problem="; ".join(filter(None, problems)))

    def _open(self, now_ns: int) -> None:
        """Open teacher and folder; where one is missing, note why, to try again later."""
        self._retry_ns = now_ns + RETRY_NS
        try:
            teacher = self._student.teacher(self._parameters.teacher)
        except (ConfigurationError, WeightsError) as error:
            self._missing = Refusal("no_teacher", error.message)
            return
        except torch.cuda.OutOfMemoryError as error:
            self._missing = self._no_memory(error)
            return
        try:
            distiller = self._student.learn(
                teacher, self._folder, self._give_way, self._answers.newest_version
            )
        except (DistillationError, WeightsError) as error:
            self._missing = Refusal("folder", error.message)
            return
        except torch.cuda.OutOfMemoryError as error:
            self._missing = self._no_memory(error)
            return
        if self._parameters.tensorboard:
            try:
                self._board = Board(self._folder, distiller.status().steps, now_ns)
            except ConfigurationError:
                distiller.close()
                raise
        self._distiller = distiller
        if self._active:
            self._announce(distiller.announcement)
        if self._answers.last is not None:
            self._answers.take(self._answers.last, distiller)

    def _announce_kept(self) -> None:
        """Let depth have what was learned before, where there is no teacher to learn more from."""
        try:
            kept = self._student.kept(self._folder)
        except (ConfigurationError, DistillationError, WeightsError):
            return  # told where learning begins, by the same folder
        if kept is not None:
            self._announce(kept)

    def _look_around(self, distiller: OnlineDistiller, now_ns: int) -> None:
        """Look at the memory; try again what failed before."""
        if now_ns >= self._memory_ns:
            self._memory_ns = now_ns + SECOND
            if self._budget.memory(used_bytes(self._student.device)):
                distiller.release_memory()
                release_unused(self._student.device)
        if self._failed is not None and now_ns >= self._retry_ns:
            self._failed = None
        self._answers.look(distiller, now_ns)

    def _hold(self, distiller: OnlineDistiller) -> Refusal | None:
        """Return why nothing may be done; None where it may."""
        return self._failed or self._answers.refusal(distiller) or self._budget.hold

    def _work(self, distiller: OnlineDistiller, now_ns: int) -> LoopReport | None:
        report: LoopReport | None = None
        out_of_memory, idle, self._waited_ns = False, False, 0
        self._budget.works()
        try:
            report = distiller.work(now_ns, ros_ns=self._stamps.time_ns(now_ns))
            idle = report is None
        except _Abandoned:
            self._counts["abandoned"] += 1
        except InferenceError as error:
            self._failed = Refusal("teacher_failed", error.message)
            self._retry_ns = self._clock_ns() + RETRY_NS
        except torch.cuda.OutOfMemoryError as error:
            self._failed, self._retry_ns = self._no_memory(error), self._clock_ns() + RETRY_NS
            out_of_memory = True
        if out_of_memory:
            # Not before: what was raised holds all that the piece of work had in hand.
            distiller.release_memory()
            release_unused(self._student.device)
        end_ns = self._clock_ns()
        duration_ns = end_ns - now_ns - self._waited_ns
        self._budget.worked(duration_ns, end_ns, idle=idle)
        if report is None:
            return None
        if report.action != "labelled":
            distiller.worked(duration_ns)
        if report.announcement is not None:
            self._announce(report.announcement)
        if self._board is not None:
            self._board.write(report, distiller.status().steps, end_ns)
        return report

    def _no_memory(self, error: torch.cuda.OutOfMemoryError) -> Refusal:
        return Refusal("memory", f"{self._student.device} has no memory left: {error}")

    def _give_way(self) -> None:
        """Give up the piece of work in hand for what is urgent; wait while depth loses windows."""
        if self._interrupted():
            raise _Abandoned
        if not self._budget.disturbed:
            return
        begun_ns = self._clock_ns()
        try:
            self._budget.update(begun_ns)
            while self._budget.hold is not None:
                time.sleep(LOOK_S)
                if self._interrupted():
                    raise _Abandoned
                self._budget.update(self._clock_ns())
        finally:
            self._waited_ns += self._clock_ns() - begun_ns
