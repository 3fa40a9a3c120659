"""A private corner of DDS, nodes spun by the test or as processes, and event streams to publish."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
with warnings.catch_warnings():
    # The message generator's parser (lark) imports a module that Python deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    pytest.importorskip("rosidl_generator_py")
pytest.importorskip("event_camera_msgs.msg", reason="event_camera_msgs is not installed")

ROOT = Path(__file__).resolve().parents[2]
# Domain 0 is shared with everything on the machine; one domain per test process is private.
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds_shm.xml"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402

from dae_ros.events.packet import EventPacket, Events  # noqa: E402
from dae_ros.simulation.encoders import create_encoder  # noqa: E402

HEIGHT, WIDTH = 48, 64
# A wait that ends well costs nothing; a machine that does other work as well may need long.
TIMEOUT_S = 120.0


class Graph:
    """Nodes of one test, spun on the test's own thread."""

    def __init__(self) -> None:
        self.executor = SingleThreadedExecutor()
        self.nodes: list[Any] = []
        self.peer = self.add(Node("peer"))

    def add(self, node: Any) -> Any:
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def remove(self, node: Any) -> None:
        self.nodes.remove(node)
        self.executor.remove_node(node)
        if hasattr(node, "close"):
            node.close()
        node.destroy_node()

    def until(self, condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> None:
        """Spin until the condition holds; fail where it does not in time."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, "the condition did not come true in time"
            self.executor.spin_once(timeout_sec=0.02)

    def spin(self, duration_s: float) -> None:
        deadline_s = time.monotonic() + duration_s
        while time.monotonic() < deadline_s:
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, client: Any, request: Any, ended: Callable[[], Any] = lambda: False) -> Any:
        """Call a service until it answers; return the answer, None where `ended` came first.

        A request that leaves before both directions have been matched is lost without an error,
        and a service may be found ready by then: it is asked again.
        """
        futures: list[Any] = []
        next_s = 0.0

        def answered() -> Any:
            nonlocal next_s
            if time.monotonic() >= next_s:
                futures.append(client.call_async(request))
                next_s = time.monotonic() + 2.0
            return ended() or any(future.done() for future in futures)

        self.until(client.service_is_ready)
        self.until(answered)
        return next((future.result() for future in futures if future.done()), None)

    def listen(self, kind: type, topic: str, *, reliable: bool = True) -> list[Any]:
        """Subscribe and return the list that messages are appended to."""
        received: list[Any] = []
        self.peer.create_subscription(
            kind,
            topic,
            received.append,
            QoSProfile(
                depth=1000,
                reliability=ReliabilityPolicy.RELIABLE
                if reliable
                else ReliabilityPolicy.BEST_EFFORT,
            ),
        )
        return received

    def publisher(self, kind: type, topic: str, *, reliable: bool = True) -> Any:
        return self.peer.create_publisher(
            kind,
            topic,
            QoSProfile(
                history=HistoryPolicy.KEEP_LAST,
                depth=1000,
                reliability=ReliabilityPolicy.RELIABLE
                if reliable
                else ReliabilityPolicy.BEST_EFFORT,
            ),
        )

    def close(self) -> None:
        for node in list(reversed(self.nodes)):
            self.remove(node)
        self.executor.shutdown()


@pytest.fixture(scope="session", autouse=True)
def ros() -> Iterator[None]:
    """One rclpy context for all tests of this folder."""
    rclpy.init(args=[])
    yield
    rclpy.try_shutdown()


@pytest.fixture
def graph(ros: None) -> Iterator[Graph]:
    """A test's nodes; all are destroyed afterwards."""
    created = Graph()
    yield created
    created.close()


@pytest.fixture
def depth(graph: Graph) -> Callable[..., Any]:
    """Make a depth node with the tiny network and with parameters of the test."""
    from dae_ros.nodes.depth_node import DepthNode

    def make(*, remap: tuple[str, ...] = (), garbage: Any = None, **parameters: Any) -> Any:
        chosen = {
            "weights": "untrained:tiny",
            "device": "cpu",
            "threads": 1,
            # `auto` exports the network on the side.
            "backend": "torch",
            "autostart": False,
            **parameters,
        }
        arguments = ["--ros-args"]
        for rule in remap:
            arguments += ["-r", rule]
        return graph.add(
            DepthNode(
                garbage,
                cli_args=arguments,
                parameter_overrides=[
                    Parameter(name, value=value) for name, value in chosen.items()
                ],
            )
        )

    return make


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start nodes as processes; whatever still runs at the end is killed."""
    started: list[Any] = []

    def start(module: str, *arguments: str, **parameters: Any) -> Any:
        command = [sys.executable, "-u", "-m", f"dae_ros.nodes.{module}", "--ros-args", *arguments]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        log = (tmp_path / f"{module}_{len(started)}.log").open("w+", encoding="utf-8")
        child: Any = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ}
        )
        child.log = log
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
            child.wait()
        child.log.close()


@pytest.fixture
def trainer(graph: Graph, tmp_path: Path) -> Iterator[Any]:
    """A trainer with an empty folder."""
    from test.reference.followed_weights import Trainer

    made = Trainer(graph, tmp_path / "snapshots")
    yield made
    made.store.close()


def random_events(
    start_us: int,
    stop_us: int,
    count: int,
    seed: int = 0,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
) -> Events:
    """Return events at random places, sorted by time."""
    random = np.random.default_rng(seed + start_us)
    return Events(
        np.sort(random.integers(start_us, stop_us, count)).astype(np.int64) * 1000,
        random.integers(0, width, count).astype(np.uint16),
        random.integers(0, height, count).astype(np.uint16),
        random.integers(0, 2, count).astype(np.uint8),
    )


class Camera:
    """Makes a continuous stream of packets of 5 ms, `seq` and stamps included."""

    def __init__(
        self,
        encoding: str = "evt3",
        *,
        height: int = HEIGHT,
        width: int = WIDTH,
        events_per_packet: int = 200,
    ) -> None:
        self.encoding, self.height, self.width = encoding, height, width
        self.count = events_per_packet
        self.encoder = create_encoder(encoding, width, height)
        self.time_us = 1_000_000
        self.seq = 1

    def events(self) -> Events:
        found = random_events(
            self.time_us, self.time_us + 5000, self.count, height=self.height, width=self.width
        )
        self.time_us += 5000
        return found

    def stamp_ns(self) -> int:
        """Return the time so far, as a ROS stamp: that of the last packet."""
        return 1_700_000_000_000_000_000 + self.time_us * 1000

    def packet(self) -> EventPacket:
        payload, time_base_ns = self.encoder.encode(self.events())
        packet = EventPacket(
            self.encoding,
            self.height,
            self.width,
            payload,
            time_base_ns,
            self.stamp_ns(),
            self.seq,
            "camera_optical_frame",
        )
        self.seq += 1
        return packet


@pytest.fixture
def camera() -> Camera:
    """An evt3 camera of 64 x 48 px."""
    return Camera()
