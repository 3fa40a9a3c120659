"""A calibration from a file as the camera_info of a replayed camera that recorded none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo as CameraInfoMessage

from dae_ros.bags.calibration import read_calibration
from dae_ros.bags.container import TopicInfo
from dae_ros.bags.messages import read_header, write_camera_info
from dae_ros.bags.topics import camera_info_beside, choose_image_topic
from dae_ros.nodes.qos import Unacknowledged


class CalibrationOutput:
    """Publishes one camera's calibration: once, kept for late subscribers, and with each image.

    With the images, because image pipelines pair an image with the camera_info of its stamp; once
    before the first message, because event cameras may have no images.

    Args:
        node: that publishes.
        path: of the file, see `read_calibration`.
        topics: of the recording.
        events: the topic whose camera is meant; `camera_info` goes into its namespace.

    Attributes:
        topic: where it is published.
        image_topic: whose images it accompanies, None where the recording has none.
        publisher: of the topic.

    Raises:
        RecordingError: the file is no calibration.
    """

    def __init__(
        self, node: Node, path: Path, topics: Mapping[str, TopicInfo], events: str
    ) -> None:
        self._camera = read_calibration(path, events)
        self.topic = camera_info_beside(events)
        self.image_topic = choose_image_topic(topics, events)
        self.publisher: Any = node.create_publisher(
            CameraInfoMessage,
            self.topic,
            QoSProfile(
                depth=Unacknowledged.DEPTH,
                reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL,
            ),
        )

    def publish(self, stamp_ns: int, frame_id: str = "") -> None:
        """Publish it with this header."""
        self.publisher.publish(write_camera_info(self._camera, stamp_ns, frame_id))

    def accompany(self, image: bytes) -> None:
        """Publish it with the header of a serialized image.

        Raises:
            RecordingError: the image is too short to have a header.
        """
        self.publish(*read_header(image))
