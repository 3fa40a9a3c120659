"""Serialized event messages to `EventPacket` and back, without a message package.

Two serializations and two families of messages:

* ROS 2 CDR (XCDR1, little-endian) and ROS 1 (packed, little-endian).
* `event_camera_msgs/msg/EventPacket` and its predecessor `event_array_msgs/msg/EventArray`, which
  share one layout; and the per-event arrays of `dvs_msgs`, `prophesee_event_msgs`, `dv_ros2_msgs`
  and `dv_ros_msgs`, which share another.

Nothing is copied: the payload of the returned packet is a view into the bytes given.

CDR aligns members, not structs, relative to the byte after the 4-byte encapsulation header. An
event {x u2, y u2, sec i4, nanosec u4, polarity u1} of an array therefore lies like this, relative
to the first record: record 0 has x@0 y@2 sec@4 nanosec@8 p@12; record k >= 1 starts at
14 + 16 (k - 1) with x@0 y@2, two bytes of padding, sec@6 nanosec@10 p@14; the last record has no
tail padding. ROS 1 packs a record into 13 bytes.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from dae_ros.errors import ConfigurationError, MalformedPacket
from dae_ros.events.packet import TIME_LIMIT_NS, EventPacket, Events

_PACKET_TYPES: Final = frozenset(
    {"event_camera_msgs/msg/EventPacket", "event_array_msgs/msg/EventArray"}
)
_ARRAY_TYPES: Final = frozenset(
    f"{package}/msg/EventArray"
    for package in ("dvs_msgs", "prophesee_event_msgs", "dv_ros2_msgs", "dv_ros_msgs")
)

# Bounds what a damaged header can make the rest of the program allocate.
LARGEST_SENSOR_SIDE_PX: Final = 8192
# RTPS pads a serialized payload to a multiple of four; more than that is not padding.
_LARGEST_TAIL_BYTES: Final = 3
_ENCAPSULATION_LITTLE: Final = b"\x00\x01"
_ROS1_RECORD_BYTES: Final = 13
_NS_PER_S: Final = 1_000_000_000
_BEYOND: Final = "beyond January 2038, up to which ROS stamps count"

_NUMBERS: Final = {layout: struct.Struct("<" + layout) for layout in "iIQB"}

# Stride of the records in CDR, laid so that record 0 begins two bytes before its real place: from
# `sec` on, all records then agree, and only x and y of record 0 differ.
_CDR_RECORD: Final = np.dtype(
    {
        "names": ["x", "y", "sec", "nanosec", "p"],
        "formats": ["<u2", "<u2", "<i4", "<u4", "u1"],
        "offsets": [0, 2, 6, 10, 14],
        "itemsize": 16,
    }
)


def event_types() -> tuple[str, ...]:
    """Return the message types that are understood, as `package/msg/Name`, sorted."""
    return tuple(sorted(_PACKET_TYPES | _ARRAY_TYPES))


def read_packet(type_name: str, data: bytes | bytearray | memoryview) -> EventPacket:
    """Read one message in ROS 2 CDR.

    Args:
        type_name: one of `event_types()`.
        data: the serialized message with its 4-byte encapsulation header.

    Returns:
        The packet; `payload` is a view into `data`. Arrays have the encoding `event_array_cdr`,
        `seq` None and a payload from record 0 to the end of the last record.

    Raises:
        MalformedPacket: the bytes contradict the layout, announce a byte order or an
            encapsulation other than plain little-endian CDR, or hold a stamp or a time base that
            no ROS stamp can hold (`TIME_LIMIT_NS`).
        ConfigurationError: `type_name` is not an event message.
    """
    _require_known(type_name)
    view = memoryview(data).cast("B")
    if len(view) < 4 or bytes(view[:2]) != _ENCAPSULATION_LITTLE:
        raise MalformedPacket(
            f"A message of {type_name} begins with {bytes(view[:4]).hex(' ') or 'nothing'} instead "
            "of the little-endian CDR header 00 01; let the publisher serialize plain CDR.",
            type_name=type_name,
            size_bytes=len(view),
        )
    return _read(type_name, _Reader(type_name, view[4:], aligned=True))


def read_ros1_packet(type_name: str, data: bytes | bytearray | memoryview) -> EventPacket:
    """Read one message in the ROS 1 serialization (what a ROS 1 `.bag` holds).

    Args:
        type_name: one of `event_types()`, spelled `package/msg/Name` as in ROS 2.
        data: the serialized message.

    Returns:
        As `read_packet`; arrays have the encoding `event_array_ros1`. `header.seq` is not used:
        rewritten bags leave it at zero.

    Raises:
        MalformedPacket, ConfigurationError: as `read_packet`.
    """
    _require_known(type_name)
    return _read(type_name, _Reader(type_name, memoryview(data).cast("B"), aligned=False))


def write_packet(packet: EventPacket) -> bytes:
    """Serialize a packet as `event_camera_msgs/msg/EventPacket` in ROS 2 CDR.

    Args:
        packet: any packet; a `seq` of None is written as 0. Padding bytes are zero.

    Returns:
        The message with its encapsulation header.

    Raises:
        ConfigurationError: the stamp does not fit `builtin_interfaces/Time`.
    """
    encoding = packet.encoding.encode() + b"\0"
    payload = np.frombuffer(packet.payload, np.uint8).tobytes()
    out = _header(packet.stamp_ns, packet.frame_id)
    out += struct.pack("<II", packet.height, packet.width)
    _pad(out, 8)
    out += struct.pack("<QQI", packet.seq or 0, packet.time_base_ns, len(encoding))
    out += encoding
    out += b"\0"  # is_bigendian
    _pad(out, 4)
    out += struct.pack("<I", len(payload))
    out += payload
    return bytes(out)


def write_event_array(
    events: Events, height: int, width: int, stamp_ns: int, frame_id: str
) -> bytes:
    """Serialize events as `dvs_msgs/msg/EventArray` in ROS 2 CDR (also right for its twins).

    Args:
        events: times in ns from 0 to 2^31 s.
        height, width: sensor size in px.
        stamp_ns: `header.stamp`.
        frame_id: `header.frame_id`.

    Returns:
        The message with its encapsulation header; padding bytes are zero.

    Raises:
        ConfigurationError: a time does not fit `builtin_interfaces/Time`.
    """
    count = len(events)
    head = _header(stamp_ns, frame_id)
    head += struct.pack("<II", height, width)
    if count == 0:
        return bytes(head + struct.pack("<I", 0))
    seconds, nanoseconds = np.divmod(events.t, _NS_PER_S)
    if seconds[0] < 0 or seconds[-1] >= 2**31:
        raise ConfigurationError(
            "Event times must lie within 0 and 2^31 s to be written as builtin_interfaces/Time; "
            "add the epoch or subtract it first.",
            first_ns=int(events.t[0]),
            last_ns=int(events.t[-1]),
        )
    first = len(head) + 4
    # One stride per record, from two bytes before record 0, less the padding after the last one.
    out = np.zeros(first - 2 + 16 * count, np.uint8)
    records = out[first - 2 :].view(_CDR_RECORD)
    records["x"] = events.x
    records["y"] = events.y
    records["sec"] = seconds
    records["nanosec"] = nanoseconds
    records["p"] = events.p
    out[:first] = np.frombuffer(bytes(head + struct.pack("<I", count)), np.uint8)
    struct.pack_into("<HH", out.data, first, int(events.x[0]), int(events.y[0]))
    return out[:-1].tobytes()


def stamp_fields(stamp_ns: int) -> tuple[int, int]:
    """Return (sec, nanosec) of a `builtin_interfaces/Time`.

    Raises:
        ConfigurationError: it does not fit, `sec` being an int32.
    """
    if not -TIME_LIMIT_NS <= stamp_ns < TIME_LIMIT_NS:
        raise ConfigurationError(
            f"A time of {stamp_ns} ns lies {_BEYOND}; see that the clock of the camera or of its "
            "host is right.",
            stamp_ns=stamp_ns,
        )
    return divmod(stamp_ns, _NS_PER_S)


def _header(stamp_ns: int, frame_id: str) -> bytearray:
    """Return the encapsulation header and a `std_msgs/Header`, padded to four bytes."""
    seconds, nanoseconds = stamp_fields(stamp_ns)
    name = frame_id.encode() + b"\0"
    out = bytearray(b"\x00\x01\x00\x00")
    out += struct.pack("<iII", seconds, nanoseconds, len(name)) + name
    _pad(out, 4)
    return out


def _pad(out: bytearray, alignment: int) -> None:
    out += bytes(-(len(out) - 4) % alignment)


class _Reader:
    """Walks through the members of one message; every read is checked against the end."""

    def __init__(self, type_name: str, view: memoryview, *, aligned: bool) -> None:
        self.type_name = type_name
        self.aligned = aligned
        self._view = view
        self._size = len(view)
        self._at = 0

    def fail(self, problem: str) -> MalformedPacket:
        return MalformedPacket(
            f"A message of {self.type_name} is damaged or of another type: {problem}. It was "
            "dropped; check the publisher's message definition.",
            type_name=self.type_name,
            size_bytes=len(self._view),
            offset=self._at,
        )

    def take(self, size: int, what: str) -> memoryview:
        start = self._pass(size, what)
        return self._view[start : self._at]

    def number(self, layout: str, what: str) -> int:
        number = _NUMBERS[layout]
        if self.aligned:
            self._at += -self._at % number.size
        value: int = number.unpack_from(self._view, self._pass(number.size, what))[0]
        return value

    def _pass(self, size: int, what: str) -> int:
        """Go on by `size` bytes, if there are as many; return where they begin."""
        start, end = self._at, self._at + size
        if end > self._size:
            raise self.fail(
                f"{what} needs {size} bytes at offset {start}, but only "
                f"{max(0, self._size - start)} are left"
            )
        self._at = end
        return start

    def string(self, what: str) -> str:
        raw = bytes(self.take(self.number("I", f"length of {what}"), what))
        if self.aligned and raw:  # CDR counts a final NUL, ROS 1 has none
            if raw[-1] != 0:
                raise self.fail(f"{what} is not ended by a zero byte")
            raw = raw[:-1]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.fail(f"{what} is not UTF-8") from None

    def stamp_ns(self) -> int:
        layout = "i" if self.aligned else "I"  # ROS 1 time is unsigned
        seconds = self.number(layout, "header.stamp")
        stamp_ns = seconds * _NS_PER_S + self.number("I", "header.stamp")
        if stamp_ns >= TIME_LIMIT_NS:
            raise self.fail(f"header.stamp {stamp_ns} ns lies {_BEYOND}")
        return stamp_ns

    def size_px(self, what: str) -> int:
        size = self.number("I", what)
        if not 0 < size <= LARGEST_SENSOR_SIDE_PX:
            raise self.fail(f"{what} is {size}, not within 1 and {LARGEST_SENSOR_SIDE_PX}")
        return size

    def end(self) -> None:
        left = len(self._view) - self._at
        if left > (_LARGEST_TAIL_BYTES if self.aligned else 0):
            raise self.fail(f"{left} bytes follow its end")


def _require_known(type_name: str) -> None:
    if type_name not in _PACKET_TYPES and type_name not in _ARRAY_TYPES:
        raise ConfigurationError(
            f"{type_name} is not an event message; choose a topic with one of "
            f"{', '.join(event_types())}.",
            type_name=type_name,
            known=event_types(),
        )


def _read(type_name: str, reader: _Reader) -> EventPacket:
    if not reader.aligned:
        reader.number("I", "header.seq")
    stamp_ns = reader.stamp_ns()
    frame_id = reader.string("frame_id")
    height = reader.size_px("height")
    width = reader.size_px("width")
    if type_name in _ARRAY_TYPES:
        payload = _array_payload(reader)
        encoding = "event_array_cdr" if reader.aligned else "event_array_ros1"
        return EventPacket(encoding, height, width, payload, 0, stamp_ns, None, frame_id)
    seq = reader.number("Q", "seq")
    time_base_ns = reader.number("Q", "time_base")
    if time_base_ns >= TIME_LIMIT_NS:
        raise reader.fail(f"time_base {time_base_ns} ns lies {_BEYOND}")
    encoding = reader.string("encoding")
    big_endian = reader.number("B", "is_bigendian")
    if big_endian != 0:
        raise reader.fail(
            "is_bigendian is set, and no decoder reads big-endian payloads"
            if big_endian == 1
            else f"is_bigendian is {big_endian}, not 0 or 1"
        )
    payload = reader.take(reader.number("I", "length of events"), "events")
    reader.end()
    return EventPacket(encoding, height, width, payload, time_base_ns, stamp_ns, seq, frame_id)


def _array_payload(reader: _Reader) -> memoryview:
    count = reader.number("I", "number of events")
    stride, tail_padding = (16, 3) if reader.aligned else (_ROS1_RECORD_BYTES, 0)
    size = max(0, stride * count - tail_padding)
    payload = reader.take(size, f"an array of {count} events")
    reader.end()
    return payload
