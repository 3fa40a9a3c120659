"""The main loop that every node shares, its signals and its exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Protocol, TypeVar

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from dae_ros.errors import DaeError
from dae_ros.nodes.command_line import EXIT_USAGE, Usage, answer
from dae_ros.runtime import background

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130
# How soon a signal, or a node that has finished by itself, is noticed when nothing else happens.
SPIN_TIMEOUT_S = 0.1
# How long a thread may go on in Python while another one waits for the interpreter. With Python's
# own 5 ms a packet, or a window, waits that long wherever two threads meet.
SWITCH_INTERVAL_S = 0.0005


class RunnableNode(Protocol):
    """What `run` needs of a node beside being an rclpy node.

    Attributes:
        exit_code: None while it works; set by a node that ends by itself.
    """

    exit_code: int | None

    def close(self) -> None:
        """Stop threads and finish files, in order and with timeouts; callable more than once.

        Raises:
            DaeError: a file could not be finished.
        """


Created = TypeVar("Created", bound=RunnableNode)


class Signals:
    """Notes SIGINT and SIGTERM; the second one interrupts whatever runs.

    Attributes:
        received: whether one has come.
        first: called when the first one comes, in the middle of whatever the main thread does.

    rclpy's own handlers shut the context down at once, so that nothing could be published, or
    acknowledged, or logged while a node closes in order.
    """

    def __init__(self) -> None:
        self.received = False
        self.first: Callable[[], None] = lambda: None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        self.first()


def run(
    create: Callable[[], Created] | Sequence[Callable[[], Created]],
    usage: Usage,
    args: list[str] | None = None,
    interrupt: Callable[[Created], None] | None = None,
) -> int:
    """Create a node, or several for one executor, and spin until one ends or a signal comes.

    Args:
        create: makes the node; called after rclpy is initialised. Several are closed in their
            order.
        usage: for `--help`, and for arguments that no node has.
        args: command line without the program's name, None for the process's own.
        interrupt: called with each node on the first signal, in the middle of whatever callback
            runs, so that one which waits can give up; it must only set flags.

    Returns:
        0 after SIGINT, SIGTERM or a finished job, the node's own exit code if it has one,
        1 where it cannot be created or closed (the reason is logged), 2 for wrong usage, 130
        after a second signal.
    """
    answered = answer(usage, args)
    if answered is not None:
        return answered
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # RCLError and UnknownROSArgsError, which rclpy does not export
        sys.stderr.write(f"{usage.unreadable(str(error))}\n")
        return EXIT_USAGE
    signals = Signals()
    nodes: list[Any] = []
    try:
        nodes += [make() for make in (create if isinstance(create, Sequence) else [create])]
    except DaeError as error:
        get_logger("dae_ros").fatal(f"{error} [{error.code}]")
        rclpy.try_shutdown()
        return EXIT_FAILURE

    def give_up() -> None:
        for node in nodes:
            if interrupt is not None:
                interrupt(node)

    signals.first = give_up
    if signals.received:
        give_up()
    switch_interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        executor = SingleThreadedExecutor()
        for node in nodes:
            executor.add_node(node)
        while not signals.received and all(node.exit_code is None for node in nodes):
            executor.spin_once(timeout_sec=SPIN_TIMEOUT_S)
        for node in nodes:
            _close(node)
        executor.shutdown()
        for node in nodes:
            node.destroy_node()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        sys.setswitchinterval(switch_interval_s)
        rclpy.try_shutdown()
    return next((node.exit_code for node in nodes if node.exit_code), 0)


def _close(node: Any) -> None:
    """Close a node; what cannot be finished is logged, and the node has failed."""
    try:
        node.close()
    except DaeError as error:
        node.get_logger().fatal(f"{error} [{error.code}]")
        node.exit_code = node.exit_code or EXIT_FAILURE


def leave_despite(thread_name: str, code: int) -> None:
    """End the process at once where a thread of this name still runs, or one of the background.

    Returns where none does.

    A thread that could not be stopped is in native code, which has no place to stop at. The
    interpreter would tear it down in the middle of it when it finalizes, and crash.
    """
    names = (thread_name, background.THREAD_NAME)
    if any(thread.name in names for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
