"""A depth node on a graph of its own: begun, fed, and compared with the pipeline itself."""

from __future__ import annotations

import numpy as np
from event_camera_msgs.msg import EventPacket
from rclpy.lifecycle import TransitionCallbackReturn

from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.pipeline import DepthPipeline


def start(graph, depth, **parameters):
    """Configure and activate a depth node with every window kept."""
    node = depth(**{"overload": "queue", **parameters})
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    return node


def connect(graph, kind=EventPacket, *, reliable=True):
    """Return a publisher of events that the node has found."""
    publisher = graph.publisher(kind, "events", reliable=reliable)
    graph.until(lambda: publisher.get_subscription_count() == 1)
    return publisher


def values_of(message, name):
    """Return the values of one status of a DiagnosticArray as a dict."""
    found = next(item for item in message.status if item.name.endswith(name))
    return {item.key: item.value for item in found.values}


def offline(packets, **parameters):
    """Return the depth frames that the pipeline itself gives for packets."""
    chosen = DepthParameters(
        weights="untrained:tiny", device="cpu", threads=1, overload="queue", **parameters
    )
    pipeline = DepthPipeline(chosen, create_estimator(chosen))
    for packet in packets:
        pipeline.feed(packet)
    return list(iter(pipeline.step, None))


def check_images(received, expected):
    """Compare images with depth frames, value by value and stamp by stamp."""
    assert len(received) == len(expected)
    for message, frame in zip(received, expected, strict=True):
        depth = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
        np.testing.assert_array_equal(depth, frame.depth)
        stamp = message.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == frame.stamp_ns
        assert message.header.frame_id == frame.frame_id


def stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
