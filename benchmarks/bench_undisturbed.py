"""Is depth as fast while the learner learns? Latency, lost windows, swaps, real processes and DDS.

    python -m benchmarks.bench_undisturbed [--weights NAME] [--teacher NAME] [--windows 2000]

A simulated recording, encoded beforehand (evt3 and frames), is replayed in real time. Blocks
without and with a learner take turns; each begins with fresh processes and sees the same windows,
so that they are compared window by window. Before them is a block for the learner to gather clips.
Depth has a CPU core of its own, the learner shares the other one with replay and witness. A last
block changes the weights every few seconds.

Written are results/undisturbed.json, .md and .png (latency over its quantile). Fields, below
`results`:

    blocks     kind, windows, lost (windows that never came), p50_ms, p95_ms, p99_ms, longest gap
               between two images in windows, swaps, and of the learner: steps, labels, verdicts,
               cpu_percent (of its core), states (how often its status said which)
    ratios     p50, p95, p99: with over without, and the interval that holds it with 95 %
               (bootstrap over pairs of stretches of 50 windows)
    swaps      of the last block: outcome, replayed windows, and the longest gaps between images
    identical  whether depth after a swap equals, bit for bit, that of a fresh load of the same
               file that has stepped the replayed windows
    goals      goal, value, bound, met; of the ratios the upper ends of the intervals are judged
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.live.online_stand import DEPTH, LEARNER, Deployment, Stand, simulate
from benchmarks.live.undisturbed_blocks import (
    HOP_S,
    QUANTILES,
    REPLAY,
    Block,
    Plan,
    paired,
    run_block,
)
from benchmarks.live.undisturbed_swaps import (
    COMPARED,
    SWAP_EVERY_S,
    Announcer,
    identical,
    swaps_of,
    versions,
)
from benchmarks.record import RESULTS, record
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.evaluation.strips import write_png

HEIGHT, WIDTH = 180, 240
STRETCH, RESAMPLES = 50, 2000
LARGEST_RATIO = 1.2


def ratio_interval(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], quantile: float
) -> tuple[float, float, float]:
    """Compare a quantile with and without, over pairs of stretches of the same windows.

    Args:
        pairs: for each pair of blocks the latencies off and on, window by window.
        quantile: 0..1.

    Returns:
        The ratio on over off, and the interval that holds it with 95 %. Latencies of neighbouring
        windows hang together, so stretches of `STRETCH` windows are drawn, not windows.
    """
    off, on = (
        np.concatenate(
            [
                pair[side][: len(pair[side]) // STRETCH * STRETCH].reshape(-1, STRETCH)
                for pair in pairs
            ]
        )
        for side in (0, 1)
    )
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(off), (RESAMPLES, len(off)))
    ratios = [np.quantile(on[i], quantile) / np.quantile(off[i], quantile) for i in drawn]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(np.quantile(on, quantile) / np.quantile(off, quantile)), float(low), float(high)


def goals(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is asked for, and whether it holds.

    Ratios are judged by the upper end of their interval: a ratio that is only probably small
    enough is none that was shown.
    """
    ratios, swaps, blocks = results["ratios"], results["swaps"], results["blocks"]
    longest = max((swap["longest_gap_near_windows"] for swap in swaps), default=float("inf"))
    found = [
        *(
            (
                f"{name} with over without learning, upper end; {ratios[name]['ratio']:g} measured",
                ratios[name]["high"],
                LARGEST_RATIO,
            )
            for name in ("p95", "p99")
        ),
        (
            "blocks with a learner that made no step",
            sum(not b["steps"] for b in blocks if b["kind"] == "on"),
            0,
        ),
        ("windows lost with learning", sum(b["lost"] for b in blocks if b["kind"] == "on"), 0),
        ("pause near a swap, windows", round(longest - 1.0, 2), 1.0),
        (
            f"of {COMPARED} windows after a swap, those not shown to equal a fresh load's",
            COMPARED - results["identical"]["equal"],
            0,
        ),
    ]
    return [
        {"goal": goal, "value": value, "bound": bound, "met": value <= bound}
        for goal, value, bound in found
    ]


def measure(
    deployment: Deployment, plan: Plan, blocks: int, cores: Mapping[str, int], scratch: Path
) -> tuple[dict[str, Any], list[Block]]:
    """Run every block.

    Args:
        deployment: of both nodes.
        plan: of the blocks.
        blocks: pairs of blocks without and with a learner.
        cores: node name -> CPU core.
        scratch: folder for versions.

    Returns:
        The results for JSON, and the blocks.
    """
    found: list[Block] = []
    kept = 4 * COMPARED
    with Stand(deployment, cores=cores, depth_maps=kept) as stand:
        print(f"gathering clips: {run_block(stand, plan, 'on').to_dict()}", flush=True)
        for number, kind in enumerate(["off", "on"] * blocks):
            found.append(run_block(stand, plan, kind))
            print(f"{number + 1}/{2 * blocks}: {found[-1].to_dict()}", flush=True)
        count = max(1, int(plan.windows * HOP_S / plan.rate / SWAP_EVERY_S) - 1)
        snapshots = list(versions(scratch / "versions", deployment.weights, count))
        announcer = Announcer(stand, snapshots)
        swapped = run_block(stand, plan, "swaps", announcer)
        announcer.close()
    pairs = [paired(off, on) for off, on in zip(found[0::2], found[1::2], strict=True)]
    ratios = {}
    for name, quantile in QUANTILES.items():
        ratio, low, high = ratio_interval(pairs, quantile)
        ratios[name] = {"ratio": round(ratio, 4), "low": round(low, 4), "high": round(high, 4)}
    results: dict[str, Any] = {
        "cores": dict(cores),
        "device": deployment.device,
        "rate": plan.rate,
        "blocks": [block.to_dict() for block in [*found, swapped]],
        "ratios": ratios,
        "swaps": swaps_of(swapped),
        "identical": identical(plan, deployment, swapped, snapshots[0], announcer.maps),
    }
    results["goals"] = goals(results)
    return results, found


def table(results: Mapping[str, Any]) -> str:
    """Return ratios, blocks and goals as Markdown."""
    rows = ["| quantile | with over without | holds it with 95 % |", "|---|---|---|"]
    rows += [
        f"| {name} | {found['ratio']:.3f} | {found['low']:.3f} to {found['high']:.3f} |"
        for name, found in results["ratios"].items()
    ]
    rows += [
        "",
        "| block | windows | lost | p50, p95, p99 in ms | longest gap, windows | steps | core |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {block['kind']} | {block['windows']} | {block['lost']} | {block['p50_ms']:.1f}, "
        f"{block['p95_ms']:.1f}, {block['p99_ms']:.1f} | {block['longest_gap_windows']:.1f} "
        f"| {block['steps']} | {block['cpu_percent']:.0f} % |"
        for block in results["blocks"]
    ]
    rows += ["", "| goal | value | bound | met |", "|---|---|---|---|"]
    rows += [
        f"| {one['goal']} | {one['value']:g} | {one['bound']:g} "
        f"| {'yes' if one['met'] else '**no**'} |"
        for one in results["goals"]
    ]
    return "\n".join(rows) + "\n"


def plot(blocks: Sequence[Block], path: Path) -> None:
    """Draw latency over its quantile, a line for each block."""
    at = np.linspace(0.0, 0.999, 200)
    series = {}
    for number, block in enumerate(blocks):
        values = np.quantile(list(block.latency.values()), at)
        series[f"{block.kind} {number // 2 + 1}"] = (list(100.0 * at), list(values))
    axes = Axes("Latency of depth without and with a learner", "quantile in %", "ms")
    write_png(path, line_plot(series, axes))


def main() -> int:
    """Run it and record the result; return 1 where a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="micro", help="student (default: %(default)s)")
    parser.add_argument(
        "--teacher", default="micro_frames", help="network of frames (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help="of both: cpu, cuda or auto (default: %(default)s)"
    )
    parser.add_argument("--windows", type=int, default=2000, help="of a block")
    parser.add_argument("--blocks", type=int, default=3, help="pairs of off and on")
    parser.add_argument("--rate", type=float, default=1.0, help="of the replay; 1 is real time")
    parser.add_argument(
        "--cores", type=int, nargs=2, default=None, metavar="CORE",
        help="of depth, and of everything else (default: the first two)",
    )  # fmt: skip
    parser.add_argument(
        "--recording", type=Path, default=Path("output/undisturbed_camera"),
        help="simulated there where it is not yet (some minutes)",
    )  # fmt: skip
    parser.add_argument("--no-record", action="store_true", help="print only")
    arguments = parser.parse_args()
    usable = sorted(os.sched_getaffinity(0))
    depth_core, other_core = arguments.cores or (usable[0], usable[-1])
    cores = {DEPTH: depth_core, LEARNER: other_core, REPLAY: other_core}
    plan = Plan(arguments.recording, arguments.windows, arguments.rate)
    simulate(plan.recording, plan.duration_s + 1.0, "evt3", height=HEIGHT, width=WIDTH)
    # The witness must not wait for depth, nor depth for the witness.
    os.sched_setaffinity(0, {other_core})
    with tempfile.TemporaryDirectory(prefix="dae_ros_undisturbed_") as folder:
        scratch = Path(folder)
        deployment = Deployment(
            arguments.weights,
            arguments.teacher,
            scratch / "learned",
            depth={"threads": 1, "follow_snapshots": True},
            learner={"threads": 1},
            device=arguments.device,
        )
        results, blocks = measure(deployment, plan, arguments.blocks, cores, scratch)
    text = table(results)
    print(f"\n{text}")
    if not arguments.no_record:
        (RESULTS / "undisturbed.md").write_text(text, encoding="utf-8")
        plot(blocks, RESULTS / "undisturbed.png")
        print(f"-> {record('undisturbed', results)}")
    return 0 if all(one["met"] for one in results["goals"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
