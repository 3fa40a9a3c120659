"""Subscriptions find type and quality of service on the graph, and say what is missing."""

from __future__ import annotations

import os

import pytest
from event_camera_msgs.msg import EventPacket
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from dae_ros.errors import ConfigurationError
from dae_ros.nodes.qos import MatchedSubscription, Offer, matched_qos, message_class

PACKET = "event_camera_msgs/msg/EventPacket"


def offer(**changes):
    """Return an offer of one reliable, volatile publisher."""
    values = {
        "types": (PACKET,),
        "reliable": True,
        "transient_local": False,
        "publishers": ("/camera",),
        **changes,
    }
    return Offer(**values)


def subscribe(graph, node=None, **changes):
    """Return a matched subscription of a node, refreshed by a timer, and what it receives."""
    node = node or graph.peer
    received = []
    options = {"raw": False, "depth": 10, **changes}
    found = MatchedSubscription(
        node,
        "events",
        [PACKET],
        lambda message, kind: received.append((message, kind)),
        **options,
    )
    node.create_timer(0.05, found.refresh)
    return found, received


def remapped(graph, *rules):
    """Return a node that was started with `-r RULE` for each rule."""
    words = [word for rule in rules for word in ("-r", rule)]
    return graph.add(Node("remapped", cli_args=["--ros-args", *words]))


def test_the_profile_is_the_strongest_that_every_publisher_satisfies():
    """Reliable, transient local and keep-all only where the offer allows them."""
    best = matched_qos(offer(), depth=7, keep_all=True)
    assert best.reliability == ReliabilityPolicy.RELIABLE
    assert best.history == HistoryPolicy.KEEP_ALL
    assert best.durability == DurabilityPolicy.VOLATILE
    weak = matched_qos(offer(reliable=False), depth=7, keep_all=True)
    assert weak.reliability == ReliabilityPolicy.BEST_EFFORT
    assert (weak.history, weak.depth) == (HistoryPolicy.KEEP_LAST, 7)
    latched = matched_qos(offer(transient_local=True), depth=1)
    assert latched.durability == DurabilityPolicy.TRANSIENT_LOCAL
    insisted = matched_qos(offer(reliable=False), reliability="reliable", depth=1)
    assert insisted.reliability == ReliabilityPolicy.RELIABLE


@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "best_effort"])
def test_messages_of_either_publisher_arrive(graph, reliable):
    """A driver's best effort and a recording's reliable publisher are both heard."""
    publisher = graph.publisher(EventPacket, "events", reliable=reliable)
    found, received = subscribe(graph)
    graph.until(lambda: publisher.get_subscription_count() == 1)
    assert found.reliable is reliable
    assert found.problem is None
    publisher.publish(EventPacket(seq=5))
    graph.until(lambda: received)
    assert received[0][0].seq == 5
    assert received[0][1] == PACKET


# rclpy itself reports the moment of mismatch, through a method that it deprecates.
@pytest.mark.filterwarnings("ignore:Deprecated in favor of:DeprecationWarning")
def test_the_subscription_is_made_anew_when_the_offer_changes(graph):
    """A best-effort publisher that joins a reliable one is heard as well."""
    first = graph.publisher(EventPacket, "events", reliable=True)
    found, received = subscribe(graph)
    graph.until(lambda: first.get_subscription_count() == 1)
    second = graph.publisher(EventPacket, "events", reliable=False)
    graph.until(lambda: second.get_subscription_count() == 1)
    assert not found.reliable
    graph.until(lambda: first.get_subscription_count() == 1)
    first.publish(EventPacket(seq=1))
    second.publish(EventPacket(seq=2))
    graph.until(lambda: len(received) == 2)


@pytest.mark.filterwarnings("ignore:Deprecated in favor of:DeprecationWarning")
def test_a_publisher_that_leaves_is_missed_and_heard_again(graph):
    """When the last one goes, the problem names it; the next is heard, whatever it offers."""
    driver = graph.add(Node("driver"))
    driver.create_publisher(EventPacket, "events", 10)
    found, received = subscribe(graph)
    graph.until(lambda: found.problem is None and not found.absent)
    assert found.publishers == ("/driver",)
    graph.remove(driver)
    graph.until(lambda: found.absent)
    assert "nobody publishes '/events' any more: /driver is gone" in found.problem
    publisher = graph.publisher(EventPacket, "events", reliable=False)
    graph.until(lambda: publisher.get_subscription_count() == 1 and not found.reliable)
    assert found.problem is None
    publisher.publish(EventPacket(seq=5))
    graph.until(lambda: received)


@pytest.mark.filterwarnings("ignore:Deprecated in favor of:DeprecationWarning")
def test_insisting_on_reliable_names_the_publisher_that_is_not(graph):
    """A demand that cannot be met is a sentence, not silence."""
    graph.publisher(EventPacket, "events", reliable=False)
    found, _ = subscribe(graph, reliability="reliable")
    graph.until(lambda: found.problem is not None and "best effort" in found.problem)
    assert "/peer" in found.problem
    assert "start this node with `-p event_reliability:=auto`" in found.problem
    assert "`event_reliability: auto` in the parameter file" in found.problem


def test_an_absent_topic_lists_the_topics_that_would_fit(graph):
    """While nobody publishes, the problem names the topics that carry events."""
    found, _ = subscribe(graph)
    graph.publisher(String, "/own")
    other = graph.add(Node("other"))
    other.create_publisher(String, "/chatter", 1)
    graph.until(lambda: "/chatter (std_msgs/msg/String)" in (found.problem or ""))
    assert "/own" not in found.problem
    other.create_publisher(EventPacket, "/camera/left", 1)
    graph.until(lambda: f"/camera/left ({PACKET})" in (found.problem or ""))
    assert "'/events'" in found.problem
    assert "`-r events:=/camera/left` behind --ros-args" in found.problem
    assert "/chatter" not in found.problem


def test_a_remapped_node_sees_a_topic_of_its_own_default_name(graph):
    """Somebody publishes /events while the node waits for another name: /events is listed."""
    graph.publisher(EventPacket, "/events")
    found, _ = subscribe(graph, remapped(graph, "events:=/event_camera/events"))
    graph.until(lambda: f"topics of such a type: /events ({PACKET})" in (found.problem or ""))
    assert "nobody publishes '/event_camera/events' yet" in found.problem


def test_a_topic_is_remapped_once(graph):
    """A rule for the name that another rule leads to is not applied as well, as in rcl itself."""
    graph.publisher(EventPacket, "/b", reliable=False)
    publisher = graph.publisher(EventPacket, "/a")
    found, received = subscribe(graph, remapped(graph, "events:=/a", "/a:=/b"))
    graph.until(lambda: publisher.get_subscription_count() == 1)
    assert found.name == "/a" and found.reliable
    publisher.publish(EventPacket(seq=5))
    graph.until(lambda: received)


def test_all_topics_are_listed_once_a_second_at_most(graph):
    """Who waits looks at its own topic ten times as often, which costs a hundredth of that."""
    listings = []
    found = MatchedSubscription(graph.peer, "events", [PACKET], print, raw=False, depth=10)
    nodes_of = graph.peer.get_node_names_and_namespaces
    graph.peer.get_node_names_and_namespaces = lambda: listings.append(1) or nodes_of()
    for _ in range(20):
        found.refresh()
    assert len(listings) == 1 and found.absent and "nobody publishes" in found.problem
    publisher = graph.publisher(EventPacket, "/events")
    graph.until(lambda: found.refresh() or found.type_name is not None)
    graph.peer.destroy_publisher(publisher)
    graph.until(lambda: found.refresh() or found.absent)
    assert "any more" in found.problem
    found.destroy()
    before = len(listings)
    found.refresh()
    assert len(listings) == before + 1, "what was listed before a publisher came is old"


def test_an_empty_graph_points_to_the_domain(monkeypatch):
    """Where no other node publishes anything, the likeliest reason is another DDS domain."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    # A domain of its own: nodes of other tests may still be known in this process's.
    context.init(domain_id=215 + os.getpid() % 17)
    node = Node("alone", context=context)
    found = MatchedSubscription(node, "events", [PACKET], lambda *_: None, raw=False, depth=10)
    found.refresh()
    node.destroy_node()
    context.try_shutdown()
    assert "no topic of another node is visible at all" in found.problem
    assert f"ROS_DOMAIN_ID ({os.environ['ROS_DOMAIN_ID']})" in found.problem
    assert "(LOCALHOST)" in found.problem


def test_a_topic_of_another_type_is_named(graph):
    """A string topic under the expected name is refused with both types."""
    graph.publisher(String, "events")
    found, _ = subscribe(graph)
    graph.until(lambda: "std_msgs/msg/String" in (found.problem or ""))
    assert PACKET in found.problem
    assert found.type_name is None


def test_a_missing_message_package_is_named_with_its_source():
    """rclpy needs the package even for raw bytes; the error says which, and where it is."""
    with pytest.raises(ConfigurationError) as caught:
        message_class("prophesee_event_msgs/msg/EventArray")
    assert "'prophesee_event_msgs'" in caught.value.message
    assert "built from source" in caught.value.message
    assert message_class(PACKET) is EventPacket


def test_the_profile_of_images_is_reliable():
    """Large best-effort images vanish, so outputs are reliable and shallow."""
    from dae_ros.nodes.qos import output_qos

    profile = output_qos()
    assert profile == QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
