"""The one table of differences between ROS 2 distributions that the nodes care about.

What can be detected is detected by feature, never by the distribution's name: a name says
nothing about a patched or vendored rclpy.
"""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.node import Node


@dataclass(frozen=True, slots=True)
class Difference:
    """One row: what differs, since when the newer form exists, and what the nodes do about it."""

    what: str
    humble: str
    jazzy: str
    kilted: str
    handling: str


DIFFERENCES = (
    Difference(
        "Node.add_post_set_parameters_callback",
        "absent",
        "present",
        "present",
        "detected; where it is absent a timer commits accepted values within 0.1 s "
        "(parameter_binding.py)",
    ),
    Difference(
        "launch_ros LifecycleNode(autostart=True)",
        "absent",
        "absent",
        "present",
        "never used: the node's own parameter 'autostart' works everywhere (lifecycle.py)",
    ),
    Difference(
        "rclpy.experimental.EventsExecutor",
        "absent",
        "absent",
        "spin() dispatches nothing",
        "never used: SingleThreadedExecutor and an own worker thread everywhere (entry.py)",
    ),
    Difference(
        "setter of uint8[] fields",
        "checks bytes element by element",
        "takes bytes at once",
        "takes bytes at once",
        "never used: images and packets are published as serialized bytes everywhere (messages.py)",
    ),
    Difference(
        "spin after a signal",
        "returns or raises ExternalShutdownException",
        "raises ExternalShutdownException",
        "raises ExternalShutdownException",
        "never met: the nodes have signal handlers of their own, which leave the context valid "
        "while they close (entry.py)",
    ),
)


@dataclass(frozen=True, slots=True)
class Features:
    """What the running rclpy offers.

    Attributes:
        post_set_callbacks: committed parameter values are announced by rclpy itself.
    """

    post_set_callbacks: bool


def detect() -> Features:
    """Return the features of the rclpy that is imported."""
    return Features(post_set_callbacks=hasattr(Node, "add_post_set_parameters_callback"))
