"""Messages that a thread of their own takes, on real rclpy and DDS."""

from __future__ import annotations

import threading
import time

import pytest
from event_camera_msgs.msg import EventPacket
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.serialization import deserialize_message, serialize_message

from dae_ros.events.cdr import write_packet
from dae_ros.nodes.qos import MatchedSubscription
from dae_ros.nodes.taker import THREAD_NAME

PACKET = "event_camera_msgs/msg/EventPacket"
PATIENCE_S = 60.0


def takers():
    """Return how many such threads there are."""
    return sum(thread.name == THREAD_NAME for thread in threading.enumerate())


def wait_for(condition):
    """Wait without spinning anything."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not come true in time"
        time.sleep(0.005)


@pytest.fixture
def subscribe(graph):
    """Return what subscribes with a thread and waits until it is matched with a publisher."""
    made = []

    def make(received, failed, *, reliable=True):
        found = MatchedSubscription(
            graph.peer, "events", [PACKET], received, raw=True, failed=failed, depth=1000
        )
        made.append(found)
        publisher = graph.publisher(EventPacket, "events", reliable=reliable)

        def matched():
            found.refresh()
            return publisher.get_subscription_count() == 1

        graph.until(matched)
        return found, publisher

    yield make
    for found in made:
        found.destroy()


def test_messages_are_taken_while_nothing_spins(subscribe):
    """All of them, in order, whole, with their type, on one thread that ends with it."""
    received = []
    found, publisher = subscribe(
        lambda data, kind: received.append((data, kind, threading.current_thread().name)),
        pytest.fail,
    )
    assert takers() == 1
    sent = [serialize_message(EventPacket(seq=number, width=640)) for number in range(300)]
    for data in sent:
        publisher.publish(data)
    wait_for(lambda: len(received) >= 300)
    assert [deserialize_message(data, EventPacket).seq for data, _, _ in received] == [*range(300)]
    assert {(kind, name) for _, kind, name in received} == {(PACKET, THREAD_NAME)}
    found.destroy()
    assert takers() == 0
    found.destroy()  # once is enough


def test_the_executor_leaves_them_alone(graph, subscribe):
    """However much it spins, no message is taken twice or on its thread."""
    received = []
    _, publisher = subscribe(
        lambda data, _: received.append(threading.current_thread().name), pytest.fail
    )
    for number in range(50):
        publisher.publish(EventPacket(seq=number))
        graph.executor.spin_once(timeout_sec=0.001)
    graph.until(lambda: len(received) >= 50)
    graph.spin(0.2)
    assert received == [THREAD_NAME] * 50


def test_a_new_offer_gives_a_new_thread_in_place_of_the_old_one(graph, subscribe):
    """A publisher that joins with best effort is heard as well."""
    received = []
    found, first = subscribe(lambda data, _: received.append(data), pytest.fail)
    second = graph.publisher(EventPacket, "events", reliable=False)

    def heard_by_both():
        found.refresh()
        return not found.reliable and second.get_subscription_count() == 1

    graph.until(heard_by_both)
    assert takers() == 1
    graph.until(lambda: first.get_subscription_count() == 1)
    first.publish(EventPacket(seq=1))
    second.publish(EventPacket(seq=2))
    wait_for(lambda: len(received) >= 2)


def test_an_error_is_reported_once_and_nothing_is_taken_any_more(subscribe):
    """With its traceback; destroying the subscription works as ever."""
    failed = []
    calls = []

    def refuse(data, _):
        calls.append(data)
        raise ValueError("seven")

    found, publisher = subscribe(refuse, failed.append)
    for number in range(5):
        publisher.publish(EventPacket(seq=number))
    wait_for(lambda: failed)
    wait_for(lambda: takers() == 0)
    assert len(calls) == len(failed) == 1
    assert "ValueError: seven" in failed[0] and "in refuse" in failed[0]
    found.destroy()


def test_destroying_waits_for_the_message_in_hand(subscribe):
    """And for no other one."""
    entered, leave, ended = threading.Event(), threading.Event(), []

    def slow(_data, _kind):
        entered.set()
        leave.wait(PATIENCE_S)
        ended.append(time.monotonic())

    found, publisher = subscribe(slow, pytest.fail)
    for number in range(3):
        publisher.publish(EventPacket(seq=number))
    assert entered.wait(PATIENCE_S)
    threading.Timer(0.3, leave.set).start()
    found.destroy()
    assert len(ended) == 1 and ended[0] <= time.monotonic()


def test_a_depth_node_stops_where_messages_cannot_be_taken(graph, depth, camera, monkeypatch):
    """As after an error of its worker: the traceback is logged, the node is unconfigured."""
    node = depth()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    publisher = graph.publisher(EventPacket, "events")
    graph.until(lambda: publisher.get_subscription_count() == 1)

    def refuse(data, type_name):
        raise ValueError(f"{len(data)} bytes of {type_name}")

    monkeypatch.setattr(node._worker, "put_events", refuse)
    publisher.publish(write_packet(camera.packet()))
    graph.until(lambda: node._worker is None)
    assert "ValueError" in node._fault.message and node._fault.internal


def test_taking_by_hand_waits_for_the_message_in_hand(subscribe):
    """Whoever takes has everything that had come, in order, whoever received it."""
    entered, leave, received = threading.Event(), threading.Event(), []

    def slow(data, _kind):
        entered.set()
        leave.wait(PATIENCE_S)
        received.append(deserialize_message(data, EventPacket).seq)

    found, publisher = subscribe(slow, pytest.fail)
    publisher.publish(EventPacket(seq=1))
    assert entered.wait(PATIENCE_S)
    publisher.publish(EventPacket(seq=2))
    assert publisher.wait_for_all_acked()
    threading.Timer(0.3, leave.set).start()
    found.take()
    assert received == [1, 2]
    found.destroy()
    found.take()
    assert received == [1, 2]
