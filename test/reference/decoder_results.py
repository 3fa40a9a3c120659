"""What decoders of the product gave, as plain values that tests compare."""

from __future__ import annotations

from dae_ros.events.codecs import Decoder
from dae_ros.events.packet import DecodedPacket


def odd(decoder: Decoder) -> dict[str, int]:
    """The counts of a decoder that are not 0."""
    return {reason: number for reason, number in decoder.counts.items() if number}


def events_of(packet: DecodedPacket) -> list[tuple[int, int, int, int]]:
    """(t in ns, x, y, p) of all segments."""
    return [
        item
        for part in packet.segments
        for item in zip(*(getattr(part, name).tolist() for name in "txyp"), strict=True)
    ]
