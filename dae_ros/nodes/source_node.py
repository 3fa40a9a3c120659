"""What replay and simulator share: a thread that publishes everything, loses nothing, and ends."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node

from dae_ros.errors import DaeError
from dae_ros.nodes.entry import EXIT_FAILURE
from dae_ros.runtime.worker import Worker

# The longest sleep of the publishing thread, which bounds how fast it stops.
SLEEP_S = 0.02
ACKNOWLEDGE_POLL_S = 0.002
NOTICE_PERIOD_S = 5.0
STOP_TIMEOUT_S = 5.0


class SourceNode(Node):
    """A node whose own thread publishes, and which ends when everything has been acknowledged.

    Args:
        name: of the node.
        work: what the thread does, in one word, for its name and the log.

    Attributes:
        exit_code: None while it works, see `entry.run`.
    """

    def __init__(self, name: str, work: str, **arguments: Any) -> None:
        super().__init__(name, **arguments)
        self.exit_code: int | None = None
        self._work = work
        self._outputs: dict[str, Any] = {}

    @abstractmethod
    def _run(self) -> Iterator[None]:
        """Publish everything and set the exit code; yields wherever it would otherwise wait."""

    def _sent(self) -> dict[str, Any]:
        """Return everything that is published but the clock, by topic."""
        return self._outputs

    def _start(self) -> None:
        """Start the thread; the last thing of a constructor."""
        self._steps = self._run()
        self._thread = Worker(self._work, self._turn, self._failed)
        self._thread.start()

    def close(self) -> None:
        """Stop publishing."""
        if not self._thread.stop(STOP_TIMEOUT_S):
            self.get_logger().error(f"the {self._work} did not stop within {STOP_TIMEOUT_S:g} s")

    def _turn(self) -> None:
        """Go on to the next place where the thread may be stopped."""
        try:
            next(self._steps, None)
        except DaeError as error:
            self.get_logger().error(f"{error} [{error.code}]")
            self.exit_code = EXIT_FAILURE
        if self.exit_code is not None:
            time.sleep(SLEEP_S)

    def _failed(self, _: BaseException, text: str) -> None:
        if not self.context.ok():
            # A signal has shut rclpy down, and a publisher failed because of it.
            return
        self.get_logger().fatal(f"the {self._work} has stopped\n{text}")
        self.exit_code = EXIT_FAILURE

    def _wait_acknowledged(self) -> Iterator[None]:
        """Wait until the subscribers have taken what was sent."""
        notice_s = time.monotonic() + NOTICE_PERIOD_S
        for publisher in self._sent().values():
            # Polled: rclpy keeps the GIL for as long as it waits.
            while not publisher.wait_for_all_acked(Duration()):
                if time.monotonic() > notice_s:
                    self.get_logger().info(
                        f"waiting for the subscribers of '{publisher.topic_name}' to take what "
                        "was sent",
                        throttle_duration_sec=NOTICE_PERIOD_S,
                    )
                time.sleep(ACKNOWLEDGE_POLL_S)
                yield
