"""AEDAT4 recordings of iniVation cameras, through the `aedat` package.

Events become EventPacket messages of encoding `libcaer` (absolute time in whole microseconds, as
the camera counts), frames become mono8 images stamped with the middle of their exposure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.container import RecordedMessage, TopicInfo
from dae_ros.bags.message_types import EVENT_PACKET, IMAGE
from dae_ros.bags.messages import write_image
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.events.cdr import write_packet
from dae_ros.events.packet import EventPacket, Events
from dae_ros.simulation.encoders import create_encoder

MAGIC = b"#!AER-DAT4"
FRAME_ID = "camera"
_TYPES = {"events": ("events", EVENT_PACKET), "frame": ("image_raw", IMAGE)}
_HEADER_DAMAGE = (OSError, struct.error, UnicodeDecodeError, ElementTree.ParseError)
_GREY = {"RGB": cv2.COLOR_RGB2GRAY, "RGBA": cv2.COLOR_RGBA2GRAY}


class Aedat4File:
    """One `.aedat4` file.

    Topics are `/events` and `/image_raw`, numbered from the second camera on (`/events_1`).
    Triggers and IMU samples are not read.

    Raises:
        RecordingError: the file is not readable.
        ConfigurationError: the package `aedat` is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self.topics: dict[str, TopicInfo] = {}
        self._streams: dict[int, tuple[str, int, int]] = {}
        seen: dict[str, int] = {}
        for number, stream in sorted(self._open().id_to_stream().items()):
            if stream["type"] not in _TYPES:
                continue
            name, kind = _TYPES[stream["type"]]
            suffix = f"_{seen[name]}" if name in seen else ""
            seen[name] = seen.get(name, 0) + 1
            topic = f"/{name}{suffix}"
            self.topics[topic] = TopicInfo(kind, None)
            self._streams[number] = (topic, stream["height"], stream["width"])

    def _open(self) -> Any:
        try:
            import aedat
        except ImportError as error:
            raise ConfigurationError(
                "reading .aedat4 files needs the package aedat: pip install aedat", package="aedat"
            ) from error
        try:
            _check_header(self.path)
            return aedat.Decoder(self.path)
        except BaseException as error:
            if not isinstance(error, _HEADER_DAMAGE) and not _is_of_package(error):
                raise
            raise RecordingError(
                f"{self.path} is no readable AEDAT4 file ({error})", path=str(self.path)
            ) from error

    def messages(self, topics: Set[str], start_ns: int | None) -> Iterator[RecordedMessage]:
        """See `Container.messages`; in the order of the file.

        A frame stands behind the events that were written while it was exposed and read out, so
        that its end of exposure may lie before theirs; its record time is then theirs.
        """
        chosen = {n: stream for n, stream in self._streams.items() if stream[0] in topics}
        encoders = {
            number: create_encoder("libcaer", width, height)
            for number, (_, height, width) in chosen.items()
        }
        sequence = dict.fromkeys(chosen, 0)
        delivered = newest_ns = 0
        packets = iter(self._open())
        while True:
            try:
                packet = next(packets, None)
            except BaseException as error:
                if not _is_of_package(error):
                    raise
                raise RecordingError(
                    f"{self.path} was cut or is damaged ({error}). All {delivered} messages "
                    f"before that were read",
                    path=str(self.path),
                    messages=delivered,
                ) from error
            if packet is None:
                return
            number = packet["stream_id"]
            # Of every stream, so that record times do not depend on the topics that are read.
            newest_ns = max(newest_ns, _end_ns(packet))
            if number not in chosen:
                continue
            topic, height, width = chosen[number]
            if "events" in packet and len(packet["events"]):
                events = _events(packet["events"])
                try:
                    payload, base_ns = encoders[number].encode(events)
                except ConfigurationError as error:
                    raise RecordingError(
                        f"{self.path} is damaged after {delivered} messages: {error}",
                        path=str(self.path),
                        messages=delivered,
                    ) from error
                message = RecordedMessage(
                    topic,
                    EVENT_PACKET,
                    newest_ns,
                    write_packet(
                        EventPacket(
                            "libcaer",
                            height,
                            width,
                            payload,
                            base_ns,
                            int(events.t[-1]),
                            sequence[number],
                            FRAME_ID,
                        )
                    ),
                )
                sequence[number] += 1
            elif "frame" in packet:
                message = _frame(topic, packet["frame"], newest_ns)
            else:
                continue
            if start_ns is None or message.time_ns >= start_ns:
                yield message
            delivered += 1

    def close(self) -> None:
        """See `Container.close`; the file is open only while it is read."""


def _check_header(path: Path) -> None:
    """Make sure that the description of the streams is text and XML.

    The package trusts it to be UTF-8, and ends the whole process where it is not.

    Raises:
        OSError, struct.error, UnicodeDecodeError, xml.etree.ElementTree.ParseError: it is not.
    """
    with path.open("rb") as file:
        file.seek(len(MAGIC) + len(b".0\r\n"))
        (size,) = struct.unpack("<I", file.read(4))
        header = file.read(size)
    # A FlatBuffer: the root is a table, whose third field is the XML.
    (table,) = struct.unpack_from("<I", header)
    (back,) = struct.unpack_from("<i", header, table)
    (place,) = struct.unpack_from("<H", header, table - back + 8)
    place += table
    place += struct.unpack_from("<I", header, place)[0]
    (length,) = struct.unpack_from("<I", header, place)
    ElementTree.fromstring(header[place + 4 : place + 4 + length].decode())


def _is_of_package(error: BaseException) -> bool:
    """Whether the package says that a file is damaged, or panicked, which no `Exception` is."""
    return isinstance(error, RuntimeError) or type(error).__name__ == "PanicException"


def _events(columns: NDArray[np.void]) -> Events:
    """Return the events of a packet; the file has microseconds."""
    return Events(
        columns["t"].astype(np.int64) * 1000,
        columns["x"].copy(),
        columns["y"].copy(),
        columns["on"].astype(np.uint8),
    )


def _end_ns(packet: dict[str, Any]) -> int:
    """Return when a packet was complete on the camera's clock: its last event or exposure."""
    if "events" in packet and len(packet["events"]):
        return int(packet["events"]["t"][-1]) * 1000
    return int(packet["frame"]["exposure_end_t"]) * 1000 if "frame" in packet else 0


def _frame(topic: str, frame: dict[str, Any], time_ns: int) -> RecordedMessage:
    begin_us, end_us = frame["exposure_begin_t"], frame["exposure_end_t"]
    grey = frame["pixels"]
    if frame["format"] in _GREY:
        grey = cv2.cvtColor(grey, _GREY[frame["format"]])
    elif frame["format"] == "I;16":
        grey = (grey >> 8).astype(np.uint8)
    cdr = write_image(np.asarray(grey, np.uint8), (begin_us + end_us) * 500, FRAME_ID)
    return RecordedMessage(topic, IMAGE, time_ns, cdr, exposure_ns=(end_us - begin_us) * 1000)
