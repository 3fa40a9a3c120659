"""The learning node: events and camera frames in, better weights for the depth node out.

The executor's thread only receives, reports and changes state; a worker thread of low priority
owns student, teacher and clips (`distillation_worker.py`). `configure` loads, `activate`
subscribes and learns, `deactivate` saves and pauses, `cleanup` saves and frees.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
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
    THREAD_NAME,
    Activate,
    Ask,
    BeginInput,
    DistillationSnapshot,
    DistillationWorker,
)
from dae_ros.nodes.entry import leave_despite, run
from dae_ros.nodes.lifecycle import REFUSALS, autostart, transition, way_out
from dae_ros.nodes.parameter_binding import ParameterBinding
from dae_ros.nodes.qos import MatchedSubscription
from dae_ros.parameters import DistillationNodeParameters
from dae_ros.runtime.snapshots import Announcement

GRAPH_PERIOD_S = 0.1
DIAGNOSTICS_PERIOD_S = 1.0
WARNING_PERIOD_S = 10.0
STOP_TIMEOUT_S = 20.0
# After a signal: `ros2 launch` sends the next one 5 s after the first.
INTERRUPTED_STOP_TIMEOUT_S = 3.0
IMAGE_DEPTH = 20

USAGE = Usage(
    "distillation_node",
    "Learns on while depth is live: `events` and `image` in, `distill/snapshot` out, which a\n"
    "depth node with follow_snapshots takes over; `distill/status` says whether it learns.",
    main="teacher",
    examples=(
        "--ros-args -p weights:=micro.safetensors -p teacher:=depth_anything_v2_vits",
        "--ros-args --params-file config/distillation.yaml -r image:=/camera/image_raw",
    ),
)


class LearnerFailed(DaeError):
    """The worker thread ended by an error of the program."""

    code = "worker"


class DistillationNode(LifecycleNode):
    """Node `distillation`; topics, services and parameters are listed in `docs/online.md`.

    Raises:
        ConfigurationError: a parameter is out of range or breaks a rule.
    """

    # Set last; a node whose parameters are refused is destroyed without it.
    _jump: Any = None

    def __init__(self, **arguments: Any) -> None:
        super().__init__("distillation", **arguments)
        self.exit_code: int | None = None
        self._worker: DistillationWorker | None = None
        self._outputs: DistillationOutputs | None = None
        self._feedback: DepthFeedback | None = None
        self._inputs: dict[str, MatchedSubscription] = {}
        self._waiting: set[Any] = set()  # futures of services that wait for the worker
        self._health = ""
        self._fault = ""
        self._interrupted = False
        self._binding = ParameterBinding(
            self,
            DistillationNodeParameters,
            locked=lambda: self._worker is not None,
            changed=self._parameters_changed,
        )
        # Wall timers: with simulated time the graph and the report must not stand still.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._graph_timer: Any = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=self._steady)
        for action in ACTIONS:
            self.create_service(Trigger, f"~/{action}", functools.partial(self._asked, action))
        self._fault_found = self.create_guard_condition(self._stop_after_fault)
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
            ),
            post_callback=self._clock_jumped,
        )
        if self._binding.value.autostart:
            autostart(self)

    @transition
    def on_configure(self) -> None:
        """Load student and teacher, on the worker's thread, and go on from the folder."""
        parameters = self._binding.value
        self._fault = self._health = ""
        outputs = DistillationOutputs(self, send_chunks=parameters.chunks)
        self._outputs = outputs
        worker = DistillationWorker(
            parameters,
            announce=self._announce,
            reported=self._reported,
            changed=self._changed,
            warn=self._warn,
            failed=self._failed,
        )
        # Known before it has started: a signal may come while it loads.
        self._worker = worker
        try:
            if self._interrupted:
                worker.interrupt()
            worker.start()
        except BaseException as error:
            self._release()
            if isinstance(error, REFUSALS) and not self._interrupted:
                sentence = f"{error}; {way_out(self, error)}. Depth goes on without"
                raise type(error)(sentence, **error.data) from error
            raise

    @transition
    def on_activate(self) -> None:
        """Subscribe as soon as publishers are found, and learn."""
        worker, outputs = self._worker, self._outputs
        if worker is None or outputs is None:
            raise RuntimeError("activated without being configured")
        parameters = self._binding.value
        self._inputs = {
            "events": MatchedSubscription(
                self,
                "events",
                event_types(),
                worker.put_events,
                raw=True,
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
        self._feedback = DepthFeedback(self, worker.put_feedback, worker.put_command)
        outputs.active = True
        worker.put_command(Activate(True))
        self._graph_timer = self.create_timer(
            GRAPH_PERIOD_S, self._look_at_graph, clock=self._steady
        )
        self._look_at_graph()

    @transition
    def on_deactivate(self) -> None:
        """Unsubscribe and save; what was received and not learned from is forgotten."""
        self._unsubscribe()
        if self._worker is not None:
            self._worker.put_command(Activate(False))
        if self._fault:
            # Into error processing, and from there to unconfigured.
            raise LearnerFailed(
                "the worker thread ended by an error of the program; its traceback is logged above"
            )

    @transition
    def on_cleanup(self) -> None:
        """Save and free everything."""
        self._release()

    @transition
    def on_shutdown(self) -> None:
        """Save and free everything."""
        self._release()

    @transition
    def on_error(self) -> None:
        """Free everything; success leads back to unconfigured."""
        self._release()

    def interrupt(self) -> None:
        """Make whatever waits for the worker give up; called by the signal handler."""
        self._interrupted = True
        if self._worker is not None:
            self._worker.interrupt()

    def close(self) -> None:
        """Save and stop the worker; called before the node is destroyed, in whatever state."""
        self._release()

    def destroy_node(self) -> None:
        """Unhook from the clock and destroy."""
        if self._jump is not None:
            self._jump.unregister()
        super().destroy_node()

    def _unsubscribe(self) -> None:
        if self._graph_timer is not None:
            self.destroy_timer(self._graph_timer)
            self._graph_timer = None
        for subscription in self._inputs.values():
            subscription.destroy()
        self._inputs = {}
        if self._feedback is not None:
            self._feedback.destroy()
        self._feedback = None
        if self._outputs is not None:
            self._outputs.active = False

    def _release(self) -> None:
        """Subscriptions, then the thread, then the publishers that it used."""
        self._unsubscribe()
        timeout_s = INTERRUPTED_STOP_TIMEOUT_S if self._interrupted else STOP_TIMEOUT_S
        if self._worker is not None and not self._worker.stop(timeout_s):
            self.get_logger().error(
                f"the worker thread loads or learns for more than {timeout_s:g} s and cannot be "
                "stopped in that; it is abandoned, and what came after the last save is lost"
            )
        self._worker = None
        for future in list(self._waiting):
            future.set_result((False, "the node was stopped"))
        if self._outputs is not None:
            self._outputs.destroy()
        self._outputs = None

    def _look_at_graph(self) -> None:
        if self._feedback is not None:
            self._feedback.look()
        problems = []
        for subscription in self._inputs.values():
            subscription.refresh()
            if subscription.problem is not None:
                problems.append(subscription.problem)
        if problems:
            self._warn("\n".join(problems))

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

    def _warn(self, sentence: str) -> None:
        self.get_logger().warning(sentence, throttle_duration_sec=WARNING_PERIOD_S)

    def _parameters_changed(self, parameters: DistillationNodeParameters) -> None:
        if self._worker is not None:
            self._worker.put_command(parameters)

    def _clock_jumped(self, _: Any) -> None:
        if self._worker is not None:
            self._worker.put_command(BeginInput("clock_jump"))

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

    def _failed(self, text: str) -> None:
        """Note why the worker cannot go on; runs on its thread."""
        if not self.context.ok():
            # A signal has shut rclpy down, and a publisher failed because of it.
            return
        self._fault = text
        self._fault_found.trigger()

    def _stop_after_fault(self) -> None:
        if self._fault:
            self.get_logger().fatal(f"learning has stopped, depth goes on: {self._fault}")
            self.trigger_deactivate()

    def _publish_diagnostics(self) -> None:
        worker, name = self._worker, self.get_fully_qualified_name()
        active = bool(self._inputs)
        state = "unconfigured" if worker is None else "active" if active else "inactive"
        level, text = (ERROR, self._fault.splitlines()[-1]) if self._fault else (OK, state)
        problems = [s.problem for s in self._inputs.values() if s.problem is not None]
        if problems and level == OK:
            level, text = WARN, "; ".join(problems)
        found: list[DiagnosticStatus] = [status(f"{name}: node", level, text, {"state": state})]
        snapshot = None if worker is None else worker.snapshot
        if active and snapshot is not None:
            for item in live_statuses(snapshot):
                item.name = f"{name}: {item.name}"
                found.append(item)
        message = DiagnosticArray(status=found)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit code."""
    code = run(DistillationNode, USAGE, args, interrupt=DistillationNode.interrupt)
    leave_despite(THREAD_NAME, code)
    return code


if __name__ == "__main__":
    sys.exit(main())
