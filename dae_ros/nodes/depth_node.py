"""The live node: event messages in, depth images out.

A worker thread owns decoder, ring, network and recurrent state (`depth_worker.py`); what the
lifecycle does with it is in `worker_node.py`.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import Trigger

from dae_ros.bags.calibration import read_calibration
from dae_ros.bags.message_types import IMAGE
from dae_ros.bags.messages import CameraInfo
from dae_ros.errors import ConfigurationError, DaeError, RecordingError
from dae_ros.events.cdr import event_types
from dae_ros.nodes.calibration_input import CalibrationFile, CalibrationInput
from dae_ros.nodes.command_line import Usage
from dae_ros.nodes.depth_outputs import DepthOutputs
from dae_ros.nodes.depth_trace import DepthTrace
from dae_ros.nodes.depth_weights import WeightFollower
from dae_ros.nodes.depth_worker import DepthWorker, ResetState
from dae_ros.nodes.diagnostics import DepthDiagnostics, NetworkIdentity, Traffic
from dae_ros.nodes.entry import leave_despite, run
from dae_ros.nodes.garbage import GarbageCollection
from dae_ros.nodes.lifecycle import autostart, way_out
from dae_ros.nodes.qos import MatchedSubscription
from dae_ros.nodes.rate_report import Patience, RateReport
from dae_ros.nodes.worker_node import WorkerNode
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backend_choice import BackendChoice
from dae_ros.runtime.depth_frame import DepthFrame, scale_of

IMAGE_DEPTH = 5
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
        "--ros-args -r events:=/event_camera/events    the weights that ship (simulated worlds)",
        "--ros-args -p weights:=path/to/checkpoint.pth -r events:=/event_camera/events",
        "--ros-args --params-file config/depth.yaml",
    ),
)


class DepthNode(WorkerNode[DepthParameters, DepthWorker, DepthOutputs]):
    """Node `depth`; topics, services and parameters are listed in `docs/nodes.md`.

    Args:
        garbage: of a process that is this node's own; None leaves the collector as it is.
        arguments: of rclpy's node.

    Raises:
        ConfigurationError: a parameter is out of range or breaks a rule.
    """

    STOP_TIMEOUT_S = 10.0
    WARNING_PERIOD_S = 5.0
    STOPPED = "depth has stopped"
    BUSY = "it loads, compiles or steps"

    def __init__(self, garbage: GarbageCollection | None = None, **arguments: Any) -> None:
        super().__init__("depth", DepthParameters, **arguments)
        self._garbage = garbage
        self._calibration: CalibrationInput | CalibrationFile | None = None
        self._given_camera: CameraInfo | None = None  # from a file
        self._backend: BackendChoice | None = None  # that was told last
        self._rate = RateReport()
        self._no_ends, self._no_messages = Patience(), Patience()
        self._traffic = Traffic()
        self._report = DepthDiagnostics(self.get_fully_qualified_name())
        self.create_service(Trigger, "~/reset_state", self._reset_requested)
        self._weights = WeightFollower(self, lambda: self._worker)
        self._trace = DepthTrace(self, lambda: self._binding.value)
        if self._binding.value.autostart:
            autostart(self)

    def _make_worker(self, parameters: DepthParameters) -> DepthWorker:
        self._given_camera = self._read_calibration(parameters.calibration)
        if parameters.weights:
            self.get_logger().info(f"loading the network ({parameters.weights})")
        return DepthWorker(
            parameters,
            publish=self._publish,
            warn=self._warn,
            failed=self._failed,
            judged=self._weights.judged,
            garbage=self._garbage,
        )

    def _read_calibration(self, path: str) -> CameraInfo | None:
        if not path:
            return None
        try:
            return read_calibration(Path(path), self.resolve_topic_name("events"))
        except RecordingError as error:
            raise ConfigurationError(error.message, parameter="calibration", path=path) from error

    def _loaded(self, worker: DepthWorker, parameters: DepthParameters) -> None:
        self._outputs = DepthOutputs(self, parameters, worker.kind)
        self._report.begin_again()
        estimator = worker.estimator
        if estimator is not None:
            self._backend = worker.backend
            self.get_logger().info(
                f"{estimator.name} (sha256 {estimator.digest[:12]}) gives {worker.kind} depth, "
                f"orientation {worker.orientation}; it runs on {worker.backend}"
            )
            for note in estimator.notes:
                self.get_logger().warning(f"{estimator.name}: {note}")
        if worker.kind == "relative" and worker.orientation == "unknown":
            self.get_logger().warning(NO_ORIENTATION, throttle_duration_sec=60.0)
        if self._garbage is not None:
            self._garbage.settle()

    def _released(self) -> None:
        if self._garbage is not None:
            self._garbage.end()

    def _way_out(self, error: DaeError) -> str:
        return way_out(self, error, "weights")

    def _begin(self, worker: DepthWorker, parameters: DepthParameters) -> None:
        queue = parameters.overload == "queue"
        self._inputs["events"] = MatchedSubscription(
            self,
            "events",
            event_types(),
            self._events_received,
            raw=True,
            failed=self._taking_failed,
            reliability=parameters.event_reliability,
            depth=parameters.event_queue_depth,
            keep_all=queue,
        )
        if parameters.window == "frame":
            self._inputs["image"] = MatchedSubscription(
                self,
                "image",
                [IMAGE],
                lambda data, _: worker.put_image(data),
                raw=True,
                depth=IMAGE_DEPTH,
                keep_all=queue,
            )
        if self._given_camera is None:
            self._calibration = CalibrationInput(self, self._calibrated, self._taking_failed)
        else:
            self._calibration = CalibrationFile(parameters.calibration, self._given_camera)
            self._calibrated(self._given_camera)
        self._rate = RateReport()
        self._report.begin_again()
        self._no_ends, self._no_messages = Patience(), Patience()
        self._traffic.excuse(time.monotonic())
        self._weights.begin(parameters)

    def _end(self) -> None:
        self._weights.end()
        if self._calibration is not None:
            self._calibration.destroy()
        self._calibration = None

    def close(self) -> None:
        """Stop the worker, and write the trace that is still being recorded."""
        super().close()
        self._trace.close()

    def _pause(self, worker: DepthWorker) -> None:
        worker.forget("deactivated")

    def _events_received(self, data: bytes, type_name: str) -> None:
        if self._worker is not None:
            self._worker.put_events(data, type_name)
        self._traffic.add(len(data), time.monotonic())

    def _calibrated(self, camera: CameraInfo) -> None:
        if self._outputs is not None:
            self._outputs.camera = camera

    def _look(self) -> None:
        now_s = time.monotonic()
        worker, outputs = self._worker, self._outputs
        # Not while changes wait in the inbox: before the last there may be one of the other kind.
        if worker and outputs and worker.parameters is self._binding.value:
            outputs.keep(worker.kind)
        backend = None if worker is None else worker.backend
        if backend is not None and backend != self._backend:
            self._backend = backend
            self.get_logger().info(f"the network runs on {backend} from now on")
        self._weights.look()
        if self._calibration is not None:
            self._calibration.look(now_s)
        if self._inputs["events"].problem is not None:
            self._traffic.excuse(now_s)

    def _publish(self, frame: DepthFrame) -> None:
        outputs, calibration = self._outputs, self._calibration
        if outputs is not None and outputs.active:
            if calibration is not None:
                calibration.take()
            outputs.publish(frame, self._weights.last)
            self._trace.published(frame)
            sentence = self._rate.add(frame, time.monotonic())
            if sentence is not None:
                self.get_logger().info(sentence)

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

    def _time_ran_back(self, worker: DepthWorker) -> None:
        self.get_logger().info(
            "ROS time jumped backward; the recurrent state is reset",
            throttle_duration_sec=self.WARNING_PERIOD_S,
        )
        worker.put_command(ResetState("clock_jump"))

    def _statuses(self, state: str) -> list[DiagnosticStatus]:
        now_s = time.monotonic()
        worker, outputs, events = self._worker, self._outputs, self._inputs.get("events")
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
        return self._report.statuses(
            now_s,
            state,
            self._fault.message if self._fault is not None else None,
            reception,
            calibration,
            worker.snapshot if worker is not None else None,
            NetworkIdentity.of(worker, self._weights.malformed),
        )


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit code."""
    create = partial(DepthNode, garbage=GarbageCollection())
    code = run(create, USAGE, args, interrupt=DepthNode.interrupt)
    leave_despite(DepthWorker.THREAD_NAME, code)
    return code


if __name__ == "__main__":
    sys.exit(main())
