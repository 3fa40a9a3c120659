"""Transitions that say what went wrong, and a start that needs no launch file."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from dae_ros.errors import ConfigurationError, DaeError, RecordingError, WeightsError

Managed = TypeVar("Managed", bound=LifecycleNode)

# What the user can put right and try again: the transition fails and the state stays. Anything
# else is an error: the node is torn down to unconfigured by `on_error`.
REFUSALS = (ConfigurationError, WeightsError, RecordingError)
AUTOSTART_DELAY_S = 0.01


def transition(
    body: Callable[[Managed], None],
) -> Callable[[Managed, LifecycleState], TransitionCallbackReturn]:
    """Make a method without result into a transition callback.

    rclpy turns every exception of a callback into ERROR without a word; this logs the sentence of
    a refusal, or the traceback of anything else, before it says so.
    """

    @functools.wraps(body)
    def callback(self: Managed, _: LifecycleState) -> TransitionCallbackReturn:
        try:
            body(self)
        except REFUSALS as error:
            self.get_logger().error(f"{body.__name__}: {error} [{error.code}]")
            return TransitionCallbackReturn.FAILURE
        except Exception:  # noqa: BLE001 - rclpy would swallow it
            self.get_logger().error(f"{body.__name__} failed\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    return callback


def way_out(node: LifecycleNode, error: DaeError, weights: str | None = None) -> str:
    """Return what to do about a refusal to be configured, for the end of its sentence.

    Args:
        node: that stays unconfigured.
        error: names its parameter in `data`, if one is to blame.
        weights: the parameter to blame for weights.
    """
    name = error.data.get("parameter") or (weights if isinstance(error, WeightsError) else None)
    path, again = node.get_fully_qualified_name(), "start it again (Ctrl-C ends it)"
    configure = f"`ros2 lifecycle set {path} configure` and `activate`"
    if name is None:
        return f"staying unconfigured: mend it and {again}, or use {configure}"
    value = "PATH" if name == weights else "VALUE"
    return (
        f"staying unconfigured: {again} with `-p {name}:={value}`, or without a restart use "
        f"`ros2 param set {path} {name} {value}`, then {configure}"
    )


def autostart(node: LifecycleNode) -> None:
    """Configure and activate as soon as the node spins; a refusal leaves it where it is.

    launch_ros can do this only from Kilted on, and a node started by hand never could.
    """
    timer: Any = None

    def start() -> None:
        node.destroy_timer(timer)
        if node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()

    timer = node.create_timer(
        AUTOSTART_DELAY_S, start, clock=Clock(clock_type=ClockType.STEADY_TIME)
    )
