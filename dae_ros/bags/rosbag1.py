"""ROS 1 bags (format V2.0): whole ones through the rosbags library, cut ones by a scan.

Source of the layout: http://wiki.ros.org/Bags/Format/2.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag1 import Reader
from rosbags.typesys.msg import normalize_msgtype

from dae_ros.bags.compression import decompress_prefix
from dae_ros.bags.container import Container
from dae_ros.bags.rosbags_file import DAMAGE, RosbagsFile
from dae_ros.bags.salvage import Cut, Salvaged, SalvagedFile

MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7

# Connection id -> topic, type, definition.
Connections = dict[int, tuple[str, str, MessageDefinition]]


def open_rosbag1(path: Path) -> Container:
    """Open a `.bag`, also one without an index or without its end.

    Raises:
        RecordingError: nothing of it is readable.
    """
    reader = Reader(path)
    try:
        reader.open()
    except DAMAGE:
        return SalvagedFile(path, scan_rosbag1, "ros1")
    return RosbagsFile(path, reader, "ros1")


def scan_rosbag1(path: Path) -> Iterator[Salvaged]:
    """Read a bag from the front, without its index.

    Raises:
        Cut: where the readable part ends, if that is before the end of the file.
    """
    connections: Connections = {}
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(len(MAGIC))
        while file.tell() < size:
            offset = file.tell()
            header = _read_fields(_read_block(file, offset, "record header"), offset)
            operation = header.get(b"op", b"\0")[0]
            if operation != _CHUNK:
                data = _read_block(file, offset, "record")
                if operation == _CONNECTION:
                    _add_connection(connections, header, data, offset)
                continue
            length = _read_length(file, offset, "chunk")
            data = file.read(length)
            try:
                plain = decompress_prefix(header[b"compression"].decode(), data)
            except (KeyError, ValueError) as error:
                raise Cut(f"the chunk at byte {offset} is damaged ({error})") from error
            # Sorted, since a recorder writes in order of arrival of its threads.
            found, end = _read_chunk(plain, connections, offset)
            yield from sorted(found, key=lambda message: message.time_ns)
            if len(data) < length or end < len(plain):
                raise Cut(f"the chunk at byte {offset} ends before its {length} bytes")


def _read_chunk(plain: bytes, connections: Connections, offset: int) -> tuple[list[Salvaged], int]:
    """Return the whole messages of a chunk and where they end."""
    found: list[Salvaged] = []
    position = 0
    while position < len(plain):
        header_end = _block_end(plain, position)
        if header_end is None:
            break
        end = _block_end(plain, header_end)
        if end is None:
            break
        header = _read_fields(plain[position + 4 : header_end], offset)
        data = plain[header_end + 4 : end]
        operation = header.get(b"op", b"\0")[0]
        if operation == _CONNECTION:
            _add_connection(connections, header, data, offset)
        elif operation == _MESSAGE:
            try:
                (number,) = struct.unpack("<I", header[b"conn"])
                seconds, nanoseconds = struct.unpack("<II", header[b"time"])
                topic, kind, definition = connections[number]
            except (KeyError, struct.error) as error:
                raise Cut(f"a message in the chunk at byte {offset} is damaged") from error
            found.append(
                Salvaged(topic, kind, definition, seconds * 1_000_000_000 + nanoseconds, data)
            )
        position = end
    return found, position


def _block_end(plain: bytes, position: int) -> int | None:
    """Return the end of a length-prefixed block, None where it is not all there."""
    if position + 4 > len(plain):
        return None
    (length,) = struct.unpack_from("<I", plain, position)
    end = position + 4 + int(length)
    return end if end <= len(plain) else None


def _read_length(file: BinaryIO, offset: int, what: str) -> int:
    data = file.read(4)
    if len(data) < 4:
        raise Cut(f"the {what} at byte {offset} is not whole")
    return int.from_bytes(data, "little")


def _read_block(file: BinaryIO, offset: int, what: str) -> bytes:
    length = _read_length(file, offset, what)
    data = file.read(length)
    if len(data) < length:
        raise Cut(f"the {what} at byte {offset} is not whole")
    return data


def _read_fields(header: bytes, offset: int) -> dict[bytes, bytes]:
    """Split a record header into its `name=value` fields."""
    fields: dict[bytes, bytes] = {}
    position = 0
    while position < len(header):
        end = _block_end(header, position)
        name, equals, value = header[position + 4 : end].partition(b"=")
        if end is None or not equals:
            raise Cut(f"the record header at byte {offset} is damaged")
        fields[name] = value
        position = end
    return fields


def _add_connection(
    connections: Connections, header: dict[bytes, bytes], data: bytes, offset: int
) -> None:
    about = _read_fields(data, offset)
    try:
        (number,) = struct.unpack("<I", header[b"conn"])
        connections[number] = (
            header[b"topic"].decode(),
            normalize_msgtype(about[b"type"].decode()),
            MessageDefinition(MessageDefinitionFormat.MSG, about[b"message_definition"].decode()),
        )
    except (KeyError, struct.error, UnicodeDecodeError) as error:
        raise Cut(f"the connection at byte {offset} is damaged") from error
