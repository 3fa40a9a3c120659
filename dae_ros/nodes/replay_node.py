"""Plays a recording of any format onto ROS 2, as raw bytes on the recorded topic names.

Messages are published reliably and in batches that every subscriber has acknowledged before the
next begins. A subscriber that keeps all (depth_node with `overload: queue`, recorder_node) so
holds the replay back instead of losing messages, even at `rate: 0`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from dae_ros.bags.container import RecordedMessage
from dae_ros.bags.recording import open_recording
from dae_ros.bags.rosbags_file import LATCHED
from dae_ros.bags.topics import choose_events_topic, require_topic
from dae_ros.errors import ConfigurationError, DaeError, RecordingError
from dae_ros.events.cdr import event_types
from dae_ros.nodes.calibration_output import CalibrationOutput
from dae_ros.nodes.command_line import Usage
from dae_ros.nodes.conversions import ns_to_stamp
from dae_ros.nodes.entry import run
from dae_ros.nodes.parameter_binding import declare
from dae_ros.nodes.qos import Unacknowledged, latched_qos, message_class
from dae_ros.nodes.source_node import NOTICE_PERIOD_S, SLEEP_S, SourceNode
from dae_ros.nodes.subscribers import awaited_topics, split_names, wait_for_subscribers
from dae_ros.parameters import ReplayParameters
from dae_ros.paths import named_path

CLOCK = "/clock"
LOSSLESS = QoSProfile(depth=Unacknowledged.DEPTH, reliability=ReliabilityPolicy.RELIABLE)


USAGE = Usage(
    "replay_node",
    "Plays a recording of any format onto ROS 2, without loss, on the recorded topic names.",
    main="bag",
    examples=(
        "--ros-args -p bag:=drive.bag",
        "--ros-args -p bag:=drive.mcap -p rate:=0.0 -p wait_topics:=/events    as fast as it goes",
        "--ros-args -p bag:=drive.bag -p start_s:=30.0 -p duration_s:=10.0 -p loop:=true",
    ),
)


class ReplayNode(SourceNode):
    """Node `replay`; ends by itself after the last message has been acknowledged.

    Raises:
        ConfigurationError: no recording is named, or no topic of it can be published.
        RecordingError: it cannot be read, or lacks a topic that was asked for.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__("replay", "replay", **arguments)
        self._settings = declare(self, ReplayParameters)
        if not self._settings.bag:
            raise ConfigurationError(
                "no recording: set 'bag' to a .bag, a rosbag2 folder or its storage file, "
                ".aedat4 or .raw",
                parameter="bag",
            )
        self._recording = open_recording(named_path(self._settings.bag))
        self._latched: dict[str, int] = {}
        self._calibration: CalibrationOutput | None = None
        try:
            classes = self._message_classes()
            self._events = self._events_topic(classes)
            self._advertise_calibration(classes)
            for name, kind in classes.items():
                self._outputs[name] = self.create_publisher(kind, name, self._profile(name))
            self._to_wait_for = self._awaited()
        except DaeError:
            self._recording.close()
            raise
        self._clock_publisher = (
            self.create_publisher(Clock, CLOCK, 1) if self._settings.clock_hz > 0.0 else None
        )
        self._play_requested = threading.Event()
        self.create_service(Trigger, "~/play", self._play)
        if self._settings.autostart:
            self._play_requested.set()
        self._start_ns = 0
        self._stopping = threading.Event()
        self._start()

    def close(self) -> None:
        """Stop playing and let go of the file."""
        self._stopping.set()
        super().close()
        self._recording.close()

    def _message_classes(self) -> dict[str, type]:
        """Return the message classes of the topics that are played, saying which cannot be."""
        topics = self._recording.topics
        wanted = split_names(self._settings.topics)
        for name in wanted:
            require_topic(topics, name)
        classes: dict[str, type] = {}
        missing: dict[str, list[str]] = {}
        for name in wanted or topics:
            if name == CLOCK and self._settings.clock_hz > 0.0:
                # ROS time would jump between the two.
                missing.setdefault(
                    "it carries record time; set 'clock_hz' to 0 for the recorded clock", []
                ).append(name)
                continue
            try:
                classes[name] = message_class(topics[name].type)
            except ConfigurationError as error:
                missing.setdefault(error.message, []).append(name)
        for reason, names in missing.items():
            self.get_logger().warning(f"not played: {', '.join(names)}: {reason}")
        if not classes:
            raise ConfigurationError(
                f"nothing of {self._recording.name} can be played: " + "; ".join(missing)
            )
        return classes

    def _profile(self, name: str) -> QoSProfile:
        """Return how a topic is played, kept for late subscribers where its publishers did so."""
        recorded = self._recording.topics[name].qos
        if not recorded or not all(
            profile.reliability == LATCHED.reliability and profile.durability == LATCHED.durability
            for profile in recorded
        ):
            return LOSSLESS
        # Each publisher kept its own; `ros2 bag record` does not know how many, and writes 0.
        depth = sum(max(profile.depth, 1) for profile in recorded)
        self._latched[name] = min(depth, Unacknowledged.MESSAGES)
        return latched_qos(self._latched[name])

    def _events_topic(self, names: Collection[str]) -> str | None:
        played = {name: self._recording.topics[name] for name in names}
        wanted = self._settings.events
        if wanted:
            return choose_events_topic(played, wanted)
        if any(info.type in event_types() for info in played.values()):
            return choose_events_topic(played, None)
        return None

    def _advertise_calibration(self, classes: dict[str, type]) -> None:
        """Publish the file's calibration, and take a recorded one out of what is played."""
        path = self._settings.calibration
        if not path:
            return
        if self._events is None:
            raise ConfigurationError(
                f"a calibration is that of an event camera, and {self._recording.name} has no "
                "events topic that is played; leave 'calibration' out",
                parameter="calibration",
            )
        self._calibration = CalibrationOutput(
            self, Path(path), self._recording.topics, self._events
        )
        if classes.pop(self._calibration.topic, None) is not None:
            self.get_logger().info(
                f"'{self._calibration.topic}' is that of {path}, not the recorded"
            )

    def _sent(self) -> dict[str, Any]:
        """Return everything that is published but the clock, by topic of the recording."""
        if self._calibration is None:
            return self._outputs
        return {**self._outputs, self._calibration.topic: self._calibration.publisher}

    def _awaited(self) -> list[tuple[Any, int]]:
        """Return the publishers whose subscribers are waited for, and how many of each."""
        publishers = self._sent()
        fewest = self._settings.wait_subscribers
        wanted = awaited_topics(self._settings.wait_topics, fewest)
        for name in wanted:
            if name not in publishers:
                require_topic(self._recording.topics, name)
        wanted = wanted or {self._events or next(iter(publishers)): fewest}
        return [(publishers[name], count) for name, count in wanted.items() if name in publishers]

    def _play(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = not self._play_requested.is_set()
        response.message = "playing" if response.success else "plays already"
        self._play_requested.set()
        return response

    def _run(self) -> Iterator[None]:
        """Play everything; yields wherever it would otherwise wait."""
        while not self._play_requested.is_set():
            time.sleep(SLEEP_S)
            yield
        # Before anybody is waited for: there may be nothing to play.
        self._start_ns = self._recording.record_time_at(self._settings.start_s, list(self._outputs))
        yield from self._wait_for_subscribers()
        if self._calibration is not None:
            self._calibration.publish(self._start_ns)
            yield from self._wait_acknowledged()
        while True:
            count = yield from self._play_once()
            yield from self._wait_acknowledged()
            self.get_logger().info(f"played {count} messages of {self._recording.name}")
            if not self._settings.loop:
                break
        self.exit_code = 0

    def _wait_for_subscribers(self) -> Iterator[None]:
        problem = yield from wait_for_subscribers(
            self._to_wait_for,
            self._settings.wait_timeout_s,
            self.get_logger().info,
        )
        if problem:
            raise ConfigurationError(
                f"{problem}; start the subscriber, remap the topic, or set 'wait_subscribers' to 0"
            )

    def _play_once(self) -> Generator[None, None, int]:
        rate = self._settings.rate
        count, batch = 0, Unacknowledged()
        latched: Counter[str] = Counter()
        first_ns: int | None = None
        start_s = 0.0
        clock = ClockOutput(self._clock_publisher, self._settings.clock_hz, wall=rate > 0.0)
        damage: RecordingError | None = None
        messages = self._messages()
        while True:
            try:
                message = next(messages, None)
            except RecordingError as error:
                # Everything that could be read has been played by now.
                damage = error
                break
            if message is None:
                break
            if first_ns is None:
                first_ns, start_s = message.time_ns, time.monotonic()
            if rate > 0.0:
                due_s = start_s + (message.time_ns - first_ns) / 1e9 / rate
                while (now_s := time.monotonic()) < due_s:
                    clock.advance(first_ns + int((now_s - start_s) * rate * 1e9), now_s)
                    time.sleep(min(SLEEP_S, due_s - now_s, clock.period_s))
                    yield
            clock.advance(message.time_ns, time.monotonic())
            size = self._publish(message)
            count += size > 0
            batch.add(size)
            latched[message.topic] += 1
            # The next one would overwrite what is still on its way.
            if batch.full or latched[message.topic] == self._latched.get(message.topic):
                yield from self._wait_acknowledged()
                batch.clear()
                latched.clear()
            yield
        if damage is not None:
            yield from self._wait_acknowledged()
            raise damage
        return count

    def _messages(self) -> Iterator[RecordedMessage]:
        length_ns = round(self._settings.duration_s * 1e9)
        for message in self._recording.messages(list(self._outputs), self._start_ns):
            if length_ns and message.time_ns >= self._start_ns + length_ns:
                return
            yield message

    def _publish(self, message: RecordedMessage) -> int:
        """Publish a message; return its size, 0 if it cannot be converted."""
        try:
            data = bytes(self._recording.to_cdr(message))
        except DaeError as error:
            self.get_logger().warning(
                f"a message was skipped: {error}", throttle_duration_sec=NOTICE_PERIOD_S
            )
            return 0
        if not self._stopping.is_set():
            self._outputs[message.topic].publish(data)
            if self._calibration is not None and message.topic == self._calibration.image_topic:
                self._calibration.accompany(data)
        return len(data)


class ClockOutput:
    """Publishes /clock at a rate, never going back within one pass.

    Args:
        publisher: None for no clock.
        rate_hz: of messages per second of wall time, or of recorded time where `wall` is False.
        wall: which of the two.
    """

    def __init__(self, publisher: Any, rate_hz: float, *, wall: bool) -> None:
        self._publisher = publisher
        self.period_s = 1.0 / rate_hz if rate_hz > 0.0 else float("inf")
        self._wall = wall
        self._next_s = float("-inf")
        self._latest_ns = -1

    def advance(self, time_ns: int, wall_s: float) -> None:
        """Publish `time_ns` if a message is due."""
        now_s = wall_s if self._wall else time_ns / 1e9
        if self._publisher is None or now_s < self._next_s or time_ns < self._latest_ns:
            return
        # On the grid of the period, unless a whole one was missed.
        following_s = self._next_s + self.period_s
        self._next_s = following_s if following_s > now_s else now_s + self.period_s
        self._latest_ns = time_ns
        self._publisher.publish(Clock(clock=ns_to_stamp(time_ns)))


def main(args: list[str] | None = None) -> int:
    """Play until the end or until it is interrupted; returns the exit code."""
    return run(ReplayNode, USAGE, args)


if __name__ == "__main__":
    sys.exit(main())
