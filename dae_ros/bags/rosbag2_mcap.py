"""A scan of MCAP files without their index; whole files go through the rosbags library.

Source of the layout: https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from rosbags.interfaces import MessageDefinition

from dae_ros.bags.compression import decompress_prefix
from dae_ros.bags.message_definitions import rosbag2_definition
from dae_ros.bags.salvage import Cut, Salvaged

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_RECORD_HEADER = struct.Struct("<BQ")


class _Channels:
    """Schemas and channels met so far."""

    def __init__(self) -> None:
        self.schemas: dict[int, tuple[str, MessageDefinition]] = {}
        self.channels: dict[int, tuple[str, str, MessageDefinition]] = {}

    def take(self, operation: int, content: bytes) -> Salvaged | None:
        """Read one record; return the message if it is one."""
        if operation == _SCHEMA:
            (number,) = struct.unpack_from("<H", content)
            name, encoding, text = _strings(content, 2, 3)
            self.schemas[number] = (name, rosbag2_definition(encoding, text))
        elif operation == _CHANNEL:
            number, schema = struct.unpack_from("<HH", content)
            (topic,) = _strings(content, 4, 1)
            self.channels[number] = (topic, *self.schemas[schema])
        elif operation == _MESSAGE:
            number, _, time_ns, _ = struct.unpack_from("<HIQQ", content)
            topic, name, definition = self.channels[number]
            return Salvaged(topic, name, definition, time_ns, content[22:])
        return None


def scan_mcap(path: Path) -> Iterator[Salvaged]:
    """Read an MCAP file from the front, without its index.

    Raises:
        Cut: where the readable part ends, if that is before the end of its data.
    """
    channels = _Channels()
    size = path.stat().st_size
    with path.open("rb") as file:
        offset = len(MAGIC)
        while offset < size:
            file.seek(offset)
            header = file.read(_RECORD_HEADER.size)
            if len(header) < _RECORD_HEADER.size:
                raise Cut(f"the record at byte {offset} is not whole")
            operation, length = _RECORD_HEADER.unpack(header)
            if operation == _DATA_END:
                return
            content = file.read(min(length, size - file.tell()))
            try:
                if operation == _CHUNK:
                    yield from _read_chunk(content, channels)
                elif len(content) == length:
                    message = channels.take(operation, content)
                    if message is not None:
                        yield message
            except (KeyError, ValueError, struct.error) as error:
                raise Cut(f"the record at byte {offset} is damaged ({error})") from error
            if len(content) < length:
                raise Cut(f"the record at byte {offset} ends before its {length} bytes")
            offset += _RECORD_HEADER.size + length


def _read_chunk(content: bytes, channels: _Channels) -> list[Salvaged]:
    """Return the whole messages of a chunk, in order of their times."""
    (compression,) = _strings(content, 28, 1)
    start = 28 + 4 + len(compression.encode()) + 8
    plain = decompress_prefix(compression, content[start:])
    found: list[Salvaged] = []
    position = 0
    while position + _RECORD_HEADER.size <= len(plain):
        operation, length = _RECORD_HEADER.unpack_from(plain, position)
        position += _RECORD_HEADER.size
        if position + length > len(plain):
            break
        message = channels.take(operation, plain[position : position + length])
        if message is not None:
            found.append(message)
        position += length
    return sorted(found, key=lambda message: message.time_ns)


def _strings(content: bytes, position: int, count: int) -> list[str]:
    """Read `count` length-prefixed strings."""
    texts = []
    for _ in range(count):
        (length,) = struct.unpack_from("<I", content, position)
        end = position + 4 + length
        if end > len(content):
            raise ValueError("a text is not whole")
        texts.append(content[position + 4 : end].decode())
        position = end
    return texts
