"""Ten minutes, or an hour, at 10 Mev/s over real DDS: is memory flat, is nothing lost?

    python -m benchmarks.bench_soak [--minutes 10]

Camera, depth node and listener are processes as in `bench_latency`: EVT 3.0 in packets of 1 ms,
best effort. Resident memory of the depth process is read every second, its slope is a least-squares
line over the second half. Every message and every event is counted on both sides. Written are
results/soak.json (soak_60.json for an hour) and a picture of memory and latency over time. Fields,
below `results`:

    packets_sent, packets_received, packets_lost (jumps of the message counter, as depth saw them),
    events_sent, events_decoded, inbox_dropped, gaps, resets, errors
    windows, windows_missing (never came), windows_skipped (by the overload policy)
    rss_mb: first, last, largest; slope_per_hour of the second half; samples as [s, MB]
    latency: p50, p99, max in ms for each stretch, from the packet that closed the window to the
    listener; camera_late_ms: how far the camera itself was behind its clock
    goals: goal, value, bound, met
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.as_launched import start_as_launched
from benchmarks.latency_figures import missing_windows, quantiles
from benchmarks.live.camera import OPENING, Block, CameraLog, CameraPlan
from benchmarks.live.stand import LiveStand, Window, counts_of, sensor_to_topic_ns
from benchmarks.process_use import cpu_s, resident_mb
from benchmarks.record import RESULTS, record
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.evaluation.strips import write_png

SAMPLE_S = 1.0
TOLD_S = 30.0
STRETCHES = 60  # that the run is cut into for latency over time
# What a machine's noise leaves of the slope in ten minutes; a leak of 1 kB a window makes 72 MB.
LARGEST_SLOPE_MB_PER_HOUR = 10.0


def slope_per_hour(samples: Sequence[tuple[float, float]]) -> float:
    """Return the slope of MB over seconds in MB per hour: least squares over the second half."""
    late = samples[len(samples) // 2 :]
    if len(late) < 2:
        raise ValueError(f"{len(samples)} samples are too few for a slope; run for longer")
    slope, _ = np.polyfit([s for s, _ in late], [mb for _, mb in late], 1)
    return float(slope) * 3600.0


def latency_over_time(windows: Sequence[Window], log: CameraLog) -> list[dict[str, float]]:
    """Return latency by stretch of the run: its middle in s, windows, and quantiles in ms."""
    found = []
    begin_ns = windows[0].end_ns
    length_ns = (windows[-1].end_ns - begin_ns) // STRETCHES + 1
    at = np.array([(window.end_ns - begin_ns) // length_ns for window in windows])
    late_ns = sensor_to_topic_ns(list(windows), log)
    for stretch in np.unique(at).tolist():
        chosen = late_ns[at == stretch]
        middle_s = (stretch + 0.5) * length_ns / 1e9
        found.append({"s": round(middle_s, 2), "windows": len(chosen), **quantiles(chosen)})
    return found


def camera_late_ms(log: CameraLog) -> dict[str, float]:
    """Return how far the camera was behind: its packets' times against the clock."""
    planned = log.block != OPENING
    late_ns = log.sent_ns[planned] - log.newest_ns[planned]
    return quantiles(late_ns - late_ns.min())


def measure(
    weights: str, depth: Mapping[str, Any], plan: CameraPlan, seconds: float, settle_s: float
) -> dict[str, Any]:
    """Run for so many seconds; return the results for JSON."""
    samples: list[tuple[float, float]] = []
    with LiveStand(weights, depth, plan) as stand:
        stand.go(settle_s)
        begin_s = told_s = time.monotonic()
        busy_s = cpu_s(stand.depth_pid)
        while (passed_s := time.monotonic() - begin_s) < seconds:
            samples.append((round(passed_s, 2), round(resident_mb(stand.depth_pid), 2)))
            if time.monotonic() - told_s >= TOLD_S:
                told_s = time.monotonic()
                stand.check()
                print(
                    f"{passed_s:.0f} of {seconds:.0f} s: {samples[-1][1]:.1f} MB, "
                    f"{stand.heard.count} images, {lost_so_far(stand)} packets lost",
                    flush=True,
                )
            time.sleep(SAMPLE_S)
        busy_s = cpu_s(stand.depth_pid) - busy_s
        stand.check()
        log, _ = stand.stop_camera()
        windows = [window for window in stand.heard.windows() if window.end_ns > begin_of(log)]
        events, counted = stand.heard.diagnosed("events"), stand.heard.diagnosed("windows")
        backend = stand.heard.diagnosed("network")["backend"]
    memory = [mb for _, mb in samples]
    results: dict[str, Any] = {
        "weights": weights,
        "backend": backend,
        "height": plan.height,
        "width": plan.width,
        "seconds": seconds,
        "rate_mevs": round(log.rate_mevs, 3),
        "packets_sent": len(log.sent_ns),
        "packets_received": int(events["messages"]),
        "packets_lost": int(events.get("drop.lost_packets", 0)),
        "events_sent": int(log.events.sum()),
        "events_decoded": int(events["events"]),
        "inbox_dropped": int(events["inbox_dropped"]),
        "gaps": counts_of(events, "gap."),
        "errors": counts_of(events, "error."),
        "drops": counts_of(events, "drop."),
        "resets": counts_of(counted, "reset."),
        "windows": len(windows),
        "windows_missing": missing_windows(windows),
        "windows_skipped": int(counted["skipped"]),
        "depth_cpu_percent": round(100.0 * busy_s / seconds, 1),
        "rss_mb": {
            "first": memory[0],
            "last": memory[-1],
            "largest": max(memory),
            "slope_per_hour": round(slope_per_hour(samples), 3),
            "samples": samples[:: max(1, len(samples) // 600)],
        },
        "camera_late_ms": camera_late_ms(log),
        "latency": quantiles(sensor_to_topic_ns(windows, log)),
        "latency_over_time": latency_over_time(windows, log),
    }
    results["goals"] = goals(results)
    return results


def begin_of(log: CameraLog) -> int:
    """Return the event time from which on the plan's events come, in ns."""
    return int(log.newest_ns[int(np.argmax(log.block != OPENING))])


def lost_so_far(stand: LiveStand) -> str:
    """Return what depth last said."""
    return stand.heard.diagnosed("events").get("drop.lost_packets", "0")


def goals(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is asked for, and whether it holds."""
    found = [
        ("packets lost", results["packets_sent"] - results["packets_received"], 0.0),
        ("events lost", results["events_sent"] - results["events_decoded"], 0.0),
        ("packets dropped in the inbox", results["inbox_dropped"], 0.0),
        ("gaps", sum(results["gaps"].values()), 0.0),
        ("windows that never came", results["windows_missing"], 0.0),
        (
            "growth of resident memory in MB per hour",
            results["rss_mb"]["slope_per_hour"],
            LARGEST_SLOPE_MB_PER_HOUR,
        ),
    ]
    return [
        {"goal": goal, "value": value, "bound": bound, "met": value <= bound}
        for goal, value, bound in found
    ]


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Draw memory over time, and latency below it."""
    minutes = [s / 60.0 for s, _ in results["rss_mb"]["samples"]]
    memory = {"depth": (minutes, [mb for _, mb in results["rss_mb"]["samples"]])}
    stretches = results["latency_over_time"]
    late = {
        name: ([one["s"] / 60.0 for one in stretches], [one[f"{name}_ms"] for one in stretches])
        for name in ("p50", "p99", "max")
    }
    title = f"{results['rate_mevs']:g} Mev/s, {results['weights']} on {results['backend']}"
    pictures = [
        line_plot(memory, Axes(f"Resident memory: {title}", "minutes", "MB")),
        line_plot(late, Axes("From the packet to the depth topic", "minutes", "ms")),
    ]
    write_png(path, np.concatenate(pictures))


def main(args: list[str] | None = None) -> int:
    """Run it and record the result; return 1 where a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--settle-s", type=float, default=15.0, help="left out of memory: the ring fills"
    )
    parser.add_argument("--rate", type=float, default=10.0, help="Mev/s of the camera")
    parser.add_argument(
        "--slots", type=int, default=1, help="length of a packet in units of 1.024 ms"
    )
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument(
        "--lose", type=int, default=0, metavar="N", help="lose one packet in N, to see it noticed"
    )
    parser.add_argument("--weights", default="micro", help="of depth (default: %(default)s)")
    parser.add_argument(
        "--backend",
        default="openvino" if find_spec("openvino") else "torch",
        help="of the network (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (default: %(default)s)")
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args(args)
    plan = CameraPlan(*given.size, (Block(given.rate, 1.0, given.slots),), lose=given.lose)
    depth = {"threads": 1, "backend": given.backend}
    results = measure(given.weights, depth, plan, 60.0 * given.minutes, given.settle_s)
    print("\n| what | value |\n|---|---|")
    for key, value in results.items():
        if key not in ("rss_mb", "latency_over_time", "goals"):
            print(f"| {key} | {value} |")
    memory = {key: value for key, value in results["rss_mb"].items() if key != "samples"}
    print(f"| rss_mb | {memory} |")
    print("\n| goal | value | bound | met |\n|---|---|---|---|")
    for one in results["goals"]:
        print(f"| {one['goal']} | {one['value']:g} | {one['bound']:g} | {one['met']} |")
    if not given.no_record:
        name = "soak" if given.minutes == 10.0 else f"soak_{given.minutes:g}"
        written = record(name, results, given.out)
        plot(results, given.out / f"{name}.png")
        print(f"-> {written}")
    return 0 if all(one["met"] for one in results["goals"]) else 1


if __name__ == "__main__":
    start_as_launched("benchmarks.bench_soak")
    raise SystemExit(main())
