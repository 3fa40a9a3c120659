"""Event messages written member by member, in plain Python: CDR aligned, ROS 1 packed."""

from __future__ import annotations

import struct

Record = tuple[int, int, int, int, int]  # x, y, sec, nanosec, polarity


class CdrWriter:
    """Appends members with their natural alignment, counted after the 4-byte header."""

    def __init__(self, padding: int = 0) -> None:
        self.body = b""
        self.padding = bytes([padding])

    def put(self, kind: str, value: int) -> None:
        size = struct.calcsize("<" + kind)
        while len(self.body) % size:
            self.body += self.padding
        self.body += struct.pack("<" + kind, value)

    def text(self, value: str) -> None:
        raw = value.encode() + b"\x00"
        self.put("I", len(raw))
        self.body += raw

    def message(self) -> bytes:
        return b"\x00\x01\x00\x00" + self.body


class Ros1Writer:
    """Appends members without any alignment."""

    def __init__(self) -> None:
        self.body = b""

    def put(self, kind: str, value: int) -> None:
        self.body += struct.pack("<" + kind, value)

    def text(self, value: str) -> None:
        raw = value.encode()
        self.put("I", len(raw))
        self.body += raw

    def message(self) -> bytes:
        return self.body


def _header(out: CdrWriter | Ros1Writer, stamp: tuple[int, int], frame_id: str) -> None:
    if isinstance(out, Ros1Writer):
        out.put("I", 77)  # header.seq
    out.put("i", stamp[0])
    out.put("I", stamp[1])
    out.text(frame_id)


def event_packet(
    out: CdrWriter | Ros1Writer,
    stamp: tuple[int, int],
    frame_id: str,
    height: int,
    width: int,
    seq: int,
    time_base: int,
    encoding: str,
    payload: bytes,
    big_endian: int = 0,
) -> bytes:
    """Serialize an EventPacket."""
    _header(out, stamp, frame_id)
    out.put("I", height)
    out.put("I", width)
    out.put("Q", seq)
    out.put("Q", time_base)
    out.text(encoding)
    out.put("B", big_endian)
    out.put("I", len(payload))
    out.body += payload
    return out.message()


def event_array(
    out: CdrWriter | Ros1Writer,
    stamp: tuple[int, int],
    frame_id: str,
    height: int,
    width: int,
    records: list[Record],
) -> bytes:
    """Serialize an EventArray."""
    _header(out, stamp, frame_id)
    out.put("I", height)
    out.put("I", width)
    out.put("I", len(records))
    for x, y, sec, nanosec, polarity in records:
        out.put("H", x)
        out.put("H", y)
        out.put("i", sec)
        out.put("I", nanosec)
        out.put("B", polarity)
    return out.message()


def array_records(payload: bytes, *, aligned: bool) -> list[Record]:
    """Read the records of an array's payload one by one."""
    records = []
    at = 0
    while at < len(payload):
        x, y = struct.unpack_from("<HH", payload, at)
        if aligned and at > 0:
            at += 2  # `sec` is aligned to four, the record began two bytes off
        sec, nanosec, polarity = struct.unpack_from("<iIB", payload, at + 4)
        records.append((x, y, sec, nanosec, polarity))
        at += 13
        if aligned:
            at += 1  # `x` is aligned to two
    return records
