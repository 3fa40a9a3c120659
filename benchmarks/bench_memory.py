"""Does memory stay flat? 100,000 windows through the whole pipeline with the smallest network.

    python -m benchmarks.bench_memory [--windows N]

A second of simulated-camera statistics (0.3 Mev/s, evt3 packets of 5 ms) is played again and again,
with the times moved on, so that nothing ever repeats for the decoder, the clock or the ring.
Resident memory is read every 1,000 windows; the slope is a least-squares line over the second half.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time

import numpy as np
import torch

from benchmarks.process_use import resident_mb
from benchmarks.record import record
from dae_ros.events.packet import EventPacket, Events
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.simulation.encoders import create_encoder
from dae_ros.simulation.moving_texture import moving_texture

HEIGHT, WIDTH = 130, 173
PACKET_NS = 5_000_000
WINDOWS_PER_SECOND = 20
SAMPLE_WINDOWS = 1_000


def packets_of(events: Events) -> list[Events]:
    """Cut one second of events into packets."""
    first_ns = int(events.t[0])
    borders = np.searchsorted(events.t, first_ns + np.arange(0, 1_000_000_001, PACKET_NS)).tolist()
    return [
        events.slice(start, stop) for start, stop in itertools.pairwise(borders) if stop > start
    ]


def main() -> None:
    """Run it and record the result."""
    parser = argparse.ArgumentParser(description="memory over many windows")
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--no-record", action="store_true", help="print only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    events = moving_texture(HEIGHT, WIDTH, rate_mevs=0.3, events=300_000)
    second = packets_of(events)
    parameters = DepthParameters(weights="untrained:tiny", overload="queue", threads=1)
    pipeline = DepthPipeline(parameters, create_estimator(parameters))
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    samples: list[tuple[int, float]] = []
    windows = seq = 0
    offset_ns = 0
    begin_s = time.perf_counter()
    while windows < arguments.windows:
        for part in second:
            moved = Events(part.t + offset_ns, part.x, part.y, part.p)
            payload, base_ns = encoder.encode(moved)
            seq += 1
            pipeline.feed(
                EventPacket("evt3", HEIGHT, WIDTH, payload, base_ns, int(moved.t[0]), seq, "camera")
            )
            while pipeline.step() is not None:
                windows += 1
                if windows % SAMPLE_WINDOWS == 0:
                    samples.append((windows, resident_mb(os.getpid())))
        offset_ns += 1_000_000_000
    elapsed_s = time.perf_counter() - begin_s
    late = samples[len(samples) // 2 :]
    slope, _ = np.polyfit([count for count, _ in late], [mb for _, mb in late], 1)
    statistics = pipeline.statistics()
    lost = {
        reason: count
        for reason, count in statistics.drops.items()
        if count and reason not in ("evicted_events", "wraps")
    }
    results = {
        "windows": windows,
        "packets": statistics.packets,
        "events": statistics.events,
        "resets": dict(statistics.resets),
        "lost": lost,
        "wall_s": round(elapsed_s, 1),
        "simulated_s": round(windows / WINDOWS_PER_SECOND, 1),
        "times_real_time": round(windows / WINDOWS_PER_SECOND / elapsed_s, 2),
        "rss_mb_slope_per_10000_windows": round(float(slope) * 10_000, 4),
        "rss_mb": [[count, round(mb, 2)] for count, mb in samples],
    }
    shown = {key: value for key, value in results.items() if key != "rss_mb"}
    print("| what | value |\n|---|---|")
    for key, value in shown.items():
        print(f"| {key} | {value} |")
    print(f"| rss first, last sample (MB) | {samples[0][1]:.1f}, {samples[-1][1]:.1f} |")
    if not arguments.no_record:
        print(f"-> {record('memory', results)}")


if __name__ == "__main__":
    main()
