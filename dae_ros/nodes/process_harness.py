"""Starts the processes of a launch plan without `launch`, which is not on PyPI.

The demo and the tests of the plan run through it. Each process is
`python -m dae_ros.nodes.<executable> --ros-args ...` in a process group of its own, its output is
collected by a thread, and stopping is SIGINT first and SIGKILL after a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from dae_ros.errors import ConfigurationError, DaeError
from dae_ros.nodes.processes import Process

POLL_S = 0.05
# Messages that may wait between two looks of somebody who counts them.
COUNTED = 1000
# How long an answer of a service is waited for before it is asked again.
ASK_AGAIN_S = 5.0


class ProcessError(DaeError):
    """A process of the plan ended early or did not do in time what it should."""

    code = "process"


class Echo(Protocol):
    """Where lines of processes are repeated: a stream, or somebody who writes them elsewhere."""

    def write(self, text: str, /) -> object:
        """Write a line, its end included; called from several threads."""


def ros_arguments(process: Process, folder: Path) -> list[str]:
    """Return the ROS arguments that `launch_ros` would give to the same process.

    Args:
        process: what to start.
        folder: where the parameter file is written.
    """
    result = ["--ros-args"]
    if not process.nodes:
        result += ["-r", f"__node:={process.name}"]
    if process.namespace:
        result += ["-r", f"__ns:=/{process.namespace.strip('/')}"]
    sections = process.parameter_sections
    if sections:
        path = folder / f"{process.name}.yaml"
        content = {key: {"ros__parameters": values} for key, values in sections.items()}
        # JSON is a part of YAML.
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        result += ["--params-file", str(path)]
    for inside, outside in process.remappings:
        result += ["-r", f"{inside}:={outside}"]
    return [*result, "--log-level", process.log_level]


class RunningProcess:
    """One started process and what it has printed so far.

    Attributes:
        plan: what was started.
        lines: stdout and stderr together, one entry per line.
    """

    def __init__(self, plan: Process, folder: Path, echo: Echo | None) -> None:
        if plan.package != "dae_ros":
            raise ConfigurationError(
                f"{plan.package}/{plan.executable} is started by `ros2 launch` only",
                executable=plan.executable,
            )
        self.plan = plan
        self.lines: list[str] = []
        self._echo = echo
        command = [sys.executable, "-u", "-m", f"dae_ros.nodes.{plan.executable}"]
        self._process = subprocess.Popen(
            [*command, *plan.arguments, *ros_arguments(plan, folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **plan.environment},
            start_new_session=True,  # Ctrl-C in the terminal reaches this process first
        )
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()

    def _collect(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        with stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))
                if self._echo is not None:
                    self._echo.write(f"[{self.plan.name}] {line}")

    @property
    def pid(self) -> int:
        """Return its process id, which is that of its group as well."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Return the exit status, None while it runs; negative for a signal."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """Return everything printed so far."""
        return "\n".join(self.lines)

    def wait(self, timeout_s: float) -> int:
        """Wait for the process to end by itself.

        Returns:
            its exit status.

        Raises:
            ProcessError: it still runs after `timeout_s`.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(
                f"{self.plan.name} still runs after {timeout_s:g} s; its last lines:\n"
                + "\n".join(self.lines[-10:]),
                name=self.plan.name,
            ) from error
        self._collector.join(timeout_s)
        return code

    def wait_for_output(self, text: str, timeout_s: float) -> None:
        """Wait until a line with `text` has been printed.

        Raises:
            ProcessError: the process ended or the time passed without it.
        """
        self.wait_until(
            lambda: any(text in line for line in list(self.lines)), f"to print {text!r}", timeout_s
        )

    def wait_until(self, condition: Callable[[], bool], purpose: str, timeout_s: float) -> None:
        """Wait until a condition holds, as long as the process runs.

        Raises:
            ProcessError: the process ended or the time passed before.
        """
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            ended = self.exit_code
            if ended is not None or time.monotonic() > deadline_s:
                reason = (
                    f"ended with status {ended}" if ended is not None else f"took {timeout_s:g} s"
                )
                if condition():  # its last line may have come with its end
                    return
                raise ProcessError(
                    f"{self.plan.name} {reason} before it was seen {purpose}; its last lines:\n"
                    + "\n".join(self.lines[-10:]),
                    name=self.plan.name,
                )
            time.sleep(POLL_S)

    def stop(self, timeout_s: float) -> int:
        """End the process: SIGINT, and SIGKILL when it has not ended in time.

        Returns:
            its exit status, -9 where it had to be killed.
        """
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._collector.join(1.0)
        return self._process.returncode


class ProcessHarness:
    """Runs the processes of a plan; leaving the context stops all of them.

    Args:
        processes: of a launch plan; the ones that are not of this package (RViz) are left out.
        echo: where to repeat what the processes print, with their names; None for nowhere.
        stop_timeout_s: how long a process may take to end after SIGINT.
    """

    def __init__(
        self,
        processes: Iterable[Process],
        *,
        echo: Echo | None = None,
        stop_timeout_s: float = 10.0,
    ) -> None:
        self._plan = [process for process in processes if process.package == "dae_ros"]
        self._echo = echo
        self._stop_timeout_s = stop_timeout_s
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.running: dict[str, RunningProcess] = {}

    def __enter__(self) -> ProcessHarness:
        self._folder = tempfile.TemporaryDirectory(prefix="dae_ros_")
        try:
            for process in self._plan:
                self.start(process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __getitem__(self, name: str) -> RunningProcess:
        """Return the running process of that node name."""
        return self.running[name]

    def start(self, process: Process) -> RunningProcess:
        """Start one more process; only inside of the context."""
        if self._folder is None:
            raise ConfigurationError("processes are started inside of `with ProcessHarness(...)`")
        running = RunningProcess(process, Path(self._folder.name), self._echo)
        self.running[process.name] = running
        return running

    def stop(self) -> dict[str, int]:
        """Stop every process, sources first; return exit statuses by node name."""
        codes = {
            name: running.stop(self._stop_timeout_s)
            for name, running in reversed(self.running.items())
        }
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        return codes

    def change_state(self, name: str, transition: int, timeout_s: float = 30.0) -> bool:
        """Ask a lifecycle node for a transition, as `ros2 lifecycle set` does.

        Args:
            name: node name in the plan.
            transition: an id of lifecycle_msgs/msg/Transition.
            timeout_s: for finding each service and for each answer.

        Returns:
            whether the node made the transition.

        Raises:
            ProcessError: the node does not answer in time.
        """
        from lifecycle_msgs.msg import State, Transition
        from lifecycle_msgs.srv import ChangeState, GetState
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        plan = self.running[name].plan
        prefix = f"/{plan.namespace.strip('/')}" if plan.namespace else ""
        context = Context()
        context.init()
        try:
            node = Node("process_harness", context=context)
            executor = SingleThreadedExecutor(context=context)
            executor.add_node(node)
            answer, asked = _ask(
                executor,
                node.create_client(ChangeState, f"{prefix}/{plan.name}/change_state"),
                ChangeState.Request(transition=Transition(id=transition)),
                timeout_s,
            )
            made = bool(answer.success)
            if not made and asked > 1:
                # An earlier request may have been carried out, and its answer lost.
                answer, _ = _ask(
                    executor,
                    node.create_client(GetState, f"{prefix}/{plan.name}/get_state"),
                    GetState.Request(),
                    timeout_s,
                )
                made = answer.current_state.id == {
                    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
                    Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
                    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
                    Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
                }.get(transition, State.PRIMARY_STATE_FINALIZED)
            node.destroy_node()
            return made
        finally:
            context.try_shutdown()


class MessageCounter:
    """Counts what is published on a topic, for a program that is no node itself.

    It is on the graph inside of the `with`, in a ROS context of its own.

    Args:
        topic: name from the root.
        type_name: of its messages, which are counted as bytes and not read.

    Attributes:
        count: messages so far; it grows during `wait` alone.
    """

    def __init__(self, topic: str, type_name: str) -> None:
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        from dae_ros.nodes.qos import message_class, output_qos

        self.count = 0
        kind = message_class(type_name)
        self._context = Context()
        self._context.init(args=[])
        self._node = Node(
            "message_counter",
            context=self._context,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._node.create_subscription(kind, topic, self._add, output_qos(COUNTED), raw=True)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def wait(self, seconds: float) -> None:
        """Wait, and count what comes until then."""
        deadline_s = time.monotonic() + seconds
        while (left_s := deadline_s - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=left_s)

    def _add(self, _: bytes) -> None:
        self.count += 1

    def __enter__(self) -> MessageCounter:
        """Return the counter."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()


def _ask(executor: Any, client: Any, request: Any, timeout_s: float) -> tuple[Any, int]:
    """Call a service until it answers; return the answer, and how often it was asked.

    A request or an answer that leaves before both directions have been matched is lost without an
    error, and a service may be found ready by then: it is asked again.

    Raises:
        ProcessError: there is no such service, or no answer in time.
    """
    name = client.srv_name
    if not client.wait_for_service(timeout_sec=timeout_s):
        raise ProcessError(f"nobody offers the service {name}", name=name)
    futures: list[Any] = []
    deadline_s = time.monotonic() + timeout_s
    while (left_s := deadline_s - time.monotonic()) > 0.0:
        futures.append(client.call_async(request))
        again_s = time.monotonic() + min(ASK_AGAIN_S, left_s)
        while time.monotonic() < again_s:
            executor.spin_once(timeout_sec=POLL_S)
            done = next((future for future in futures if future.done()), None)
            if done is not None:
                return done.result(), len(futures)
    raise ProcessError(f"{name} did not answer in {timeout_s:g} s", name=name)
