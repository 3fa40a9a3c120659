"""The depth node on real rclpy and DDS: event messages in, depth images out."""

from __future__ import annotations

import numpy as np
from event_camera_msgs.msg import EventPacket as EventPacketMessage
from sensor_msgs.msg import CameraInfo, Image

from dae_ros.events.cdr import write_packet


def start(graph, depth, **parameters):
    """Configure and activate a depth node."""
    from rclpy.lifecycle import TransitionCallbackReturn

    node = depth(**parameters)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    return node


def test_event_packets_become_depth_images(graph, depth, camera):
    """EventPackets of 100 ms give the windows that end inside, stamped with their ends."""
    images = graph.listen(Image, "depth/relative")
    publisher = graph.publisher(EventPacketMessage, "events")
    start(graph, depth, overload="queue")
    graph.until(lambda: publisher.get_subscription_count() == 1)
    for _ in range(60):
        publisher.publish(write_packet(camera.packet()))
    graph.until(lambda: len(images) >= 4)
    message = images[0]
    assert (message.height, message.width, message.encoding) == (48, 64, "32FC1")
    assert message.header.frame_id == "camera_optical_frame"
    assert np.isfinite(np.frombuffer(message.data, np.float32)).all()
