"""EventPacket payloads of the real recordings, read without the package and without ROS."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest


def recording(name: str) -> Path:
    """Return the folder of a recording, or skip the test where it is absent."""
    default = Path(__file__).resolve().parents[2] / ".." / "shared" / "recordings"
    folder = Path(os.environ.get("DAE_ROS_RECORDINGS", default)) / name
    if not folder.is_dir():
        pytest.skip(f"recording {name} not found; set DAE_ROS_RECORDINGS to its parent folder")
    return folder


def read_fields(message: bytes) -> tuple[int, int, int, str, bytes]:
    """Return (width, height, time_base, encoding, payload) of a little-endian CDR EventPacket."""
    at = 4  # encapsulation; alignment counts from its end

    def take(size: int) -> int:
        nonlocal at
        at += -(at - 4) % size
        at += size
        return int.from_bytes(message[at - size : at], "little")

    def take_octets() -> bytes:
        nonlocal at
        length = take(4)
        at += length
        return message[at - length : at]

    take(4), take(4), take_octets()  # header
    height, width = take(4), take(4)
    take(8)  # seq
    time_base = take(8)
    encoding = take_octets()[:-1].decode()
    take(1)  # is_bigendian
    return width, height, time_base, encoding, take_octets()


def evt3_messages() -> Iterator[bytes]:
    """Yield the CDR messages of the EVT 3.0 recording from its SQLite file."""
    path = recording("evt3_640x480") / "test_events_1.db3"
    with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as storage:
        for (message,) in storage.execute("SELECT data FROM messages ORDER BY timestamp"):
            yield message


def libcaer_cmp_messages() -> Iterator[bytes]:
    """Yield the CDR messages of the compressed libcaer recording from its MCAP chunks."""
    data = (recording("libcaer_cmp_davis346") / "test_events_2_0.mcap").read_bytes()
    yield from _mcap_messages(data[8:])


def _mcap_messages(records: bytes) -> Iterator[bytes]:
    at = 0
    while at + 9 <= len(records):
        opcode, length = struct.unpack_from("<BQ", records, at)
        body = records[at + 9 : at + 9 + length]
        at += 9 + length
        if opcode == 0x05:  # message: channel, sequence, log and publish time, data
            yield body[22:]
        elif opcode == 0x06:  # chunk: start, end, size, crc, compression, records
            (name_length,) = struct.unpack_from("<I", body, 28)
            name = body[32 : 32 + name_length].decode()
            (size,) = struct.unpack_from("<Q", body, 32 + name_length)
            inner = body[40 + name_length : 40 + name_length + size]
            if name:
                raise ValueError(f"the recording's chunks are compressed with {name}")
            yield from _mcap_messages(inner)
        elif opcode == 0x02:  # footer
            return
