"""From packets to event images: how much of a core the events of a camera take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median
from typing import TypeAlias

import numpy as np

from dae_ros.events.codecs import create_decoder, warm_up
from dae_ros.events.packet import Events
from dae_ros.events.ring_buffer import EventRing
from dae_ros.representation.event_image import EventImage
from dae_ros.representation.surface import TencodeSurface
from dae_ros.representation.tencode_code import TencodeCode
from dae_ros.simulation.encoders import create_encoder
from dae_ros.simulation.moving_texture import moving_texture

Packets: TypeAlias = "list[tuple[bytes, int]]"  # payload and time base in ns
Report: TypeAlias = Callable[[float, str], None]

WINDOW_NS = 50_000_000
RING_NS, RING_BYTES = 3_000_000_000, 1_000_000_000
ENCODINGS = ("evt3", "libcaer_cmp")
RATES_MEVS = (1, 10)
WINDOWS = 4
PACKET_MS = 1.0


@dataclass(frozen=True, slots=True)
class EventPathRow:
    """What the events of one stream cost on one core.

    Attributes:
        encoding, rate_mevs: of the stream; packets are of 1 ms.
        decode_mevs: Mev/s that one core decodes.
        window_ms: CPU time per window of 50 ms, from packets to the event image, in ms.
        core_share: of one core, at the stream's own rate.
    """

    encoding: str
    rate_mevs: int
    decode_mevs: float
    window_ms: float
    core_share: float


def in_packets(
    encoding: str, events: Events, width: int, height: int, milliseconds: float
) -> Packets:
    """Encode `events` in packets of one length, as a driver does."""
    encoder = create_encoder(encoding, width, height)
    first, last = int(events.t[0]), int(events.t[-1])
    edges = np.arange(first, last + 1, int(milliseconds * 1e6))
    bounds = [*np.searchsorted(events.t, edges).tolist(), len(events)]
    return [
        encoder.encode(events.slice(start, stop))
        for start, stop in pairwise(bounds)
        if start < stop
    ]


def decode_packets(encoding: str, packets: Packets, width: int, height: int) -> int:
    """Decode payloads one by one, as they come from a topic; return how many events there are."""
    decoder = create_decoder(encoding, width, height)
    events = 0
    for payload, time_base_ns in packets:
        events += sum(map(len, decoder.decode_packet(payload, time_base_ns).segments))
    return events


def encode_windows(
    encoding: str,
    packets: Packets,
    width: int,
    height: int,
    hop_ns: int = WINDOW_NS,
    surface: TencodeSurface | None = None,
) -> Iterator[TencodeCode]:
    """Decode packet by packet and yield a window at each hop, as the pipeline hands it on.

    Args:
        encoding: of the packets.
        packets: payloads and time bases, in order.
        width, height: of the sensor in px.
        hop_ns: from one window's end to the next one's.
        surface: encodes the windows; a new one if not given.

    Yields:
        The Tencode of 50 ms as its code, uint16[height, width].
    """
    decoder = create_decoder(encoding, width, height)
    ring = EventRing(RING_NS, RING_BYTES)
    surface = TencodeSurface(height, width) if surface is None else surface
    end_ns = None
    for payload, time_base_ns in packets:
        onto = None if end_ns is None else surface.direct(ring, end_ns)
        for events in decoder.decode_packet(payload, time_base_ns, onto).segments:
            ring.push(events)
        if end_ns is None:
            end_ns = (ring.oldest_ns or 0) // 1000 * 1000 + WINDOW_NS
        while (ring.newest_ns or 0) >= end_ns:
            yield surface.encode(ring, end_ns - WINDOW_NS, end_ns).code
            end_ns += hop_ns
        surface.follow(ring, end_ns)


def count_of(images: Iterable[EventImage]) -> int:
    """Make all images and keep none."""
    return sum(1 for _ in images)


def measure_event_path(
    height: int,
    width: int,
    seconds: float,
    report: Report,
    *,
    rates_mevs: tuple[int, ...] | None = None,
) -> list[EventPathRow]:
    """Measure every encoding at every rate, in turns, for about so many seconds.

    Args:
        height, width: of the sensor in px.
        seconds: for all together, at least one round; making the streams comes on top.
        report: called with the part that is done, 0 to 1, and what is in hand.
        rates_mevs: of the synthetic streams; `RATES_MEVS` if not given.

    Returns:
        Medians over the rounds.
    """
    rates_mevs = RATES_MEVS if rates_mevs is None else rates_mevs
    streams: dict[tuple[str, int], tuple[Packets, int]] = {}
    for number, rate in enumerate(rates_mevs):
        report(0.3 * number / len(rates_mevs), f"making a stream of {rate} Mev/s")
        windows = WINDOWS if seconds >= 1.0 else 1
        count = int(rate * 1e6 * (windows + 0.1) * WINDOW_NS / 1e9)
        events = moving_texture(height, width, rate, count)
        for encoding in ENCODINGS:
            warm_up(encoding)
            packets = in_packets(encoding, events, width, height, PACKET_MS)
            streams[encoding, rate] = packets, len(events)
    works: dict[tuple[str, int, str], Callable[[], object]] = {}
    for (encoding, rate), (packets, _) in streams.items():
        arguments = (encoding, packets, width, height)
        works[encoding, rate, "decode"] = partial(decode_packets, *arguments)
        works[encoding, rate, "window"] = partial(_make_windows, *arguments)
    cpu_ns = in_turns(works, seconds, lambda part: report(0.3 + 0.7 * part, "packets to Tencode"))
    return [_row(encoding, rate, count, cpu_ns) for (encoding, rate), (_, count) in streams.items()]


def in_turns(
    works: Mapping[tuple[str, int, str], Callable[[], object]],
    seconds: float,
    report: Callable[[float], None],
) -> dict[tuple[str, int, str], float]:
    """Do all works in turns for about so many seconds; return the median CPU time of each in ns.

    The first round only warms up; there are two at least.
    """
    taken: dict[tuple[str, int, str], list[int]] = {name: [] for name in works}
    begin_s, rounds = time.monotonic(), 0
    while rounds < 2 or time.monotonic() - begin_s < seconds:
        for name, work in works.items():
            begin_ns = time.process_time_ns()
            work()
            if rounds:
                taken[name].append(time.process_time_ns() - begin_ns)
        rounds += 1
        report(min(1.0, (time.monotonic() - begin_s) / max(seconds, 1e-9)))
    return {name: median(times) for name, times in taken.items()}


def _make_windows(encoding: str, packets: Packets, width: int, height: int) -> int:
    return count_of(encode_windows(encoding, packets, width, height))


def _row(
    encoding: str, rate: int, count: int, cpu_ns: Mapping[tuple[str, int, str], float]
) -> EventPathRow:
    # At the stream's rate its events take this long.
    stream_ns = count / rate * 1e3
    window_ns = cpu_ns[encoding, rate, "window"]
    return EventPathRow(
        encoding,
        rate,
        count / cpu_ns[encoding, rate, "decode"] * 1e3,
        window_ns / (stream_ns / WINDOW_NS) / 1e6,
        window_ns / stream_ns,
    )
