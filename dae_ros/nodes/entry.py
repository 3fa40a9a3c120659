"""The main loop that every node shares, its signals and its exit codes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Protocol

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from dae_ros.errors import DaeError

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130
# How soon a signal, or a node that has finished by itself, is noticed when nothing else happens.
SPIN_TIMEOUT_S = 0.1


class RunnableNode(Protocol):
    """What `run` needs of a node beside being an rclpy node.

    Attributes:
        exit_code: None while it works; set by a node that ends by itself.
    """

    exit_code: int | None

    def close(self) -> None:
        """Stop threads and finish files, in order and with timeouts; callable more than once."""


class Signals:
    """Notes SIGINT and SIGTERM; the second one interrupts whatever runs.

    rclpy's own handlers shut the context down at once, so that nothing could be published, or
    acknowledged, or logged while a node closes in order.
    """

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True


def run(create: Callable[[], RunnableNode], args: list[str] | None = None) -> int:
    """Create a node and spin it until it ends or a signal comes.

    Args:
        create: makes the node; called after rclpy is initialised.
        args: command line, None for the process's own.

    Returns:
        0 after SIGINT, SIGTERM or a finished job, the node's own exit code if it has one,
        1 where it cannot be created (the reason is logged), 130 after a second signal.
    """
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    signals = Signals()
    try:
        node = create()
    except DaeError as error:
        get_logger("dae_ros").fatal(f"{error} [{error.code}]")
        rclpy.try_shutdown()
        return EXIT_FAILURE
    try:
        executor = SingleThreadedExecutor()
        executor.add_node(node)  # type: ignore[arg-type]
        while node.exit_code is None and not signals.received:
            executor.spin_once(timeout_sec=SPIN_TIMEOUT_S)
        node.close()
        executor.shutdown()
        node.destroy_node()  # type: ignore[attr-defined]
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        rclpy.try_shutdown()
    return node.exit_code or 0
