"""Write a simulation as a pair of ROS 1 bags in the layout of MVSEC.

    <name>_data.bag   /davis/left/events       dvs_msgs/EventArray, absolute times
                      /davis/left/image_raw    sensor_msgs/Image, mono8
                      /davis/left/camera_info  sensor_msgs/CameraInfo
    <name>_gt.bag     /davis/left/depth_image_raw   sensor_msgs/Image, 32FC1, m, NaN unknown
                      /davis/left/pose         geometry_msgs/PoseStamped, of the optical frame

MVSEC: Zhu et al., "The Multivehicle Stereo Event Camera Dataset", RA-L 2018; topics as in the
bags of daniilidis-group.github.io/mvsec. Messages are recorded at their stamps. Two things are
ours: the lens is `plumb_bob` instead of `equidistant`, and frames are stamped in the middle of
their exposure.
"""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dae_ros.bags.replacing import give_name, require_free, require_name
from dae_ros.bags.simulated import calibration
from dae_ros.errors import RecordingError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import Events
from dae_ros.simulation.encoders import encode
from dae_ros.simulation.simulation import FRAME_ID, Item, Simulation

NAMESPACE = "/davis/left"
_NS_PER_S = 1_000_000_000
_EVENT = "uint16 x\nuint16 y\ntime ts\nbool polarity\n"
_EVENT_ARRAY = "Header header\nuint32 height\nuint32 width\nEvent[] events\n"
_IMAGE, _INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
_POSE, _ARRAY = "geometry_msgs/msg/PoseStamped", "dvs_msgs/msg/EventArray"


class MvsecWriter:
    """Two bags of one run; see `SimulationWriter`.

    Args:
        path: `<name>` of the bags, with its folder.
        simulation: whose items will be written; its events must have absolute times
            (`encoding: dvs_msgs`).
        replace: whether bags of that name may exist.

    Raises:
        RecordingError: a bag of that name exists, or cannot be written.
    """

    def __init__(self, path: Path, simulation: Simulation, *, replace: bool = False) -> None:
        require_name(path)
        self.paths = tuple(path.with_name(f"{path.name}_{part}.bag") for part in ("data", "gt"))
        self._partial = require_free(self.paths, replace)
        self._camera = calibration(simulation.camera)
        self._types: Any = get_typestore(Stores.ROS1_NOETIC)
        self._types.register(get_types_from_msg(_EVENT, "dvs_msgs/msg/Event"))
        self._types.register(get_types_from_msg(_EVENT_ARRAY, _ARRAY))
        self._bags = tuple(Writer(target) for target in self._partial)
        try:
            for bag in self._bags:
                bag.open()
        except OSError as error:
            raise RecordingError(
                f"{path.parent} cannot be written: {error.strerror}", path=str(path)
            ) from error
        self._connections = {
            (index, topic): self._add(index, topic, kind)
            for index, topic, kind in (
                (0, "events", _ARRAY), (0, "image_raw", _IMAGE), (0, "camera_info", _INFO),
                (1, "depth_image_raw", _IMAGE), (1, "pose", _POSE),
            )
        }  # fmt: skip
        self._counts = dict.fromkeys(self._connections, 0)

    def _add(self, index: int, topic: str, kind: str) -> Connection:
        return self._bags[index].add_connection(f"{NAMESPACE}/{topic}", kind, typestore=self._types)

    def write(self, item: Item) -> None:
        """See `SimulationWriter`."""
        if isinstance(item, Events):
            self._write_events(item)
        elif isinstance(item, Frame):
            self._write_image(0, "image_raw", item.image, item.stamp_ns)
            self._write_info(item.stamp_ns)
        else:
            self._write_image(1, "depth_image_raw", item.depth, item.stamp_ns)
            pose = self._types.types["geometry_msgs/msg/Pose"](
                position=self._types.types["geometry_msgs/msg/Point"](
                    **dict(zip("xyz", item.pose.position.tolist(), strict=True))
                ),
                orientation=self._types.types["geometry_msgs/msg/Quaternion"](
                    **dict(zip("xyzw", quaternion(item.pose.rotation), strict=True))
                ),
            )
            stamped = self._types.types[_POSE](
                header=self._header(1, "pose", item.stamp_ns, "world"), pose=pose
            )
            self._put(1, "pose", item.stamp_ns, self._types.serialize_ros1(stamped, _POSE))

    def close(self) -> None:
        """See `SimulationWriter`."""
        self._finish()
        for partial, target in zip(self._partial, self.paths, strict=True):
            give_name(partial, target)

    def abandon(self) -> None:
        """See `SimulationWriter`."""
        # What is told is the error that came first.
        with contextlib.suppress(OSError):
            self._finish()

    def _finish(self) -> None:
        try:
            for bag in self._bags:
                bag.close()
        except OSError:
            for bag in self._bags:
                # What is left in its buffer does not fit either.
                with contextlib.suppress(OSError):
                    if bag.bio is not None:
                        bag.bio.close()
            raise

    def _put(self, index: int, topic: str, time_ns: int, data: bytes | memoryview) -> None:
        self._bags[index].write(self._connections[index, topic], time_ns, bytes(data))
        self._counts[index, topic] += 1

    def _write_events(self, events: Events) -> None:
        stamp_ns = int(events.t[0])
        height, width = self._camera.height, self._camera.width
        seconds, nanoseconds = divmod(stamp_ns, _NS_PER_S)
        name = FRAME_ID.encode()
        head = struct.pack("<III", self._counts[0, "events"], seconds, nanoseconds)
        head += struct.pack("<I", len(name)) + name
        head += struct.pack("<III", height, width, len(events))
        self._put(0, "events", stamp_ns, head + encode("event_array_ros1", events, width, height))

    def _header(self, index: int, topic: str, stamp_ns: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, _NS_PER_S)
        time = self._types.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        return self._types.types["std_msgs/msg/Header"](
            seq=self._counts[index, topic], stamp=time, frame_id=frame_id
        )

    def _write_image(
        self, index: int, topic: str, image: NDArray[np.uint8] | NDArray[np.float32], stamp_ns: int
    ) -> None:
        pixels = np.ascontiguousarray(image)
        message = self._types.types[_IMAGE](
            header=self._header(index, topic, stamp_ns, FRAME_ID), height=pixels.shape[0],
            width=pixels.shape[1], encoding="mono8" if pixels.dtype == np.uint8 else "32FC1",
            is_bigendian=0, step=pixels.strides[0], data=pixels.reshape(-1).view(np.uint8),
        )  # fmt: skip
        self._put(index, topic, stamp_ns, self._types.serialize_ros1(message, _IMAGE))

    def _write_info(self, stamp_ns: int) -> None:
        region = self._types.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        camera = self._camera
        message = self._types.types[_INFO](
            header=self._header(0, "camera_info", stamp_ns, FRAME_ID), height=camera.height,
            width=camera.width, distortion_model=camera.distortion_model,
            D=np.array(camera.d), K=np.array(camera.k), R=np.array(camera.r),
            P=np.array(camera.p), binning_x=0, binning_y=0, roi=region,
        )  # fmt: skip
        self._put(0, "camera_info", stamp_ns, self._types.serialize_ros1(message, _INFO))


def quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return (x, y, z, w) of a rotation matrix, w >= 0 (Shepperd, J. Guidance and Control 1978)."""
    r = rotation
    squares = np.array([
        1.0 + r[0, 0] - r[1, 1] - r[2, 2], 1.0 - r[0, 0] + r[1, 1] - r[2, 2],
        1.0 - r[0, 0] - r[1, 1] + r[2, 2], 1.0 + r[0, 0] + r[1, 1] + r[2, 2],
    ])  # fmt: skip
    rows = np.array([
        [squares[0], r[1, 0] + r[0, 1], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]],
        [r[1, 0] + r[0, 1], squares[1], r[2, 1] + r[1, 2], r[0, 2] - r[2, 0]],
        [r[0, 2] + r[2, 0], r[2, 1] + r[1, 2], squares[2], r[1, 0] - r[0, 1]],
        [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], squares[3]],
    ])  # fmt: skip
    largest = rows[int(np.argmax(squares))]
    x, y, z, w = (largest / np.linalg.norm(largest) * (1.0 if largest[3] >= 0.0 else -1.0)).tolist()
    return x, y, z, w
