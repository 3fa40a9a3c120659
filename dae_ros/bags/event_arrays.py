"""Per-event arrays from ROS 1 into ROS 2 serialization, without looking at the events."""

from __future__ import annotations

import struct

import numpy as np

from dae_ros.events.cdr import write_event_array
from dae_ros.events.packet import EventPacket, Events

# Field positions are those of `dae_ros.events.cdr`: ROS 1 packs a record into 13 bytes; CDR has
# a stride of 16, seen from two bytes before the first record.
_FIELDS = ("x", "y", "sec", "nsec", "polarity")
_FORMATS = ("<u2", "<u2", "<u4", "<u4", "u1")
_ROS1_RECORD = np.dtype(
    {"names": _FIELDS, "formats": _FORMATS, "offsets": (0, 2, 4, 8, 12), "itemsize": 13}
)
_CDR_RECORD = np.dtype(
    {"names": _FIELDS, "formats": _FORMATS, "offsets": (0, 2, 6, 10, 14), "itemsize": 16}
)


def event_array_to_cdr(packet: EventPacket) -> bytes:
    """Return the ROS 2 message (CDR) of an event array that was read from ROS 1.

    Every event is kept as it is, to the ns, in its order; nothing is decoded or sorted.

    Args:
        packet: of encoding `event_array_ros1`; `header.seq` is gone, as ROS 2 has none.
    """
    source = np.frombuffer(packet.payload, _ROS1_RECORD)
    empty = write_event_array(
        Events.empty(), packet.height, packet.width, packet.stamp_ns, packet.frame_id
    )
    if len(source) == 0:
        return empty
    start = len(empty)
    out = np.zeros(start - 2 + 16 * len(source), np.uint8)
    records = out[start - 2 :].view(_CDR_RECORD)
    for name in _FIELDS:
        records[name] = source[name]
    out[:start] = np.frombuffer(empty[:-4] + struct.pack("<I", len(source)), np.uint8)
    # Of the first record, x and y lie two bytes later than the stride puts them.
    struct.pack_into("<HH", out.data, start, int(source["x"][0]), int(source["y"][0]))
    # The last record has one byte of the stride less: no tail padding.
    return out[:-1].tobytes()
