"""A camera that plays a recording over and over, whose clocks may jump.

Time goes on where the recording begins again. As a camera driver it publishes reliably, keeps the
last messages and waits for nobody, so that a subscriber that was killed holds nothing back.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from dae_ros.bags.messages import write_image
from dae_ros.bags.recording import open_recording
from dae_ros.events.cdr import write_packet
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket

SECOND = 1_000_000_000
CLOCK_PERIOD_S = 0.02
PACKET_NS = 5_000_000


class Camera:
    """Publishes `events`, `image_raw` and `/clock` from a thread while its context is open.

    Args:
        node: that publishes.
        recording: with `/events` in an encoding of absolute times (`mono`), and `/image_raw`.
        rate: recorded seconds per second.

    Attributes:
        clock_ahead_s: how far `/clock` is ahead of the recording's time; may be set at any time.
        stamps_ahead_s: the same of the stamps.
        sensor_ahead_s: the same of the event times.
        silent: nothing is sent, `/clock` apart.
    """

    def __init__(self, node: Any, recording: Path, rate: float) -> None:
        from event_camera_msgs.msg import EventPacket as EventPacketMessage
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import Image

        with open_recording(recording) as found:
            packets = list(found.event_packets("/events"))
            frames = list(found.frames("/image_raw"))
        items: list[EventPacket | Frame] = [*packets, *frames]
        self._items = sorted(items, key=lambda item: item.stamp_ns)
        first_ns = self._items[0].stamp_ns
        self._length_ns = self._items[-1].stamp_ns - first_ns + PACKET_NS
        self._rate = rate
        self.clock_ahead_s = self.stamps_ahead_s = self.sensor_ahead_s = 0.0
        self.silent = False
        qos = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        self._events = node.create_publisher(EventPacketMessage, "events", qos)
        self._images = node.create_publisher(Image, "image_raw", qos)
        self._clock = node.create_publisher(Clock, "/clock", 1)
        self._seq = itertools.count()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._play, name="camera", daemon=True)

    def __enter__(self) -> Camera:
        """Begin to play."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop playing."""
        self._leaving.set()
        self._thread.join(5.0)

    def _play(self) -> None:
        first_ns, begin_s, next_clock_s = self._items[0].stamp_ns, time.monotonic(), 0.0
        for again in itertools.count():
            for item in self._items:
                offset_ns = again * self._length_ns
                elapsed_s = (item.stamp_ns - first_ns + offset_ns) / SECOND / self._rate
                due_s = begin_s + elapsed_s
                while (now_s := time.monotonic()) < due_s:
                    if self._leaving.wait(min(due_s - now_s, CLOCK_PERIOD_S)):
                        return
                if now_s >= next_clock_s:
                    next_clock_s = now_s + CLOCK_PERIOD_S
                    self._tell(item.stamp_ns + offset_ns)
                if not self.silent:
                    self._publish(item, offset_ns)

    def _tell(self, time_ns: int) -> None:
        from rosgraph_msgs.msg import Clock

        from dae_ros.nodes.conversions import ns_to_stamp

        ahead_ns = round(self.clock_ahead_s * SECOND)
        self._clock.publish(Clock(clock=ns_to_stamp(time_ns + ahead_ns)))

    def _publish(self, item: EventPacket | Frame, offset_ns: int) -> None:
        stamp_ns = item.stamp_ns + offset_ns + round(self.stamps_ahead_s * SECOND)
        if isinstance(item, Frame):
            self._images.publish(write_image(item.image, stamp_ns, item.frame_id))
            return
        ahead_ns = round(self.sensor_ahead_s * SECOND)
        moved = dataclasses.replace(
            item,
            stamp_ns=stamp_ns,
            time_base_ns=item.time_base_ns + offset_ns + ahead_ns,
            seq=next(self._seq),
        )
        self._events.publish(write_packet(moved))
