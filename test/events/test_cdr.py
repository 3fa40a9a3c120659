"""Serialized event messages against a member-by-member writer, real rclpy and damage."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.errors import ConfigurationError, MalformedPacket
from dae_ros.events.cdr import (
    event_types,
    read_packet,
    read_ros1_packet,
    write_event_array,
    write_packet,
)
from dae_ros.events.packet import EventPacket, Events
from test.reference.serialized_messages import (
    CdrWriter,
    Ros1Writer,
    array_records,
    event_array,
    event_packet,
)

PACKET = "event_camera_msgs/msg/EventPacket"
ARRAY = "dvs_msgs/msg/EventArray"
ARRAYS = [name for name in event_types() if name.endswith("EventArray") and "event_arr" not in name]


def _records(count: int) -> list[tuple[int, int, int, int, int]]:
    return [((k + 7) % 346, (k + 9) % 260, 5 + k // 7, 1000 * k + 3, k % 2) for k in range(count)]


def _events(count: int) -> Events:
    records = _records(count)
    return Events(
        np.array([sec * 10**9 + nsec for _, _, sec, nsec, _ in records], np.int64),
        np.array([r[0] for r in records], np.uint16),
        np.array([r[1] for r in records], np.uint16),
        np.array([r[4] for r in records], np.uint8),
    )


def test_reference_writer_gives_hand_made_bytes() -> None:
    """The reference lays two events with alignment relative to the byte after the header."""
    message = event_array(CdrWriter(), (1, 2), "ab", 3, 4, [(5, 6, 7, 8, 1), (9, 10, 11, 12, 0)])
    assert message.hex() == (
        "00010000"
        "01000000"
        "02000000"
        "03000000"
        "616200"
        "00"
        "03000000"
        "04000000"
        "02000000"
        "0500"
        "0600"
        "07000000"
        "08000000"
        "01"
        "00"
        "0900"
        "0a00"
        "0000"
        "0b000000"
        "0c000000"
        "00"
    )
    assert event_packet(Ros1Writer(), (1, 2), "a", 3, 4, 5, 6, "m", b"\x07").hex() == (
        "4d000000"
        "01000000"
        "02000000"
        "01000000"
        "61"
        "03000000"
        "04000000"
        "0500000000000000"
        "0600000000000000"
        "01000000"
        "6d"
        "00"
        "01000000"
        "07"
    )
    assert array_records(message[-29:], aligned=True) == [(5, 6, 7, 8, 1), (9, 10, 11, 12, 0)]


@pytest.mark.parametrize("ros1", [False, True])
def test_packet_of_every_alignment(ros1: bool) -> None:
    """All lengths of frame_id and encoding modulo 8 give the written members, without a copy."""
    read = read_ros1_packet if ros1 else read_packet
    for frame_length in range(9):
        for encoding_length in range(9):
            frame_id, encoding = "f" * frame_length, "e" * encoding_length
            payload = bytes(range(frame_length + encoding_length))
            data = event_packet(
                Ros1Writer() if ros1 else CdrWriter(padding=0xAA),
                (12, 34),
                frame_id,
                260,
                346,
                2**40,
                2**60,
                encoding,
                payload,
            )
            packet = read(PACKET, data)
            assert (packet.frame_id, packet.encoding) == (frame_id, encoding)
            assert (packet.height, packet.width) == (260, 346)
            assert (packet.seq, packet.time_base_ns) == (2**40, 2**60)
            assert packet.stamp_ns == 12_000_000_034
            assert bytes(packet.payload) == payload
            assert packet.payload.obj is data


@pytest.mark.parametrize("ros1", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
@pytest.mark.parametrize("type_name", ARRAYS)
def test_array_of_every_count(type_name: str, count: int, ros1: bool) -> None:
    """The payload runs from record 0 to the end of the last record, for every frame_id length."""
    read = read_ros1_packet if ros1 else read_packet
    for frame_length in range(9):
        writer = Ros1Writer() if ros1 else CdrWriter(padding=0xAA)
        data = event_array(writer, (9, 8), "f" * frame_length, 260, 346, _records(count))
        packet = read(type_name, data)
        assert packet.encoding == ("event_array_ros1" if ros1 else "event_array_cdr")
        assert array_records(bytes(packet.payload), aligned=not ros1) == _records(count)
        assert (packet.stamp_ns, packet.seq, packet.time_base_ns) == (9_000_000_008, None, 0)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
@pytest.mark.parametrize("frame_id", ["", "a", "ab", "abc", "abcd"])
def test_written_array_equals_the_reference(count: int, frame_id: str) -> None:
    """write_event_array gives the reference's bytes, padding zeroed."""
    expected = event_array(CdrWriter(), (3, 4), frame_id, 260, 346, _records(count))
    written = write_event_array(_events(count), 260, 346, 3_000_000_004, frame_id)
    assert written == expected


@given(st.text(max_size=12), st.text(max_size=12), st.binary(max_size=40), st.integers(0, 2**60))
@settings(max_examples=60, deadline=None)
def test_written_packet_reads_back(
    frame_id: str, encoding: str, payload: bytes, number: int
) -> None:
    """Any packet survives writing and reading; the bytes equal the reference's."""
    packet = EventPacket(encoding, 720, 1280, payload, number, number % 2**60, number, frame_id)
    data = write_packet(packet)
    stamp = divmod(packet.stamp_ns, 10**9)
    assert data == event_packet(
        CdrWriter(), stamp, frame_id, 720, 1280, number, number, encoding, payload
    )
    again = read_packet(PACKET, data)
    assert bytes(again.payload) == payload
    assert (again.frame_id, again.encoding, again.seq) == (frame_id, encoding, number)


@pytest.mark.parametrize("ros1", [False, True])
@pytest.mark.parametrize("type_name", [PACKET, ARRAY])
def test_truncation_at_every_byte_is_refused(type_name: str, ros1: bool) -> None:
    """A message cut anywhere gives MalformedPacket, never another exception or a short packet."""
    writer = Ros1Writer() if ros1 else CdrWriter()
    data = (
        event_packet(writer, (1, 2), "cam", 260, 346, 1, 2, "evt3", b"12345678")
        if type_name == PACKET
        else event_array(writer, (1, 2), "cam", 260, 346, _records(3))
    )
    read = read_ros1_packet if ros1 else read_packet
    for size in range(len(data)):
        with pytest.raises(MalformedPacket, match=r"instead of|damaged"):
            read(type_name, data[:size])
    assert read(type_name, data).height == 260


def test_damage_is_named() -> None:
    """Byte order, encapsulation, sizes, counts, strings and left-over bytes are told apart."""

    def packet(**change: object) -> bytes:
        members = {
            "stamp": (1, 2),
            "frame_id": "cam",
            "height": 260,
            "width": 346,
            "seq": 1,
            "time_base": 2,
            "encoding": "evt3",
            "payload": b"1234",
        }
        return event_packet(CdrWriter(), **(members | change))

    good = packet()
    for data, words in (
        (b"\x00\x00" + good[2:], "00 00 00 00 instead of the little-endian CDR header"),
        (b"\x00\x07" + good[2:], "plain CDR"),
        (packet(big_endian=1), "is_bigendian is set"),
        (packet(big_endian=3), "is_bigendian is 3"),
        (packet(height=0), "height is 0"),
        (packet(width=2**31), "width is 2147483648"),
        (packet(time_base=2**63), "time_base"),
        (packet(time_base=2**31 * 10**9), "time_base 2147483648000000000 ns lies beyond January"),
        (packet(stamp=(2**31 - 1, 10**9)), "header.stamp 2147483648000000000 ns lies beyond"),
        (good + bytes(4), "4 bytes follow"),
        (good.replace(b"cam\x00", b"camX"), "not ended by a zero byte"),
        (good.replace(b"cam\x00", b"\xff\xfe\xff\x00"), "not UTF-8"),
    ):
        with pytest.raises(MalformedPacket, match=words):
            read_packet(PACKET, data)
    assert bytes(read_packet(PACKET, good + bytes(3)).payload) == b"1234"  # RTPS padding
    assert (
        read_packet(PACKET, packet(time_base=2**31 * 10**9 - 1)).time_base_ns == 2**31 * 10**9 - 1
    )
    unsigned = event_array(Ros1Writer(), (-(2**31), 0), "cam", 260, 346, _records(3))
    with pytest.raises(MalformedPacket, match=r"header\.stamp .* beyond January 2038"):
        read_ros1_packet(ARRAY, unsigned)
    array = bytearray(event_array(CdrWriter(), (1, 2), "cam", 260, 346, _records(3)))
    struct.pack_into("<I", array, 4 + 24, 2**31)
    with pytest.raises(MalformedPacket, match="array of 2147483648 events needs"):
        read_packet(ARRAY, array)


def test_other_types_are_refused_with_the_list() -> None:
    """A type that is not an event message names those that are."""
    with pytest.raises(ConfigurationError, match="dvs_msgs/msg/EventArray"):
        read_packet("sensor_msgs/msg/Image", b"\x00\x01\x00\x00")
    assert "event_array_msgs/msg/EventArray" in event_types()
    data = event_packet(CdrWriter(), (1, 2), "c", 1, 1, 1, 2, "mono", b"")
    assert read_packet("event_array_msgs/msg/EventArray", data).encoding == "mono"


def test_times_that_no_message_holds_are_refused() -> None:
    """Event times outside builtin_interfaces/Time raise instead of wrapping."""
    late = Events(
        np.array([2**31 * 10**9], np.int64),
        np.zeros(1, np.uint16),
        np.zeros(1, np.uint16),
        np.zeros(1, np.uint8),
    )
    with pytest.raises(ConfigurationError, match="2\\^31 s"):
        write_event_array(late, 1, 1, 0, "")
    for stamp_ns in (2**31 * 10**9, -(2**31) * 10**9 - 1):
        with pytest.raises(ConfigurationError, match="beyond January 2038"):
            write_packet(EventPacket("mono", 1, 1, b"", 0, stamp_ns))


@pytest.mark.parametrize("type_name", [PACKET, ARRAY])
def test_damaged_bytes_never_crash(type_name: str) -> None:
    """Random byte changes, cuts and insertions read as a packet or as MalformedPacket."""
    rng = random.Random(5)
    for trial in range(3000):
        ros1 = trial % 2 == 0
        writer = Ros1Writer() if ros1 else CdrWriter()
        data = bytearray(
            event_packet(writer, (1, 2), "cam", 260, 346, 1, 2, "evt3", b"12345678")
            if type_name == PACKET
            else event_array(writer, (1, 2), "cam", 260, 346, _records(4))
        )
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            kind = rng.randrange(3)
            if kind == 0:
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            elif kind == 1:
                data.insert(at, rng.randrange(256))
            else:
                del data[at]
        try:
            packet = (read_ros1_packet if ros1 else read_packet)(type_name, bytes(data))
        except MalformedPacket:
            continue
        assert 0 < packet.height <= 8192
        assert 0 < packet.width <= 8192
        assert len(packet.payload) <= len(data)


@pytest.mark.ros
@pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # lark, under rosidl
def test_real_serialization_reads_the_same() -> None:
    """What rclpy serializes is read member by member, and what is written rclpy deserializes."""
    serialization = pytest.importorskip("rclpy.serialization", reason="needs rclpy")
    camera = pytest.importorskip("event_camera_msgs.msg", reason="needs event_camera_msgs")
    dvs = pytest.importorskip("dvs_msgs.msg", reason="needs dvs_msgs")
    for frame_length in range(5):
        message = camera.EventPacket(
            height=480, width=640, seq=9, time_base=8, encoding="evt3", events=[1, 2, 3]
        )
        message.header.frame_id = "f" * frame_length
        message.header.stamp.sec = 7
        packet = read_packet(PACKET, serialization.serialize_message(message))
        assert (packet.height, packet.width, packet.seq, packet.time_base_ns) == (480, 640, 9, 8)
        assert bytes(packet.payload) == b"\x01\x02\x03"
        written = write_packet(packet)
        assert serialization.deserialize_message(written, camera.EventPacket) == message
        for count in (0, 1, 2, 3, 1000):
            data = write_event_array(_events(count), 260, 346, 7_000_000_000, "f" * frame_length)
            array = serialization.deserialize_message(data, dvs.EventArray)
            assert [
                (e.x, e.y, e.ts.sec, e.ts.nanosec, int(e.polarity)) for e in array.events
            ] == _records(count)
            again = read_packet(ARRAY, serialization.serialize_message(array))
            assert array_records(bytes(again.payload), aligned=True) == _records(count)
            assert again.frame_id == "f" * frame_length
