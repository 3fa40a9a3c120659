"""Subscriptions that find their type and quality of service on the graph.

A reliable subscriber never matches a best-effort publisher, which is the commonest reason for
"no messages": camera drivers publish best effort, recordings are played reliably. A subscription
here asks for what every publisher of the topic offers, and is made anew when that changes.
"""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from dae_ros.errors import ConfigurationError
from dae_ros.nodes.taker import NotByExecutor, Taker

# What every node publishes; no help in a list of what there is.
INFRASTRUCTURE = frozenset({"/rosout", "/parameter_events", "/diagnostics", "/clock"})
# How often all topics are looked at, for the sentence that says which there are instead of the
# one that is missing; with many it takes a millisecond, in which no packet is taken.
LISTING_PERIOD_S = 1.0

# Called with the message, or its serialized bytes where `raw`, and the type's name.
Received: TypeAlias = "Callable[[Any, str], None]"

# Where the Python package of a message type comes from, for the error that names it.
PACKAGE_SOURCES = {
    "event_camera_msgs": "the ROS package event_camera_msgs (rosdep key event_camera_msgs), or "
    "`pip install ./interfaces` in this repository",
    "dvs_msgs": "https://github.com/ros-event-camera/dvs_msgs built from source (there is no "
    "binary for ROS 2), or `pip install ./interfaces` in this repository",
    "prophesee_event_msgs": "a ROS 2 port of prophesee_event_msgs built from source",
    "dv_ros2_msgs": "https://github.com/Telios/dv-ros2 built from source",
}


def output_qos(depth: int = 2) -> QoSProfile:
    """Return the profile of images: reliable, because large best-effort messages vanish."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def latched_qos(depth: int = 1) -> QoSProfile:
    """Return the profile of what late subscribers must know: reliable, the last `depth` kept."""
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def message_class(type_name: str) -> type:
    """Import the Python class of a message type, `package/msg/Name`.

    Raises:
        ConfigurationError: its package is not there; names it and where it comes from.
    """
    package, _, name = type_name.split("/")
    try:
        found: type = getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        source = PACKAGE_SOURCES.get(package, f"the ROS package {package}")
        raise ConfigurationError(
            f"the Python package '{package}' of the message type {type_name} is not here: rclpy "
            f"cannot subscribe or publish without it, not even raw bytes; install {source}",
            package=package,
            type_name=type_name,
        ) from error
    return found


@dataclass(frozen=True, slots=True)
class Offer:
    """What the publishers of a topic agree on.

    Attributes:
        types: type names found, sorted.
        reliable: all publishers offer reliable delivery.
        transient_local: all publishers keep messages for late subscribers.
        publishers: full node names, sorted.
    """

    types: tuple[str, ...]
    reliable: bool
    transient_local: bool
    publishers: tuple[str, ...]


def offer_of(node: Node, topic: str) -> Offer | None:
    """Return what is offered on a topic, None if nothing.

    Args:
        node: that looks at the graph.
        topic: as a subscription of the node would be given it. The query remaps it itself; a
            resolved name would be remapped a second time.
    """
    found = node.get_publishers_info_by_topic(topic)
    if not found:
        return None
    return Offer(
        types=tuple(sorted({info.topic_type for info in found})),
        reliable=all(info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in found),
        transient_local=all(
            info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for info in found
        ),
        publishers=tuple(
            sorted(f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in found)
        ),
    )


def published_by_others(node: Node) -> dict[str, set[str]]:
    """Return the types of every topic that another node publishes, without `INFRASTRUCTURE`.

    Asked node by node: a query for the publishers of a name would apply this node's remappings to
    it, and find nobody on a topic that is called what the node calls its own.
    """
    own = (node.get_name(), node.get_namespace())
    published: dict[str, set[str]] = {}
    for other in set(node.get_node_names_and_namespaces()) - {own}:
        try:
            found = node.get_publisher_names_and_types_by_node(*other)
        except NodeNameNonExistentError:  # it has gone since
            continue
        for name, types in found:
            if name not in INFRASTRUCTURE:
                published.setdefault(name, set()).update(types)
    return published


def matched_qos(
    offer: Offer, *, reliability: str = "auto", depth: int, keep_all: bool = False
) -> QoSProfile:
    """Return the strongest profile that every publisher satisfies.

    Args:
        offer: of the publishers.
        reliability: `auto`, or `reliable` or `best_effort` where the user insists.
        depth: messages that may wait.
        keep_all: with reliable delivery, make the publisher wait instead of dropping messages
            that were not taken yet.
    """
    reliable = offer.reliable if reliability == "auto" else reliability == "reliable"
    return QoSProfile(
        history=HistoryPolicy.KEEP_ALL if keep_all and reliable else HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=(
            DurabilityPolicy.TRANSIENT_LOCAL if offer.transient_local else DurabilityPolicy.VOLATILE
        ),
    )


class Unacknowledged:
    """Counts what a reliable publisher sent since its subscribers last had everything.

    Where nothing may be lost, a publisher has `DEPTH` messages of history and waits for its
    acknowledgements as soon as `full`: later ones would overwrite what is still on its way. It
    cannot wait after every message: for small ones Fast DDS asks the subscribers what they have
    only every 3 s (`heartbeat_period`).
    """

    DEPTH = 5000
    MESSAGES = 4000
    BYTES = 16_000_000

    def __init__(self) -> None:
        self._messages = self._bytes = 0

    def add(self, size_bytes: int) -> None:
        """Count a message."""
        self._messages += 1
        self._bytes += size_bytes

    def clear(self) -> None:
        """Everything has been acknowledged."""
        self._messages = self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether it is time to wait."""
        return self._messages >= self.MESSAGES or self._bytes >= self.BYTES


class MatchedSubscription:
    """One topic's subscription, made when a publisher appears and anew when its offer changes.

    Args:
        node: that subscribes; `refresh` must be called on its executor's thread.
        topic: relative, private or absolute name; remappings apply.
        types: acceptable type names, empty for any.
        received: called for each message.
        raw: hand over serialized bytes.
        failed: where given, and `raw`, messages are taken on a thread of their own (`taker.py`),
            and this is called on it with a traceback if `received` raises; None: the executor
            takes them.
        reliability: the node's parameter `event_reliability`, see `matched_qos`.
        depth, keep_all: see `matched_qos`.

    Attributes:
        problem: one sentence on why nothing can arrive, None where all is well.
        absent: whether nobody publishes the topic.
        publishers: full names of the nodes that publish it, or did last; sorted.
        type_name: of the present subscription, None without one.
        reliable: whether the present subscription is.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        types: Sequence[str],
        received: Received,
        *,
        raw: bool,
        failed: Callable[[str], None] | None = None,
        reliability: str = "auto",
        depth: int,
        keep_all: bool = False,
    ) -> None:
        self._node = node
        self._topic = topic
        self._types = tuple(types)
        self._received = received
        self._raw = raw
        self._failed = failed
        self._taker: Taker | None = None
        self._reliability = reliability
        self._depth = depth
        self._keep_all = keep_all
        self._subscription: Any = None
        self._made_for: tuple[str, QoSProfile] | None = None
        self.name = node.resolve_topic_name(topic)
        self.problem: str | None = None
        self.absent = True
        self.publishers: tuple[str, ...] = ()
        self._next_listing_s = -math.inf

    @property
    def type_name(self) -> str | None:
        """Type of the present subscription."""
        return None if self._made_for is None else self._made_for[0]

    @property
    def reliable(self) -> bool:
        """Whether the present subscription asks for reliable delivery."""
        return (
            self._made_for is not None
            and self._made_for[1].reliability == ReliabilityPolicy.RELIABLE
        )

    @property
    def qos(self) -> QoSProfile | None:
        """The profile of the present subscription."""
        return None if self._made_for is None else self._made_for[1]

    def refresh(self) -> None:
        """Look at the graph, and subscribe, or subscribe anew, where that is due."""
        offer = offer_of(self._node, self._topic)
        self.absent = offer is None
        if offer is None:
            if self._made_for is not None:
                self.problem = self._left()
            elif time.monotonic() >= self._next_listing_s:
                self.problem = self._waiting()
                self._next_listing_s = time.monotonic() + LISTING_PERIOD_S
            return
        self._next_listing_s = -math.inf
        self.publishers = offer.publishers
        usable = [name for name in offer.types if not self._types or name in self._types]
        if not usable:
            self.problem = (
                f"'{self.name}' carries {', '.join(offer.types)} (from "
                f"{', '.join(offer.publishers)}), which is none of {', '.join(self._types)}; "
                "remap the topic to one that does"
            )
            return
        self.problem = None
        if len(offer.types) > 1:
            self.problem = (
                f"'{self.name}' carries several types: {', '.join(offer.types)}; "
                f"{usable[0]} is read, the others are not"
            )
        if self._reliability == "reliable" and not offer.reliable:
            self.problem = (
                f"a publisher of '{self.name}' ({', '.join(offer.publishers)}) offers best effort "
                "and 'event_reliability' asks for reliable, so nothing arrives from it; start this "
                "node with `-p event_reliability:=auto` behind --ros-args, or with "
                "`event_reliability: auto` in the parameter file"
            )
        wanted = (
            usable[0],
            matched_qos(
                offer, reliability=self._reliability, depth=self._depth, keep_all=self._keep_all
            ),
        )
        if wanted == self._made_for:
            return
        try:
            kind = message_class(usable[0])
        except ConfigurationError as error:
            self.problem = error.message
            return
        self.destroy()
        type_name = usable[0]

        def received(message: Any) -> None:
            self._received(message, type_name)

        group = None if self._failed is None else NotByExecutor()
        self._subscription = self._node.create_subscription(
            kind, self._topic, received, wanted[1], raw=self._raw, callback_group=group
        )
        if self._failed is not None:
            self._taker = Taker(self._node, self._subscription, received, self._failed)
        self._made_for = wanted
        self._node.get_logger().info(
            f"subscribed to '{self.name}' ({type_name}, "
            f"{'reliable' if self.reliable else 'best effort'})"
        )

    def take(self) -> None:
        """Receive what has come, on the caller's thread; with `failed` alone."""
        taker = self._taker
        if taker is not None:
            taker.take()

    def destroy(self) -> None:
        """Unsubscribe."""
        if self._taker is not None and not self._taker.stop():
            self._node.get_logger().error(
                f"a message of '{self.name}' is still waiting to be worked on; its thread is "
                "abandoned"
            )
        self._taker = None
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = None
        self._made_for = None

    def _left(self) -> str:
        return (
            f"nobody publishes '{self.name}' any more: {', '.join(self.publishers)} is gone. "
            "Unless it was meant to end, see why it did and start it again; its messages are "
            "taken as soon as it is back"
        )

    def _waiting(self) -> str:
        published = published_by_others(self._node)
        fitting = {
            name: found
            for name, found in published.items()
            if not self._types or found & set(self._types)
        }
        shown = sorted((fitting or published).items())
        listed = ", ".join(f"{name} ({', '.join(sorted(found))})" for name, found in shown)
        if fitting:
            said = f"nobody publishes '{self.name}' yet; topics of such a type: {listed}"
            # Without types everything fits, and nothing is a hint.
            meant = f"`-r {self._topic}:={shown[0][0]}` behind --ros-args remaps"
            return f"{said}; if that is meant, {meant}" if self._types else said
        if not published:
            return (
                f"nobody publishes '{self.name}' yet, and no topic of another node is visible at "
                "all: is its publisher running, and with the same ROS_DOMAIN_ID "
                f"({os.environ.get('ROS_DOMAIN_ID') or '0, not set'}) and "
                "ROS_AUTOMATIC_DISCOVERY_RANGE "
                f"({os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') or 'not set'}) as here?"
            )
        return (
            f"nobody publishes '{self.name}' yet, and no topic has a type that fits; there "
            f"are: {listed}"
        )
