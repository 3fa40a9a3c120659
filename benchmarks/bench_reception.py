"""What receiving and decoding events over real DDS costs a process.

    python -m benchmarks.bench_reception [--quick]

A publisher process sends events at a steady rate; a receiver process does what `depth_node` does
up to its ring: raw subscription with the type and QoS found on the graph, inbox, worker thread,
reading the message, decoding, pushing. The figure is the CPU time of the whole receiver process
(executor thread, worker thread and DDS threads) between the first and the last message, in
percent of one core. Every message and every event is counted; a loss is shown, not hidden.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.record import record
from dae_ros.events.packet import EventPacket, Events

HEIGHT, WIDTH = 260, 346
TOPIC = "events"
DIFFERENT_MESSAGES = 50


@dataclass(frozen=True)
class Stream:
    """One row: what is sent."""

    encoding: str
    mega_events_per_s: float
    messages_per_s: int
    reliable: bool


STREAMS = (
    Stream("dvs_msgs", 2.0, 100, True),
    Stream("dvs_msgs", 2.0, 100, False),
    Stream("evt3", 2.0, 200, False),
    Stream("evt3", 10.0, 200, False),
    Stream("evt3", 2.0, 1000, False),
)


def messages_of(stream: Stream) -> list[bytes]:
    """Return serialized messages of one encoding, to be sent in turn."""
    from dae_ros.events.cdr import write_event_array, write_packet
    from dae_ros.simulation.encoders import create_encoder

    random = np.random.default_rng(0)
    count = round(stream.mega_events_per_s * 1e6 / stream.messages_per_s)
    period_ns = 10**9 // stream.messages_per_s
    encoder = (
        None if stream.encoding == "dvs_msgs" else create_encoder(stream.encoding, WIDTH, HEIGHT)
    )
    messages = []
    for index in range(DIFFERENT_MESSAGES):
        start_ns = 10**9 + index * period_ns
        t_us = random.integers(start_ns // 1000, (start_ns + period_ns) // 1000, count)
        events = Events(
            np.sort(t_us) * 1000,
            random.integers(0, WIDTH, count).astype(np.uint16),
            random.integers(0, HEIGHT, count).astype(np.uint16),
            random.integers(0, 2, count).astype(np.uint8),
        )
        if encoder is None:
            messages.append(write_event_array(events, HEIGHT, WIDTH, start_ns, "camera"))
        else:
            payload, base_ns = encoder.encode(events)
            messages.append(
                write_packet(
                    EventPacket(
                        stream.encoding, HEIGHT, WIDTH, payload, base_ns, start_ns, None, "camera"
                    )
                )
            )
    return messages


def publish(stream: Stream, duration_s: float) -> None:
    """Send at the stream's rate once somebody listens; one process."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    from dae_ros.nodes.qos import message_class

    rclpy.init()
    node = rclpy.create_node("publisher")
    kind = message_class(
        "dvs_msgs/msg/EventArray"
        if stream.encoding == "dvs_msgs"
        else "event_camera_msgs/msg/EventPacket"
    )
    publisher = node.create_publisher(
        kind,
        TOPIC,
        QoSProfile(
            depth=1000,
            reliability=ReliabilityPolicy.RELIABLE
            if stream.reliable
            else ReliabilityPolicy.BEST_EFFORT,
        ),
    )
    messages = messages_of(stream)
    while publisher.get_subscription_count() == 0:
        time.sleep(0.01)
    time.sleep(0.5)
    count = round(duration_s * stream.messages_per_s)
    start_s = time.monotonic()
    for index in range(count):
        delay_s = start_s + index / stream.messages_per_s - time.monotonic()
        if delay_s > 0:
            time.sleep(delay_s)
        publisher.publish(messages[index % len(messages)])
    time.sleep(1.0)
    node.destroy_node()
    rclpy.try_shutdown()


def receive(stream: Stream, duration_s: float) -> dict[str, float]:
    """Receive and decode; one process. Returns the counts and the cost."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from dae_ros.events.cdr import event_types, read_packet
    from dae_ros.events.codecs import supported_encodings, warm_up
    from dae_ros.events.stream import EventStream
    from dae_ros.nodes.qos import MatchedSubscription
    from dae_ros.runtime.worker import Inbox, Worker

    for encoding in supported_encodings():
        warm_up(encoding)
    rclpy.init()
    node = rclpy.create_node("receiver")
    inbox: Inbox[tuple[bytes, str]] = Inbox(10**9)
    events = EventStream(ring_length_ns=3 * 10**9, ring_capacity_bytes=256_000_000)
    decoded = 0

    def turn() -> None:
        nonlocal decoded
        for data, type_name in inbox.take(0.1):
            for part in events.feed(read_packet(type_name, data)):
                if part.gap is not None and part.gap.breaks_time:
                    events.ring.clear()
                events.ring.push(part.events)
                decoded += len(part.events)

    received: list[float] = []
    cpu_s: list[float] = []

    def arrived(data: bytes, type_name: str) -> None:
        received.append(time.monotonic())
        cpu_s.append(time.process_time())
        inbox.put((data, type_name), len(data))

    def failed(_: BaseException, text: str) -> None:
        print(text, file=sys.stderr)

    worker = Worker("decode", turn, failed)
    worker.start()
    subscription = MatchedSubscription(node, TOPIC, event_types(), arrived, raw=True, depth=1000)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    expected = round(duration_s * stream.messages_per_s)
    deadline_s = time.monotonic() + duration_s + 30.0
    while len(received) < expected and time.monotonic() < deadline_s:
        if subscription.type_name is None:
            subscription.refresh()
        executor.spin_once(timeout_sec=0.1)
        if received and time.monotonic() - received[-1] > 2.0:
            break
    time.sleep(0.3)
    worker.stop(2.0)
    wall_s = received[-1] - received[0]
    # The first tenth pays for first touches of memory and for discovery.
    settled = len(received) // 10
    percent = 100.0 * (cpu_s[-1] - cpu_s[settled]) / (received[-1] - received[settled])
    node.destroy_node()
    rclpy.try_shutdown()
    return {
        "messages_sent": expected,
        "messages_received": len(received),
        "events_decoded": decoded,
        "wall_s": round(wall_s, 3),
        "cpu_percent_of_a_core": round(percent, 2),
        "cpu_us_per_message": round(1e4 * percent * wall_s / len(received), 1),
    }


def run(stream: Stream, duration_s: float) -> dict[str, object]:
    """Run one row in two fresh processes with the launch table's environment."""
    from dae_ros.nodes.processes import transport_environment

    environment = {
        **os.environ,
        **transport_environment(),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID", str(1 + os.getpid() % 100)),
    }
    command = [
        sys.executable,
        "-m",
        "benchmarks.bench_reception",
        "--stream",
        json.dumps(asdict(stream)),
        "--duration",
        str(duration_s),
        "--role",
    ]
    sender = subprocess.Popen([*command, "publish"], env=environment)
    try:
        answer = subprocess.run(
            [*command, "receive"], env=environment, check=True, capture_output=True, text=True
        )
    finally:
        sender.wait(60.0)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return {**asdict(stream), **found}


def main() -> None:
    """Run every row, print a table and write `results/reception.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seconds a row")
    parser.add_argument("--role", choices=("publish", "receive"), help=argparse.SUPPRESS)
    parser.add_argument("--stream", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--duration", type=float, default=8.0, help="seconds a row")
    arguments = parser.parse_args()
    if arguments.role == "publish":
        publish(Stream(**arguments.stream), arguments.duration)
        return
    if arguments.role == "receive":
        print(json.dumps(receive(Stream(**arguments.stream), arguments.duration)))
        return
    rows = [run(stream, 2.0 if arguments.quick else arguments.duration) for stream in STREAMS]
    print("| encoding | Mev/s | msg/s | QoS | received | events | CPU % of a core | us/message |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['encoding']} | {row['mega_events_per_s']:g} | {row['messages_per_s']} | "
            f"{'reliable' if row['reliable'] else 'best effort'} | {row['messages_received']}/"
            f"{row['messages_sent']} | {row['events_decoded']} | "
            f"{row['cpu_percent_of_a_core']} | {row['cpu_us_per_message']} |"
        )
    print(f"\nwritten to {record('reception', rows)}")


if __name__ == "__main__":
    main()
