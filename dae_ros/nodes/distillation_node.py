"""The learning node: events and camera frames in, better weights for the depth node out.

A worker thread of low priority owns student, teacher and clips (`distillation_worker.py`); what
the lifecycle does with it is in `worker_node.py`. `deactivate` and `cleanup` save what was learned.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.task import Future
from std_srvs.srv import Trigger

from dae_ros.bags.message_types import IMAGE
from dae_ros.distillation.online.live import ACTIONS, Action
from dae_ros.distillation.online.reports import LoopReport
from dae_ros.errors import DaeError
from dae_ros.events.cdr import event_types
from dae_ros.nodes.command_line import Usage
from dae_ros.nodes.diagnostics import ERROR, OK, WARN, status
from dae_ros.nodes.distillation_feedback import DepthFeedback
from dae_ros.nodes.distillation_outputs import DistillationOutputs, live_statuses
from dae_ros.nodes.distillation_worker import (
    Activate,
    Ask,
    BeginInput,
    DistillationSnapshot,
    DistillationWorker,
)
from dae_ros.nodes.entry import leave_despite, run
from dae_ros.nodes.lifecycle import autostart, way_out
from dae_ros.nodes.qos import MatchedSubscription
from dae_ros.nodes.worker_node import WorkerNode
from dae_ros.parameters import DistillationNodeParameters
from dae_ros.runtime.announcement import Announcement

IMAGE_DEPTH = 20

USAGE = Usage(
    "distillation_node",
    "Learns on while depth is live: `events` and `image` in, `distill/snapshot` out, which a\n"
    "depth node with follow_snapshots takes over; `distill/status` says whether it learns.",
    main="teacher",
    examples=(
        "--ros-args -p weights:=micro -p teacher:=depth_anything_v2_vits",
        "--ros-args --params-file config/distillation.yaml -r image:=/camera/image_raw",
    ),
)


class DistillationNode(
    WorkerNode[DistillationNodeParameters, DistillationWorker, DistillationOutputs]
):
    """Node `distillation`; topics, services and parameters are listed in `docs/online.md`.

    Raises:
        ConfigurationError: a parameter is out of range or breaks a rule.
    """

    STOP_TIMEOUT_S = 20.0
    WARNING_PERIOD_S = 10.0
    STOPPED = "learning has stopped, depth goes on"
    BUSY = "it loads or learns, and what came after the last save is lost"

    def __init__(self, **arguments: Any) -> None:
        super().__init__("distillation", DistillationNodeParameters, **arguments)
        self._feedback: DepthFeedback | None = None
        self._waiting: set[Any] = set()  # futures of services that wait for the worker
        self._health = ""
        for action in ACTIONS:
            self.create_service(Trigger, f"~/{action}", functools.partial(self._asked, action))
        if self._binding.value.autostart:
            autostart(self)

    def _make_worker(self, parameters: DistillationNodeParameters) -> DistillationWorker:
        self._health = ""
        # There before the worker, which announces what it has loaded.
        self._outputs = DistillationOutputs(self, send_chunks=parameters.chunks)
        return DistillationWorker(
            parameters,
            announce=self._announce,
            reported=self._reported,
            changed=self._changed,
            warn=self._warn,
            failed=self._failed,
        )

    def _loaded(self, worker: DistillationWorker, parameters: DistillationNodeParameters) -> None:
        """Do nothing: the worker has said what it loaded."""

    def _way_out(self, error: DaeError) -> str:
        return f"{way_out(self, error)}. Depth goes on without"

    def _begin(self, worker: DistillationWorker, parameters: DistillationNodeParameters) -> None:
        self._inputs = {
            "events": MatchedSubscription(
                self,
                "events",
                event_types(),
                worker.put_events,
                raw=True,
                failed=self._taking_failed,
                reliability=parameters.event_reliability,
                depth=parameters.event_queue_depth,
            ),
            "image": MatchedSubscription(
                self,
                "image",
                [IMAGE],
                lambda data, _: worker.put_image(data),
                raw=True,
                depth=IMAGE_DEPTH,
            ),
        }
        self._feedback = DepthFeedback(self, worker.put_command, worker.put_command)
        worker.put_command(Activate(True))

    def _end(self) -> None:
        if self._feedback is not None:
            self._feedback.destroy()
        self._feedback = None

    def _pause(self, worker: DistillationWorker) -> None:
        worker.put_command(Activate(False))

    def _released(self) -> None:
        for future in list(self._waiting):
            future.set_result((False, "the node was stopped"))

    def _look(self) -> None:
        if self._feedback is not None:
            self._feedback.look()

    def _announce(self, announcement: Announcement) -> None:
        if self._outputs is not None:
            self._outputs.announce(announcement)

    def _reported(self, report: LoopReport, steps: int) -> None:
        if self._outputs is not None:
            self._outputs.report(report, steps)

    def _changed(self, snapshot: DistillationSnapshot) -> None:
        if self._outputs is not None:
            self._outputs.tell(snapshot)
        health = snapshot.live.health
        if health.text != self._health:
            self._health = health.text
            detail = f" ({health.detail})" if health.detail else ""
            self.get_logger().info(f"learning is {health.text}{detail}")

    def _parameters_changed(self, parameters: DistillationNodeParameters) -> None:
        if self._worker is not None:
            self._worker.put_command(parameters)

    def _time_ran_back(self, worker: DistillationWorker) -> None:
        worker.put_command(BeginInput("clock_jump"))

    async def _asked(
        self, action: Action, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Answer a service when the worker has done what it asks for."""
        worker = self._worker
        if worker is None or not worker.alive:
            response.message = "not configured: nothing learns yet"
            return response
        future: Any = Future(executor=self.executor)
        self._waiting.add(future)

        def answer(success: bool, message: str) -> None:
            if not future.done():
                future.set_result((success, message))

        worker.put_command(Ask(action, answer))
        response.success, response.message = await future
        self._waiting.discard(future)
        return response

    def _statuses(self, state: str) -> list[DiagnosticStatus]:
        name = self.get_fully_qualified_name()
        level, text = OK, state
        problems = [s.problem for s in self._inputs.values() if s.problem is not None]
        if self._fault is not None:
            level, text = ERROR, self._fault.message.splitlines()[-1]
        elif problems:
            level, text = WARN, "; ".join(problems)
        found = [status(f"{name}: node", level, text, {"state": state})]
        snapshot = None if self._worker is None else self._worker.snapshot
        if self._inputs and snapshot is not None:
            for item in live_statuses(snapshot):
                item.name = f"{name}: {item.name}"
                found.append(item)
        return found


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit code."""
    code = run(DistillationNode, USAGE, args, interrupt=DistillationNode.interrupt)
    leave_despite(DistillationWorker.THREAD_NAME, code)
    return code


if __name__ == "__main__":
    sys.exit(main())
