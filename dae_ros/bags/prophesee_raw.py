"""Prophesee `.raw` files: a text header, then EVT 2.0, 2.1 or 3.0 words to the end.

The words become EventPacket messages, cut anywhere between two words: the decoder carries its
state across. There is no host clock in such a file. A packet is stamped with the sensor's own time
of its first event, as drivers stamp, so that ROS time and sensor time are the same; its record time
is the sensor's time at its end.

Source of the layout: the public file format pages of the Metavision SDK documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from pathlib import Path

from dae_ros.bags.container import RecordedMessage, TopicInfo
from dae_ros.bags.message_types import EVENT_PACKET
from dae_ros.errors import PacketError, RecordingError
from dae_ros.events.cdr import write_packet
from dae_ros.events.codecs import create_decoder
from dae_ros.events.packet import EventPacket

TOPIC = "/events"
FRAME_ID = "camera"
# Words are 2, 4 or 8 bytes; at 1 Mev/s this is about 15 ms of EVT 3.0.
PACKET_BYTES = 64 * 1024
_ENCODINGS = {
    "2.0": "evt2",
    "2.1": "evt2.1",
    "3.0": "evt3",
    "EVT2": "evt2",
    "EVT21": "evt2.1",
    "EVT3": "evt3",
}
# Sensors by the words of old headers that have no geometry, (height, width) in px.
_SENSORS = {
    "gen3.1": (480, 640),
    "gen31": (480, 640),
    "imx636": (720, 1280),
    "gen4.1": (720, 1280),
    "gen41": (720, 1280),
    "gen4.2": (720, 1280),
    "gen42": (720, 1280),
    "genx320": (320, 320),
}


class PropheseeRawFile:
    """One `.raw` file.

    Args:
        path: the file.
        size: (height, width) in px; None takes the header's.

    Raises:
        RecordingError: no header, a word format without a decoder, or no size anywhere.
    """

    def __init__(self, path: Path, size: tuple[int, int] | None = None) -> None:
        self.path = path
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        fields, self._data_start = _read_header(path)
        self._encoding = _encoding(fields, path)
        self._height, self._width = size or _geometry(fields, path)
        data_bytes = path.stat().st_size - self._data_start
        self.topics = {TOPIC: TopicInfo(EVENT_PACKET, -(-data_bytes // PACKET_BYTES))}

    def messages(self, topics: Set[str], start_ns: int | None) -> Iterator[RecordedMessage]:
        """See `Container.messages`; a decoder that starts later finds time words soon enough."""
        if TOPIC not in topics:
            return
        # Decoded here only for the time at which each packet ends.
        decoder = create_decoder(self._encoding, self._width, self._height)
        with self.path.open("rb") as file:
            file.seek(self._data_start)
            seq = 0
            while payload := file.read(PACKET_BYTES):
                try:
                    segments = decoder.decode_packet(payload).segments
                except PacketError:  # who decodes the packet finds and counts the same
                    segments = ()
                time_ns = decoder.latest_time_ns or 0
                events = next((part for part in segments if len(part)), None)
                if start_ns is None or time_ns >= start_ns:
                    packet = EventPacket(
                        self._encoding,
                        self._height,
                        self._width,
                        payload,
                        0,
                        time_ns if events is None else int(events.t[0]),
                        seq,
                        FRAME_ID,
                    )
                    yield RecordedMessage(TOPIC, EVENT_PACKET, time_ns, write_packet(packet))
                seq += 1

    def close(self) -> None:
        """See `Container.close`; the file is open only while it is read."""


def is_raw(start: bytes) -> bool:
    """Return whether a file that begins so is a Prophesee raw file."""
    return re.match(rb"% ?[A-Za-z_]+", start) is not None


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's fields and where the words begin."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while True:
            start = file.tell()
            # A word may look like '%' only where the header is over, which '% end' says; files
            # without it end their header with the first line that does not begin so.
            line = file.readline(4096)
            if not line.startswith(b"%") or not line.endswith(b"\n"):
                return fields, start
            name, _, value = line[1:].strip().decode("latin-1").partition(" ")
            if name == "end":
                return fields, file.tell()
            fields[name.lower()] = value.strip()


def _format_options(fields: dict[str, str]) -> dict[str, str]:
    """Split a line like `EVT3;height=720;width=1280`."""
    name, *options = fields.get("format", "").split(";")
    pairs = (option.partition("=") for option in options)
    return {"": name, **{key.strip(): value.strip() for key, _, value in pairs}}


def _encoding(fields: dict[str, str], path: Path) -> str:
    options = _format_options(fields)
    name = options[""] or fields.get("evt", "")
    if name not in _ENCODINGS:
        raise RecordingError(
            f"{path} has events in the format '{name}'; known are EVT2, EVT21 and EVT3. Convert "
            f"it with the camera maker's tools",
            path=str(path),
            format=name,
        )
    endianness = options.get("endianness", fields.get("endianness", "little"))
    if endianness != "little":
        raise RecordingError(
            f"{path} has {_ENCODINGS[name]} words of endianness '{endianness}', which cannot be "
            f"read; convert it with the camera maker's tools",
            path=str(path),
            endianness=endianness,
        )
    return _ENCODINGS[name]


def _geometry(fields: dict[str, str], path: Path) -> tuple[int, int]:
    """Return (height, width) in px."""
    options = _format_options(fields)
    match = re.match(r"(\d+)\s*x\s*(\d+)", fields.get("geometry", ""))
    sides = (match[2], match[1]) if match else None
    if "height" in options and "width" in options:
        sides = (options["height"], options["width"])
    if sides is None:
        says = "does not tell the size of the sensor"
        about = " ".join(
            fields.get(name, "") for name in ("sensor_name", "plugin_name", "sensor_generation")
        )
        for word, size in _SENSORS.items():
            if word in about.lower().replace("_", ""):
                return size
    else:
        says = f"tells a size of '{sides[0]}' rows and '{sides[1]}' columns, which is none"
        if all(re.fullmatch("0*[1-9][0-9]*", side) for side in sides):
            return int(sides[0]), int(sides[1])
    raise RecordingError(
        f"the header of {path} {says}; give it to dae-ros bag or convert with --size WIDTHxHEIGHT, "
        "for example --size 1280x720 (convert makes a recording that tells it, which replay_node "
        "plays)",
        path=str(path),
    )
