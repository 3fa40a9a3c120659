"""More events than the node can take: what each overload policy does at 1 to 100 Mev/s, over DDS.

    python -m benchmarks.bench_overload [--policies latest merge queue] [--rates 1 2 ... 100]

For every policy and rate fresh processes: a camera (EVT 3.0, packets of 1 ms, 640x480 px) is calm
for some seconds, floods for some, and is calm again, so that the recovery is seen. With `latest`
and `merge` it sends best effort, as drivers do; with `queue` reliably, so that it can be held back.

Written are results/overload.json and overload.png (windows published and latency over the rate).
Rows, below `results`, one per policy and rate:

    offered_mevs, achieved_mevs (a camera that is held back, or that this machine cannot run,
    stays below), windows_due, windows_published, windows_dropped in the flood; calm, flood, after:
    p50, p95, p99 and max of latency in ms, from the packet that closed the window to the listener;
    recovery_s; worked_off_s, after the camera has ended (null: not in a minute); packets sent and
    received; losses by reason; promises: lines of docs/nodes.md ("What a skipped window does to
    the recurrent state", "depth_node"), and whether they held
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
from benchmarks.live.camera import Block, CameraPlan
from benchmarks.live.stand import LiveStand
from benchmarks.overload_figures import FLOOD, figures
from benchmarks.record import RESULTS, record
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.evaluation.strips import write_png

POLICIES = ("latest", "merge", "queue")
RATES_MEVS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
CALM_MEVS = 1.0


def run(
    policy: str,
    plan: CameraPlan,
    weights: str,
    depth: Mapping[str, Any],
) -> dict[str, Any]:
    """Run one flood in fresh processes; return its row.

    Args:
        policy: `overload` of the node.
        plan: calm, flood, calm again; the last one's seconds are those of the recovery.
        weights: of depth.
        depth: its other parameters.
    """
    with LiveStand(weights, {**depth, "overload": policy}, plan) as stand:
        stand.go(0.0)
        deadline_s = time.monotonic() + sum(block.seconds for block in plan.blocks)
        while (left_s := deadline_s - time.monotonic()) > 0:
            time.sleep(min(left_s, 5.0))
            stand.check()
        log, worked_off_s = stand.stop_camera()
        windows = stand.heard.windows()
        found = figures(
            policy, windows, log, stand.heard.diagnosed("events"), stand.heard.diagnosed("windows")
        )
    return {
        "policy": policy,
        "offered_mevs": plan.blocks[FLOOD].rate_mevs,
        "worked_off_s": worked_off_s,
        **found,
    }


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what is published of what is due, and latency, over the offered rate."""
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    published, late = {}, {}
    for policy in policies:
        own = [row for row in rows if row["policy"] == policy]
        rates = [row["offered_mevs"] for row in own]
        published[policy] = (
            rates,
            [100.0 * row["windows_published"] / max(1, row["windows_due"]) for row in own],
        )
        for name in ("p50", "p99"):
            values = [row["flood"][f"{name}_ms"] if row["flood"] else float("nan") for row in own]
            late[f"{policy} {name}"] = (rates, values)
    pictures = [
        line_plot(
            published, Axes("Windows published in a flood, of those due", "Mev/s", "%", True)
        ),
        line_plot(late, Axes("From the packet to the depth topic", "Mev/s", "ms", True)),
    ]
    write_png(path, np.concatenate(pictures))


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each run, and what did not hold."""
    print("\n| policy | Mev/s offered, achieved | windows due, published | p50 / p99 ms calm | "
          "in the flood | recovered in s | packets lost |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        texts = [
            f"{row[name]['p50_ms']:.1f} / {row[name]['p99_ms']:.1f}" if row[name] else "none"
            for name in ("calm", "flood")
        ]
        recovered = "never" if row["recovery_s"] is None else f"{row['recovery_s']:.2f}"
        lost = row["packets_sent"] - row["packets_received"] + row["inbox_dropped"]
        print(
            f"| {row['policy']} | {row['offered_mevs']:g}, {row['achieved_mevs']:.1f} | "
            f"{row['windows_due']}, {row['windows_published']} | {texts[0]} | {texts[1]} | "
            f"{recovered} | {lost} |"
        )
    for row in rows:
        for promise in row["promises"]:
            if not promise["held"]:
                print(f"{row['policy']} at {row['offered_mevs']:g} Mev/s: {promise['line']}: "
                      f"{promise['value']}")  # fmt: skip


def main(args: list[str] | None = None) -> int:
    """Run all floods and record them; return 1 where a promise was not kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--rates", nargs="+", type=float, default=RATES_MEVS, help="Mev/s")
    parser.add_argument("--calm-s", type=float, default=5.0, help="before the flood")
    parser.add_argument("--flood-s", type=float, default=10.0)
    parser.add_argument("--after-s", type=float, default=10.0, help="for the recovery")
    parser.add_argument("--calm-mevs", type=float, default=CALM_MEVS, help="before and after")
    parser.add_argument(
        "--slots", type=int, default=1, help="length of a packet in units of 1.024 ms"
    )
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--weights", default="micro", help="of depth (default: %(default)s)")
    parser.add_argument(
        "--backend",
        default="openvino" if find_spec("openvino") else "torch",
        help="of the network (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (default: %(default)s)")
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args(args)
    depth = {"threads": 1, "backend": given.backend}
    rows = []
    for policy in given.policies:
        for rate in given.rates:
            blocks = (
                Block(given.calm_mevs, given.calm_s, given.slots),
                Block(rate, given.flood_s, given.slots),
                Block(given.calm_mevs, given.after_s, given.slots),
            )
            plan = CameraPlan(*given.size, blocks, reliable=policy == "queue")
            rows.append(run(policy, plan, given.weights, depth))
            print(f"{len(rows)}/{len(given.policies) * len(given.rates)}: {rows[-1]}", flush=True)
    print_table(rows)
    if not given.no_record:
        results = {
            "height": given.size[0], "width": given.size[1], "weights": given.weights,
            "backend": given.backend, "calm_mevs": given.calm_mevs, "calm_s": given.calm_s,
            "flood_s": given.flood_s, "after_s": given.after_s, "rows": rows,
        }  # fmt: skip
        written = record("overload", results, given.out)
        plot(rows, given.out / "overload.png")
        print(f"-> {written}")
    return 0 if all(one["held"] for row in rows for one in row["promises"]) else 1


if __name__ == "__main__":
    start_as_launched("benchmarks.bench_overload")
    raise SystemExit(main())
