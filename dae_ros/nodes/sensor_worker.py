"""A thread that takes messages of a camera from one inbox, in order, and owns what they change.

It loads, compiles, warms up and runs on one and the same thread. What others may read of it is an
immutable snapshot.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from dae_ros.errors import ConfigurationError, PacketError, RecordingError
from dae_ros.runtime.worker import Inbox, Worker

# How long the thread sleeps at most with nothing to do; bounds the time to stop it.
TURN_S = 0.1
# A reset or new parameters push nothing out of the inbox, and nothing pushes them out.
COMMAND_BYTES = 0

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class SerializedEvents:
    """Bytes of one event message, its type, and when it arrived (`time.perf_counter_ns`)."""

    data: bytes
    type_name: str
    arrival_ns: int


@dataclass(frozen=True, slots=True)
class SerializedImage:
    """Bytes of one sensor_msgs/msg/Image, and when it arrived (`time.perf_counter_ns`)."""

    data: bytes
    arrival_ns: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a worker cannot go on.

    Attributes:
        message: one sentence, or a traceback.
        internal: an error of the program; otherwise the backend failed again and again.
    """

    message: str
    internal: bool


class SensorWorker(ABC, Generic[Item]):
    """What workers of nodes have in common: thread, inbox, and how they start and stop.

    Args:
        inbox_mb: how much may wait, in MB.
        warn: called on the thread with a sentence that may repeat often.
        failed: called on the thread once it cannot go on.
    """

    THREAD_NAME: ClassVar[str]
    LOADED: ClassVar[str]  # what is loaded, in the sentence that it was interrupted

    def __init__(
        self, inbox_mb: int, *, warn: Callable[[str], None], failed: Callable[[Fault], None]
    ) -> None:
        self.inbox: Inbox[Item | SerializedEvents | SerializedImage] = Inbox(inbox_mb * 1_000_000)
        self._warn = warn
        self._failed = failed
        self._errors: Counter[str] = Counter()
        self._started = threading.Event()
        self._leaving = threading.Event()
        self._start_error: BaseException | None = None
        self._thread = Worker(
            self.THREAD_NAME, self._turn, self._ended, opened=self._begin, closed=self._finish
        )

    def start(self) -> None:
        """Start the thread and wait until everything is loaded and warm.

        Raises:
            WeightsError, ConfigurationError: the weights or the device; whatever else the
                loading raised.
            ConfigurationError: `interrupt` was called meanwhile.
        """
        self._thread.start()
        while not self._started.wait(TURN_S):
            self._give_way()
        if self._start_error is not None:
            raise self._start_error

    def interrupt(self) -> None:
        """Make every wait end soon; sets a flag only, so that a signal handler may call it."""
        self._leaving.set()

    def stop(self, timeout_s: float) -> bool:
        """End the thread, after the work in hand; return whether it ended in time."""
        self._leaving.set()
        self.inbox.close()
        return self._thread.stop(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.alive

    def put_events(self, data: bytes, type_name: str) -> None:
        """Hand over an event message."""
        self._put(SerializedEvents(data, type_name, time.perf_counter_ns()), len(data))

    def put_image(self, data: bytes) -> None:
        """Hand over a camera frame."""
        self._put(SerializedImage(data, time.perf_counter_ns()), len(data))

    def put_command(self, command: Item) -> None:
        """Hand over what is no message; takes its turn."""
        self.inbox.put(command, COMMAND_BYTES)

    def _put(self, item: SerializedEvents | SerializedImage, size_bytes: int) -> None:
        self.inbox.put(item, size_bytes)

    @abstractmethod
    def _open(self) -> None:
        """Load; on the thread, before the first turn."""

    @abstractmethod
    def _turn(self) -> None:
        """Do one round of work, in `TURN_S` or a step more."""

    def _close(self) -> None:
        """Let go of what was loaded; on the thread, after the last turn, also if none came."""

    def _give_way(self) -> None:
        """Raise the refusal of an interrupted start."""
        if self._leaving.is_set():
            raise ConfigurationError(f"interrupted while {self.LOADED} being loaded")

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Count a message that cannot be read and go on without it."""
        try:
            yield
        except PacketError as error:
            self._errors[error.code] += 1
            self._packet_error(error)
        except RecordingError as error:
            self._errors["image"] += 1
            self._warn(f"a camera frame was dropped: {error}")

    def _packet_error(self, error: PacketError) -> None:
        self._warn(f"a message was dropped: {error} [{error.code}]")

    def _begin(self) -> None:
        self._open()
        self._started.set()

    def _finish(self) -> None:
        self._close()
        self._started.set()

    def _ended(self, error: BaseException, text: str) -> None:
        if not self._started.is_set():
            self._start_error = error
            return
        self._failed(Fault(text, internal=True))
