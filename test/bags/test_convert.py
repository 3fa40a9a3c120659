"""Conversion to rosbag2 keeps every event and every time, against the library's own reader."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability
from rosbags.rosbag1 import Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from rosbags.typesys import Stores, get_typestore

from dae_ros.bags.convert import PACKET_ENCODINGS, convert
from dae_ros.bags.event_arrays import event_array_to_cdr
from dae_ros.bags.recording import open_recording
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import RecordingError
from dae_ros.events.cdr import read_ros1_packet, write_event_array
from dae_ros.events.codecs import create_decoder
from dae_ros.events.packet import Events
from dae_ros.events.stream import EventStream
from test.reference.mvsec_bag import (
    ROS1,
    START_NS,
    event_array_bytes,
    image_bytes,
    write_data_bag,
    write_truth_bag,
)

LEFT = "/davis/left/events"


def run(sources, target, **options):
    """Convert, without progress."""
    with open_recording(sources) as recording:
        return convert(recording, target, report=lambda *_: None, stopped=lambda: False, **options)


def read(target):
    """Messages of a rosbag2, deserialized by the library from the bag's own definitions."""
    with AnyReader([target], default_typestore=get_typestore(Stores.EMPTY)) as reader:
        return [
            (connection, time_ns, reader.deserialize(data, connection.msgtype))
            for connection, time_ns, data in reader.messages()
        ]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_conversion_of_ros1_bags_is_lossless(tmp_path, storage):
    """Events to the ns, images, unknown types and record times of two merged bags survive."""
    written = write_data_bag(tmp_path / "data.bag")
    truth = write_truth_bag(tmp_path / "gt.bag")
    sources = [tmp_path / "data.bag", tmp_path / "gt.bag"]
    result = run(sources, tmp_path / "out", storage=storage)
    found = read(tmp_path / "out")
    arrays = [(time_ns, message) for item, time_ns, message in found if item.topic == LEFT]
    assert [time_ns for time_ns, _ in arrays] == written.event_times_ns
    for (_, array), expected in zip(arrays, written.events, strict=True):
        assert [
            (e.ts.sec * 10**9 + e.ts.nanosec, e.x, e.y, int(e.polarity)) for e in array.events
        ] == expected
    # Everything else against the library's reader of the source.
    with AnyReader(sources) as reader:
        originals = [
            (connection.topic, time_ns, reader.deserialize(data, connection.msgtype))
            for connection, time_ns, data in reader.messages()
        ]
    assert sorted((item.topic, time_ns) for item, time_ns, _ in found) == sorted(
        (topic, time_ns) for topic, time_ns, _ in originals
    )
    assert result.messages == {
        topic: sum(1 for item in originals if item[0] == topic)
        for topic in {item[0] for item in originals}
    }
    assert (result.skipped, result.damaged, result.damage) == ({}, {}, None)
    (imu,) = (message for item, _, message in found if item.topic == "/visensor/cust_imu")
    assert (imu.baro, imu.flags.tolist(), imu.header.frame_id) == (1.5, [1, 2, 3], "cam")
    depths = [m for item, _, m in found if item.topic.endswith("depth_image_raw")]
    for depth, (_, expected) in zip(depths, truth.depths, strict=True):
        np.testing.assert_array_equal(depth.data.view(np.float32).reshape(expected.shape), expected)


@pytest.mark.parametrize("encoding", PACKET_ENCODINGS)
def test_arrays_become_event_packets(tmp_path, encoding):
    """Positions and polarities stay; times stay to the ns in mono, to the us elsewhere."""
    written = write_data_bag(tmp_path / "data.bag")
    run(tmp_path / "data.bag", tmp_path / "out", event_packets=encoding)
    decoder, rows, seqs, times = None, [], [], []
    with open_recording(tmp_path / "out") as recording:
        assert recording.topics[LEFT].type == "event_camera_msgs/msg/EventPacket"
        for message in recording.messages([LEFT]):
            packet = recording.read_packet(message)
            times.append(message.time_ns)
            seqs.append(packet.seq)
            decoder = decoder or create_decoder(encoding, packet.width, packet.height)
            first = True
            for part in decoder.decode_packet(packet.payload, packet.time_base_ns).segments:
                offset_ns = 0
                if encoding == "evt3":
                    # The recorded clock is found from the stamp, which is the first event's.
                    decoded_ns = int(part.t[0])
                    offset_ns = packet.stamp_ns // 1000 * 1000 - decoded_ns if first else offset_ns
                first = False
                rows += zip(
                    (part.t + offset_ns).tolist(),
                    part.x.tolist(),
                    part.y.tolist(),
                    part.p.tolist(),
                    strict=True,
                )
    resolution_ns = 1 if encoding == "mono" else 1000
    expected = [(t // resolution_ns * resolution_ns, x, y, p) for t, x, y, p in written.all_events]
    # libcaer_cmp writes one column after the other where times are equal.
    assert sorted(rows) == sorted(expected)
    assert seqs == list(range(30))
    assert times == written.event_times_ns


def test_only_the_wanted_topics_are_converted(tmp_path):
    """With a choice of topics the others stay out, and a wrong name is an error."""
    write_data_bag(tmp_path / "data.bag")
    run(tmp_path / "data.bag", tmp_path / "out", topics=[LEFT])
    assert {item.topic for item, _, _ in read(tmp_path / "out")} == {LEFT}
    with pytest.raises(RecordingError, match="no topic /nope"):
        run(tmp_path / "data.bag", tmp_path / "other", topics=["/nope"])


def test_what_cannot_be_converted_is_left_out_and_named(tmp_path):
    """A type with other fields in ROS 2 and damaged messages are reported, the rest converted."""
    with Writer(tmp_path / "odd.bag") as writer:
        color = writer.add_connection(
            "/color", "std_msgs/msg/ColorRGBA", msgdef="int64 other\n", md5sum="0" * 32
        )
        events = writer.add_connection("/events", "dvs_msgs/msg/EventArray", typestore=ROS1)
        image = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=ROS1)
        good = event_array_bytes([(START_NS, 1, 2, 1)], 0, START_NS)
        picture = image_bytes(np.zeros((3, 4), np.uint8), START_NS, "mono8")
        for number, (topic, data) in enumerate(
            [
                (color, bytes(8)),
                (events, good),
                (events, good[:-5]),
                (events, good),
                (image, picture),
                (image, picture[:-2]),
            ]
        ):
            writer.write(topic, START_NS + number, data)
    result = run(tmp_path / "odd.bag", tmp_path / "out")
    assert result.messages == {"/events": 2, "/image": 1}
    assert result.damaged == {"/events": 1, "/image": 1}
    assert list(result.skipped) == ["/color"]
    assert "other fields in ROS 2" in result.skipped["/color"]


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ("uint32 v@l#e\n", "definition of my_msgs/msg/Thing in the recording is not readable"),
        ("foo/Bar value\n", "foo/msg/Bar is not known and its recording carries no definition"),
        ("Thing[] values\n", "my_msgs/msg/Thing contains itself"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_topic_without_a_usable_definition_is_left_out_and_named(
    tmp_path, definition, said, version
):
    """Of ROS 1 bags and of rosbag2 recordings; the other topics are converted."""
    source = tmp_path / "odd.bag"
    thing = {"topic": "/thing", "msgtype": "my_msgs/msg/Thing", "msgdef": definition}
    number = {"topic": "/number", "msgtype": "std_msgs/msg/UInt32", "typestore": ROS1}
    if version == 1:
        writer = Writer(source)
        thing["md5sum"] = "0" * 32
    else:
        writer = Rosbag2Writer(source, version=8, storage_plugin=StoragePlugin.MCAP)
        thing["rihs01"] = "RIHS01_" + "0" * 64
        number["typestore"] = get_typestore(Stores.ROS2_KILTED)
    data = bytes(4) if version == 1 else b"\0\1\0\0" + bytes(4)
    with writer:
        topics = [writer.add_connection(**thing), writer.add_connection(**number)]
        for time_ns in range(6):
            writer.write(topics[time_ns % 2], START_NS + time_ns, data)
    result = run(source, tmp_path / "out")
    assert result.messages == {"/number": 3}
    assert list(result.skipped) == ["/thing"]
    assert said in result.skipped["/thing"]
    assert [item.topic for item, _, _ in read(tmp_path / "out")] == ["/number"] * 3


def test_an_error_on_the_way_gives_no_final_name(tmp_path):
    """What was converted before something unforeseen keeps its .partial."""
    write_data_bag(tmp_path / "data.bag")

    def fail(_, done):
        if done == 20:
            raise ZeroDivisionError

    with (
        open_recording(tmp_path / "data.bag") as recording,
        pytest.raises(ZeroDivisionError),
    ):
        convert(recording, tmp_path / "out", report=fail, stopped=lambda: False)
    assert {path.name for path in tmp_path.iterdir()} == {"data.bag", "out.partial"}


def test_latched_topics_stay_latched(tmp_path):
    """A latched ROS 1 topic is recorded as transient local."""
    with Writer(tmp_path / "a.bag") as writer:
        topic = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=ROS1, latching=1)
        data = image_bytes(np.zeros((3, 4), np.uint8), START_NS, "mono8")
        writer.write(topic, START_NS, data)
    run(tmp_path / "a.bag", tmp_path / "out")
    with AnyReader([tmp_path / "out"]) as reader:
        (qos,) = reader.connections[0].ext.offered_qos_profiles
    assert qos.durability == QosDurability.TRANSIENT_LOCAL


def test_a_cut_bag_is_converted_up_to_the_cut(tmp_path):
    """The folder is whole and holds what came before the cut; the result says so."""
    write_data_bag(tmp_path / "data.bag")
    data = (tmp_path / "data.bag").read_bytes()
    (tmp_path / "cut.bag").write_bytes(data[: len(data) // 2])
    result = run(tmp_path / "cut.bag", tmp_path / "out")
    assert "was cut" in result.damage.message
    assert 0 < len(read(tmp_path / "out")) == sum(result.messages.values())


def test_events_that_change_on_the_way_are_counted(tmp_path):
    """Re-encoding drops what lies outside of the sensor and says how much, by reason."""
    t = START_NS + np.arange(100, dtype=np.int64) * 1000
    t[50:60] -= 3_000_000  # ten events, 3 ms late
    x = np.arange(100, dtype=np.uint16) % 20
    events = Events(t, x, np.zeros(100, np.uint16), np.ones(100, np.uint8))
    with BagWriter(tmp_path / "source") as bag:
        data = write_event_array(events, 16, 16, START_NS, "camera")
        bag.write("/events", "dvs_msgs/msg/EventArray", START_NS, data)
    result = run(tmp_path / "source", tmp_path / "out", event_packets="libcaer")
    outside = int((x >= 16).sum())
    raised = int((x[50:60] < 16).sum())
    assert result.events == {"/events": {"out_of_bounds": outside, "time_raised": raised}}


@pytest.mark.parametrize("stamped_at_end", [False, True])
@pytest.mark.parametrize("encoding", PACKET_ENCODINGS)
def test_an_array_longer_than_a_payload_is_cut(tmp_path, encoding, stamped_at_end):
    """Pieces of what the encoding spans, stamped as the array: every event, and no gap."""
    step = 10**9
    times = [[0, 1], [2, 30], [31, 32, 33]]  # s; 28 s are too long for mono and libcaer_cmp
    with BagWriter(tmp_path / "source") as bag:
        for group in times:
            t = START_NS + np.array(group, np.int64) * step
            zeros = np.zeros(len(t), np.uint16)
            stamp_ns = int(t[-1 if stamped_at_end else 0])
            events = Events(t, zeros, zeros, zeros.astype(np.uint8))
            data = write_event_array(events, 16, 16, stamp_ns, "camera")
            bag.write("/events", "dvs_msgs/msg/EventArray", stamp_ns, data)
    result = run(tmp_path / "source", tmp_path / "out", event_packets=encoding)
    assert result.messages == {"/events": 4 if encoding in ("mono", "libcaer_cmp") else 3}
    stream, found = EventStream(), []
    with open_recording(tmp_path / "out") as recording:
        for packet in recording.event_packets():
            for part in stream.feed(packet):
                assert part.gap is None
                found += part.events.t.tolist()
    seconds = np.round((np.array(found) - found[0]) / step).astype(int).tolist()
    assert seconds == [second for group in times for second in group]


@pytest.mark.parametrize("stamped_at_end", [False, True])
def test_an_array_with_a_break_inside_gives_one_gap(tmp_path, stamped_at_end):
    """What follows the break is a packet of its own, whose stamp follows its events."""
    groups = [[0, 1], [2, 3, -5000, -4999], [-4998, -4997]]  # ms
    with BagWriter(tmp_path / "source") as bag:
        for number, group in enumerate(groups):
            t = START_NS + np.array(group, np.int64) * 1_000_000
            events = [(int(time), 0, 0, 0) for time in t]
            stamp_ns = int(t[-1 if stamped_at_end else 0])
            packet = read_ros1_packet(
                "dvs_msgs/msg/EventArray", event_array_bytes(events, number, stamp_ns)
            )
            data = event_array_to_cdr(packet)
            bag.write("/events", "dvs_msgs/msg/EventArray", START_NS + number, data)
    run(tmp_path / "source", tmp_path / "out", event_packets="mono")
    stream, causes = EventStream(), []
    with open_recording(tmp_path / "out") as recording:
        for packet in recording.event_packets():
            causes += [part.gap and part.gap.cause for part in stream.feed(packet)]
    assert causes == [None, None, "time_backward", None]
