"""Writing rosbag2: readable by others, the same bytes every time, whole or not there."""

from __future__ import annotations

import contextlib
import sys

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys import Stores, get_typestore

from dae_ros.bags.message_types import (
    CAMERA_INFO,
    EVENT_ARRAY,
    EVENT_PACKET,
    IMAGE,
    create_typestore,
)
from dae_ros.bags.messages import (
    CameraInfo,
    read_camera_info,
    read_depth,
    read_frame,
    read_picture,
    stamp_of,
    write_camera_info,
    write_image,
)
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import InferenceError, RecordingError
from dae_ros.events.cdr import write_event_array, write_packet
from dae_ros.events.packet import EventPacket, Events
from test.reference.full_disk import no_room_beyond

STAMP_NS = 1_700_000_000_123_456_789
CAMERA = CameraInfo(
    2,
    3,
    "plumb_bob",
    (0.1, -0.2, 0.0, 0.0, 0.3),
    tuple(float(n) for n in range(1, 10)),
    (1.0, 0, 0, 0, 1, 0, 0, 0, 1),
    tuple(float(n) for n in range(12)),
)
DEPTH = np.array([[1.5, np.nan, 3.25], [0.5, 7.0, np.inf]], np.float32)


def fill(path, storage="mcap"):
    """Write one message of each kind, one of them twice."""
    events = Events(
        np.array([5, 1_000_000_007]),
        np.array([1, 2], np.uint16),
        np.array([0, 1], np.uint16),
        np.array([1, 0], np.uint8),
    )
    with BagWriter(path, storage) as bag:
        for time_ns in (10, 20):
            bag.write("/depth/image", IMAGE, time_ns, write_image(DEPTH, STAMP_NS, "optical"))
        bag.write("/depth/camera_info", CAMERA_INFO, 20, write_camera_info(CAMERA, STAMP_NS, "o"))
        packet = EventPacket("evt3", 2, 3, b"\x01\x02\x03\x04", 0, STAMP_NS, 9, "cam")
        bag.write("/events", EVENT_PACKET, 30, write_packet(packet))
        bag.write("/dvs/events", EVENT_ARRAY, 40, write_event_array(events, 2, 3, STAMP_NS, "cam"))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_another_reader_gets_back_what_was_written(tmp_path, storage):
    """The library's own reader and deserializer see every field, from the bag's definitions."""
    fill(tmp_path / "bag", storage)
    with AnyReader([tmp_path / "bag"], default_typestore=get_typestore(Stores.EMPTY)) as reader:
        found = [
            (connection.topic, time_ns, reader.deserialize(data, connection.msgtype))
            for connection, time_ns, data in reader.messages()
        ]
        hashes = {connection.msgtype: connection.digest for connection in reader.connections}
    assert [(topic, time_ns) for topic, time_ns, _ in found] == [
        ("/depth/image", 10),
        ("/depth/image", 20),
        ("/depth/camera_info", 20),
        ("/events", 30),
        ("/dvs/events", 40),
    ]
    image, info, packet, array = (found[n][2] for n in (0, 2, 3, 4))
    assert (image.encoding, image.height, image.width, image.step) == ("32FC1", 2, 3, 12)
    np.testing.assert_array_equal(image.data.view(np.float32).reshape(2, 3), DEPTH)
    assert (image.header.stamp.sec, image.header.stamp.nanosec) == (1_700_000_000, 123_456_789)
    assert image.header.frame_id == "optical"
    np.testing.assert_array_equal(info.k, CAMERA.k)
    np.testing.assert_array_equal(info.d, CAMERA.d)
    assert (packet.encoding, packet.seq, bytes(packet.events)) == ("evt3", 9, b"\x01\x02\x03\x04")
    assert [(e.x, e.y, e.ts.sec, e.ts.nanosec, e.polarity) for e in array.events] == [
        (1, 0, 0, 5, True),
        (2, 1, 1, 7, False),
    ]
    # The published hash of the released interface, REP 2016.
    if storage == "sqlite3":
        assert hashes[EVENT_PACKET] == (
            "RIHS01_d6fa176260b1f37e5a40845305315e150a0f18191241eb64f407442aa29844aa"
        )
    assert "RIHS01_d6fa1762" in (tmp_path / "bag" / "metadata.yaml").read_text()


def test_type_hashes_are_those_of_the_generated_interfaces():
    """The hashes of both event messages equal those that the ROS generators give."""
    types = create_typestore()
    assert types.hash_rihs01(EVENT_PACKET) == (
        "RIHS01_d6fa176260b1f37e5a40845305315e150a0f18191241eb64f407442aa29844aa"
    )
    assert types.hash_rihs01(EVENT_ARRAY) == (
        "RIHS01_0ea4aa5f4670adab1336550158b2e3c9bf60fe515a284c4215ed605bd559c995"
    )


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_the_same_messages_give_the_same_bytes(tmp_path, storage):
    """Two bags of the same name and content are equal, file by file."""
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        fill(tmp_path / place / "bag", storage)
    one, two = (sorted((tmp_path / place / "bag").iterdir()) for place in ("one", "two"))
    assert [file.name for file in one] == [file.name for file in two]
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (None, True),
        (RecordingError("the source was cut"), True),
        (InferenceError("the GPU has no memory left"), True),
        (KeyboardInterrupt(), True),
        (ValueError("a mistake in the program"), False),
    ],
)
def test_the_folder_appears_when_it_is_whole(tmp_path, error, named):
    """Until it is closed the bag has another name, and keeps it where the program is at fault."""
    bag = BagWriter(tmp_path / "bag")

    def write():
        with bag:
            bag.write("/image", IMAGE, 1, write_image(DEPTH, 1, ""))
            assert not (tmp_path / "bag").exists()
            if error is not None:
                raise error

    with contextlib.nullcontext() if error is None else pytest.raises(type(error)):
        write()
    assert [item.name for item in tmp_path.iterdir()] == ["bag" if named else "bag.partial"]
    with AnyReader([tmp_path / "bag" if named else tmp_path / "bag.partial" / "bag"]) as reader:
        assert reader.message_count == 1
    with pytest.raises(RecordingError, match="exists already" if named else "did not end"):
        BagWriter(tmp_path / "bag")
    with pytest.raises(RecordingError, match="closed"):
        bag.write("/image", IMAGE, 1, b"")


def test_ctrl_c_in_the_middle_of_a_write_names_no_recording(tmp_path):
    """Half a record is in the file then, and what follows it cannot be read."""

    def ctrl_c(frame, event, called):
        if event == "c_call" and frame.f_code.co_name == "write_record":
            writes.append(called)
            if len(writes) == 2:
                raise KeyboardInterrupt

    def write():
        with BagWriter(tmp_path / "bag") as bag:
            bag.write("/image", IMAGE, 1, write_image(DEPTH, 1, ""))
            sys.setprofile(ctrl_c)
            bag.write("/image", IMAGE, 2, write_image(DEPTH, 2, ""))

    writes: list[object] = []
    before = sys.getprofile()
    try:
        with pytest.raises(KeyboardInterrupt):
            write()
    finally:
        sys.setprofile(before)
    assert len(writes) == 2
    assert [item.name for item in tmp_path.iterdir()] == ["bag.partial"]


def test_types_that_are_not_known_need_a_definition(tmp_path):
    """An unknown type is refused by name; with its definition it is written."""
    with BagWriter(tmp_path / "bag") as bag:
        with pytest.raises(RecordingError, match="my_msgs/msg/Thing is not known"):
            bag.write("/thing", "my_msgs/msg/Thing", 1, b"\0\1\0\0\7\0\0\0")
        bag.add_topic(
            "/thing",
            "my_msgs/msg/Thing",
            MessageDefinition(MessageDefinitionFormat.MSG, "uint32 number\n"),
        )
        bag.write("/thing", "my_msgs/msg/Thing", 1, b"\0\1\0\0\7\0\0\0")
        with pytest.raises(RecordingError, match="cannot also have"):
            bag.write("/thing", IMAGE, 1, b"")
    with AnyReader([tmp_path / "bag"], default_typestore=get_typestore(Stores.EMPTY)) as reader:
        ((connection, _, data),) = reader.messages()
        assert reader.deserialize(data, connection.msgtype).number == 7


def test_images_and_calibrations_survive_their_own_messages():
    """What is written as a message is read back equal."""
    depth = read_depth(write_image(DEPTH, STAMP_NS, "optical"))
    np.testing.assert_array_equal(depth.depth, DEPTH)
    assert (depth.stamp_ns, depth.frame_id) == (STAMP_NS, "optical")
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    frame = read_frame(write_image(grey, STAMP_NS, "cam"), exposure_ns=5)
    np.testing.assert_array_equal(frame.image, grey)
    assert (frame.stamp_ns, frame.exposure_ns, frame.frame_id) == (STAMP_NS, 5, "cam")
    colour = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(read_picture(write_image(colour, 0, "")), colour)
    assert read_camera_info(write_camera_info(CAMERA, STAMP_NS, "cam")) == CAMERA
    assert stamp_of(write_camera_info(CAMERA, STAMP_NS, "cam")) == STAMP_NS
    with pytest.raises(RecordingError, match="damaged"):
        read_frame(write_image(grey, STAMP_NS, "cam")[:-3])
    with pytest.raises(RecordingError, match="rgb8"):
        read_picture(write_image(grey, STAMP_NS, "cam"))


@pytest.mark.ros
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ros_itself_reads_these_messages():
    """Real rclpy deserializes the images and calibrations that are written here."""
    serialization = pytest.importorskip("rclpy.serialization")
    messages = pytest.importorskip("sensor_msgs.msg")
    image = serialization.deserialize_message(
        write_image(DEPTH, STAMP_NS, "optical"), messages.Image
    )
    assert (image.header.frame_id, image.encoding, image.step) == ("optical", "32FC1", 12)
    np.testing.assert_array_equal(np.frombuffer(image.data, np.float32).reshape(2, 3), DEPTH)
    info = serialization.deserialize_message(
        write_camera_info(CAMERA, STAMP_NS, "optical"), messages.CameraInfo
    )
    assert (tuple(info.k), tuple(info.p)) == (CAMERA.k, CAMERA.p)
    assert (info.distortion_model, info.header.stamp.nanosec) == ("plumb_bob", 123_456_789)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("mcap", r"bag cannot be written: File too large. What fitted is in .*bag\.partial"),
        ("sqlite3", r"bag cannot be written: disk I/O error. SQLite took back .*bag\.partial"),
    ],
)
# In the middle of the messages, and only at the end, where a small database is written at once.
@pytest.mark.parametrize("messages", [200, 3])
def test_a_full_disk_is_said_and_nothing_gets_the_name(tmp_path, storage, said, messages):
    """The sentence names the cause and the .partial folder; nothing has the recording's name."""
    message = write_image(np.zeros((100, 100), np.float32), STAMP_NS, "optical")

    def fill_up():
        with BagWriter(tmp_path / "bag", storage) as bag:
            for time_ns in range(messages):
                bag.write("/depth/image", IMAGE, time_ns, message)

    with no_room_beyond(100_000), pytest.raises(RecordingError, match=said):
        fill_up()
    assert [path.name for path in tmp_path.iterdir()] == ["bag.partial"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_failed_write_is_not_forgotten_when_there_is_room_again(tmp_path, storage):
    """Who goes on after it, as a recorder does with other topics, is told again at the end."""
    message = write_image(np.zeros((1000, 1000), np.float32), STAMP_NS, "optical")
    bag = BagWriter(tmp_path / "bag", storage)
    with no_room_beyond(100_000), pytest.raises(RecordingError, match="cannot be written"):
        bag.write("/depth/image", IMAGE, 1, message)
    with pytest.raises(RecordingError, match="cannot be written"):
        bag.write("/other/image", IMAGE, 2, message)
    with pytest.raises(RecordingError, match="cannot be written"):
        bag.close()
    bag.close()
    assert [path.name for path in tmp_path.iterdir()] == ["bag.partial"]


@pytest.mark.parametrize("name", ["run#1", "50%20", "what?"])
def test_a_database_is_not_written_somewhere_else(tmp_path, name):
    """A path that SQLite would take for another one is refused before anything is written."""
    with pytest.raises(RecordingError, match="choose another, or the storage mcap"):
        BagWriter(tmp_path / name / "bag", "sqlite3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [".", "..", "/"])
def test_a_path_without_a_name_is_refused(tmp_path, monkeypatch, path):
    """Such as the folder in which one is: nothing could grow beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for replace in (False, True):
        with pytest.raises(RecordingError, match="has no name of its own"):
            BagWriter(path, replace=replace)
    assert [item.name for item in tmp_path.rglob("*")] == ["here"]
