"""What the recorder does where it cannot write, and what it writes beside the messages."""

from __future__ import annotations

import signal

from rosbags.interfaces import QosDurability, QosReliability
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from dae_ros.bags.recording import open_recording
from dae_ros.nodes.conversions import ns_to_stamp
from dae_ros.nodes.qos import latched_qos
from dae_ros.nodes.recorder_node import RecorderNode
from test.reference.full_disk import no_room_beyond
from test.reference.replay_runs import START_NS, finish, output_of, overrides


def record(graph, process, tmp_path, room):
    """Start a recorder in a process for which every file ends at `room` bytes."""
    publisher = graph.publisher(String, "/talk")
    with no_room_beyond(room):
        child = process("recorder_node", output=tmp_path / "copy", topics="/talk")
    graph.until(lambda: publisher.get_subscription_count() == 1 or child.poll() is not None)
    return publisher, child


def assert_not_whole(tmp_path, child):
    """What fitted keeps its name, and one sentence says so."""
    assert not (tmp_path / "copy").exists()
    assert (tmp_path / "copy.partial").is_dir()
    log = output_of(child)
    assert "Traceback" not in log
    assert "recorded" not in log
    assert log.count("copy cannot be written") == 1
    assert "[recording]" in log


def test_a_disk_that_gets_full_ends_the_recording(graph, process, tmp_path):
    """The node ends by itself with 1 at the first message that was lost."""
    publisher, child = record(graph, process, tmp_path, 400_000)
    while child.poll() is None:
        publisher.publish(String(data="x" * 100_000))
        graph.spin(0.02)
    assert child.returncode == 1, output_of(child)
    assert_not_whole(tmp_path, child)


def test_a_disk_that_is_full_at_the_end_is_a_sentence(graph, process, tmp_path):
    """What the writer still holds does not fit when a signal closes it: 1, no traceback."""
    publisher, child = record(graph, process, tmp_path, 20_000)
    publisher.publish(String(data="x" * 50_000))
    graph.spin(2.0)
    assert child.poll() is None, output_of(child)
    child.send_signal(signal.SIGINT)
    assert finish(graph, child) == 1, output_of(child)
    assert_not_whole(tmp_path, child)


def test_a_tilde_in_the_output_is_the_home_folder(graph, tmp_path, monkeypatch):
    """No folder named `~` is made where the node was started."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    node = graph.add(RecorderNode(parameter_overrides=overrides(output="~/copy", topics="/talk")))
    graph.remove(node)
    assert (tmp_path / "copy").is_dir() and not (tmp_path / "~").exists()


def test_what_comes_before_the_first_clock_is_left_out(graph, process, tmp_path):
    """With simulated time a message has no time yet; the number of these is said."""
    publisher = graph.publisher(String, "/talk")
    clock = graph.publisher(Clock, "/clock")
    child = process("recorder_node", output=tmp_path / "copy", topics="/talk", use_sim_time=True)
    graph.until(
        lambda: publisher.get_subscription_count() == 1 and clock.get_subscription_count() == 1
    )
    for _ in range(3):
        publisher.publish(String(data="early"))
    graph.spin(1.0)
    for _ in range(20):
        clock.publish(Clock(clock=ns_to_stamp(START_NS)))
        graph.spin(0.05)
    publisher.publish(String(data="timed"))
    graph.spin(1.0)
    child.send_signal(signal.SIGINT)
    assert finish(graph, child) == 0, output_of(child)
    with open_recording(tmp_path / "copy") as copy:
        assert [message.time_ns for message in copy.messages()] == [START_NS]
    assert "3 messages came before the first /clock" in output_of(child)
    assert output_of(child).count("no /clock has come") == 1


def test_what_was_offered_is_recorded(graph, process, tmp_path):
    """A latched topic is one in the recording, another is not."""
    latched = graph.peer.create_publisher(String, "/map", latched_qos())
    latched.publish(String(data="map"))
    publisher = graph.publisher(String, "/talk")
    child = process("recorder_node", output=tmp_path / "copy", topics="/map,/talk")
    graph.until(
        lambda: publisher.get_subscription_count() == 1 and latched.get_subscription_count() == 1
    )
    publisher.publish(String(data="x"))
    graph.spin(1.0)
    child.send_signal(signal.SIGINT)
    assert finish(graph, child) == 0, output_of(child)
    with open_recording(tmp_path / "copy") as copy:
        found = {name: info.qos for name, info in copy.topics.items()}
    kinds = {
        name: [(one.reliability, one.durability) for one in qos] for name, qos in found.items()
    }
    reliable = QosReliability.RELIABLE
    assert kinds == {
        "/map": [(reliable, QosDurability.TRANSIENT_LOCAL)],
        "/talk": [(reliable, QosDurability.VOLATILE)],
    }
