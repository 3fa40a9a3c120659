"""Simulated packets as ROS 2 messages."""

from __future__ import annotations

from dae_ros.events import cdr
from dae_ros.events.codecs import create_decoder
from dae_ros.events.packet import EventPacket
from dae_ros.simulation.simulation import EVENT_ARRAY_CDR

EVENT_PACKET_TYPE = "event_camera_msgs/msg/EventPacket"
EVENT_ARRAY_TYPE = "dvs_msgs/msg/EventArray"


def message_type(encoding: str) -> str:
    """Return the type of the messages that carry an encoding of `SimulatorParameters`."""
    return EVENT_ARRAY_TYPE if encoding in ("dvs_msgs", EVENT_ARRAY_CDR) else EVENT_PACKET_TYPE


def serialize(packet: EventPacket) -> bytes:
    """Return the CDR bytes of the message of type `message_type(packet.encoding)`."""
    if packet.encoding != EVENT_ARRAY_CDR:
        return cdr.write_packet(packet)
    events = create_decoder(packet.encoding, packet.width, packet.height).decode(packet.payload)
    return cdr.write_event_array(
        events, packet.height, packet.width, packet.stamp_ns, packet.frame_id
    )
