"""Small bags for a replay in a process of its own, and what comes of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from event_camera_msgs.msg import EventPacket
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from dae_ros.bags.message_types import EVENT_PACKET
from dae_ros.bags.writer import BagWriter
from dae_ros.events.cdr import write_packet

START_NS = 1_700_000_000_000_000_000


def output_of(child):
    """Return what a process has printed.

    By name: the process writes where this side's own file would have been moved to.
    """
    return Path(child.log.name).read_text(encoding="utf-8")


def write_bag(path, camera, count, *, period_ns=5_000_000, payload=None):
    """Write packets of a camera at a steady rate; return their messages."""
    messages = []
    with BagWriter(path) as bag:
        for index in range(count):
            packet = camera.packet()
            if payload is not None:
                packet = dataclasses.replace(packet, payload=payload)
            messages.append(write_packet(packet))
            bag.write("/events", EVENT_PACKET, START_NS + index * period_ns, messages[-1])
    return messages


def listen_raw(graph, topic, kind=EventPacket):
    """Collect serialized messages of a topic, keeping all."""
    received = []
    graph.peer.create_subscription(
        kind,
        topic,
        received.append,
        QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE),
        raw=True,
    )
    return received


def finish(graph, child):
    """Spin until a process has ended; return its exit code."""
    graph.until(lambda: child.poll() is not None)
    return child.returncode


def overrides(**parameters):
    """Return parameter overrides of a node."""
    return [Parameter(name, value=value) for name, value in parameters.items()]
