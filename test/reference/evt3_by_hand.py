"""EVT 3.0 words to write payloads with by hand, and what a decoder says of them."""

from __future__ import annotations

import struct

from dae_ros.events.codecs import Decoder, create_decoder


def row(y: int) -> int:
    return y


def event(x: int, p: int = 1) -> int:
    return 0x2000 | p << 11 | x


def base(x: int, p: int = 1) -> int:
    return 0x3000 | p << 11 | x


def vector12(mask: int) -> int:
    return 0x4000 | mask


def vector8(mask: int) -> int:
    return 0x5000 | mask


def low(us: int) -> int:
    return 0x6000 | us


def high(units: int) -> int:
    return 0x8000 | units


def trigger(edge: int, channel: int) -> int:
    return 0xA000 | channel << 8 | edge


def payload(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}H", *words)


SYNC = (high(1), low(0))  # time 4096 us
START_US = 4096


def decoder(width: int = 640, height: int = 480) -> Decoder:
    return create_decoder("evt3", width, height)


def rows_of(decoder: Decoder, *words: int) -> list[tuple[int, int, int, int]]:
    """Decode and return (t in us, x, y, p)."""
    events = decoder.decode(payload(*words))
    return [
        (int(t) // 1000, int(x), int(y), int(p))
        for t, x, y, p in zip(events.t, events.x, events.y, events.p, strict=True)
    ]
