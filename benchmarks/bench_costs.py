"""How cost grows with event rate, resolution, cameras and overlap, and the law that it follows.

    python -m benchmarks.bench_costs [--seconds 20] [--quick]

In one process, one thread, CPU time; all points of a panel take turns, medians over the rounds:

1. `rate`: 1 to 200 Mev/s at 640x480 px: share of a core from EVT 3.0 packets of 1 ms to one Tencode
   image per 50 ms; a + b rate.
2. `resolution`: 240x180 to 1280x720 px at 10 Mev/s: ms per window of 50 ms, the same path;
   a + b pixels.
3. `cameras`: 1 to 8 of them at 1 Mev/s, whole pipelines with the smallest network, their packets
   interleaved as they would come: share of a core; b cameras.
4. `overlap`: windows of 50 ms, 1 to 50 of them begun in that time, at 10 Mev/s: share of a core,
   the same path as 1; a + b overlap.

The laws are fitted by least squares of what points are off relative to their own size: 1 Mev/s
counts as much as 200. A law that a point is off by more than 15 % is said not to hold. Written are
results/costs.json (points, a, b, largest relative deviation, whether it holds) and costs.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.as_launched import start_as_launched
from benchmarks.record import RESULTS, record
from dae_ros.cli.progress import ProgressBar
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.evaluation.strips import write_png
from dae_ros.events.codecs import warm_up
from dae_ros.events.packet import EventPacket
from dae_ros.parameters import DepthParameters
from dae_ros.representation.render import Picture
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.benchmark.event_path import (
    PACKET_MS,
    WINDOW_NS,
    Packets,
    count_of,
    encode_windows,
    in_packets,
    in_turns,
)
from dae_ros.runtime.benchmark.whole_chain import START_NS
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.simulation.moving_texture import moving_texture

RATES_MEVS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
SIZES = ((180, 240), (260, 346), (480, 640), (720, 1280))
CAMERAS = (1, 2, 4, 8)
OVERLAPS = (1, 2, 5, 10, 20, 50)
VGA = (480, 640)
MEDIUM_MEVS, CAMERA_MEVS = 10.0, 1.0
CAMERA_S = 0.5
# Events of a stream: few enough for memory, enough for some windows.
MOST_EVENTS, MOST_WINDOWS = 10_000_000, 24
WINDOW_S = WINDOW_NS / 1e9
# Of a point from a law that holds, in parts of the point.
MOST_DEVIATION = 0.15


@dataclass(frozen=True)
class Work:
    """One point of a panel.

    Attributes:
        x: what grows.
        do: does it once and returns how many windows it has made.
        windows: how many there must be.
        per: what CPU time in ns is divided by to get the panel's unit.
    """

    x: float
    do: Callable[[], int]
    windows: int
    per: float


@dataclass(frozen=True)
class Panel:
    """One way in which cost grows.

    Attributes:
        works: its points.
        law: in words.
        constant: whether the law has one.
        x_label, y_label: units; `cores` is CPU time in s per second of the stream.
        logarithmic: the horizontal axis of its picture.
    """

    works: Sequence[Work]
    law: str
    constant: bool
    x_label: str
    y_label: str
    logarithmic: bool = False


def fit(x: Sequence[float], y: Sequence[float], constant: bool) -> dict[str, float | bool]:
    """Fit y = a + b x, or y = b x, by least squares of (y - law) / y.

    Unweighted, the largest point would decide alone where x grows by orders of magnitude.

    Args:
        x, y: at least two different points, y above 0.
        constant: whether there is an a.

    Returns:
        a, b, largest_relative_deviation (|y - law| / y), holds: whether that is small enough.

    Raises:
        ValueError: fewer than two different x.
    """
    if len(set(x)) < 2:
        raise ValueError(f"a law needs at least two points, not {list(x)}")
    at, values = np.array(x, float), np.array(y, float)
    columns = np.column_stack([np.ones_like(at), at] if constant else [at]) / values[:, None]
    found, *_ = np.linalg.lstsq(columns, np.ones_like(at), rcond=None)
    largest = float(np.max(np.abs(1.0 - columns @ found)))
    return {
        "a": float(found[0]) if constant else 0.0,
        "b": float(found[-1]),
        "largest_relative_deviation": round(largest, 4),
        "holds": largest <= MOST_DEVIATION,
    }


def off_by(result: Mapping[str, Any]) -> str:
    """Return how far points are from the law, for people."""
    said = f"off by up to {100 * result['largest_relative_deviation']:.0f} %"
    return said if result["holds"] else f"{said}: does not hold"


@cache
def stream(height: int, width: int, rate_mevs: float) -> tuple[Packets, int]:
    """Return the packets of a synthetic stream, and how many whole windows it has."""
    windows = int(min(MOST_WINDOWS, max(2.0, MOST_EVENTS / (rate_mevs * 1e6 * WINDOW_S))))
    count = int(rate_mevs * 1e6 * (windows + 0.1) * WINDOW_S)
    events = moving_texture(height, width, rate_mevs, count)
    packets = in_packets("evt3", events, width, height, PACKET_MS)
    return packets, count_of(encode_windows("evt3", packets, width, height))


def path(
    x: float, size: tuple[int, int], rate_mevs: float, *, overlap: int = 1, per_window: bool = False
) -> Work:
    """Return packets to event images; as a share of a core, or in ms per window."""
    height, width = size
    packets, windows = stream(height, width, rate_mevs)
    hop_ns = WINDOW_NS // overlap
    arguments = ("evt3", packets, width, height, hop_ns)
    made = windows if overlap == 1 else count_of(encode_windows(*arguments))
    per = 1e6 * windows if per_window else windows * float(WINDOW_NS)
    return Work(x, lambda: count_of(encode_windows(*arguments)), made, per)


class Cameras:
    """Whole pipelines of one process, fed packet by packet in turn.

    Args:
        count: how many.
        size: of each, (height, width).
    """

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        height, width = size
        events = moving_texture(height, width, CAMERA_MEVS, int(CAMERA_MEVS * 1e6 * CAMERA_S))
        self._packets = [
            EventPacket(
                "evt3", height, width, payload, base_ns,
                START_NS + round(number * PACKET_MS * 1e6), number, "camera",
            )
            for number, (payload, base_ns) in enumerate(
                in_packets("evt3", events, width, height, PACKET_MS)
            )
        ]  # fmt: skip
        parameters = DepthParameters(
            weights="untrained:tiny", overload="queue", threads=1, device="cpu", backend="torch"
        )
        self._pipelines = [
            DepthPipeline(parameters, create_estimator(parameters)) for _ in range(count)
        ]

    def run(self) -> int:
        """Play the stream through every pipeline; return how many windows were stepped."""
        for pipeline in self._pipelines:
            pipeline.restart("service")
        windows = 0
        for packet in self._packets:
            for pipeline in self._pipelines:
                pipeline.feed(packet)
                while pipeline.step() is not None:
                    windows += 1
        return windows


def cameras(count: int, size: tuple[int, int]) -> Work:
    """Return so many cameras; as a share of a core."""
    made = Cameras(count, size)
    windows = made.run()
    return Work(float(count), made.run, windows, windows / count * float(WINDOW_NS))


def panels(
    rates_mevs: Sequence[float],
    sizes: Sequence[tuple[int, int]],
    camera_counts: Sequence[int],
    overlaps: Sequence[int],
    size: tuple[int, int] = VGA,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Panel]:
    """Make every stream and return what is to be measured, by name.

    Args:
        rates_mevs, sizes, camera_counts, overlaps: the points.
        size: of all but `resolution`, (height, width).
        report: called with what is in hand.
    """

    def told(text: str, make: Callable[[], Work]) -> Work:
        report(f"making {text}")
        return make()

    return {
        "rate": Panel(
            [told(f"{r:g} Mev/s", partial(path, r, size, r)) for r in rates_mevs],
            "cores = a + b rate", True, "Mev/s", "cores", True,
        ),
        "resolution": Panel(
            [
                told(
                    f"{w}x{h} px",
                    partial(path, h * w / 1e6, (h, w), MEDIUM_MEVS, per_window=True),
                )
                for h, w in sizes
            ],
            "ms per window = a + b pixels", True, "million pixels", "ms",
        ),
        "cameras": Panel(
            [told(f"{n} cameras", partial(cameras, n, size)) for n in camera_counts],
            "cores = b cameras", False, "cameras", "cores",
        ),
        "overlap": Panel(
            [
                told(f"overlap {k}", partial(path, float(k), size, MEDIUM_MEVS, overlap=k))
                for k in overlaps
            ],
            "cores = a + b overlap", True, "windows of 50 ms begun in 50 ms", "cores",
        ),
    }  # fmt: skip


def measure(
    found: Mapping[str, Panel], seconds: float, report: Callable[[float, str], None]
) -> dict[str, Any]:
    """Measure every panel for about so many seconds; return points and laws for JSON.

    Raises:
        SystemExit: a run made another number of windows than the first one.
    """
    results = {}
    for name, panel in found.items():

        def counted(work: Work) -> None:
            made = work.do()
            if made != work.windows:
                raise SystemExit(f"{made} windows were made, not {work.windows}")

        works = {
            (name, number, "cpu"): partial(counted, work) for number, work in enumerate(panel.works)
        }
        taken = in_turns(works, seconds, lambda part, name=name: report(part, name))
        x = [work.x for work in panel.works]
        y = [taken[name, n, "cpu"] / work.per for n, work in enumerate(panel.works)]
        results[name] = {
            "law": panel.law,
            "x": panel.x_label,
            "y": panel.y_label,
            "points": [[round(a, 6), round(b, 6)] for a, b in zip(x, y, strict=True)],
            **fit(x, y, panel.constant),
        }
    return results


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the laws as Markdown."""
    lines = ["| what grows | law | a | b | points |", "|---|---|---|---|---|"]
    for name, one in results.items():
        said = off_by(one) if one["holds"] else f"**{off_by(one)}**"
        lines.append(
            f"| {name} ({one['x']}) | {one['law']} ({one['y']}) | {one['a']:.4g} | "
            f"{one['b']:.4g} | {said} |"
        )
    return "\n".join(lines)


def title(name: str, result: Mapping[str, Any]) -> str:
    """Return what stands above the picture of a panel."""
    numbers = f"a {result['a']:.3g}, b {result['b']:.3g}"
    return f"{name}: {result['law']}; {numbers}; {off_by(result)}"


def picture(name: str, panel: Panel, result: Mapping[str, Any]) -> Picture:
    """Draw the points of a panel, and the law as a line."""
    x, y = zip(*result["points"], strict=True)
    space = np.geomspace if panel.logarithmic else np.linspace
    # More than a line of points has marks.
    along = space(min(x), max(x), 100)
    law = (list(along), [max(0.0, result["a"] + result["b"] * at) for at in along])
    axes = Axes(title(name, result), panel.x_label, panel.y_label, panel.logarithmic)
    return line_plot({"measured": (x, y), "law": law}, axes)


def main(args: list[str] | None = None) -> int:
    """Run it and record the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="a panel, after its streams")
    parser.add_argument("--quick", action="store_true", help="three points a panel")
    parser.add_argument("--size", type=int, nargs=2, default=VGA, metavar=("H", "W"),
                        help="of all panels but the resolution's")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (default: %(default)s)")
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args(args)
    warm_up("evt3")
    bar = ProgressBar()
    chosen = [(1.0, 10.0, 20.0), SIZES[:3], CAMERAS[:3], (1, 5, 20)]
    if not given.quick:
        chosen = [RATES_MEVS, SIZES, CAMERAS, OVERLAPS]
    found = panels(*chosen, tuple(given.size), lambda text: bar.update(None, text))
    bar.restart()
    results = measure(found, given.seconds, bar.update)
    bar.close()
    print(table(results))
    for name, one in results.items():
        points = ", ".join(f"{x:g}: {y:.4g}" for x, y in one["points"])
        print(f"\n{name}: {points}")
    if not given.no_record:
        named = {"size": list(given.size), **results}
        written = record("costs", named, given.out)
        drawn = [picture(name, found[name], one) for name, one in results.items()]
        rows = [np.concatenate(drawn[n : n + 2], axis=1) for n in (0, 2)]
        write_png(given.out / "costs.png", np.concatenate(rows))
        print(f"-> {written}")
    return 0


if __name__ == "__main__":
    start_as_launched("benchmarks.bench_costs", OMP_NUM_THREADS="1")
    raise SystemExit(main())
