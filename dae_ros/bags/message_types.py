"""The message types that are known without any ROS package installed.

The texts are our own; fields and their names are those of the published interfaces, which is
what type hashes (REP 2016) and the wire format depend on.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

EVENT_PACKET = "event_camera_msgs/msg/EventPacket"
EVENT_ARRAY = "dvs_msgs/msg/EventArray"
IMAGE = "sensor_msgs/msg/Image"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"

# What the library's serializers raise for damaged bytes.
SERIALIZATION_DAMAGE = (
    SerdeError,
    AssertionError,
    IndexError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
)

_PACKET_PACKAGES = {
    "event_camera_msgs": "EventPacket",
    "event_array_msgs": "EventArray",  # the predecessor, with the same fields
}
_PACKET_TEXT = """
std_msgs/Header header
uint32 height
uint32 width
uint64 seq
uint64 time_base
string encoding
bool is_bigendian
uint8[] events
"""
_ARRAY_PACKAGES = ("dvs_msgs", "prophesee_event_msgs", "dv_ros2_msgs", "dv_ros_msgs")
_EVENT_TEXT = """
uint16 x
uint16 y
builtin_interfaces/Time ts
bool polarity
"""
_ARRAY_TEXT = """
std_msgs/Header header
uint32 height
uint32 width
{package}/Event[] events
"""


def create_typestore() -> Typestore:
    """Return a new type store with the standard ROS 2 messages and every event message."""
    store = get_typestore(Stores.ROS2_KILTED)
    for package, name in _PACKET_PACKAGES.items():
        store.register(get_types_from_msg(_PACKET_TEXT, f"{package}/msg/{name}"))
    for package in _ARRAY_PACKAGES:
        store.register(get_types_from_msg(_EVENT_TEXT, f"{package}/msg/Event"))
        store.register(
            get_types_from_msg(_ARRAY_TEXT.format(package=package), f"{package}/msg/EventArray")
        )
    return store


@lru_cache(maxsize=1)
def known_types() -> Typestore:
    """Return the shared type store; it must not be added to."""
    return create_typestore()
