"""How a replay runs: its pace and clock, what it waits for, what it refuses, and how it ends."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from event_camera_msgs.msg import EventPacket
from rcl_interfaces.srv import GetParameters
from rosbags.typesys.stores.ros2_humble import builtin_interfaces__msg__Time as RecordedTime
from rosbags.typesys.stores.ros2_humble import rosgraph_msgs__msg__Clock as RecordedClock
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from dae_ros.bags.message_types import EVENT_PACKET, create_typestore
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.events.cdr import write_packet
from dae_ros.nodes.replay_node import ClockOutput, ReplayNode
from test.reference.replay_runs import START_NS, finish, output_of, overrides, write_bag

CLOCK_TYPE = "rosgraph_msgs/msg/Clock"


def test_real_time_is_kept_and_the_clock_runs_with_the_messages(graph, process, camera, tmp_path):
    """At rate 2 two seconds of recording take one; /clock stays within it and rises."""
    write_bag(tmp_path / "bag", camera, 401)
    sent_ns = []
    graph.peer.create_subscription(
        EventPacket, "/events", lambda _, info: sent_ns.append(info["source_timestamp"]), 1000
    )
    clock = graph.listen(Clock, "/clock")
    child = process("replay_node", bag=tmp_path / "bag", rate=2.0, clock_hz=200.0)
    assert finish(graph, child) == 0, output_of(child)
    graph.until(lambda: len(sent_ns) >= 401)
    # Any message may be late on a busy machine, none early; of many some are in time.
    late_ns = np.array(sent_ns) - 2_500_000 * np.arange(401)
    assert abs(late_ns[200:].min() - late_ns[:200].min()) < 100_000_000
    times = [message.clock.sec * 10**9 + message.clock.nanosec for message in clock]
    assert len(times) > 20
    assert times == sorted(times)
    assert times[0] >= START_NS
    assert times[-1] <= START_NS + 2_000_000_000


def write_robot_clock(path, camera):
    """Write packets and the clock of a robot that was simulated, which began at 100 s."""
    write = create_typestore().serialize_cdr
    with BagWriter(path) as bag:
        for index in range(20):
            time_ns = START_NS + index * 1_000_000
            bag.write("/events", EVENT_PACKET, time_ns, write_packet(camera.packet()))
            clock = RecordedClock(RecordedTime(sec=100, nanosec=index))
            bag.write("/clock", CLOCK_TYPE, time_ns, write(clock, CLOCK_TYPE))


@pytest.mark.parametrize(("clock_hz", "robot"), [(1000.0, False), (0.0, True)])
def test_one_clock_is_played(graph, process, camera, tmp_path, clock_hz, robot):
    """Record time in place of a recorded clock, or that one alone: never both in turn."""
    write_robot_clock(tmp_path / "bag", camera)
    clocks = graph.listen(Clock, "/clock", reliable=False)
    graph.listen(EventPacket, "/events")
    # The clock is not awaited: who takes it may be matched after the beginning.
    child = process("replay_node", bag=tmp_path / "bag", rate=0.01, clock_hz=clock_hz)
    assert finish(graph, child) == 0, output_of(child)
    assert clocks
    assert all((message.clock.sec == 100) == robot for message in clocks)
    assert output_of(child).count("not played: /clock: it carries record time") == (not robot)


def test_a_recorded_clock_alone_is_nothing_to_play(graph, camera, tmp_path):
    """It is left out, and the sentence says how it is played."""
    write_robot_clock(tmp_path / "bag", camera)
    with pytest.raises(ConfigurationError, match="set 'clock_hz' to 0 for the recorded clock"):
        ReplayNode(parameter_overrides=overrides(bag=str(tmp_path / "bag"), topics="/clock"))


class Collector:
    """Takes what a publisher would send."""

    def __init__(self):
        self.times = []

    def publish(self, message):
        self.times.append(message.clock.sec * 10**9 + message.clock.nanosec)


def test_the_clock_keeps_its_rate_in_wall_or_recorded_time():
    """One message per period of the chosen time, never back."""
    wall, recorded = Collector(), Collector()
    by_wall = ClockOutput(wall, 64.0, wall=True)
    by_time = ClockOutput(recorded, 100.0, wall=False)
    for step in range(50):
        by_wall.advance(step * 1_000_000, step / 128 + (0.001 if step % 4 else 0.0))
        by_time.advance(step * 1_000_000, 0.0)
    by_wall.advance(0, 99.0)
    assert wall.times == [step * 1_000_000 for step in range(0, 50, 2)]
    assert recorded.times == [0, 10_000_000, 20_000_000, 30_000_000, 40_000_000]


def test_an_offset_a_loop_and_an_interrupt(graph, process, camera, tmp_path):
    """start_s skips the beginning, loop begins again, SIGINT ends with exit code 0."""
    write_bag(tmp_path / "bag", camera, 40)
    received = graph.listen(EventPacket, "/events")
    child = process("replay_node", bag=tmp_path / "bag", rate=0.0, start_s=0.15, loop=True)
    graph.until(lambda: len(received) >= 30)
    assert [message.seq for message in received[:20]] == [*range(31, 41), *range(31, 41)]
    child.send_signal(signal.SIGINT)
    assert finish(graph, child) == 0, output_of(child)


def test_without_autostart_the_replay_waits_for_its_service(graph, process, camera, tmp_path):
    """autostart: false plays only after ~/play."""
    write_bag(tmp_path / "bag", camera, 5)
    received = graph.listen(EventPacket, "/events")
    child = process("replay_node", bag=tmp_path / "bag", rate=0.0, autostart=False)
    client = graph.peer.create_client(Trigger, "/replay/play")
    graph.until(client.service_is_ready)
    graph.spin(0.6)
    assert received == []
    # It may have played all and ended before its answer is out.
    graph.call(client, Trigger.Request(), ended=lambda: len(received) >= 5)
    assert finish(graph, child) == 0, output_of(child)
    graph.until(lambda: len(received) >= 5)
    assert len(received) == 5


def test_parameters_of_a_running_replay_can_be_read(graph, process, camera, tmp_path):
    """What `ros2 param get` asks is answered, and the replay goes on."""
    write_bag(tmp_path / "bag", camera, 5)
    child = process("replay_node", bag=tmp_path / "bag", rate=0.5, autostart=False)
    client = graph.peer.create_client(GetParameters, "/replay/get_parameters")
    request = GetParameters.Request(names=["rate", "bag"])
    answer = graph.call(client, request, lambda: child.poll() is not None)
    assert child.poll() is None, output_of(child)
    assert answer.values[0].double_value == 0.5
    assert answer.values[1].string_value == str(tmp_path / "bag")


def test_nobody_listening_ends_with_a_sentence(graph, process, camera, tmp_path):
    """Without the subscribers it waits for, the replay ends with 1 and says what to do."""
    write_bag(tmp_path / "bag", camera, 5)
    child = process("replay_node", bag=tmp_path / "bag", wait_timeout_s=0.2)
    assert finish(graph, child) == 1
    assert "'/events' has 0 subscribers, not 1, after 0.2 s" in output_of(child)
    assert output_of(child).count("waiting up to 0.2 s until '/events' has a subscriber") == 1


def test_a_start_past_the_end_ends_with_a_sentence(graph, process, camera, tmp_path):
    """start_s past the end of the recording is exit code 1 and its length, for nobody to wait."""
    write_bag(tmp_path / "bag", camera, 5)
    child = process("replay_node", bag=tmp_path / "bag", start_s=100.0)
    assert finish(graph, child) == 1
    assert "the start at 100 s lies past the end" in output_of(child)
    assert "ends after 0.020 s" in output_of(child)


def test_a_tilde_in_the_name_of_a_recording_is_the_home_folder(
    graph, camera, tmp_path, monkeypatch
):
    """As in every other file name that a node is given."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_bag(tmp_path / "bag", camera, 2)
    node = graph.add(ReplayNode(parameter_overrides=overrides(bag="~/bag")))
    assert node._recording.topics.keys() == {"/events"}


def test_a_topic_that_is_not_there_is_refused_with_what_is(graph, camera, tmp_path):
    """Asking for an absent topic lists the topics of the recording."""
    write_bag(tmp_path / "bag", camera, 2)
    with pytest.raises(RecordingError, match=r"/event.*it has /events"):
        ReplayNode(parameter_overrides=overrides(bag=str(tmp_path / "bag"), topics="/event"))
    with pytest.raises(ConfigurationError, match="no recording: set 'bag'"):
        ReplayNode()
