"""Small ROS 1 bags with MVSEC's topics, written by the rosbags library, and what is in them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

HEIGHT, WIDTH = 26, 34
START_NS = 1_500_000_000_123_456_789
PACKET_NS = 10_000_000

ROS1 = get_typestore(Stores.ROS1_NOETIC)
ROS1.register(
    get_types_from_msg("uint16 x\nuint16 y\ntime ts\nbool polarity\n", "dvs_msgs/msg/Event")
)
ROS1.register(
    get_types_from_msg(
        "Header header\nuint32 height\nuint32 width\nEvent[] events\n", "dvs_msgs/msg/EventArray"
    )
)
ROS1.register(
    get_types_from_msg(
        "Header header\nfloat64 baro\nuint8[3] flags\n", "visensor_node/msg/visensor_imu"
    )
)


@dataclass
class Written:
    """What went into a bag, in order."""

    events: list[list[tuple[int, int, int, int]]] = field(default_factory=list)  # t, x, y, p
    event_times_ns: list[int] = field(default_factory=list)  # record times
    frames: list[tuple[int, np.ndarray]] = field(default_factory=list)  # stamp, image
    depths: list[tuple[int, np.ndarray]] = field(default_factory=list)

    @property
    def all_events(self) -> list[tuple[int, int, int, int]]:
        return [event for array in self.events for event in array]


def event_array_bytes(
    events: list[tuple[int, int, int, int]],
    seq: int,
    stamp_ns: int,
    frame_id: str = "",
    height: int = HEIGHT,
    width: int = WIDTH,
) -> bytes:
    """Serialize one dvs_msgs/EventArray as ROS 1 does, field by field."""
    name = frame_id.encode()
    out = struct.pack("<III", seq, stamp_ns // 10**9, stamp_ns % 10**9)
    out += struct.pack("<I", len(name)) + name + struct.pack("<III", height, width, len(events))
    for t, x, y, p in events:
        out += struct.pack("<HHIIB", x, y, t // 10**9, t % 10**9, p)
    return out


def _stamp(time_ns: int):
    return ROS1.types["builtin_interfaces/msg/Time"](sec=time_ns // 10**9, nanosec=time_ns % 10**9)


def _header(stamp_ns: int):
    return ROS1.types["std_msgs/msg/Header"](seq=7, stamp=_stamp(stamp_ns), frame_id="cam")


def image_bytes(image: np.ndarray, stamp_ns: int, encoding: str) -> bytes:
    """Serialize a sensor_msgs/Image as ROS 1 does."""
    message = ROS1.types["sensor_msgs/msg/Image"](
        header=_header(stamp_ns),
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=image.strides[0],
        data=image.reshape(-1).view(np.uint8),
    )
    return bytes(ROS1.serialize_ros1(message, "sensor_msgs/msg/Image"))


def camera_info_bytes(stamp_ns: int) -> bytes:
    """Serialize a sensor_msgs/CameraInfo as ROS 1 does."""
    region = ROS1.types["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    message = ROS1.types["sensor_msgs/msg/CameraInfo"](
        header=_header(stamp_ns),
        height=HEIGHT,
        width=WIDTH,
        distortion_model="equidistant",
        D=np.array([0.1, 0.2, 0.3, 0.4]),
        K=np.array([22.0, 0, 17, 0, 22.5, 13, 0, 0, 1]),
        R=np.array([1.0, 0, 0, 0, 1, 0, 0, 0, 1]),
        P=np.array([22.0, 0, 17, 0, 0, 22.5, 13, 0, 0, 0, 1, 0]),
        binning_x=0,
        binning_y=0,
        roi=region,
    )
    return bytes(ROS1.serialize_ros1(message, "sensor_msgs/msg/CameraInfo"))


def write_data_bag(
    path: Path,
    *,
    arrays: int = 30,
    events_per_array: int = 200,
    seed: int = 0,
    compression: str | None = None,
    right: bool = True,
) -> Written:
    """Write events, frames and calibration; a frame every three arrays."""
    random = np.random.default_rng(seed)
    written = Written()
    writer = Writer(path)
    if compression:
        writer.set_compression(Writer.CompressionFormat[compression])
    with writer:

        def add(topic: str, kind: str):
            return writer.add_connection(topic, kind, typestore=ROS1)

        left = add("/davis/left/events", "dvs_msgs/msg/EventArray")
        image = add("/davis/left/image_raw", "sensor_msgs/msg/Image")
        info = add("/davis/left/camera_info", "sensor_msgs/msg/CameraInfo")
        imu = add("/visensor/cust_imu", "visensor_node/msg/visensor_imu")
        other = add("/davis/a_right/events", "dvs_msgs/msg/EventArray") if right else None
        for number in range(arrays):
            begin_ns = START_NS + number * PACKET_NS
            times = np.sort(random.integers(begin_ns, begin_ns + PACKET_NS, events_per_array))
            events = [
                (
                    int(t),
                    int(random.integers(WIDTH)),
                    int(random.integers(HEIGHT)),
                    int(random.integers(2)),
                )
                for t in times
            ]
            # Recorded a little after the last event, as a driver on a busy machine does.
            record_ns = begin_ns + PACKET_NS + int(random.integers(0, 1_000_000))
            written.events.append(events)
            written.event_times_ns.append(record_ns)
            writer.write(left, record_ns, event_array_bytes(events, number, begin_ns, "dvs"))
            if other is not None:
                writer.write(other, record_ns, event_array_bytes([], number, begin_ns))
            if number % 3 == 0:
                picture = random.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
                written.frames.append((begin_ns, picture))
                writer.write(image, record_ns + 1, image_bytes(picture, begin_ns, "mono8"))
                writer.write(info, record_ns + 1, camera_info_bytes(begin_ns))
        message = ROS1.types["visensor_node/msg/visensor_imu"](
            header=_header(START_NS), baro=1.5, flags=np.array([1, 2, 3], np.uint8)
        )
        data = ROS1.serialize_ros1(message, "visensor_node/msg/visensor_imu")
        writer.write(imu, START_NS + PACKET_NS, bytes(data))
    return written


def write_truth_bag(path: Path, *, images: int = 4) -> Written:
    """Write depth images in between the arrays of `write_data_bag`."""
    written = Written()
    with Writer(path) as writer:
        topic = writer.add_connection(
            "/davis/left/depth_image_raw", "sensor_msgs/msg/Image", typestore=ROS1
        )
        for number in range(images):
            stamp_ns = START_NS + number * 5 * PACKET_NS
            depth = np.full((HEIGHT, WIDTH), 1.5 + number, np.float32)
            depth[0, 0] = np.nan
            written.depths.append((stamp_ns, depth))
            writer.write(topic, stamp_ns, image_bytes(depth, stamp_ns, "32FC1"))
    return written
