"""Latency of large messages between two processes, under the settings of the launch files.

    python -m benchmarks.bench_transport [--quick]

EventPackets of 2 MB at 50 Hz, raw, from a publisher process to a receiver process on the same
machine. Latency is from just before `publish` (and one copy) to the callback, on the clock that
both processes share. Four environments: nothing set, the Fast DDS profile alone, the thresholds
of malloc alone, and both, as `nodes/processes.py` sets them; each with discovery on the loopback
interface (LOCALHOST) and on the network's (SUBNET), reliable and best effort.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import struct
import subprocess
import sys
import time
from typing import Any

from benchmarks.record import record

TOPIC = "large_messages"
MESSAGE_BYTES = 2_000_000
RATE_HZ = 50
SETTLE = 10  # the first messages pay for first touches of memory
RANGES = ("LOCALHOST", "SUBNET")
PROFILE = ("FASTDDS_DEFAULT_PROFILES_FILE",)
SET_BY_USERS = ("FASTRTPS_DEFAULT_PROFILES_FILE",)  # up to Humble; it would win
MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
SETTINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "profile": PROFILE,
    "malloc": MALLOC,
    "profile and malloc": PROFILE + MALLOC,
}
Row = dict[str, Any]


def qos(reliable: bool) -> Any:
    """Return what both sides use."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=100, reliability=reliability)


def publish(count: int, reliable: bool) -> None:
    """Send packets whose payload begins with the instant, once somebody listens; one process."""
    import rclpy

    from dae_ros.events.cdr import write_packet
    from dae_ros.events.packet import EventPacket
    from dae_ros.nodes.qos import message_class

    rclpy.init()
    node = rclpy.create_node("publisher")
    kind = message_class("event_camera_msgs/msg/EventPacket")
    publisher = node.create_publisher(kind, TOPIC, qos(reliable))
    mark = b"<instant"
    payload = mark + bytes(MESSAGE_BYTES - len(mark))
    data = bytearray(write_packet(EventPacket("mono", 720, 1280, payload, frame_id="camera")))
    position = data.index(mark)
    while publisher.get_subscription_count() == 0:
        time.sleep(0.01)
    time.sleep(1.0)
    start_s = time.monotonic()
    for index in range(count):
        time.sleep(max(0.0, start_s + index / RATE_HZ - time.monotonic()))
        struct.pack_into("<q", data, position, time.monotonic_ns())
        publisher.publish(bytes(data))
    time.sleep(1.0)
    node.destroy_node()
    rclpy.try_shutdown()


def receive(count: int, reliable: bool) -> list[float]:
    """Return the latency of each message that arrived, in ms; one process."""
    import rclpy

    from dae_ros.events.cdr import read_packet
    from dae_ros.nodes.qos import message_class

    rclpy.init()
    node = rclpy.create_node("receiver")
    latencies_ms: list[float] = []
    last_s = [time.monotonic() + 15.0]  # discovery

    def arrived(data: bytes) -> None:
        now_ns = time.monotonic_ns()
        payload = read_packet("event_camera_msgs/msg/EventPacket", data).payload
        sent_ns = struct.unpack("<q", bytes(payload[:8]))[0]
        latencies_ms.append((now_ns - sent_ns) / 1e6)
        last_s[0] = time.monotonic()

    kind = message_class("event_camera_msgs/msg/EventPacket")
    node.create_subscription(kind, TOPIC, arrived, qos(reliable), raw=True)
    while len(latencies_ms) < count and time.monotonic() < last_s[0] + 3.0:
        rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_node()
    rclpy.try_shutdown()
    return latencies_ms


def run(settings: str, discovery: str, reliable: bool, count: int) -> Row:
    """Run one row in two fresh processes."""
    from dae_ros.nodes.processes import transport_environment

    for name in (*SET_BY_USERS, *PROFILE, *MALLOC):
        os.environ.pop(name, None)
    wanted = transport_environment()
    environment = {
        **os.environ,
        **{name: wanted[name] for name in SETTINGS[settings]},
        "ROS_AUTOMATIC_DISCOVERY_RANGE": discovery,
        "ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID", str(1 + os.getpid() % 100)),
    }
    command = [sys.executable, "-m", "benchmarks.bench_transport", "--count", str(count)]
    command += [*(["--reliable"] if reliable else []), "--role"]
    sender = subprocess.Popen([*command, "publish"], env=environment)
    try:
        answer = subprocess.run(
            [*command, "receive"], env=environment, check=True, capture_output=True, text=True
        )
    finally:
        sender.wait(60.0)
    latencies_ms = json.loads(answer.stdout.splitlines()[-1])
    settled = sorted(latencies_ms[SETTLE:])
    return {
        "settings": settings,
        "discovery": discovery,
        "reliable": reliable,
        "messages_sent": count,
        "messages_received": len(latencies_ms),
        "p50_ms": round(statistics.median(settled), 2) if settled else None,
        "p95_ms": round(settled[int(0.95 * (len(settled) - 1))], 2) if settled else None,
    }


def main() -> None:
    """Run every row, print a table and write `results/transport.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="30 messages a row")
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--role", choices=("publish", "receive"), help=argparse.SUPPRESS)
    parser.add_argument("--reliable", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=300, help="messages a row")
    arguments = parser.parse_args()
    if arguments.role == "publish":
        publish(arguments.count, arguments.reliable)
        return
    if arguments.role == "receive":
        print(json.dumps(receive(arguments.count, arguments.reliable)))
        return
    count = 30 if arguments.quick else arguments.count
    cases = itertools.product((True, False), SETTINGS, RANGES)
    rows = [run(settings, discovery, reliable, count) for reliable, settings, discovery in cases]
    print("| QoS | settings | discovery | received | p50 ms | p95 ms |\n|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {'reliable' if row['reliable'] else 'best effort'} | {row['settings']} | "
            f"{row['discovery']} | {row['messages_received']}/"
            f"{row['messages_sent']} | {row['p50_ms']} | {row['p95_ms']} |"
        )
    if not arguments.no_record:
        results = {"message_bytes": MESSAGE_BYTES, "rate_hz": RATE_HZ, "rows": rows}
        print(f"-> {record('transport', results)}")


if __name__ == "__main__":
    main()
