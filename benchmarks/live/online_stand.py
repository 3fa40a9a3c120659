"""Depth and distillation as a launch starts them, and everything that they say: for benchmarks.

Both processes are those of `depth.launch.py distill:=true`, over real DDS. The benchmark is camera,
user and witness: what it receives, it receives as any other node would.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import DaeError
from dae_ros.nodes.process_harness import ProcessHarness, RunningProcess
from dae_ros.nodes.processes import Process, launch_plan
from dae_ros.parameters import SimulatorParameters, Value

POLL_S = 0.02
# As the messages travel between nodes of one machine, whatever the user's shell says.
PRIVATE = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
DEPTH, LEARNER = "depth", "distillation"


class StandError(DaeError):
    """What a benchmark waited for did not happen."""

    code = "stand"


@dataclass(frozen=True)
class Deployment:
    """What both nodes are started with.

    Attributes:
        weights, teacher: as the nodes take them.
        folder: of the learner.
        depth, learner: parameters that differ from the defaults.
        use_sim_time: whether both follow `/clock`.
        device: of both.
    """

    weights: str
    teacher: str
    folder: Path
    depth: Mapping[str, Value] = field(default_factory=dict)
    learner: Mapping[str, Value] = field(default_factory=dict)
    use_sim_time: bool = False
    device: str = "cpu"

    @property
    def snapshots(self) -> Path:
        """Where the versions are."""
        return self.folder / "snapshots"

    def processes(self, folder: Path) -> dict[str, Process]:
        """Return both processes by node name; the parameter file is written into `folder`."""
        file = folder / "deployment.yaml"
        sections = {"/**/depth": dict(self.depth), "/**/distillation": dict(self.learner)}
        # JSON is a part of YAML.
        file.write_text(
            json.dumps({name: {"ros__parameters": values} for name, values in sections.items()}),
            encoding="utf-8",
        )
        plan = launch_plan({
            "source": "topic", "events": "/events", "image": "/image_raw",
            "camera_info": "/camera_info", "distill": "true", "weights": self.weights,
            "teacher": self.teacher, "distill_folder": str(self.folder), "device": self.device,
            "use_sim_time": str(self.use_sim_time).lower(), "params_file": str(file),
        })  # fmt: skip
        return {process.name: process for process in plan}


@dataclass(frozen=True, slots=True)
class Image:
    """What `depth/status` said of one depth image.

    Attributes:
        arrival_s: `time.monotonic` when it was received.
        stamp_ns: of the image.
        end_ns: end of its window in event time.
        version, sha256: of the weights.
        latency_ms: from the arrival of the packet that closed the window to the result.
    """

    arrival_s: float
    stamp_ns: int
    end_ns: int
    version: int
    sha256: str
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Said:
    """A message and when it was received (`time.monotonic`)."""

    arrival_s: float
    values: dict[str, Any]


class Witness:
    """Receives what both nodes publish, on a thread of its own.

    Args:
        depth_maps: how many of the last depth images to keep; 0 does not subscribe them.

    Attributes:
        images: one entry for each depth image.
        verdicts: of depth on versions.
        announced: versions, by the learner or anybody else.
        learning: `distill/status`: what is under `learning`, and `counts` below that name.
        work: `distill/metrics`: the numbers and `action`.
        maps: stamp in ns and float32[H, W] of the last depth images.
    """

    def __init__(self, depth_maps: int = 0) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from sensor_msgs.msg import Image as ImageMessage
        from std_msgs.msg import String

        from dae_ros.nodes.qos import latched_qos, output_qos

        self.images: list[Image] = []
        self.verdicts: list[Said] = []
        self.announced: list[Said] = []
        self.learning: list[Said] = []
        self.work: list[Said] = []
        self.maps: deque[tuple[int, NDArray[np.float32]]] = deque(maxlen=depth_maps or 1)
        self.context = Context()
        self.context.init()
        self.node = Node("witness", context=self.context)
        listen = self.node.create_subscription
        listen(DiagnosticArray, "depth/status", self._depth, output_qos(1000))
        listen(DiagnosticArray, "distill/status", self._status, latched_qos(10))
        listen(DiagnosticArray, "distill/metrics", self._metrics, output_qos(100))
        for topic, found in (
            ("depth/weights", self.verdicts),
            ("distill/snapshot", self.announced),
        ):
            listen(String, topic, self._json(found), latched_qos(10))
        if depth_maps:
            for topic in ("depth/image", "depth/relative"):
                listen(ImageMessage, topic, self._map, output_qos(100))
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="witness", daemon=True)

    def start(self) -> None:
        """Begin to listen; publishers and clients of the node must have been made before."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self.node.destroy_node()
        self.context.try_shutdown()

    def _spin(self) -> None:
        while not self._leaving.is_set():
            self._executor.spin_once(timeout_sec=POLL_S)

    def _json(self, found: list[Said]) -> Callable[[Any], None]:
        def received(message: Any) -> None:
            try:
                values = json.loads(message.data)
            except ValueError:
                return  # a benchmark says such things to see what depth makes of them
            found.append(Said(time.monotonic(), values))

        return received

    def _depth(self, message: Any) -> None:
        values = _values(message.status[0])
        self.images.append(
            Image(
                time.monotonic(),
                _stamp_ns(message),
                int(values["window_end_ns"]),
                int(values["weight_version"]),
                values["sha256"],
                float(values["latency_ms"]),
            )
        )

    def _status(self, message: Any) -> None:
        found = {status.name: _values(status) for status in message.status}
        self.learning.append(
            Said(time.monotonic(), {**found["learning"], "counts": found["counts"]})
        )

    def _metrics(self, message: Any) -> None:
        (status,) = message.status
        self.work.append(Said(time.monotonic(), {"action": status.name, **_values(status)}))

    def _map(self, message: Any) -> None:
        depth = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
        self.maps.append((_stamp_ns(message), depth))


class Stand:
    """Both processes, a witness, and hands; leaving the context stops everything.

    Args:
        deployment: what to start.
        cores: node name -> the one CPU core that its process may use; others use all.
        depth_maps: see `Witness`.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        cores: Mapping[str, int] | None = None,
        depth_maps: int = 0,
    ) -> None:
        self._environment = dict(os.environ)
        domain = os.environ.get("ROS_DOMAIN_ID") or str(1 + os.getpid() % 100)
        os.environ.update(PRIVATE, ROS_DOMAIN_ID=domain)
        self.deployment = deployment
        self._cores = dict(cores or {})
        self._scratch = tempfile.TemporaryDirectory(prefix="dae_ros_stand_")
        scratch = Path(self._scratch.name)
        # What killed processes leave in their temporary folders and logs goes with ours.
        os.environ.update(ROS_LOG_DIR=str(scratch / "log"), TMPDIR=str(scratch))
        self.plan = deployment.processes(scratch)
        any_process = next(iter(self.plan.values()))
        for name, value in any_process.environment.items():
            os.environ.setdefault(name, value)
        self.harness = ProcessHarness([], stop_timeout_s=20.0)
        self.witness = Witness(depth_maps)
        self._clients: dict[str, Any] = {}

    def __enter__(self) -> Stand:
        """Begin to listen; no process has been started."""
        self.harness.__enter__()
        self.witness.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop everything."""
        self.harness.stop()
        self.witness.close()
        os.environ.clear()
        os.environ.update(self._environment)
        self._scratch.cleanup()

    def start(self, name: str, process: Process | None = None) -> RunningProcess:
        """Start one of the plan's processes, or another one, on its core."""
        running = self.harness.start(process or self.plan[name])
        if name in self._cores:
            # Threads inherit it, and Python starts with one.
            os.sched_setaffinity(running.pid, {self._cores[name]})
        return running

    def until(
        self, condition: Callable[[], Any], purpose: str, timeout_s: float, name: str = ""
    ) -> float:
        """Wait until something holds; return how long that took in seconds.

        Args:
            condition: what to wait for.
            purpose: what that is, in words.
            timeout_s: how long to wait.
            name: the process whose last lines tell why not.

        Raises:
            StandError: it does not hold in time, or the process has ended.
        """
        begin_s = time.monotonic()
        while not condition():
            ended = name and self.harness[name].exit_code is not None
            if ended or time.monotonic() - begin_s > timeout_s:
                lines = self.harness[name].lines[-10:] if name else []
                raise StandError(
                    f"{purpose}: not in {time.monotonic() - begin_s:.0f} s"
                    + "".join(f"\n{line}" for line in lines)
                )
            time.sleep(POLL_S)
        return time.monotonic() - begin_s

    def ask(self, service: str, timeout_s: float = 20.0) -> tuple[bool, str]:
        """Call a service of type Trigger; return success and sentence.

        Raises:
            StandError: nobody answers.
        """
        from std_srvs.srv import Trigger

        client = self._clients.get(service)
        if client is None:
            client = self.witness.node.create_client(Trigger, service)
            self._clients[service] = client
        self.until(client.service_is_ready, f"somebody offers {service}", timeout_s)
        # A request that leaves before both directions are matched is lost: it is sent again.
        deadline_s, futures = time.monotonic() + timeout_s, []
        while time.monotonic() < deadline_s:
            futures.append(client.call_async(Trigger.Request()))
            again_s = time.monotonic() + 5.0
            while time.monotonic() < again_s:
                for future in futures:
                    if future.done():
                        answer = future.result()
                        return answer.success, answer.message
                time.sleep(POLL_S)
        raise StandError(f"{service} did not answer in {timeout_s:g} s")

    def version(self) -> int:
        """Return the version of the weights that the last depth image names; 0 before any."""
        return self.witness.images[-1].version if self.witness.images else 0

    def learning(self, name: str) -> str:
        """Return a value of the learner's last status; '' before any."""
        said = self.witness.learning
        return str(said[-1].values.get(name, "")) if said else ""

    def counted(self, name: str) -> int:
        """Return a count of the learner's last status; 0 where there is none."""
        said = self.witness.learning
        return int(said[-1].values["counts"].get(name, 0)) if said else 0


def simulate(path: Path, duration_s: float, encoding: str, **settings: Value) -> Path:
    """Record a simulated camera as a rosbag2; one that is there is left alone.

    Args:
        path: of the folder.
        duration_s: simulated seconds.
        encoding: of the events.
        settings: other parameters of the simulator.
    """
    from dae_ros.bags.simulated import SimulatedBag
    from dae_ros.simulation.simulation import Simulation

    if path.exists():
        return path
    parameters = SimulatorParameters(
        **{"duration_s": duration_s, "encoding": encoding, **settings}  # type: ignore[arg-type]
    )
    simulation = Simulation(parameters)
    bag = SimulatedBag(path, simulation, encoding)
    for item in simulation.items():
        bag.write(item)
    bag.close()
    return path


def _values(status: Any) -> dict[str, str]:
    return {item.key: item.value for item in status.values}


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
