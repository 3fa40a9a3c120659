"""The service `~/trace`: records the stages of windows, and writes them as a file to look at."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future
from std_srvs.srv import SetBool

from dae_ros.errors import reason_of
from dae_ros.parameters import DepthParameters
from dae_ros.paths import named_path
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.trace import TraceRecorder, write_trace

# The thread that writes gives the interpreter's lock away for so long after some windows.
REST_S = 0.0005
WRITE_TIMEOUT_S = 10.0
SERVICE = "~/trace"


def trace_folder(chosen: str) -> Path:
    """Return the folder for traces; where none is chosen, that of ROS' logs, as rcl finds it."""
    if chosen:
        return named_path(chosen)
    if os.environ.get("ROS_LOG_DIR"):
        return named_path(os.environ["ROS_LOG_DIR"])
    return named_path(os.environ.get("ROS_HOME") or "~/.ros") / "log"


class DepthTrace:
    """Records while it is asked to; nothing is kept otherwise.

    Args:
        node: that owns the service.
        parameters: gives the present ones.
    """

    def __init__(self, node: LifecycleNode, parameters: Callable[[], DepthParameters]) -> None:
        self._node = node
        self._parameters = parameters
        self._recorder: TraceRecorder | None = None
        # One that could not be written; the next `false` tries again.
        self._stopped: TraceRecorder | None = None
        self._writer: threading.Thread | None = None
        node.create_service(SetBool, SERVICE, self._asked)

    def published(self, frame: DepthFrame) -> None:
        """Record a window that has just been published; on the worker's thread."""
        recorder = self._recorder
        if recorder is not None:
            recorder.add(frame, time.perf_counter_ns())

    def close(self) -> None:
        """Write what is still being recorded; the worker has stopped."""
        if self._writer is not None:
            self._writer.join(WRITE_TIMEOUT_S)
        if self._recorder is not None:
            self._stop()
            written, message = self._write(rest=lambda: None)
            logger = self._node.get_logger()
            (logger.info if written else logger.error)(f"trace: {message}")

    async def _asked(self, request: SetBool.Request, response: SetBool.Response) -> Any:
        if request.data:
            response.success, response.message = self._start()
        elif self._recorder is None and self._stopped is None:
            response.message = f"nothing is recorded: call {SERVICE} with true first"
        elif self._writer is not None:
            response.message = "the file is being written already"
        else:
            self._stop()
            future: Any = Future(executor=self._node.executor)

            def work() -> None:
                answer = (False, "an error of the program; its traceback is on stderr")
                try:
                    answer = self._write(rest=lambda: time.sleep(REST_S))
                finally:
                    future.set_result(answer)

            self._writer = threading.Thread(target=work, name="trace_writer", daemon=True)
            self._writer.start()
            response.success, response.message = await future
            self._writer = None
        return response

    def _start(self) -> tuple[bool, str]:
        if self._recorder is not None:
            began = self._recorder.began
            return False, f"recording since {began}; call {SERVICE} with false to write it"
        capacity = self._parameters().trace_windows
        if self._writer is None:
            self._stopped = None
        self._recorder = TraceRecorder(capacity)
        return True, f"recording the newest {capacity} windows; false writes the file"

    def _stop(self) -> None:
        if self._recorder is not None:
            self._recorder, self._stopped = None, self._recorder

    def _write(self, rest: Callable[[], None]) -> tuple[bool, str]:
        """Write the recording that was stopped; return whether, and the answer."""
        recorder = self._stopped
        if recorder is None:
            raise RuntimeError("there is no recording to write")
        trace = recorder.trace()
        name = self._node.get_fully_qualified_name().strip("/").replace("/", "_")
        moment = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S_%f")
        path = trace_folder(self._parameters().trace_folder) / f"trace_{name}_{moment}.json"
        try:
            write_trace(trace, path, rest=rest)
        except OSError as error:
            return False, (
                f"{path} cannot be written ({reason_of(error)}) and the recording is kept: set "
                f"'trace_folder' to another folder and call {SERVICE} with false again"
            )
        self._stopped = None
        message = f"{path}: {len(trace.rows)} windows"
        if trace.dropped:
            message += (
                f"; {trace.dropped} earlier ones did not fit, raise 'trace_windows' to keep them"
            )
        return True, message
