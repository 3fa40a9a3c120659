"""Everything that the depth node publishes for one window; called on the worker's thread."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo as CameraInfoMessage
from sensor_msgs.msg import Image

from dae_ros.bags.message_types import known_types
from dae_ros.bags.messages import CameraInfo, write_camera_info, write_image
from dae_ros.nodes.diagnostics import frame_status
from dae_ros.nodes.qos import Unacknowledged, output_qos
from dae_ros.parameters import DepthParameters
from dae_ros.representation.render import METRES, color_range, depth_color, events_image
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.output_camera import fits, output_camera
from dae_ros.runtime.weight_stages import Verdict

TOPICS = {"metric": "depth/image", "relative": "depth/relative"}
# With `overload: queue` nothing may be lost, so results wait for their subscribers this long.
ACKNOWLEDGE_TIMEOUT_S = 10.0
ACKNOWLEDGE_POLL_S = 0.001


class DepthOutputs:
    """The publishers of a depth node.

    Args:
        node: that owns them.
        parameters: at configuration; `apply` takes later ones.
        kind: `metric` or `relative`, which topic exists from the start.

    Attributes:
        active: whether anything is published; the lifecycle sets it.
        camera: the latest calibration, set by the thread that takes it.
        misfit: why it cannot be of the event camera, None where it can or nothing is published.
    """

    def __init__(self, node: LifecycleNode, parameters: DepthParameters, kind: str) -> None:
        # Made once, which takes a tenth of a second: not with the first message.
        known_types()
        self._node = node
        self._parameters = parameters
        self._queue = parameters.overload == "queue"
        self._batch = Unacknowledged()
        self._qos = output_qos(Unacknowledged.DEPTH) if self._queue else output_qos()
        self._depth: dict[str, Any] = {}
        self.active = False
        self.camera: CameraInfo | None = None
        self.misfit: str | None = None
        self._camera_info = node.create_publisher(CameraInfoMessage, "depth/camera_info", self._qos)
        self._status = node.create_publisher(DiagnosticArray, "depth/status", self._qos)
        self._color = node.create_publisher(Image, "depth/color", output_qos())
        self._events = node.create_publisher(Image, "events/image", output_qos())
        self.advertise(kind)

    def advertise(self, kind: str) -> None:
        """Make the topic for this kind of number, if it is not there yet."""
        if kind not in self._depth:
            self._depth[kind] = self._node.create_publisher(Image, TOPICS[kind], self._qos)

    def keep(self, kind: str) -> None:
        """Take back the topic of the other kind, once its subscribers have taken everything.

        On the executor's thread, when the worker has no more for that topic.
        """
        for other in self._depth.keys() - {kind}:
            if self._depth[other].wait_for_all_acked(Duration()):
                self._node.destroy_publisher(self._depth.pop(other))

    def apply(self, parameters: DepthParameters) -> None:
        """Take over the colour range."""
        self._parameters = parameters

    def publish(self, frame: DepthFrame, verdict: Verdict | None) -> None:
        """Publish a result, pictures only where somebody looks, and the last verdict on weights."""
        if not self.active:
            return
        publisher = self._depth[frame.kind]
        # Serialized here: a message object of rclpy's costs more copies of the map.
        publisher.publish(write_image(frame.depth, frame.stamp_ns, frame.frame_id))
        camera = self._camera_of(frame)
        self._camera_info.publish(write_camera_info(camera, frame.stamp_ns, frame.frame_id))
        self._status.publish(frame_status(frame, verdict))
        if self._color.get_subscription_count():
            self._color.publish(write_image(self._colored(frame), frame.stamp_ns, frame.frame_id))
        if self._events.get_subscription_count():
            self._events.publish(
                write_image(events_image(frame.image), frame.stamp_ns, frame.frame_id)
            )
        if self._queue:
            self._batch.add(frame.depth.nbytes)
            if self._batch.full:
                for used in (publisher, self._camera_info, self._status):
                    self._wait_acknowledged(used)
                self._batch.clear()

    def destroy(self) -> None:
        """Take the topics back; the worker must have stopped."""
        self.active = False
        for publisher in (
            *self._depth.values(),
            self._camera_info,
            self._status,
            self._color,
            self._events,
        ):
            self._node.destroy_publisher(publisher)
        self._depth.clear()

    def _camera_of(self, frame: DepthFrame) -> CameraInfo:
        camera, (height, width) = self.camera, frame.depth.shape
        if camera is None or fits(camera, height, width):
            self.misfit = None
        else:
            self.misfit = (
                f"the calibration is of a camera of {camera.width}x{camera.height} px and cannot "
                f"be of the event camera of {width}x{height} px; depth/camera_info is all zero "
                "(uncalibrated): remap 'camera_info', or give 'calibration' the camera's own file"
            )
            self._node.get_logger().warning(self.misfit, throttle_duration_sec=10.0)
        return output_camera(camera, height, width)

    def _colored(self, frame: DepthFrame) -> Any:
        if frame.kind == "metric":
            near, far = self._parameters.color_near_m, self._parameters.color_far_m
            return depth_color(frame.depth, near, far, METRES)
        return depth_color(
            frame.depth, *color_range(frame.depth, frame.orientation), frame.orientation
        )

    def _wait_acknowledged(self, publisher: Any) -> None:
        # Polled: rclpy keeps the GIL for as long as it waits, which would stop the executor.
        deadline_s = time.monotonic() + ACKNOWLEDGE_TIMEOUT_S
        while self.active and not publisher.wait_for_all_acked(Duration()):
            if time.monotonic() > deadline_s:
                self._node.get_logger().warning(
                    f"a subscriber of '{publisher.topic_name}' does not take its messages; going "
                    "on without waiting for it",
                    throttle_duration_sec=10.0,
                )
                return
            time.sleep(ACKNOWLEDGE_POLL_S)
