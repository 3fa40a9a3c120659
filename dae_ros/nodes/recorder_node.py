"""Records topics of the graph into a rosbag2, as they appear, in the bytes they arrive in."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from dae_ros.bags.rosbags_file import LATCHED
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.nodes.command_line import Usage
from dae_ros.nodes.entry import EXIT_FAILURE, run
from dae_ros.nodes.parameter_binding import declare
from dae_ros.nodes.qos import MatchedSubscription
from dae_ros.nodes.subscribers import split_names
from dae_ros.parameters import RecorderParameters
from dae_ros.paths import named_path

GRAPH_PERIOD_S = 0.1
QUEUE_DEPTH = 1000
# The depth node publishes one of the two, whichever its weights allow.
EITHER = frozenset({"depth/image", "depth/relative"})


USAGE = Usage(
    "recorder_node",
    "Records topics of the graph into a rosbag2 (mcap), as they appear.",
    main="output",
    examples=(
        "--ros-args -p output:=result -p topics:=/depth/image,/depth/camera_info",
        "--ros-args -p output:=result -p topics:=/depth/relative -p duration_s:=10.0",
    ),
)


class RecorderNode(Node):
    """Node `recorder`; the folder gets its name when it is closed, whole.

    Where the disk is full it ends with 1, and the folder keeps its `.partial`.

    Raises:
        ConfigurationError: no output or no topics.
        RecordingError: the output exists already or cannot be written.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__("recorder", **arguments)
        self.exit_code: int | None = None
        parameters = declare(self, RecorderParameters)
        topics = split_names(parameters.topics)
        if not parameters.output or not topics:
            raise ConfigurationError(
                "nothing to record: set 'output' to a folder that does not exist yet and "
                "'topics' to topic names with commas between them",
                output=parameters.output,
                topics=topics,
            )
        self._path = named_path(parameters.output)
        self._writer = BagWriter(self._path)
        self._counts: Counter[str] = Counter()
        self._refused: set[str] = set()
        self._untimed = 0
        self._subscriptions_by_topic = [
            MatchedSubscription(
                self,
                name,
                (),
                partial(self._received, self.resolve_topic_name(name)),
                raw=True,
                depth=QUEUE_DEPTH,
                keep_all=True,
            )
            for name in topics
        ]
        self._ends_s = (
            time.monotonic() + parameters.duration_s if parameters.duration_s > 0.0 else None
        )
        self._idle_s = parameters.idle_s
        self._last_s: float | None = None
        self.create_timer(GRAPH_PERIOD_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Unsubscribe and finish the recording.

        Raises:
            RecordingError: the disk is full.
        """
        if not self._subscriptions_by_topic:
            return
        missing = without_message(
            [item.name for item in self._subscriptions_by_topic], set(+self._counts)
        )
        for subscription in self._subscriptions_by_topic:
            subscription.destroy()
        self._subscriptions_by_topic = []
        if self.exit_code == EXIT_FAILURE:
            return
        self._writer.close()
        written = ", ".join(f"{name}: {count}" for name, count in sorted(self._counts.items()))
        self.get_logger().info(f"recorded {written or 'nothing'} in {self._path}")
        if self._untimed:
            self.get_logger().warning(
                f"{self._untimed} messages came before the first /clock and are not recorded"
            )
        if missing:
            self.get_logger().info(f"no message came on {', '.join(missing)}")

    def _look(self) -> None:
        for subscription in self._subscriptions_by_topic:
            subscription.refresh()
        now_s = time.monotonic()
        idle = self._last_s is not None and 0.0 < self._idle_s <= now_s - self._last_s
        if idle or (self._ends_s is not None and now_s >= self._ends_s):
            self.exit_code = 0

    def _received(self, topic: str, data: bytes, type_name: str) -> None:
        self._last_s = time.monotonic()
        if topic in self._refused or self.exit_code is not None:
            return
        time_ns = self.get_clock().now().nanoseconds
        if time_ns == 0:
            # Messages at 0 would make the recording as long as the epoch.
            self._untimed += 1
            if self._untimed == 1:
                self.get_logger().warning(
                    "use_sim_time is true and no /clock has come: messages are not recorded until "
                    "it does"
                )
            return
        try:
            if topic not in self._counts:
                self._writer.add_topic(topic, type_name, qos=self._offered(topic))
            self._writer.write(topic, type_name, time_ns, data)
        except RecordingError as error:
            if "partial" in error.data:
                # Of the disk: a message is missing, and the folder must not look whole.
                self._writer.abandon()
                self.get_logger().fatal(f"{error} [{error.code}]")
                self.exit_code = EXIT_FAILURE
                return
            self._refused.add(topic)
            self.get_logger().error(f"'{topic}' is not recorded: {error}")
            return
        self._counts[topic] += 1

    def _offered(self, topic: str) -> tuple[Any, ...]:
        """Return what the publishers of a topic offer, one profile for each as `ros2 bag` does."""
        found = next(item for item in self._subscriptions_by_topic if item.name == topic)
        if found.qos is None:
            return ()
        # How many messages a publisher keeps is not told by DDS.
        profile = LATCHED._replace(
            history=type(LATCHED.history).UNKNOWN,
            depth=0,
            reliability=type(LATCHED.reliability)[found.qos.reliability.name],
            durability=type(LATCHED.durability)[found.qos.durability.name],
        )
        return (profile,) * len(found.publishers)


def without_message(asked: Sequence[str], recorded: Collection[str]) -> list[str]:
    """Return the topics on which a message was missed, by their full names.

    Of a depth node's two kinds of depth one is enough; where neither came, both are missed.

    Args:
        asked: what was to be recorded.
        recorded: what was.
    """

    def replaced(name: str) -> bool:
        prefix = next((name.removesuffix(end) for end in EITHER if name.endswith(f"/{end}")), None)
        return prefix is not None and any(prefix + end in recorded for end in EITHER)

    return [name for name in asked if name not in recorded and not replaced(name)]


def main(args: list[str] | None = None) -> int:
    """Record until it is interrupted or the duration is over; returns the exit code."""
    return run(RecorderNode, USAGE, args)


if __name__ == "__main__":
    sys.exit(main())
