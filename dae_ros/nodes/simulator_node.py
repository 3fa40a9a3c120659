"""Publishes a simulated event camera: events, grey frames, true depth, calibration.

Nothing is dropped: everything is published reliably, and in batches that every subscriber has
acknowledged before the next begins. Where the machine cannot keep up with `rate`, or a
subscriber cannot, simulated time runs slower.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from dae_ros.bags.simulated import simulated_messages, simulated_topics
from dae_ros.errors import ConfigurationError
from dae_ros.nodes.command_line import Usage
from dae_ros.nodes.conversions import ns_to_stamp
from dae_ros.nodes.entry import run
from dae_ros.nodes.parameter_binding import declare
from dae_ros.nodes.qos import message_class
from dae_ros.nodes.source_node import SLEEP_S, SourceNode
from dae_ros.nodes.subscribers import awaited_topics, wait_for_subscribers
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.simulation import Simulation

PUBLISHER_DEPTH = 1000
# A batch must fit the publishers' history, or unacknowledged messages would be overwritten.
BATCH_MESSAGES = 400
BATCH_BYTES = 16_000_000


USAGE = Usage(
    "simulator_node",
    "Publishes a simulated event camera: `events`, `image_raw`, `camera_info`, and true depth on\n"
    "`depth_truth`.",
    main="scene",
    examples=(
        "--ros-args -p scene:=street -p light:=night",
        "--ros-args -p encoding:=dvs_msgs -p duration_s:=10.0",
    ),
)


class SimulatorNode(SourceNode):
    """Node `simulator`; with a `duration_s` it ends once everything has been acknowledged.

    Topics, relative to its namespace: `events` (EventPacket, or dvs_msgs EventArray with
    `encoding: dvs_msgs`), `image_raw` (mono8), `camera_info`, `depth_truth` (32FC1, m),
    `depth_truth/camera_info`, and `/clock` where `publish_clock` is set.

    Raises:
        ConfigurationError: a parameter is out of range, the event messages are not installed, or
            `wait_topics` cannot be read or names a topic that is none of these.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__("simulator", "simulation", **arguments)
        self._settings = declare(self, SimulatorParameters)
        qos = QoSProfile(depth=PUBLISHER_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        self._outputs = {
            topic: self.create_publisher(message_class(type_name), topic, qos)
            for topic, type_name in simulated_topics(self._settings.encoding).items()
        }
        self._awaited = awaited_topics(self._settings.wait_topics, self._settings.wait_subscribers)
        for name in self._awaited:
            if name not in self._outputs:
                raise ConfigurationError(
                    f"'wait_topics' names {name}; the simulator publishes "
                    f"{', '.join(self._outputs)}",
                    parameter="wait_topics",
                )
        self._clock_publisher = (
            self.create_publisher(Clock, "/clock", 1) if self._settings.publish_clock else None
        )
        self._start()

    def _run(self) -> Iterator[None]:
        """Simulate and publish everything; yields wherever it would otherwise wait."""
        parameters = self._settings
        self.get_logger().info(
            f"simulating the {parameters.scene} at {parameters.width}x{parameters.height} px, "
            f"seed {parameters.seed}, events as {parameters.encoding}"
        )
        # Textures and kernels first: they take seconds in which subscribers can appear.
        messages = simulated_messages(Simulation(parameters))
        message = next(messages, None)
        yield from self._wait_for_subscribers()
        count = batch_messages = batch_bytes = 0
        first_ns = 0 if message is None else message.stamp_ns
        start_s = time.monotonic()
        while message is not None:
            due_s = start_s + (message.stamp_ns - first_ns) / 1e9 / parameters.rate
            while (now_s := time.monotonic()) < due_s:
                time.sleep(min(SLEEP_S, due_s - now_s))
                yield
            if self._clock_publisher is not None:
                self._clock_publisher.publish(Clock(clock=ns_to_stamp(message.stamp_ns)))
            self._outputs[message.topic].publish(message.data)
            count += 1
            batch_messages, batch_bytes = batch_messages + 1, batch_bytes + len(message.data)
            if batch_messages >= BATCH_MESSAGES or batch_bytes >= BATCH_BYTES:
                yield from self._wait_acknowledged()
                batch_messages = batch_bytes = 0
            last_ns = message.stamp_ns
            yield
            message = next(messages, None)
            if message is None:
                yield from self._wait_acknowledged()
                simulated_s, wall_s = (last_ns - first_ns) / 1e9, time.monotonic() - start_s
                self.get_logger().info(
                    f"simulated {simulated_s:.2f} s in {wall_s:.2f} s, {count} messages"
                )
        self.exit_code = 0

    def _wait_for_subscribers(self) -> Iterator[None]:
        problem = yield from wait_for_subscribers(
            [(self._outputs[name], count) for name, count in self._awaited.items()],
            self._settings.wait_timeout_s,
            self.get_logger().info,
        )
        if problem:
            self.get_logger().warning(f"{problem}; starting all the same")


def main(args: list[str] | None = None) -> int:
    """Simulate until the end or until it is interrupted; returns the exit code."""
    return run(SimulatorNode, USAGE, args)


if __name__ == "__main__":
    sys.exit(main())
