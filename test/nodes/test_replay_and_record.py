"""Recordings onto ROS 2 and back: every message, in order, byte for byte, between processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from event_camera_msgs.msg import EventPacket
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo as CameraInfoMessage
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from dae_ros.bags.message_types import CAMERA_INFO, EVENT_ARRAY, EVENT_PACKET, IMAGE
from dae_ros.bags.messages import CameraInfo, write_camera_info, write_image
from dae_ros.bags.recording import open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.events.cdr import write_event_array, write_packet
from dae_ros.nodes.recorder_node import RecorderNode, without_message
from dae_ros.nodes.replay_node import ClockOutput, ReplayNode

START_NS = 1_700_000_000_000_000_000


@pytest.fixture
def process(tmp_path):
    """Start nodes as processes; whatever still runs at the end is killed."""
    started = []

    def start(module, *arguments, **parameters):
        command = [sys.executable, "-u", "-m", f"dae_ros.nodes.{module}", "--ros-args", *arguments]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        log = (tmp_path / f"{module}_{len(started)}.log").open("w+", encoding="utf-8")
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ})
        child.log = log
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
            child.wait()
        child.log.close()


def output_of(child):
    """Return what a process has printed."""
    child.log.seek(0)
    return child.log.read()


def write_bag(path, camera, count, *, period_ns=5_000_000, payload=None):
    """Write packets of a camera at a steady rate; return their messages."""
    messages = []
    with BagWriter(path) as bag:
        for index in range(count):
            packet = camera.packet()
            if payload is not None:
                packet = dataclasses.replace(packet, payload=payload)
            messages.append(write_packet(packet))
            bag.write("/events", EVENT_PACKET, START_NS + index * period_ns, messages[-1])
    return messages


def listen_raw(graph, topic, kind=EventPacket):
    """Collect serialized messages of a topic, keeping all."""
    received = []
    graph.peer.create_subscription(
        kind,
        topic,
        received.append,
        QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE),
        raw=True,
    )
    return received


def finish(graph, child):
    """Spin until a process has ended; return its exit code."""
    graph.until(lambda: child.poll() is not None)
    return child.returncode


def test_flat_out_every_message_arrives_in_order(graph, process, camera, tmp_path):
    """At rate 0 a reliable subscriber that keeps all receives each message once, byte for byte."""
    messages = write_bag(tmp_path / "bag", camera, 3000, payload=bytes(8000))
    received = listen_raw(graph, "/camera/events")
    child = process("replay_node", "-r", "/events:=/camera/events", bag=tmp_path / "bag", rate=0.0)
    assert finish(graph, child) == 0, output_of(child)
    graph.until(lambda: len(received) >= len(messages))
    assert [bytes(data) for data in received] == messages
    assert "played 3000 messages" in output_of(child)


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


def test_a_ros1_recording_with_the_names_of_mvsec_is_played(graph, process, camera, tmp_path):
    """ROS 1 event arrays arrive as ROS 2 bytes; a topic of an unknown package is skipped."""
    from dvs_msgs.msg import EventArray
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    types = get_typestore(Stores.ROS1_NOETIC)
    types.register(
        get_types_from_msg("uint16 x\nuint16 y\ntime ts\nbool polarity", "dvs_msgs/msg/Event")
    )
    types.register(
        get_types_from_msg(
            "Header header\nuint32 height\nuint32 width\ndvs_msgs/Event[] events",
            "dvs_msgs/msg/EventArray",
        )
    )
    types.register(get_types_from_msg("float64 x", "visensor_node/msg/visensor_imu"))
    kinds = types.types
    expected = []
    with Writer(tmp_path / "mvsec.bag") as bag:
        events_topic = bag.add_connection(
            "/davis/left/events", "dvs_msgs/msg/EventArray", typestore=types
        )
        odd = bag.add_connection(
            "/visensor/cust_imu", "visensor_node/msg/visensor_imu", typestore=types
        )
        for index in range(5):
            events = camera.events()
            stamp = kinds["builtin_interfaces/msg/Time"](sec=9, nanosec=index)
            header = kinds["std_msgs/msg/Header"](seq=index, stamp=stamp, frame_id="")
            found = [
                kinds["dvs_msgs/msg/Event"](
                    x=int(x),
                    y=int(y),
                    polarity=bool(p),
                    ts=kinds["builtin_interfaces/msg/Time"](*divmod(int(t), 10**9)),
                )
                for t, x, y, p in zip(events.t, events.x, events.y, events.p, strict=True)
            ]
            message = kinds["dvs_msgs/msg/EventArray"](
                header=header, height=48, width=64, events=found
            )
            bag.write(
                events_topic,
                START_NS + index,
                types.serialize_ros1(message, "dvs_msgs/msg/EventArray"),
            )
            bag.write(
                odd,
                START_NS + index,
                types.serialize_ros1(
                    kinds["visensor_node/msg/visensor_imu"](x=1.0), "visensor_node/msg/visensor_imu"
                ),
            )
            expected.append(write_event_array(events, 48, 64, 9 * 10**9 + index, ""))
    received = listen_raw(graph, "/davis/left/events", EventArray)
    child = process("replay_node", bag=tmp_path / "mvsec.bag", rate=0.0)
    assert finish(graph, child) == 0, output_of(child)
    graph.until(lambda: len(received) >= 5)
    # DDS pads a message to whole words of four bytes.
    assert [bytes(data)[: len(sent)] for data, sent in zip(received, expected, strict=True)] == (
        expected
    )
    assert all(len(data) - len(sent) < 4 for data, sent in zip(received, expected, strict=True))
    assert "not played: /visensor/cust_imu" in output_of(child)
    assert "'visensor_node'" in output_of(child)


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


def test_a_cut_recording_is_played_to_its_cut(graph, process, camera, tmp_path):
    """Everything before the cut arrives; then the replay ends with 1 and says where it was cut."""
    messages = write_bag(tmp_path / "bag", camera, 300, payload=bytes(8000))
    whole = (tmp_path / "bag" / "bag.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    received = listen_raw(graph, "/events")
    child = process("replay_node", bag=tmp_path / "cut.mcap", rate=0.0)
    assert finish(graph, child) == 1
    graph.spin(0.3)
    found = [bytes(data) for data in received]
    assert 100 < len(found) < 200
    assert found == messages[: len(found)]
    assert "[recording]" in output_of(child)


def test_nobody_listening_ends_with_a_sentence(graph, process, camera, tmp_path):
    """Without the subscribers it waits for, the replay ends with 1 and says what to do."""
    write_bag(tmp_path / "bag", camera, 5)
    child = process("replay_node", bag=tmp_path / "bag", wait_timeout_s=0.2)
    assert finish(graph, child) == 1
    assert "'/events' has 0 subscribers after 0.2 s" in output_of(child)
    assert output_of(child).count("waiting up to 0.2 s until '/events' has a subscriber") == 1


def test_every_topic_that_is_waited_for_arrives_whole(graph, process, camera, tmp_path):
    """With wait_topics nothing is sent before each of them is subscribed, however late that is."""
    with BagWriter(tmp_path / "bag") as bag:
        for index in range(20):
            time_ns = START_NS + index * 1_000_000
            bag.write("/events", EVENT_PACKET, time_ns, write_packet(camera.packet()))
            image = write_image(np.full((48, 64), index, np.uint8), time_ns, "camera")
            bag.write("/image_raw", IMAGE, time_ns, image)
    events = graph.listen(EventPacket, "/events")
    child = process("replay_node", bag=tmp_path / "bag", rate=0.0, wait_topics="/events,/image_raw")
    graph.until(lambda: graph.peer.count_publishers("/image_raw") == 1)
    graph.spin(1.0)
    assert events == []
    images = graph.listen(Image, "/image_raw")
    assert finish(graph, child) == 0, output_of(child)
    graph.until(lambda: len(images) >= 20 and len(events) >= 20)
    assert [image.data[0] for image in images] == list(range(20))


KALIBR = """
cam0:
  distortion_coeffs: [-0.05, 0.01, -0.02, 0.005]
  distortion_model: equidistant
  intrinsics: [45.0, 46.0, 31.0, 24.0]
  resolution: [64, 48]
  rostopic: /davis/left/image_raw
"""


def test_a_calibration_is_kept_for_late_subscribers_and_goes_with_each_image(
    graph, process, camera, tmp_path
):
    """The file's calibration replaces the recorded one: once latched, then with image headers."""
    (tmp_path / "chain.yaml").write_text(KALIBR, encoding="utf-8")
    recorded = CameraInfo(48, 64)
    with BagWriter(tmp_path / "bag") as bag:
        for index in range(3):
            time_ns = START_NS + index * 1_000_000
            packet = write_packet(camera.packet())
            image = write_image(np.zeros((48, 64), np.uint8), time_ns + 5, "optical")
            bag.write("/davis/left/events", EVENT_PACKET, time_ns, packet)
            bag.write("/davis/left/image_raw", IMAGE, time_ns, image)
            info = write_camera_info(recorded, time_ns, "")
            bag.write("/davis/left/camera_info", CAMERA_INFO, time_ns, info)
    infos = []
    graph.peer.create_subscription(
        CameraInfoMessage,
        "/davis/left/camera_info",
        infos.append,
        QoSProfile(
            depth=10,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        ),
    )
    graph.listen(EventPacket, "/davis/left/events")
    child = process(
        "replay_node", bag=tmp_path / "bag", rate=0.0, calibration=tmp_path / "chain.yaml"
    )
    assert finish(graph, child) == 0, output_of(child)
    graph.until(lambda: len(infos) >= 4)
    graph.spin(0.2)
    stamps = [info.header.stamp.sec * 10**9 + info.header.stamp.nanosec for info in infos]
    assert stamps == [START_NS, *(START_NS + index * 1_000_000 + 5 for index in range(3))]
    assert [info.header.frame_id for info in infos] == ["", "optical", "optical", "optical"]
    for info in infos:
        assert (info.height, info.width, info.distortion_model) == (48, 64, "equidistant")
        assert list(info.k) == [45.0, 0.0, 31.0, 0.0, 46.0, 24.0, 0.0, 0.0, 1.0]
        assert list(info.d) == [-0.05, 0.01, -0.02, 0.005]
    assert "not the recorded" in output_of(child)


def test_a_start_past_the_end_ends_with_a_sentence(graph, process, camera, tmp_path):
    """start_s past the end of the recording is exit code 1 and its length, for nobody to wait."""
    write_bag(tmp_path / "bag", camera, 5)
    child = process("replay_node", bag=tmp_path / "bag", start_s=100.0)
    assert finish(graph, child) == 1
    assert "the start at 100 s lies past the end" in output_of(child)
    assert "ends after 0.020 s" in output_of(child)


def overrides(**parameters):
    """Return parameter overrides of a node."""
    return [Parameter(name, value=value) for name, value in parameters.items()]


def test_a_topic_that_is_not_there_is_refused_with_what_is(graph, camera, tmp_path):
    """Asking for an absent topic lists the topics of the recording."""
    write_bag(tmp_path / "bag", camera, 2)
    with pytest.raises(RecordingError, match=r"/event.*it has /events"):
        ReplayNode(parameter_overrides=overrides(bag=str(tmp_path / "bag"), topics="/event"))
    with pytest.raises(ConfigurationError, match="no recording: set 'bag'"):
        ReplayNode()


def test_the_recorder_writes_what_was_played_and_closes_whole(graph, process, camera, tmp_path):
    """Replay to recorder, flat out: the copy holds every message in order; SIGTERM gives 0."""
    messages = write_bag(tmp_path / "bag", camera, 2000, payload=bytes(8000))
    recorder = process("recorder_node", output=tmp_path / "copy", topics="/events,/never")
    child = process("replay_node", bag=tmp_path / "bag", rate=0.0, clock_hz=0.0)
    assert finish(graph, child) == 0, output_of(child)
    time.sleep(0.5)
    recorder.send_signal(signal.SIGTERM)
    assert finish(graph, recorder) == 0, output_of(recorder)
    with open_recording(tmp_path / "copy") as copy:
        assert [bytes(item.data) for item in copy.messages()] == messages
        assert copy.topics["/events"].type == EVENT_PACKET
    assert "no message came on /never" in output_of(recorder)


def test_the_recorder_misses_depth_only_where_neither_kind_came():
    """Relative depth stands for metric depth of the same node and the other way round."""
    asked = ["/depth/image", "/depth/relative", "/cam0/depth/image", "/metrics", "/my_depth/image"]
    assert without_message(asked, {"/depth/relative", "/metrics"}) == [
        "/cam0/depth/image",
        "/my_depth/image",
    ]
    assert without_message(asked, {"/cam0/depth/image"}) == [
        "/depth/image",
        "/depth/relative",
        "/metrics",
        "/my_depth/image",
    ]


def test_the_recorder_refuses_an_existing_folder_and_missing_parameters(graph, tmp_path):
    """Nothing is overwritten, and an empty request is a sentence."""
    with pytest.raises(RecordingError, match="exists already"):
        RecorderNode(parameter_overrides=overrides(output=str(tmp_path), topics="/events"))
    with pytest.raises(ConfigurationError, match="nothing to record"):
        RecorderNode()


def test_two_million_events_per_second_of_dvs_msgs_all_arrive(
    graph, process, depth, tmp_path, camera
):
    """100 arrays of 20,000 events in one second reach the node and its decoder, every event."""
    random = np.random.default_rng(0)
    with BagWriter(tmp_path / "bag") as bag:
        for index in range(100):
            camera.count, camera.time_us = 20_000, 1_000_000 + index * 10_000
            events = dataclasses.replace(camera.events())
            bag.write(
                "/events",
                EVENT_ARRAY,
                START_NS + index * 10_000_000,
                write_event_array(
                    events, 48, 64, int(events.t[-1]), f"camera_{random.integers(10)}"
                ),
            )
    node = depth(overload="latest")
    node.trigger_configure()
    node.trigger_activate()
    child = process("replay_node", bag=tmp_path / "bag", rate=1.0, clock_hz=0.0)
    assert finish(graph, child) == 0, output_of(child)
    graph.until(lambda: node._worker.snapshot.pipeline.events == 2_000_000)
    assert node._traffic.messages == 100
    assert node._worker.snapshot.inbox_dropped == 0


def test_a_node_that_must_lose_nothing_holds_the_replay_back(
    graph, process, depth, camera, tmp_path
):
    """With overload: queue a node that takes nothing for a while still gets every message."""
    camera.count = 20
    write_bag(tmp_path / "bag", camera, 6_000, period_ns=1000)
    node = depth(overload="queue", hop_s=1.0, window_s=1.0)
    node.trigger_configure()
    node.trigger_activate()
    child = process("replay_node", bag=tmp_path / "bag", rate=0.0)
    graph.until(lambda: node._traffic.messages > 0)
    time.sleep(2.0)
    assert child.poll() is None, "the replay went on without its subscriber"
    graph.until(lambda: node._worker.snapshot.pipeline.events == 6_000 * 20)
    assert finish(graph, child) == 0
    assert node._traffic.messages == 6_000


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
