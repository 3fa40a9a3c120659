"""What the simulator yields, as serialized ROS 2 messages: for `simulator_node` and for bags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dae_ros.bags.message_types import CAMERA_INFO, EVENT_ARRAY, EVENT_PACKET, IMAGE
from dae_ros.bags.messages import CameraInfo, write_camera_info, write_image
from dae_ros.bags.writer import BagWriter
from dae_ros.events import cdr
from dae_ros.events.codecs import create_decoder
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket, Events
from dae_ros.simulation.camera import Camera
from dae_ros.simulation.simulation import EVENT_ARRAY_CDR, DepthTruth, Item, Simulation

EVENTS_TOPIC = "events"


class SimulationWriter(Protocol):
    """Writes one run of a simulation; nothing has the final name before `close`.

    A recording that has the name already is refused, or kept until `close` where `replace` was
    given.
    """

    def write(self, item: Item) -> None:
        """Append what `Simulation.items` yields, in its order."""

    def close(self) -> None:
        """Finish, and give everything its final name."""

    def abandon(self) -> None:
        """Stop after an error: what was written keeps its `.partial`."""


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedMessage:
    """One message.

    Attributes:
        topic: relative name, a key of `simulated_topics`.
        stamp_ns: its `header.stamp`.
        data: CDR bytes.
    """

    topic: str
    stamp_ns: int
    data: bytes


def simulated_topics(encoding: str) -> dict[str, str]:
    """Return relative topic -> message type for an encoding of `SimulatorParameters`."""
    return {
        EVENTS_TOPIC: EVENT_ARRAY if encoding == "dvs_msgs" else EVENT_PACKET,
        "image_raw": IMAGE,
        "camera_info": CAMERA_INFO,
        "depth_truth": IMAGE,
        "depth_truth/camera_info": CAMERA_INFO,
    }


def simulated_messages(simulation: Simulation) -> Iterator[SimulatedMessage]:
    """Yield every message in order of its stamp; an image is followed by its camera_info."""
    camera = calibration(simulation.camera)
    for item in simulation.run():
        yield from messages_of(item, camera)


def messages_of(
    item: EventPacket | Frame | DepthTruth, camera: CameraInfo
) -> Iterator[SimulatedMessage]:
    """Yield the messages of one item."""
    stamp_ns = item.stamp_ns
    if isinstance(item, EventPacket):
        yield SimulatedMessage(EVENTS_TOPIC, stamp_ns, serialize_packet(item))
        return
    image, topic, info = (
        (item.image, "image_raw", "camera_info")
        if isinstance(item, Frame)
        else (item.depth, "depth_truth", "depth_truth/camera_info")
    )
    yield SimulatedMessage(topic, stamp_ns, write_image(image, stamp_ns, item.frame_id))
    yield SimulatedMessage(info, stamp_ns, write_camera_info(camera, stamp_ns, item.frame_id))


class SimulatedBag:
    """A rosbag2 (mcap) of one run; see `SimulationWriter`.

    Args:
        path: the folder.
        simulation: whose items will be written.
        encoding: its parameter of that name.
        replace: whether a folder of that name may exist.

    Raises:
        RecordingError: the folder exists, or cannot be written.
    """

    def __init__(
        self, path: Path, simulation: Simulation, encoding: str, *, replace: bool = False
    ) -> None:
        self._bag = BagWriter(path, replace=replace)
        self._encoder = simulation.encoder()
        self._camera = calibration(simulation.camera)
        self._topics = simulated_topics(encoding)

    def write(self, item: Item) -> None:
        """See `SimulationWriter`."""
        packed = self._encoder.packet(item) if isinstance(item, Events) else item
        for message in messages_of(packed, self._camera):
            self._bag.write(
                f"/{message.topic}", self._topics[message.topic], message.stamp_ns, message.data
            )

    def close(self) -> None:
        """See `SimulationWriter`."""
        self._bag.close()

    def abandon(self) -> None:
        """See `SimulationWriter`."""
        self._bag.abandon()


def serialize_packet(packet: EventPacket) -> bytes:
    """Return an EventPacket message, or a dvs_msgs EventArray for `event_array_cdr`."""
    if packet.encoding != EVENT_ARRAY_CDR:
        return cdr.write_packet(packet)
    events = create_decoder(packet.encoding, packet.width, packet.height).decode(packet.payload)
    return cdr.write_event_array(
        events, packet.height, packet.width, packet.stamp_ns, packet.frame_id
    )


def calibration(camera: Camera) -> CameraInfo:
    """Return a simulated camera as a calibration: plumb_bob, rectified to the same focal length."""
    return CameraInfo(
        camera.height,
        camera.width,
        "plumb_bob",
        camera.distortion or (0.0,) * 5,
        tuple(camera.matrix().ravel().tolist()),
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        (camera.fx, 0.0, camera.cx, 0.0, 0.0, camera.fy, camera.cy, 0.0, 0.0, 0.0, 1.0, 0.0),
    )
