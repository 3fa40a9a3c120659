"""What a replay sends: every message in order, byte for byte, whole and with its calibration."""

from __future__ import annotations

import numpy as np
import pytest
from event_camera_msgs.msg import EventPacket
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.typesys.stores.ros2_humble import std_msgs__msg__String as RecordedText
from sensor_msgs.msg import CameraInfo as CameraInfoMessage
from sensor_msgs.msg import Image
from std_msgs.msg import String

from dae_ros.bags.message_types import CAMERA_INFO, EVENT_PACKET, IMAGE, create_typestore
from dae_ros.bags.messages import CameraInfo, write_camera_info, write_image
from dae_ros.bags.rosbags_file import LATCHED
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import ConfigurationError
from dae_ros.events.cdr import write_event_array, write_packet
from dae_ros.nodes.qos import latched_qos
from dae_ros.nodes.subscribers import awaited_topics
from test.reference.replay_runs import START_NS, finish, listen_raw, output_of, write_bag

TEXT = "std_msgs/msg/String"


def test_flat_out_every_message_arrives_in_order(graph, process, camera, tmp_path):
    """At rate 0 a reliable subscriber that keeps all receives each message once, byte for byte."""
    messages = write_bag(tmp_path / "bag", camera, 3000, payload=bytes(8000))
    received = listen_raw(graph, "/camera/events")
    child = process("replay_node", "-r", "/events:=/camera/events", bag=tmp_path / "bag", rate=0.0)
    assert finish(graph, child) == 0, output_of(child)
    graph.until(lambda: len(received) >= len(messages))
    assert [bytes(data) for data in received] == messages
    assert "played 3000 messages" in output_of(child)


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


def test_a_topic_with_two_takers_waits_for_both(graph, process, camera, tmp_path):
    """`/events:2` of a launch with a learner: neither of the two loses the beginning."""
    messages = write_bag(tmp_path / "bag", camera, 20)
    first = listen_raw(graph, "/events")
    child = process("replay_node", bag=tmp_path / "bag", rate=0.0, wait_topics="/events:2")
    graph.until(lambda: "'/events' has 2 subscribers" in output_of(child) or child.poll())
    graph.spin(1.0)
    assert first == [] and child.poll() is None, output_of(child)
    second = listen_raw(graph, "/events")
    assert finish(graph, child) == 0, output_of(child)
    graph.until(lambda: len(first) >= 20 and len(second) >= 20)
    # DDS pads a message to whole words of four bytes.
    padded = [data + bytes(-len(data) % 4) for data in messages]
    for received in (first, second):
        assert [bytes(data) + bytes(-len(data) % 4) for data in received] == padded


def test_numbers_of_subscribers_are_read_strictly():
    """The larger of N and wait_subscribers counts, 0 waits for nobody, anything else is refused."""
    assert awaited_topics("/events:2, /image,/info:1", 1) == {"/events": 2, "/image": 1, "/info": 1}
    assert awaited_topics("/events:2,/image", 3) == {"/events": 3, "/image": 3}
    assert awaited_topics("/events:2,/image", 0) == {"/events": 0, "/image": 0}
    for wrong in ("/events:", "/events:0", "/events:two", "/events:-1", "/events:1:2", ":2"):
        with pytest.raises(ConfigurationError, match=f"'wait_topics' has '{wrong}': write NAME"):
            awaited_topics(wrong, 1)


def write_latched(path, camera, texts, pause_ns):
    """Write latched texts among packets of events, of which the last comes after a pause."""
    write = create_typestore().serialize_cdr
    with BagWriter(path) as bag:
        bag.add_topic("/map", TEXT, qos=(LATCHED,))
        bag.write("/events", EVENT_PACKET, START_NS, write_packet(camera.packet()))
        for index, text in enumerate(texts):
            bag.write("/map", TEXT, START_NS + index, write(RecordedText(text), TEXT))
        time_ns = START_NS + pause_ns
        bag.write("/events", EVENT_PACKET, time_ns, write_packet(camera.packet()))


def test_a_latched_topic_is_kept_for_late_subscribers(graph, process, camera, tmp_path):
    """Who comes late gets the last message, as of the recorded publisher."""
    write_latched(tmp_path / "bag", camera, ["old", "new"], 600_000_000_000)
    events = graph.listen(EventPacket, "/events")
    child = process("replay_node", bag=tmp_path / "bag")
    graph.until(lambda: events)
    graph.spin(1.0)
    texts = []
    graph.peer.create_subscription(String, "/map", texts.append, latched_qos(10))
    graph.spin(3.0)
    assert child.poll() is None, output_of(child)
    assert [text.data for text in texts] == ["new"]


def test_a_latched_topic_loses_nothing_on_its_way(graph, process, camera, tmp_path):
    """One message is kept, and no earlier one is overwritten before it has arrived."""
    expected = [str(index) for index in range(300)]
    write_latched(tmp_path / "bag", camera, expected, 1_000_000)
    texts = []
    graph.peer.create_subscription(String, "/map", texts.append, latched_qos(1000))
    child = process("replay_node", bag=tmp_path / "bag", rate=0.0, wait_topics="/map")
    assert finish(graph, child) == 0, output_of(child)
    graph.until(lambda: len(texts) >= len(expected))
    assert [text.data for text in texts] == expected


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
