"""The depth node alone, as a launch starts it, with a camera and a listener: three processes.

The listener is the benchmark's own process. All clocks are `time.perf_counter_ns`, which is
CLOCK_MONOTONIC on Linux and the same in every process, so that instants of the camera, of the
node's trace and of the listener can be subtracted from each other.
"""

from __future__ import annotations

import json
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.live.camera import GO, PLAN, READY, CameraLog, CameraPlan
from benchmarks.live.online_stand import DEPTH, POLL_S, Deployment, Stand, StandError
from dae_ros.nodes.processes import Process, launch_plan

START_TIMEOUT_S = 300.0
CAMERA_TIMEOUT_S = 120.0
# `/diagnostics` comes once a second, and tells what the worker knew half a second earlier.
COUNTED_AFTER_S = 2.0
WORKED_OFF_S = 60.0
LISTENED = 1000
OPENING_S = 1.1  # the last cycle of the opening goes on for as long
# A window's facts in the file of a trace, and its stages, in the order of time.
Stages = dict[int, dict[str, int]]


@dataclass(frozen=True)
class DepthAlone(Deployment):
    """A depth node without a learner; `depth` are its parameters."""

    def processes(self, folder: Path) -> dict[str, Process]:
        """See `Deployment`."""
        file = folder / "depth.yaml"
        sections = {"/**/depth": {"ros__parameters": dict(self.depth)}}
        file.write_text(json.dumps(sections), encoding="utf-8")  # JSON is a part of YAML
        (depth,) = launch_plan({
            "source": "topic", "events": "/events", "weights": self.weights, "device": "cpu",
            "params_file": str(file),
        })  # fmt: skip
        return {DEPTH: depth}


@dataclass(frozen=True, slots=True)
class Window:
    """A depth image that the listener received.

    Attributes:
        index: of its window, the skipped ones counted, from 0.
        start_ns, end_ns: of its window, in event time.
        received_ns: when the image came.
    """

    index: int
    start_ns: int
    end_ns: int
    received_ns: int


class Listener:
    """Subscribes depth, its status and `/diagnostics`, on a thread of its own."""

    def __init__(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from sensor_msgs.msg import Image
        from std_srvs.srv import SetBool

        from dae_ros.nodes.entry import SWITCH_INTERVAL_S
        from dae_ros.nodes.qos import output_qos
        from dae_ros.nodes.taker import NotByExecutor, Taker

        self._context = Context()
        self._context.init(args=[])
        self._node = Node("listener", context=self._context)
        self._images: dict[int, int] = {}
        self._windows: dict[int, tuple[int, int, int]] = {}
        self._diagnostics: dict[str, dict[str, str]] = {}
        self.diagnosed_s = 0.0
        listen: Any = self._node.create_subscription
        # Raw, past the executor and ahead of its Python: what waits here is nobody's latency.
        self._switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        alone = {"raw": True, "callback_group": NotByExecutor()}
        self._takers = [
            Taker(
                self._node,
                listen(Image, topic, self._image, output_qos(LISTENED), **alone),
                self._image,
                print,
            )
            for topic in ("depth/image", "depth/relative")
        ]
        listen(DiagnosticArray, "depth/status", self._status, output_qos(LISTENED))
        listen(DiagnosticArray, "/diagnostics", self._diagnosed, 10)
        self._tracing = self._node.create_client(SetBool, "/depth/trace")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        sys.setswitchinterval(self._switch_interval_s)
        self._leaving.set()
        self._thread.join(5.0)
        for taker in self._takers:
            taker.stop()
        self._node.destroy_node()
        self._context.try_shutdown()

    @property
    def count(self) -> int:
        """How many depth images have come."""
        return len(self._images)

    def windows(self) -> list[Window]:
        """Return the images of which the status came too, in the order of event time."""
        images, windows = dict(self._images), dict(self._windows)
        found = [Window(*windows[s], at) for s, at in images.items() if s in windows]
        return sorted(found, key=lambda window: window.end_ns)

    def diagnosed(self, name: str) -> dict[str, str]:
        """Return the last values of one status of depth in `/diagnostics`."""
        return dict(self._diagnostics.get(name, {}))

    def trace(self, record: bool) -> str:
        """Begin to record windows, or write them; return the answer.

        Raises:
            StandError: the service refuses or does not answer.
        """
        from std_srvs.srv import SetBool

        if not self._tracing.wait_for_service(START_TIMEOUT_S):
            raise StandError("nobody offers /depth/trace")
        future = self._tracing.call_async(SetBool.Request(data=record))
        deadline_s = time.monotonic() + CAMERA_TIMEOUT_S
        while not future.done():
            if time.monotonic() > deadline_s:
                raise StandError(f"/depth/trace did not answer in {CAMERA_TIMEOUT_S:g} s")
            time.sleep(POLL_S)
        answer = future.result()
        if not answer.success:
            raise StandError(f"/depth/trace: {answer.message}")
        return str(answer.message)

    def _spin(self) -> None:
        while not self._leaving.is_set():
            self._executor.spin_once(timeout_sec=POLL_S)

    def _image(self, data: bytes) -> None:
        received_ns = time.perf_counter_ns()
        second, nanosecond = struct.unpack_from("<iI", data, 4)
        self._images[second * 10**9 + nanosecond] = received_ns

    def _status(self, message: Any) -> None:
        stamp = message.header.stamp
        values = {item.key: item.value for item in message.status[0].values}
        names = ("index", "window_start_ns", "window_end_ns")
        index, start_ns, end_ns = (int(values[name]) for name in names)
        self._windows[stamp.sec * 10**9 + stamp.nanosec] = (index, start_ns, end_ns)

    def _diagnosed(self, message: Any) -> None:
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            self._diagnostics[status.name.rpartition(": ")[2]] = values
        self.diagnosed_s = time.monotonic()


class LiveStand:
    """Depth, camera and listener; leaving the context ends all of them.

    Args:
        weights: of depth.
        depth: other parameters of it.
        plan: of the camera.
    """

    def __init__(self, weights: str, depth: Mapping[str, Any], plan: CameraPlan) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dae_ros_live_")
        self.folder = Path(self._folder.name)
        parameters = {**depth, "trace_folder": str(self.folder)}
        self._stand = Stand(DepthAlone(weights, "", self.folder, parameters))
        self._plan = plan
        self._camera: subprocess.Popen[str] | None = None
        self.listener: Listener | None = None

    def __enter__(self) -> LiveStand:
        """Start everything; the camera is ready and sends nothing yet."""
        self._stand.__enter__()
        try:
            self.listener = Listener()
            self._stand.start(DEPTH)
            self._camera = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.live.camera", self._plan.to_json(), self.folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._read_ready(self._camera)
            self.until(
                lambda: self.heard.diagnosed("state"), "depth says how it is", START_TIMEOUT_S
            )
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything."""
        self._end()

    @property
    def heard(self) -> Listener:
        """The listener, which is there inside of the context."""
        if self.listener is None:
            raise StandError("there is a listener inside of the context alone")
        return self.listener

    @property
    def depth_pid(self) -> int:
        """Process id of the depth node."""
        return self._stand.harness[DEPTH].pid

    @property
    def camera_pid(self) -> int:
        """Process id of the camera."""
        return self._running_camera().pid

    def until(self, condition: Callable[[], Any], purpose: str, timeout_s: float) -> float:
        """Wait until something holds; see `Stand.until`."""
        return self._stand.until(condition, purpose, timeout_s, DEPTH)

    def check(self) -> None:
        """Raise `StandError` where depth or the camera has ended."""
        code = self._running_camera().poll()
        if code is not None:
            raise StandError(f"the camera ended with status {code}")
        depth = self._stand.harness[DEPTH]
        if depth.exit_code is not None:
            raise StandError(f"depth ended with status {depth.exit_code}:\n{depth.output}")

    def go(self, settle_s: float) -> None:
        """Let the camera begin; return so many seconds after the plan has begun.

        It begins at the first depth image: a network that has to be exported for the sensor's size
        first shall not begin with what has piled up.
        """
        self._say(GO)
        self.until(lambda: self.heard.count, "the first depth image", START_TIMEOUT_S)
        self._say(PLAN)
        time.sleep(OPENING_S + settle_s)

    def stop_camera(self) -> tuple[CameraLog, float | None]:
        """End the camera.

        Returns:
            What it has sent, and how many seconds it took until depth's counts stood still; None
            where they did not in `WORKED_OFF_S`, because so much had piled up.
        """
        camera = self._running_camera()
        self._say("stop")
        code = camera.wait(CAMERA_TIMEOUT_S)
        if code:
            raise StandError(f"the camera ended with status {code}")
        log, begin_s = CameraLog.load(self.folder), time.monotonic()
        seen_s, counts = begin_s + COUNTED_AFTER_S, None
        while time.monotonic() - begin_s < WORKED_OFF_S:
            reported_s = seen_s
            self.until(
                lambda: self.heard.diagnosed_s > reported_s,  # noqa: B023 - called at once
                "depth counts",
                CAMERA_TIMEOUT_S,
            )
            before, counts = counts, self._counts()
            if counts == before:
                return log, round(seen_s - begin_s, 1)
            seen_s = self.heard.diagnosed_s
        return log, None

    def _counts(self) -> tuple[str, ...]:
        events, windows = self.heard.diagnosed("events"), self.heard.diagnosed("windows")
        return (events["messages"], events["events"], windows["windows"], windows["skipped"])

    def stages(self, answer: str) -> Stages:
        """Return the stages of a trace's windows, see `read_stages`."""
        return read_stages(Path(answer.partition(": ")[0]))

    def _running_camera(self) -> subprocess.Popen[str]:
        if self._camera is None:
            raise StandError("there is a camera inside of the context alone")
        return self._camera

    def _read_ready(self, camera: subprocess.Popen[str]) -> None:
        if camera.stdout is None:
            raise StandError("the camera has no output")
        readable, _, _ = select.select([camera.stdout], [], [], CAMERA_TIMEOUT_S)
        if not readable:
            raise StandError(f"the camera was not ready in {CAMERA_TIMEOUT_S:g} s")
        if camera.stdout.readline().strip() != READY:
            raise StandError(f"the camera ended with status {camera.wait(CAMERA_TIMEOUT_S)}")

    def _say(self, line: str) -> None:
        stdin = self._running_camera().stdin
        if stdin is not None:
            stdin.write(f"{line}\n")
            stdin.flush()

    def _end(self) -> None:
        camera = self._camera
        if camera is not None and camera.poll() is None:
            camera.kill()
            camera.wait()
        for stream in (camera.stdin, camera.stdout) if camera is not None else ():
            if stream is not None:
                stream.close()
        if self.listener is not None:
            self.listener.close()
        self._stand.__exit__(None, None, None)
        self._folder.cleanup()


def read_stages(path: Path) -> Stages:
    """Return when the stages of each window of a trace began and ended.

    Returns:
        end of the window in event time, ns -> `arrival`, `decode`, `close`, `encode`, `infer` and
        `publish`: the instant at which the packet came, and at which each stage was done, in ns
        (whole microseconds).
    """
    found: Stages = {}
    for event in json.loads(path.read_text())["traceEvents"]:
        if event["ph"] != "X" or event["name"] in ("waiting", "window"):
            continue
        times = found.setdefault(int(event["args"]["window_end_ns"]), {})
        times[event["name"]] = (event["ts"] + event["dur"]) * 1000
        if event["name"] == "decode":
            times["arrival"] = event["ts"] * 1000
    return found


def sensor_to_topic_ns(windows: list[Window], log: CameraLog) -> NDArray[np.int64]:
    """Return for each window how long after the packet that closed it the image was received.

    Args:
        windows: received.
        log: of the camera.

    Returns:
        int64[N], ns: from just before the camera published that packet to the listener's callback.
    """
    ends_ns = np.array([window.end_ns for window in windows], np.int64)
    received_ns = np.array([window.received_ns for window in windows], np.int64)
    return received_ns - log.sent_ns[log.closing(ends_ns)]


def counts_of(status: Mapping[str, str], prefix: str) -> dict[str, int]:
    """Return the counts of a status whose keys begin with a prefix, by the rest of the key."""
    return {k.removeprefix(prefix): int(v) for k, v in status.items() if k.startswith(prefix)}
