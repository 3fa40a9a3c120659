"""A lifecycle node whose work is done by a worker thread.

The executor's thread only receives, reports and changes state, and event messages are taken on a
thread of their own (`taker.py`). `configure` loads on the worker's thread, `activate` subscribes,
`deactivate` unsubscribes and keeps what was loaded, `cleanup` frees it.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode

from dae_ros.errors import DaeError
from dae_ros.nodes.lifecycle import REFUSALS, transition
from dae_ros.nodes.parameter_binding import ParameterBinding
from dae_ros.nodes.qos import MatchedSubscription
from dae_ros.nodes.sensor_worker import Fault, SensorWorker
from dae_ros.parameters import NodeParameters

GRAPH_PERIOD_S = 0.1
DIAGNOSTICS_PERIOD_S = 1.0
# Of a sentence about inputs: before another one, and before the same one again.
PROBLEM_PERIOD_S = 10.0
SAME_PROBLEM_PERIOD_S = 60.0
# After a signal: `ros2 launch` sends the next one 5 s after the first.
INTERRUPTED_STOP_TIMEOUT_S = 3.0


class WorkerFailed(DaeError):
    """The worker thread ended by an error of the program."""

    code = "worker"


class Outputs(Protocol):
    """The publishers of a node.

    Attributes:
        active: whether anything is published; the lifecycle sets it.
    """

    active: bool

    def destroy(self) -> None:
        """Take the topics back; the worker must have stopped."""


P = TypeVar("P", bound=NodeParameters)
W = TypeVar("W", bound=SensorWorker[Any])
O = TypeVar("O", bound=Outputs)  # noqa: E741 - of outputs


class WorkerNode(LifecycleNode, Generic[P, W, O]):
    """What nodes with a worker have in common.

    Args:
        name: of the node.
        kind: its parameters.
        arguments: of rclpy's node.

    Raises:
        ConfigurationError: a parameter is out of range or breaks a rule.
    """

    STOP_TIMEOUT_S: ClassVar[float]
    WARNING_PERIOD_S: ClassVar[float]
    STOPPED: ClassVar[str]  # what no longer happens after a fault
    BUSY: ClassVar[str]  # what the thread may do when it cannot be stopped, and what that means

    # Set last; a node whose parameters are refused is destroyed without it.
    _jump: Any = None

    def __init__(self, name: str, kind: type[P], **arguments: Any) -> None:
        super().__init__(name, **arguments)
        self.exit_code: int | None = None
        self._worker: W | None = None
        self._outputs: O | None = None
        self._inputs: dict[str, MatchedSubscription] = {}
        self._fault: Fault | None = None
        self._interrupted = False
        self._told: list[str] = []
        self._told_s = -math.inf
        self._binding = ParameterBinding(
            self,
            kind,
            locked=lambda: self._worker is not None,
            changed=self._parameters_changed,
        )
        # Wall timers: with simulated time the graph and the report must not stand still.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._graph_timer: Any = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=self._steady)
        self._fault_found = self.create_guard_condition(self._stop_after_fault)
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
            ),
            post_callback=self._clock_jumped,
        )

    @abstractmethod
    def _make_worker(self, parameters: P) -> W:
        """Return a worker that has not started."""

    @abstractmethod
    def _loaded(self, worker: W, parameters: P) -> None:
        """Take note that the worker has started; `_outputs` is there when this returns."""

    @abstractmethod
    def _way_out(self, error: DaeError) -> str:
        """Return what to do about a refusal to be configured."""

    @abstractmethod
    def _begin(self, worker: W, parameters: P) -> None:
        """Make the subscriptions, those of `_inputs` too, and set the worker to work."""

    @abstractmethod
    def _end(self) -> None:
        """Undo the subscriptions that are not in `_inputs`."""

    @abstractmethod
    def _pause(self, worker: W) -> None:
        """Make the worker rest."""

    @abstractmethod
    def _look(self) -> None:
        """Look at what else is on the graph; `_inputs` are fresh."""

    @abstractmethod
    def _parameters_changed(self, parameters: P) -> None:
        """Take over what may change at run time."""

    @abstractmethod
    def _time_ran_back(self, worker: W) -> None:
        """ROS time has jumped backward."""

    @abstractmethod
    def _statuses(self, state: str) -> list[DiagnosticStatus]:
        """Return what `/diagnostics` says."""

    def _released(self) -> None:
        """Answer those who waited for the worker; it has stopped."""

    @transition
    def on_configure(self) -> None:
        """Load and warm up, on the worker's thread."""
        parameters = self._binding.value
        self._fault = None
        try:
            # Known before it has started: a signal may come while it loads.
            worker = self._worker = self._make_worker(parameters)
            if self._interrupted:
                worker.interrupt()
            worker.start()
            self._loaded(worker, parameters)
        except BaseException as error:
            self._release()
            if isinstance(error, REFUSALS) and not self._interrupted:
                raise type(error)(f"{error}; {self._way_out(error)}", **error.data) from error
            raise

    @transition
    def on_activate(self) -> None:
        """Subscribe as soon as publishers are found, and publish."""
        worker, outputs = self._worker, self._outputs
        if worker is None or outputs is None:
            raise RuntimeError("activated without being configured")
        if self._fault is not None and not self._fault.internal:
            self._fault = None  # it is tried again
        outputs.active = True
        try:
            self._begin(worker, self._binding.value)
        except BaseException:
            self._unsubscribe()
            raise
        self._graph_timer = self.create_timer(
            GRAPH_PERIOD_S, self._look_at_graph, clock=self._steady
        )
        self._look_at_graph()

    @transition
    def on_deactivate(self) -> None:
        """Unsubscribe; what was loaded stays, what was received is forgotten."""
        self._unsubscribe()
        if self._worker is not None:
            self._pause(self._worker)
        if self._fault is not None and self._fault.internal:
            # Into error processing, and from there to unconfigured.
            raise WorkerFailed(
                "the worker thread ended by an error of the program; its traceback is logged above"
            )

    @transition
    def on_cleanup(self) -> None:
        """Free everything."""
        self._release()

    @transition
    def on_shutdown(self) -> None:
        """Free everything."""
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
        """Stop the worker; called before the node is destroyed, in whatever state it is."""
        self._release()

    def destroy_node(self) -> None:
        """Unhook from the clock and destroy."""
        if self._jump is not None:
            self._jump.unregister()
        super().destroy_node()

    def _unsubscribe(self) -> None:
        if self._outputs is not None:
            self._outputs.active = False
        self._end()
        if self._graph_timer is not None:
            self.destroy_timer(self._graph_timer)
            self._graph_timer = None
        for subscription in self._inputs.values():
            subscription.destroy()
        self._inputs = {}

    def _release(self) -> None:
        """Subscriptions, then the thread, then the publishers that it used."""
        self._unsubscribe()
        timeout_s = INTERRUPTED_STOP_TIMEOUT_S if self._interrupted else self.STOP_TIMEOUT_S
        if self._worker is not None and not self._worker.stop(timeout_s):
            self.get_logger().error(
                f"the worker thread cannot be stopped within {timeout_s:g} s and is abandoned: "
                f"{self.BUSY}"
            )
        self._worker = None
        self._released()
        if self._outputs is not None:
            self._outputs.destroy()
        self._outputs = None

    def _look_at_graph(self) -> None:
        problems = []
        for subscription in self._inputs.values():
            subscription.refresh()
            if subscription.problem is not None:
                problems.append(subscription.problem)
        now_s = time.monotonic()
        period_s = SAME_PROBLEM_PERIOD_S if problems == self._told else PROBLEM_PERIOD_S
        if problems and now_s - self._told_s >= period_s:
            self._told, self._told_s = problems, now_s
            for problem in problems:
                self.get_logger().warning(problem)
        self._look()

    def _warn(self, sentence: str) -> None:
        self.get_logger().warning(sentence, throttle_duration_sec=self.WARNING_PERIOD_S)

    def _clock_jumped(self, _: Any) -> None:
        if self._worker is not None:
            self._time_ran_back(self._worker)

    def _failed(self, fault: Fault) -> None:
        """Note why the worker cannot go on; runs on its thread."""
        if not self.context.ok():
            # A signal has shut rclpy down, and a publisher failed because of it.
            return
        if not fault.internal:
            path = self.get_fully_qualified_name()
            again = f"mend that, and `ros2 lifecycle set {path} activate` tries again"
            fault = Fault(f"{fault.message}; {again}", internal=False)
        self._fault = fault
        self._fault_found.trigger()

    def _taking_failed(self, text: str) -> None:
        """Note that messages are not taken any more; runs on the thread that took them."""
        self._failed(Fault(text, internal=True))

    def _stop_after_fault(self) -> None:
        if self._fault is not None:
            self.get_logger().fatal(f"{self.STOPPED}: {self._fault.message}")
            self.trigger_deactivate()

    def _publish_diagnostics(self) -> None:
        active = "active" if self._inputs else "inactive"
        state = "unconfigured" if self._worker is None else active
        message = DiagnosticArray(status=self._statuses(state))
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
