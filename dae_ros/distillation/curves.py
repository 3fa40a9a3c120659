"""Curves for TensorBoard, written when they are handed over.

PyTorch's `SummaryWriter` writes on a thread of its own, where a full disk ends in a traceback on
stderr and is told, or not, to whoever writes next.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dae_ros.errors import ConfigurationError

FOLDER = "tensorboard"
FILE_VERSION = "brain.Event:2"


class Curves:
    """A file of TensorBoard's events (records of `tensorboard.compat.proto.event_pb2.Event`).

    Args:
        folder: of the run; the file lies in `tensorboard/` below it, under a name of its own.
        first_step: what earlier files have from here on is not shown.

    Raises:
        ConfigurationError: TensorBoard is not installed.
        OSError: the file cannot be written, also from `write`; it ends in half of what did not fit,
            and another one has to be begun.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise ConfigurationError(
                "'tensorboard' is on and TensorBoard is not installed; install the extra "
                "`tensorboard`, or turn it off"
            ) from error
        self._event, self._summary = Event, Summary
        place = folder / FOLDER
        place.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names, which has to be that of writing.
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        name = f"{seconds:010d}.{nanoseconds:09d}.{socket.gethostname()}.{os.getpid()}"
        self._records: Any = RecordWriter((place / f"events.out.tfevents.{name}").open("xb"))
        try:
            self._put(file_version=FILE_VERSION)
            self._put(step=first_step, session_log=SessionLog(status=SessionLog.START))
        except OSError:
            self.close()
            raise

    def write(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Write one point of each curve `group/name`."""
        points = [
            self._summary.Value(tag=f"{group}/{name}", simple_value=value)
            for name, value in values.items()
        ]
        self._put(step=step, summary=self._summary(value=points))

    def close(self) -> None:
        """Close the file; what did not fit is lost."""
        with contextlib.suppress(OSError):
            self._records.close()

    def _put(self, **content: Any) -> None:
        event = self._event(wall_time=time.time(), **content)
        self._records.write(event.SerializeToString())
        self._records.flush()
