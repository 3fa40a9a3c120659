"""Packets of one camera with events at random places, and what a stream should make of them."""

from __future__ import annotations

import numpy as np

from dae_ros.events.packet import EventPacket, Events, Triggers
from dae_ros.events.stream import StreamPart
from dae_ros.simulation.encoders import Encoder, create_encoder

MS = 1_000_000
S = 1_000_000_000
EPOCH = 1_700_000_000 * S
HEIGHT, WIDTH = 48, 64


def events_from(start_ns: int, length_ns: int = 4 * MS, count: int = 40, seed: int = 0) -> Events:
    rng = np.random.default_rng([seed, start_ns % 2**32])
    t = start_ns + np.sort(rng.integers(0, length_ns // 1000, count)) * 1000
    t[0] = start_ns
    return Events(
        t,
        rng.integers(0, WIDTH, count).astype(np.uint16),
        rng.integers(0, HEIGHT, count).astype(np.uint16),
        rng.integers(0, 2, count).astype(np.uint8),
    )


def packet_of(
    encoder: Encoder, events: Events, seq: int, stamp_ns: int, triggers: Triggers | None = None
) -> EventPacket:
    payload, base_ns = encoder.encode(events, triggers)
    return EventPacket(
        encoder.encoding, encoder.height, encoder.width, payload, base_ns, stamp_ns, seq, "cam"
    )


def mono_packet(events: Events, seq: int, stamp_ns: int | None = None) -> EventPacket:
    encoder = create_encoder("mono", WIDTH, HEIGHT)
    stamp_ns = int(events.t[0]) + 2 * MS if stamp_ns is None else stamp_ns
    return packet_of(encoder, events, seq, stamp_ns)


def evt3_run(count: int) -> list[EventPacket]:
    """Packets of 4 ms from one camera, with seq from 7 on."""
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    return [
        packet_of(encoder, events_from(3 * S + k * 4 * MS), k + 7, EPOCH + k * 4 * MS)
        for k in range(count)
    ]


def assert_same(part: StreamPart, events: Events) -> None:
    for name in "txyp":
        np.testing.assert_array_equal(getattr(part.events, name), getattr(events, name))
