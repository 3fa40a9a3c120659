"""Columns and images of a data set as the messages that a camera driver would have recorded."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.container import RecordedMessage
from dae_ros.bags.message_types import CAMERA_INFO, EVENT_PACKET, IMAGE
from dae_ros.bags.messages import CameraInfo, write_camera_info, write_image
from dae_ros.errors import RecordingError
from dae_ros.events.cdr import write_packet
from dae_ros.events.packet import EventPacket, Events
from dae_ros.simulation.encoders import create_encoder

Item = TypeVar("Item")

# Absolute time in ns, 8 bytes an event; a packet may span 4.2 s of it.
ENCODING = "mono"
PACKET_NS = 10_000_000
# Rows that are read at once from a table of events: 1 to 8 MB.
CHUNK = 1 << 18


def events_of(
    t_ns: NDArray[np.int64],
    x: NDArray[Any],
    y: NDArray[Any],
    polarity: NDArray[Any],
    height: int,
    width: int,
    source: str,
) -> Events:
    """Check columns as they are stored and make events of them.

    Args:
        t_ns: int64[N].
        x, y: [N], px, whole numbers of any type.
        polarity: [N], 1 or True brighter; -1, 0 or False darker.
        height, width: sensor size in px.
        source: file and rows, for the errors.

    Raises:
        RecordingError: columns of different lengths or without numbers, time that runs back, pixels
            outside the sensor or between two, a polarity that is none.
    """
    columns = (t_ns, x, y, polarity)
    if t_ns.ndim != 1 or any(column.shape != t_ns.shape for column in columns):
        shapes = ", ".join(str(list(column.shape)) for column in columns)
        raise RecordingError(
            f"the columns of {source} are of the shapes {shapes}, not of one length; the file is "
            "damaged",
            source=source,
        )
    kinds = [column.dtype for column in columns if column.dtype.kind not in "biuf"]
    if kinds:
        raise RecordingError(
            f"a column of {source} holds {kinds[0]}, not numbers; the file is damaged",
            source=source,
        )
    _require(np.isin(polarity, (-1, 0, 1)), "a polarity of neither -1, 0 nor 1", source)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    _require(inside, f"a pixel outside the sensor of {width}x{height} px", source)
    whole_x, whole_y = x.astype(np.uint16), y.astype(np.uint16)
    _require((whole_x == x) & (whole_y == y), "a pixel that is no whole number", source)
    _require(np.diff(t_ns, prepend=t_ns[:1]) >= 0, "a time before that of the event ahead", source)
    return Events(t_ns, whole_x, whole_y, (polarity > 0).astype(np.uint8))


def _require(good: NDArray[np.bool_], problem: str, source: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise RecordingError(
            f"event {row} of {source} has {problem}; the file is damaged or of another layout",
            source=source,
            row=row,
        )


def event_messages(
    topic: str, chunks: Iterable[Events], height: int, width: int, frame_id: str
) -> Iterator[RecordedMessage]:
    """Yield EventPackets of at most 10 ms, cut at the multiples of 10 ms and between chunks.

    A packet is stamped and recorded at its last event, with which it is complete.
    """
    encoder = create_encoder(ENCODING, width, height)
    seq = 0
    for events in chunks:
        cuts = np.flatnonzero(np.diff(events.t // PACKET_NS)) + 1
        for start, stop in pairwise([0, *cuts.tolist(), len(events)]):
            if start == stop:
                continue
            part = events.slice(start, stop)
            payload, base_ns = encoder.encode(part)
            time_ns = int(part.t[-1])
            packet = EventPacket(ENCODING, height, width, payload, base_ns, time_ns, seq, frame_id)
            yield RecordedMessage(topic, EVENT_PACKET, time_ns, write_packet(packet))
            seq += 1


def image_message(
    topic: str,
    image: NDArray[np.uint8] | NDArray[np.float32],
    stamp_ns: int,
    frame_id: str,
    exposure_ns: int = 0,
) -> RecordedMessage:
    """Return a grey frame (uint8[H, W]) or depth in metres (float32[H, W]) as a message."""
    data = write_image(image, stamp_ns, frame_id)
    return RecordedMessage(topic, IMAGE, stamp_ns, data, exposure_ns=exposure_ns)


def camera_info_message(
    topic: str, camera: CameraInfo, stamp_ns: int, frame_id: str
) -> RecordedMessage:
    """Return a calibration as a message."""
    data = write_camera_info(camera, stamp_ns, frame_id)
    return RecordedMessage(topic, CAMERA_INFO, stamp_ns, data)


def in_time_order(
    sources: Iterable[Iterator[RecordedMessage]], start_ns: int | None
) -> Iterator[RecordedMessage]:
    """Merge sources by record time, without what was recorded before `start_ns`.

    Raises:
        RecordingError: a source is damaged; it ends there and the others are read first.
    """
    damage: list[RecordingError] = []
    whole = [until_damage(source, damage) for source in sources]
    for message in heapq.merge(*whole, key=lambda message: message.time_ns):
        if start_ns is None or message.time_ns >= start_ns:
            yield message
    if damage:
        raise damage[0]


def until_damage(items: Iterator[Item], damage: list[RecordingError]) -> Iterator[Item]:
    """Yield items up to a damaged place, and keep the error for when the others are read."""
    try:
        yield from items
    except RecordingError as error:
        damage.append(error)
