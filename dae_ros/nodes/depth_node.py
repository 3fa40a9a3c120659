"""The live node: event messages in, depth images out.

The executor's thread only receives, reports and changes state; a worker thread owns decoder,
ring, network and recurrent state (`depth_worker.py`). `configure` loads and warms up, `activate`
subscribes, `deactivate` unsubscribes and keeps the model, `cleanup` frees it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from std_srvs.srv import Trigger

from dae_ros.bags.message_types import IMAGE
from dae_ros.bags.messages import CameraInfo
from dae_ros.errors import DaeError
from dae_ros.events.cdr import event_types
from dae_ros.nodes.calibration_input import CalibrationInput
from dae_ros.nodes.command_line import Usage
from dae_ros.nodes.depth_outputs import DepthOutputs
from dae_ros.nodes.depth_weights import WeightFollower
from dae_ros.nodes.depth_worker import THREAD_NAME, DepthWorker, Fault, ResetState
from dae_ros.nodes.diagnostics import DepthDiagnostics, NetworkIdentity, Traffic
from dae_ros.nodes.entry import leave_despite, run
from dae_ros.nodes.lifecycle import REFUSALS, autostart, transition, way_out
from dae_ros.nodes.parameter_binding import ParameterBinding
from dae_ros.nodes.qos import MatchedSubscription
from dae_ros.nodes.rate_report import Patience, RateReport
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.depth_frame import DepthFrame, scale_of

GRAPH_PERIOD_S = 0.1
DIAGNOSTICS_PERIOD_S = 1.0
STOP_TIMEOUT_S = 10.0
# After a signal: `ros2 launch` sends the next one 5 s after the first.
INTERRUPTED_STOP_TIMEOUT_S = 3.0
IMAGE_DEPTH = 5
WARNING_PERIOD_S = 5.0
NO_ORIENTATION = (
    "these weights do not say whether their number grows with depth or with inverse depth: "
    "'depth/relative' carries it as it is; set 'orientation' and 'scale' for metres"
)

USAGE = Usage(
    "depth_node",
    "Turns event messages into depth images, live: `events` in, `depth/image` (metres) or\n"
    "`depth/relative` out, with `depth/camera_info`, `depth/color` and `events/image`.",
    main="weights",
    examples=(
        "--ros-args -p weights:=path/to/checkpoint.pth -r events:=/event_camera/events",
        "--ros-args -p weights:=untrained:micro -p device:=cpu    try it without weights",
        "--ros-args --params-file config/depth.yaml",
    ),
)


class WorkerFailed(DaeError):
    """The worker thread ended by an error of the program."""

    code = "worker"


class DepthNode(LifecycleNode):
    """Node `depth`; topics, services and parameters are listed in `docs/nodes.md`.

    Raises:
        ConfigurationError: a parameter is out of range or breaks a rule.
    """

    # Set last; a node whose parameters are refused is destroyed without it.
    _jump: Any = None

    def __init__(self, **arguments: Any) -> None:
        super().__init__("depth", **arguments)
        self.exit_code: int | None = None
        self._worker: DepthWorker | None = None
        self._outputs: DepthOutputs | None = None
        self._events: MatchedSubscription | None = None
        self._images: MatchedSubscription | None = None
        self._calibration: CalibrationInput | None = None
        self._fault: Fault | None = None
        self._interrupted = False
        self._rate = RateReport()
        self._no_ends, self._no_messages = Patience(), Patience()
        self._traffic = Traffic()
        self._binding = ParameterBinding(
            self,
            DepthParameters,
            locked=lambda: self._worker is not None,
            changed=self._parameters_changed,
        )
        # Wall timers: with simulated time the graph and the report must not stand still.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._graph_timer: Any = None
        self._report = DepthDiagnostics(self.get_fully_qualified_name())
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=self._steady)
        self.create_service(Trigger, "~/reset_state", self._reset_requested)
        self._weights = WeightFollower(self, lambda: self._worker)
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
        """Load the weights and warm up, on the worker's thread."""
        parameters = self._binding.value
        self._fault = None
        worker = DepthWorker(
            parameters,
            publish=self._publish,
            warn=self._warn,
            failed=self._failed,
            judged=self._weights.judged,
        )
        # Known before it has started: a signal may come while it loads.
        self._worker = worker
        if parameters.weights:
            self.get_logger().info(f"loading the network ({parameters.weights})")
        try:
            if self._interrupted:
                worker.interrupt()
            worker.start()
            self._outputs = DepthOutputs(self, parameters, worker.kind)
        except BaseException as error:
            self._stop_worker()
            if isinstance(error, REFUSALS) and not self._interrupted:
                way = way_out(self, error, "weights")
                raise type(error)(f"{error}; {way}", **error.data) from error
            raise
        estimator = worker.estimator
        if estimator is not None:
            self.get_logger().info(
                f"{estimator.name} (sha256 {estimator.digest[:12]}) gives {worker.kind} depth, "
                f"orientation {worker.orientation}"
            )
            for note in estimator.notes:
                self.get_logger().warning(f"{estimator.name}: {note}")
        if worker.kind == "relative" and worker.orientation == "unknown":
            self.get_logger().warning(NO_ORIENTATION, throttle_duration_sec=60.0)

    @transition
    def on_activate(self) -> None:
        """Subscribe as soon as publishers are found, and publish."""
        parameters = self._binding.value
        if self._outputs is None:
            raise RuntimeError("activated without being configured")
        self._events = MatchedSubscription(
            self,
            "events",
            event_types(),
            self._events_received,
            raw=True,
            reliability=parameters.event_reliability,
            depth=parameters.event_queue_depth,
            keep_all=parameters.overload == "queue",
        )
        self._calibration = CalibrationInput(self, self._calibrated)
        if parameters.window == "frame":
            self._images = MatchedSubscription(
                self,
                "image",
                [IMAGE],
                self._image_received,
                raw=True,
                depth=IMAGE_DEPTH,
                keep_all=parameters.overload == "queue",
            )
        self._rate = RateReport()
        self._no_ends, self._no_messages = Patience(), Patience()
        self._traffic.excuse(time.monotonic())
        self._weights.begin(parameters)
        self._outputs.active = True
        self._graph_timer = self.create_timer(
            GRAPH_PERIOD_S, self._look_at_graph, clock=self._steady
        )
        self._look_at_graph()

    @transition
    def on_deactivate(self) -> None:
        """Unsubscribe; the model stays loaded, what was received is forgotten."""
        self._unsubscribe()
        if self._worker is not None:
            self._worker.forget("deactivated")
        if self._fault is not None and self._fault.internal:
            # Into error processing, and from there to unconfigured.
            raise WorkerFailed(
                "the worker thread ended by an error of the program; its traceback is logged above"
            )

    @transition
    def on_cleanup(self) -> None:
        """Free the model."""
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
        self._weights.end()
        if self._graph_timer is not None:
            self.destroy_timer(self._graph_timer)
            self._graph_timer = None
        for subscription in (self._events, self._images, self._calibration):
            if subscription is not None:
                subscription.destroy()
        self._events = self._images = self._calibration = None

    def _release(self) -> None:
        """Subscriptions, then the thread, then the publishers that it used."""
        self._unsubscribe()
        self._stop_worker()
        if self._outputs is not None:
            self._outputs.destroy()
        self._outputs = None

    def _stop_worker(self) -> None:
        timeout_s = INTERRUPTED_STOP_TIMEOUT_S if self._interrupted else STOP_TIMEOUT_S
        if self._worker is not None and not self._worker.stop(timeout_s):
            self.get_logger().error(
                f"the worker thread loads, compiles or steps for more than {timeout_s:g} s and "
                "cannot be stopped in that; it is abandoned"
            )
        self._worker = None

    def _events_received(self, data: bytes, type_name: str) -> None:
        if self._worker is not None:
            self._worker.put_events(data, type_name)
        self._traffic.add(len(data), time.monotonic())

    def _image_received(self, data: bytes, _: str) -> None:
        if self._worker is not None:
            self._worker.put_image(data)

    def _calibrated(self, camera: CameraInfo) -> None:
        if self._outputs is not None:
            self._outputs.camera = camera

    def _look_at_graph(self) -> None:
        self._weights.look()
        now_s = time.monotonic()
        if self._calibration is not None:
            self._calibration.look(now_s)
        problems = []
        for subscription in (self._events, self._images):
            if subscription is not None:
                subscription.refresh()
                if subscription.problem is not None:
                    problems.append(subscription.problem)
        if self._events is not None and self._events.problem is not None:
            self._traffic.excuse(now_s)
        if problems:
            self.get_logger().warning("\n".join(problems), throttle_duration_sec=10.0)

    def _publish(self, frame: DepthFrame) -> None:
        outputs = self._outputs
        if outputs is not None and outputs.active:
            outputs.publish(frame, self._weights.last)
            sentence = self._rate.add(frame, time.monotonic())
            if sentence is not None:
                self.get_logger().info(sentence)

    def _warn(self, sentence: str) -> None:
        self.get_logger().warning(sentence, throttle_duration_sec=WARNING_PERIOD_S)

    def _parameters_changed(self, parameters: DepthParameters) -> None:
        worker, outputs = self._worker, self._outputs
        if worker is None or outputs is None or worker.estimator is None:
            return
        outputs.apply(parameters)
        outputs.advertise(
            scale_of(
                worker.estimator, parameters.orientation, parameters.scale, parameters.shift
            ).kind
        )
        worker.put_command(parameters)

    def _reset_requested(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._worker is None:
            response.success = False
            response.message = "not configured: there is no recurrent state yet"
            return response
        self._worker.put_command(ResetState("service"))
        response.success = True
        response.message = "the recurrent state is reset before the next window"
        return response

    def _clock_jumped(self, _: Any) -> None:
        if self._worker is not None:
            self.get_logger().info(
                "ROS time jumped backward; the recurrent state is reset",
                throttle_duration_sec=WARNING_PERIOD_S,
            )
            self._worker.put_command(ResetState("clock_jump"))

    def _failed(self, fault: Fault) -> None:
        """Note why the worker cannot go on; runs on its thread."""
        if not self.context.ok():
            # A signal has shut rclpy down, and a publisher failed because of it.
            return
        self._fault = fault
        self._fault_found.trigger()

    def _stop_after_fault(self) -> None:
        if self._fault is not None:
            self.get_logger().fatal(f"depth has stopped: {self._fault.message}")
            self.trigger_deactivate()

    def _publish_diagnostics(self) -> None:
        worker, events, outputs, now_s = self._worker, self._events, self._outputs, time.monotonic()
        reception = calibration = None
        if worker is not None and events is not None:
            reception = self._traffic.reception(
                events, worker.inbox, now_s, self._binding.value.max_silence_s
            )
            done = None if worker.snapshot is None else worker.snapshot.pipeline
            for patience, reason in (
                (self._no_ends, done and (done.no_ends or done.no_stamps)),
                (self._no_messages, reception.silence),
            ):
                sentence = patience.wait(reason, now_s)
                if sentence is not None:
                    self.get_logger().warning(sentence)
        if self._calibration is not None:
            calibration = self._calibration.status(None if outputs is None else outputs.misfit)
        state = "unconfigured" if worker is None else "inactive" if events is None else "active"
        self._diagnostics.publish(
            self._report.report(
                self.get_clock().now().to_msg(),
                now_s,
                state,
                self._fault.message if self._fault is not None else None,
                reception,
                calibration,
                worker.snapshot if worker is not None else None,
                NetworkIdentity.of(worker, self._weights.malformed),
            )
        )


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit code."""
    code = run(DepthNode, USAGE, args, interrupt=DepthNode.interrupt)
    leave_despite(THREAD_NAME, code)
    return code


if __name__ == "__main__":
    sys.exit(main())
