"""Takes the messages of one busy topic on a thread of its own, beside the executor.

An executor of rclpy looks at every entity of its nodes, builds a wait set of them and makes a task
for each message; at a thousand packets a second that is most of what a core does, and packets wait
for it. Here a wait set has the one subscription and stays; whatever has come is taken at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from rclpy.callback_groups import CallbackGroup
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node

from dae_ros.runtime.worker import Worker

THREAD_NAME: Final = "taker"
# What is taken may have to wait for room; nobody waits for that for ever.
STOP_TIMEOUT_S: Final = 10.0


class NotByExecutor(CallbackGroup):
    """The group of subscriptions that executors leave alone."""

    def can_execute(self, entity: Any) -> bool:  # noqa: ARG002 - of any entity
        """Keep it out of every wait set."""
        return False

    def beginning_execution(self, entity: Any) -> bool:  # noqa: ARG002 - of any entity
        """Never happens."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Never happens."""


class Taker:
    """Calls back with each serialized message of a subscription, from construction to `stop`.

    Args:
        node: that has the subscription.
        subscription: of rclpy, made with `raw` and in a `NotByExecutor`.
        received: called on the thread, or in `take`; it may wait, which holds back this topic
            alone.
        failed: called on the thread with a traceback where `received` raised; nothing is taken
            any more.
    """

    def __init__(
        self,
        node: Node,
        subscription: Any,
        received: Callable[[bytes], None],
        failed: Callable[[str], None],
    ) -> None:
        self._subscription = subscription
        self._received = received
        self._leaving = False
        self._taking = threading.Lock()
        # Ends the wait; the executor, which does not know of it, has nothing to do with it.
        self._wake = GuardCondition(None, None, context=node.context)
        self._wait_set: Any = _rclpy.WaitSet(1, 1, 0, 0, 0, 0, node.context.handle)
        self._worker = Worker(THREAD_NAME, self._turn, lambda _, text: failed(text))
        self._worker.start()

    def stop(self) -> bool:
        """End the thread, after the message in hand; return whether it ended in time.

        The subscription may be destroyed afterwards, in either case.
        """
        self._leaving = True
        self._wake.trigger()
        ended = self._worker.stop(STOP_TIMEOUT_S)
        if ended:
            # Whoever takes on another thread is done soon, too, and nobody begins.
            with self._taking:
                pass
        return ended

    def take(self) -> None:
        """Take what has come, on the caller's thread: afterwards all of it has been received."""
        subscription = self._subscription
        with self._taking:
            while not self._leaving:
                taken = subscription.handle.take_message(subscription.msg_type, True)
                if taken is None:
                    break
                self._received(taken[0])

    def _turn(self) -> None:
        with self._subscription.handle, self._wake.handle:
            self._wait_set.clear_entities()
            self._wait_set.add_subscription(self._subscription.handle)
            self._wait_set.add_guard_condition(self._wake.handle)
            self._wait_set.wait(-1)
            self.take()
