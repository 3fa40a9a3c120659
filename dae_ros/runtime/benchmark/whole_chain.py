"""Windows through the pipeline of `dae-ros bag` and of the live node, from packets to depth."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dae_ros.events.packet import EventPacket
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.benchmark.event_path import PACKET_MS, in_packets
from dae_ros.runtime.estimator import DepthEstimator
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.runtime.stage_times import StageLatencies
from dae_ros.simulation.moving_texture import moving_texture

# A camera of medium rate, and how much of it is repeated.
RATE_MEVS, STREAM_S = 1.0, 1.0
START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class ChainRow:
    """How the whole chain does, as fast as it goes.

    Attributes:
        backend, precision: of the network.
        windows: stepped.
        windows_per_s: of wall time.
        window_p95_ms: 95 % quantile of a window's time on the worker: encoding and network.
        stages: quantiles of every stage, see `StageLatencies.to_dict`.
    """

    backend: str
    precision: str
    windows: int
    windows_per_s: float
    window_p95_ms: float
    stages: dict[str, dict[str, float]]


def medium_camera(height: int, width: int, seconds: float = STREAM_S) -> list[EventPacket]:
    """Return so many seconds of the packets of a simulated camera: evt3, 1 Mev/s, 1 ms each."""
    events = moving_texture(height, width, RATE_MEVS, int(RATE_MEVS * 1e6 * seconds))
    return [
        EventPacket(
            "evt3",
            height,
            width,
            payload,
            time_base_ns,
            START_NS + round(number * PACKET_MS * 1e6),
            number,
            "camera",
        )
        for number, (payload, time_base_ns) in enumerate(
            in_packets("evt3", events, width, height, PACKET_MS)
        )
    ]


def measure_chain(
    parameters: DepthParameters,
    estimator: DepthEstimator,
    packets: list[EventPacket],
    seconds: float,
    report: Callable[[float, str], None],
) -> ChainRow:
    """Run the packets through a pipeline, again and again, for about so many seconds.

    Args:
        parameters: with the backend and precision of the estimator.
        estimator: warm.
        packets: of one camera.
        seconds: two windows at least.
        report: called with the part that is done, 0 to 1, and what is in hand.
    """
    settings = dataclasses.replace(parameters, overload="queue")
    pipeline = DepthPipeline(settings, estimator)
    latencies = StageLatencies()
    busy_ns: list[int] = []
    begin_s = time.monotonic()

    def over() -> bool:
        return len(busy_ns) >= 2 and time.monotonic() - begin_s >= seconds

    while not over():
        pipeline.restart("service")
        for packet in packets:
            pipeline.feed(packet)
            while (frame := pipeline.step()) is not None:
                latencies.add(frame.times, time.perf_counter_ns())
                busy_ns.append(frame.times.done_ns - frame.times.closed_ns)
                part = min(1.0, (time.monotonic() - begin_s) / max(seconds, 1e-9))
                report(part, f"{estimator.name}: the whole chain on {parameters.backend}")
            if over():
                break
    elapsed_s = time.monotonic() - begin_s
    return ChainRow(
        parameters.backend,
        parameters.precision,
        len(busy_ns),
        len(busy_ns) / elapsed_s,
        float(np.quantile(busy_ns, 0.95)) / 1e6,
        latencies.to_dict(),
    )
