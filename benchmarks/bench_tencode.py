"""Event packets to Tencode images, side by side with what installs from PyPI.

    python -m benchmarks.bench_tencode [--quick]

1. The whole path: EVT 3.0 in packets of 1 ms through decoder, ring and surface to one image per
   50 ms, against the peers' decoders (whole file from the page cache, which suits them) followed
   by the shortest numpy Tencode. Ours hands windows on as 16-bit codes; here it makes the float
   planes of them too, which the peers make. Beside it what of this a window is, between the
   packets of its stream: events since the last packet's, and the pass over the surface, which
   make the `code` that a GPU gets; and with the `planes` that a network on the CPU makes of it.
2. One window from arrays that are already decoded, against the accumulators of tonic, evlib and
   faery. They make other images (counts, voxels, decaying surfaces); none makes a Tencode. `read`
   is the code, `read + planes` the float planes of it. Contenders take turns, so that each call
   finds the caches full of something else, and the interpreter's code as well.
3. The whole path for every encoding, to the codes of windows: the same events in packets of 1 ms.

All under the allocator settings of the launch files, so that nobody pays for returning and
fetching the same pages. One thread each; CPU time of the process, contenders interleaved, medians
over the rounds. Ours are compared with `tencode` of the filtered events first: codes bit for bit,
planes within the error of a code.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.as_launched import start_as_launched
from benchmarks.bench_decode import raw_file
from benchmarks.event_goals import tencode_goals
from benchmarks.goals import conclude
from benchmarks.record import record
from dae_ros.events.codecs import supported_encodings, warm_up
from dae_ros.events.packet import Events
from dae_ros.events.ring_buffer import EventRing
from dae_ros.representation.surface import Encoded, TencodeSurface
from dae_ros.representation.tencode import FloatImage, tencode
from dae_ros.representation.tencode_code import LARGEST_ERROR, pack_tencode, unpack_tencode
from dae_ros.runtime.benchmark.event_path import (
    RING_BYTES,
    RING_NS,
    WINDOW_NS,
    count_of,
    encode_windows,
    in_packets,
)
from dae_ros.simulation.encoders import encode
from dae_ros.simulation.moving_texture import moving_texture

Contender = Callable[[], object]
Result = dict[str, Any]


def numpy_tencode(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray,
                  height: int, width: int) -> np.ndarray:  # fmt: skip
    """The shortest numpy Tencode: fancy indexing, whose last write wins."""
    image = np.zeros((3, height, width), np.float32)
    age = ((t - t[0]) / max(t[-1] - t[0], 1)).astype(np.float32)
    image[0, y, x] = p
    image[1, y, x] = 1 - age
    image[2, y, x] = 1 - p
    return image


def windows_of(t_us: np.ndarray) -> list[slice]:
    """Return the slices of whole windows, from the first event on."""
    ends = np.arange(t_us[0], t_us[-1] + 1, WINDOW_NS // 1000)
    bounds = np.searchsorted(t_us, ends).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def peers_from_file(path: Path, height: int, width: int) -> dict[str, Contender]:
    """Return each peer's decoder followed by the numpy Tencode of every window."""
    contenders: dict[str, Contender] = {}

    def encode_all(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> None:
        for part in windows_of(t):
            numpy_tencode(t[part], x[part], y[part], p[part], height, width)

    if find_spec("faery"):
        import faery

        def use_faery() -> None:
            events = np.concatenate(list(faery.events_stream_from_file(path)))
            encode_all(events["t"].astype(np.int64), events["x"], events["y"], events["p"])

        contenders["faery + numpy"] = use_faery
    if find_spec("expelliarmus"):
        from expelliarmus import Wizard

        def use_expelliarmus() -> None:
            events = Wizard(encoding="evt3").read(path)
            encode_all(events["t"], events["x"], events["y"], events["p"])

        contenders["expelliarmus + numpy"] = use_expelliarmus
    return contenders


def one_window(events: Events, height: int, width: int) -> dict[str, Contender]:
    """Return the contenders that accumulate one decoded window."""
    start_ns = int(events.t[0]) // 1000 * 1000
    end_ns = int(events.t[-1]) // 1000 * 1000 + 1000
    ring = EventRing(RING_NS, RING_BYTES)
    ring.push(events)
    at_head, updated = TencodeSurface(height, width), TencodeSurface(height, width)
    at_head.encode(ring, start_ns, end_ns)
    planes = np.empty((3, height, width), np.float32)

    def update_and_read() -> object:
        updated.reset()
        return updated.encode(ring, start_ns, end_ns)

    t_us = events.t // 1000
    contenders: dict[str, Contender] = {
        "ours: read": lambda: at_head.encode(ring, start_ns, end_ns),
        "ours: read + planes": lambda: unpack_tencode(
            at_head.encode(ring, start_ns, end_ns).code, planes
        ),
        "ours: update + read": update_and_read,
        "ours: tencode()": lambda: tencode(events, height, width),
        "numpy Tencode": lambda: numpy_tencode(t_us, events.x, events.y, events.p, height, width),
    }
    if find_spec("tonic"):
        from tonic import functional

        rows = np.empty(len(events), [("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
        rows["x"], rows["y"], rows["t"], rows["p"] = events.x, events.y, t_us, events.p
        size = (width, height, 2)
        contenders["tonic frame"] = lambda: functional.to_frame_numpy(rows, size, n_time_bins=1)
        contenders["tonic voxel grid"] = lambda: functional.to_voxel_grid_numpy(
            rows.copy(), size, n_time_bins=5
        )
    if find_spec("evlib"):
        import evlib
        import polars

        frame = polars.DataFrame(
            {
                "t": polars.Series(t_us).cast(polars.Duration("us")),
                "x": events.x.astype(np.int16),
                "y": events.y.astype(np.int16),
                "polarity": events.p.astype(np.int8) * 2 - 1,
            }
        )
        contenders["evlib event frame"] = lambda: evlib.create_event_frame(frame, height, width)
        contenders["evlib voxel grid"] = lambda: evlib.create_voxel_grid(frame, height, width, 5)
    if find_spec("faery"):
        import faery

        table = np.empty(len(events), faery.EVENTS_DTYPE)
        table["t"], table["x"], table["y"] = t_us - t_us[0], events.x, events.y
        table["p"] = events.p
        colours = faery.colormaps.starry_night

        def render() -> object:
            stream = faery.events_stream_from_array(table, (width, height))
            frames = stream.regularize(frequency_hz=20.0).render(
                decay="linear", tau=0.05 * faery.s, colormap=colours
            )
            return [frame.pixels for frame in frames]

        contenders["faery render"] = render
    return contenders


def compare(contenders: dict[str, Contender], per_run: int, rounds: int) -> Result:
    """Run all contenders in turn; return CPU ms per window and ratios to the first."""
    milliseconds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender()
    for _ in range(rounds):
        for name, contender in contenders.items():
            start = time.process_time_ns()
            contender()
            milliseconds[name].append((time.process_time_ns() - start) / 1e6 / per_run)
    medians = {name: round(statistics.median(times), 3) for name, times in milliseconds.items()}
    base = milliseconds[next(iter(contenders))]
    ratios = {
        name: round(statistics.median(b / a for a, b in zip(base, times, strict=True)), 2)
        for name, times in milliseconds.items()
    }
    return {"ms_per_window": medians, "ratio_to_first": ratios}


def encode_planes(
    packets: list[tuple[bytes, int]], width: int, height: int, hop_ns: int = WINDOW_NS
) -> Iterator[np.ndarray]:
    """Yield what peers make of a window, in one buffer as backends do: planes float32[3, H, W]."""
    planes = np.empty((3, height, width), np.float32)
    for code in encode_windows("evt3", packets, width, height, hop_ns):
        yield unpack_tencode(code, planes)


class TimedSurface(TencodeSurface):
    """A surface that notes what each window takes, CPU ms.

    Args:
        height, width: of the sensor.
        planes: where to make the planes of each window, within its time; None: the code is all.
    """

    def __init__(self, height: int, width: int, planes: FloatImage | None = None) -> None:
        super().__init__(height, width)
        self._planes = planes
        self.window_ms: list[float] = []

    def encode(self, ring: EventRing, start_ns: int, end_ns: int) -> Encoded:
        """Encode the window and note its time."""
        begin_ns = time.process_time_ns()
        encoded = super().encode(ring, start_ns, end_ns)
        if self._planes is not None:
            unpack_tencode(encoded.code, self._planes)
        self.window_ms.append((time.process_time_ns() - begin_ns) / 1e6)
        return encoded


def windows_in_stream(
    packets: list[tuple[bytes, int]], width: int, height: int, rounds: int
) -> Result:
    """Return what a window takes between the packets of its stream, CPU ms, over all rounds.

    Returns:
        `code`, which is all that goes to a GPU, and `planes`, made of it in a buffer that is kept,
        as networks on the CPU do: windows, p50_ms, p90_ms of each. They take turns.
    """
    buffers = {"code": None, "planes": np.empty((3, height, width), np.float32)}
    taken: dict[str, list[float]] = {kind: [] for kind in buffers}
    for index in range(rounds + 1):
        for kind, planes in buffers.items():
            surface = TimedSurface(height, width, planes)
            count_of(encode_windows("evt3", packets, width, height, surface=surface))
            if index:  # the first one only warms up
                taken[kind] += surface.window_ms
    return {
        kind: {
            "windows": len(times),
            "p50_ms": round(float(np.percentile(times, 50)), 3),
            "p90_ms": round(float(np.percentile(times, 90)), 3),
        }
        for kind, times in taken.items()
    }


def every_encoding(height: int, width: int, rate: int, rounds: int) -> Result:
    """Return encoding -> octets an event, and Mev/s from packets to codes on one core."""
    events = moving_texture(height, width, rate, int(rate * 1e6 * 0.405))
    streams = {name: in_packets(name, events, width, height, 1.0) for name in supported_encodings()}
    for encoding in streams:
        warm_up(encoding)
    contenders: dict[str, Contender] = {
        name: lambda name=name, q=packets: count_of(encode_windows(name, q, width, height))
        for name, packets in streams.items()
    }
    windows = count_of(encode_windows("evt3", streams["evt3"], width, height))
    taken = compare(contenders, windows, rounds)["ms_per_window"]
    return {
        name: {
            "octets_per_event": round(sum(len(octets) for octets, _ in q) / len(events), 2),
            "mev_per_s": round(len(events) / windows / taken[name] / 1e3, 1),
        }
        for name, q in streams.items()
    }


def check(packets: list[tuple[bytes, int]], events: Events, width: int, height: int) -> int:
    """Compare ours with `tencode` of the filtered events; return how many windows there are."""
    made, packed = 0, np.empty((height, width), np.uint16)
    start_ns = int(events.t[0]) // 1000 * 1000
    for index, code in enumerate(encode_windows("evt3", packets, width, height)):
        low, high = np.searchsorted(
            events.t, (start_ns + index * WINDOW_NS, start_ns + (index + 1) * WINDOW_NS)
        )
        expected = tencode(events.slice(int(low), int(high)), height, width)
        error = np.abs(unpack_tencode(code).astype(np.float64) - expected).max()
        if not (
            pack_tencode(expected, packed)
            and np.array_equal(code, packed)
            and error <= LARGEST_ERROR
        ):
            raise SystemExit(f"window {index} differs from the filtered events")
        made += 1
    return made


def row(name: str, result: Result, columns: list[str]) -> str:
    """Return one line of a markdown table, ms and the ratio to the first contender."""
    milliseconds, ratios = result["ms_per_window"], result["ratio_to_first"]
    cells = [name]
    for column in columns:
        if column not in milliseconds:
            cells.append("not installed")
        elif ratios[column] == 1.0:
            cells.append(f"{milliseconds[column]:.2f}")
        else:
            cells.append(f"{milliseconds[column]:.2f} (x{ratios[column]:.1f})")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run everything, print markdown tables and write `results/tencode.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="VGA to 10 Mev/s, 3 rounds")
    quick = parser.parse_args().quick
    load = os.getloadavg()[0]
    warm_up("evt3")
    rounds = 3 if quick else 7
    sizes = [("VGA", 480, 640)] + ([] if quick else [("HD", 720, 1280)])
    path_rows: dict[str, Result] = {}
    window_rows: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as folder:
        for label, height, width in sizes:
            for rate in (1, 10) if quick else (1, 10, 50, 100):
                # What is paid once for a stream, and not per window, shall not count for much.
                windows = {1: 24, 10: 8}.get(rate, 2)
                count = int(rate * 1e6 * (windows * 0.05 + 0.005))
                events = moving_texture(height, width, rate, count)
                packets = in_packets("evt3", events, width, height, 1.0)
                payload = encode("evt3", events, width, height)
                path = raw_file(Path(folder), payload, width, height)
                made = check(packets, events, width, height)
                contenders: dict[str, Contender] = {
                    "ours": lambda q=packets, w=width, h=height: count_of(encode_planes(q, w, h)),
                    **peers_from_file(path, height, width),
                }
                name = f"{label} {rate} Mev/s"
                result = compare(contenders, made, rounds)
                overlap = {
                    "hop 5 ms": lambda q=packets, w=width, h=height: count_of(
                        encode_planes(q, w, h, WINDOW_NS // 10)
                    )
                }
                overlapping = count_of(
                    encode_windows("evt3", packets, width, height, WINDOW_NS // 10)
                )
                result["hop_5_ms"] = compare(overlap, overlapping, rounds)["ms_per_window"]
                result["in_stream"] = windows_in_stream(packets, width, height, rounds)
                path_rows[name] = {"windows": made, "events": len(events), **result}
                stop = int(np.searchsorted(events.t, events.t[0] + WINDOW_NS))
                window_rows[name] = {
                    "events": stop,
                    **compare(one_window(events.slice(0, stop), height, width), 1, rounds),
                }

    height, width, rate = (260, 346, 1) if quick else (480, 640, 10)
    encodings = every_encoding(height, width, rate, rounds)

    print("Packets (EVT 3.0, 1 ms) to Tencode, CPU ms per 50 ms window (ratio to ours)\n")
    columns = ["ours", "faery + numpy", "expelliarmus + numpy"]
    print("| stream | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for name, result in path_rows.items():
        print(row(name, result, columns))
    print("\nA window of 50 ms between the packets of its stream, CPU ms\n")
    print("| stream | as | p50 | p90 |\n|---|---|---|---|")
    for name, result in path_rows.items():
        for kind, one in result["in_stream"].items():
            print(f"| {name} | {kind} | {one['p50_ms']:.3f} | {one['p90_ms']:.3f} |")
    columns = [
        "ours: update + read", "ours: read", "ours: read + planes", "ours: tencode()",
        "numpy Tencode", "tonic frame", "tonic voxel grid", "evlib event frame",
        "evlib voxel grid", "faery render",
    ]  # fmt: skip
    print("\nOne window of 50 ms from decoded arrays, CPU ms (ratio to `read`)\n")
    print("| stream | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for name, result in window_rows.items():
        print(row(name, result, columns))
    print(f"\nPackets (1 ms) to Tencode, {width}x{height} px, {rate} Mev/s: Mev/s on one core\n")
    print("| encoding | octets an event | Mev/s |\n|---|---|---|")
    for name, result in encodings.items():
        print("| {} | {octets_per_event} | {mev_per_s} |".format(name, **result))
    results = {
        "rounds": rounds, "packets_to_tencode": path_rows, "one_window": window_rows,
        "encodings": encodings,
    }  # fmt: skip
    conclude(results, tencode_goals(results), load)
    print(f"\nwritten to {record('tencode', results)}")


if __name__ == "__main__":
    start_as_launched(
        "benchmarks.bench_tencode",
        **dict.fromkeys(("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
    )
    main()
