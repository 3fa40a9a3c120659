"""Work beside the windows: on a thread of low priority that nothing waits for at the end."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")

# Every such thread; `nodes/entry.py` asks whether one is still in native code at the end.
THREAD_NAME = "background"
_NICENESS = 10


class BackgroundWork(Future[Result]):
    """The result of some work on a thread of its own."""

    thread: threading.Thread

    def join(self, timeout_s: float) -> bool:
        """Wait until the thread has ended; return whether it has."""
        self.thread.join(timeout_s)
        return not self.thread.is_alive()


def in_background(work: Callable[[], Result]) -> BackgroundWork[Result]:
    """Do some work on a thread of its own; what it raises is raised by the future's `result`.

    The thread is a daemon: an export of a minute must not keep a node from ending. Processes that
    it starts have its priority.
    """
    future: BackgroundWork[Result] = BackgroundWork()

    def run() -> None:
        _lower_priority()
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised by whoever asks for the result
            future.set_exception(error)
        else:
            future.set_result(result)

    future.thread = threading.Thread(target=run, name=THREAD_NAME, daemon=True)
    future.thread.start()
    return future


def _lower_priority() -> None:
    """Let every other thread of the process go first; Linux has a priority for each thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
