"""Event streams cut into packets, and a depth pipeline that steps until nothing of them is left."""

from __future__ import annotations

import numpy as np

from dae_ros.events.packet import EventPacket, Events
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.simulation.encoders import create_encoder

HEIGHT, WIDTH = 24, 32
MS = 1_000_000
BASE_NS = 1_700_000_000_000_000_000


def mono_packet(times_ns: list[int], seq: int, seed: int = 0, stamp_ns: int = 0) -> EventPacket:
    """Pack times at pseudo-random pixels as `mono` words (spec: 32 bit dt, x, y, polarity)."""
    rng = np.random.default_rng(seed + seq)
    base = times_ns[0] if times_ns else BASE_NS
    words = [
        (t - base)
        | int(rng.integers(WIDTH)) << 32
        | int(rng.integers(HEIGHT)) << 48
        | int(rng.integers(2)) << 63
        for t in times_ns
    ]
    return EventPacket(
        encoding="mono",
        height=HEIGHT,
        width=WIDTH,
        seq=seq,
        time_base_ns=base,
        stamp_ns=stamp_ns or (times_ns[-1] if times_ns else BASE_NS),
        frame_id="camera",
        payload=np.array(words, np.uint64).tobytes(),
    )


def parameters(**changes: object) -> DepthParameters:
    """Parameters with the queue policy."""
    return DepthParameters.from_mapping({"overload": "queue", **changes})


def run(pipeline: DepthPipeline, packets: list[EventPacket], group: int = 1) -> list[DepthFrame]:
    """Feed packets `group` at a time and step until nothing is left."""
    frames = []
    for start in range(0, len(packets), group):
        for packet in packets[start : start + group]:
            pipeline.feed(packet)
        while (frame := pipeline.step()) is not None:
            frames.append(frame)
    return frames


def stream(times_ns: list[int], cut: int) -> list[EventPacket]:
    """Cut a stream of times into packets of `cut` events."""
    return [
        mono_packet(times_ns[i : i + cut], seq=i // cut + 1) for i in range(0, len(times_ns), cut)
    ]


def dense(duration_ms: int, step_us: int = 500, start_ns: int = BASE_NS) -> list[int]:
    """Evenly spaced event times."""
    return [start_ns + i * step_us * 1000 for i in range(duration_ms * 1000 // step_us)]


def evt3_stream(duration_ms: int, jitter_seed: int) -> list[EventPacket]:
    """Evt3 packets of 5 ms whose stamps lag the events by 1 ms plus an exponential delay."""
    rng = np.random.default_rng(jitter_seed)
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    packets = []
    for number in range(duration_ms // 5):
        t = 2_000_000_000 + number * 5 * MS + np.arange(0, 5 * MS, 100_000, dtype=np.int64)
        events = Events(
            t,
            rng.integers(0, WIDTH, len(t)).astype(np.uint16),
            rng.integers(0, HEIGHT, len(t)).astype(np.uint16),
            rng.integers(0, 2, len(t)).astype(np.uint8),
        )
        payload, base_ns = encoder.encode(events)
        delay_ns = MS + int(rng.exponential(4 * MS))
        packets.append(
            EventPacket(
                "evt3", HEIGHT, WIDTH, payload, base_ns, BASE_NS + int(t[0]) + delay_ns, number + 1
            )
        )
    return packets
