"""An MCAP file as rosbag2 writes it with its preset `fastwrite`: messages alone, without chunks."""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = b"\x89MCAP0\r\n"


def text(value: str) -> bytes:
    """A string of MCAP."""
    return struct.pack("<I", len(value)) + value.encode()


def record(operation: int, content: bytes) -> bytes:
    """A record of MCAP."""
    return struct.pack("<BQ", operation, len(content)) + content


def write_unchunked(
    path: Path, topic: str, type_name: str, messages: list[tuple[int, bytes]]
) -> None:
    """Write (record time in ns, serialized message) in the order of the list."""
    parts = [
        record(0x01, text("ros2") + text("")),
        record(0x03, struct.pack("<H", 1) + text(type_name) + text("ros2msg") + text("")),
        record(0x04, struct.pack("<HH", 1, 1) + text(topic) + text("cdr") + struct.pack("<I", 0)),
    ]
    for number, (time_ns, data) in enumerate(messages):
        head = struct.pack("<HIQQ", 1, number, time_ns, time_ns)
        parts.append(record(0x05, head + data))
    parts += [record(0x0F, bytes(4)), record(0x02, bytes(20))]
    path.write_bytes(MAGIC + b"".join(parts) + MAGIC)
