"""Is depth as fast while the learner learns? Latency, lost windows, swaps, real processes and DDS.

    python -m benchmarks.bench_undisturbed [--weights NAME] [--teacher NAME] [--windows 2000]

A simulated recording, encoded beforehand (evt3 and frames), is replayed in real time. Blocks
without and with a learner take turns; each begins with fresh processes and sees the same windows,
so that they are compared window by window. Before them is a block for the learner to gather clips.
Depth has a CPU core of its own, the learner shares the other one with replay and witness. A last
block changes the weights every few seconds.

Written are results/undisturbed.json and undisturbed.png (latency over its quantile). Fields, below
`results`:

    blocks     kind, windows, lost (windows that never came), p50_ms, p95_ms, p99_ms, longest gap
               between two images in windows, swaps, and of the learner: steps, labels, verdicts,
               cpu_percent (of its core), states (how often its status said which)
    ratios     p50, p95, p99: with over without, and the interval that holds it with 95 %
               (bootstrap over pairs of stretches of 50 windows)
    swaps      of the last block: outcome, replayed windows, and the longest gaps between images
    identical  whether depth after a swap equals, bit for bit, that of a fresh load of the same
               file that has stepped the replayed windows
    goals      goal, value, bound, met
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.online_stand import DEPTH, LEARNER, Deployment, Image, Said, Stand, simulate
from benchmarks.record import RESULTS, record
from dae_ros.bags.recording import open_recording
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.evaluation.strips import write_png
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.weights import load_weights
from dae_ros.nodes.processes import Process
from dae_ros.parameters import DepthParameters, Value
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.runtime.snapshots import Snapshot, SnapshotStore

HEIGHT, WIDTH = 180, 240
HOP_NS = 50_000_000
HOP_S = HOP_NS / 1e9
# The first windows find cold caches and, in the swapped block, no version to come from.
SETTLE_WINDOWS = 100
STRETCH, RESAMPLES = 50, 2000
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
LARGEST_RATIO = 1.2
START_TIMEOUT_S = 300.0
# Above WeightSwap's limit below which a state would be kept; far below what a canary minds.
NOISE = 0.005
SWAP_EVERY_S = 4.0
# How many windows after a swap are compared with a fresh load.
COMPARED = 16
REPLAY = "replay"


@dataclass
class Block:
    """What was seen of one block.

    Attributes:
        kind: `off`, `on` or `swaps`.
        images: after the first `SETTLE_WINDOWS`.
        hop_s: from one window to the next, as long as the replay takes for it.
        verdicts, work, states: of depth; of the learner.
        learner_cpu: share of a core that the learner's process used; 0 without one.
    """

    kind: str
    images: list[Image]
    hop_s: float
    verdicts: list[Said] = field(default_factory=list)
    work: list[Said] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    learner_cpu: float = 0.0

    @property
    def latency(self) -> dict[int, float]:
        """Latency in ms by the end of the window in event time, ns."""
        return {image.end_ns: image.latency_ms for image in self.images}

    @property
    def lost(self) -> int:
        """Windows between the first and the last that never came."""
        ends = [image.end_ns for image in self.images]
        return round((ends[-1] - ends[0]) / HOP_NS) + 1 - len(set(ends))

    def gaps(self) -> list[tuple[float, Image]]:
        """Return the time from each image to the next in windows, with the next."""
        return [
            ((after.arrival_s - before.arrival_s) / self.hop_s, after)
            for before, after in itertools.pairwise(self.images)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        values = np.array(list(self.latency.values()))
        actions = [said.values["action"] for said in self.work]
        return {
            "kind": self.kind,
            "windows": len(values),
            "lost": self.lost,
            **{
                f"{name}_ms": round(float(np.quantile(values, q)), 3)
                for name, q in QUANTILES.items()
            },
            "longest_gap_windows": round(max(gap for gap, _ in self.gaps()), 2),
            "swaps": sum(a.version != b.version for a, b in itertools.pairwise(self.images)),
            "steps": actions.count("learned"),
            "labels": actions.count("labelled"),
            "verdicts": actions.count("judged"),
            "cpu_percent": round(100.0 * self.learner_cpu, 1),
            "states": dict(Counter(self.states).most_common()),
        }


@dataclass(frozen=True)
class Plan:
    """What all blocks have in common.

    Attributes:
        recording: evt3 events and frames.
        windows: of a block, those that count.
        rate: of the replay.
    """

    recording: Path
    windows: int
    rate: float

    @property
    def duration_s(self) -> float:
        """Recorded seconds that a block needs."""
        return (self.windows + SETTLE_WINDOWS + 2) * HOP_S

    def replay(self, environment: Mapping[str, str]) -> Process:
        """Return the source, which waits until it is told to play."""
        parameters: dict[str, Value] = {
            "bag": str(self.recording), "rate": self.rate, "duration_s": self.duration_s,
            "autostart": False, "clock_hz": 0.0,
        }  # fmt: skip
        return Process("dae_ros", "replay_node", REPLAY, parameters=parameters,
                       environment=environment)  # fmt: skip


def run_block(
    stand: Stand, plan: Plan, kind: str, during: Callable[[float], None] | None = None
) -> Block:
    """Start everything anew, replay, stop everything.

    Args:
        stand: whose witness is told apart by time.
        plan: of all blocks.
        kind: `on` with a learner.
        during: called all the time with the seconds since the first image that counts.
    """
    witness = stand.witness
    begin = len(witness.images), len(witness.verdicts), len(witness.work), len(witness.learning)
    names = [DEPTH, *([LEARNER] if kind == "on" else []), REPLAY]
    for name in names:
        stand.start(name, plan.replay(stand.plan[DEPTH].environment) if name == REPLAY else None)
    stand.until(lambda: len(witness.verdicts) > begin[1], "depth is active", START_TIMEOUT_S, DEPTH)
    if kind == "on":
        stand.until(lambda: len(witness.learning) > begin[3], "a learner", START_TIMEOUT_S, LEARNER)
    stand.ask("/replay/play", START_TIMEOUT_S)
    replay, settled_s, cpu_s = stand.harness[REPLAY], 0.0, 0.0
    while replay.exit_code is None:
        if not settled_s and len(witness.images) > begin[0] + SETTLE_WINDOWS:
            settled_s = time.monotonic()
            cpu_s = _cpu_s(stand.harness[LEARNER].pid) if kind == "on" else 0.0
        if settled_s and during is not None:
            during(time.monotonic() - settled_s)
        time.sleep(0.01)
    elapsed_s = time.monotonic() - settled_s
    cpu_s = _cpu_s(stand.harness[LEARNER].pid) - cpu_s if kind == "on" else 0.0
    for name in reversed(names):
        code = stand.harness[name].stop(20.0)
        if code:
            raise SystemExit(f"{name} ended with {code}:\n{stand.harness[name].output}")
        del stand.harness.running[name]
    images = witness.images[begin[0] :][SETTLE_WINDOWS:][: plan.windows]
    return Block(
        kind,
        images,
        HOP_S / plan.rate,
        witness.verdicts[begin[1] :],
        witness.work[begin[2] :],
        [said.values["state"] for said in witness.learning[begin[3] :]],
        cpu_s / elapsed_s,
    )


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


def paired(off: Block, on: Block) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the latencies of the windows that both blocks have, in order."""
    without, with_learner = off.latency, on.latency
    ends = sorted(without.keys() & with_learner.keys())
    return (
        np.array([without[end] for end in ends]),
        np.array([with_learner[end] for end in ends]),
    )


def versions(folder: Path, weights: str, count: int) -> Iterator[Snapshot]:
    """Publish versions that differ from each other as much as a few steps of learning make them."""
    loaded = load_weights(weights)
    original = {name: tensor.clone() for name, tensor in loaded.network.state_dict().items()}
    with SnapshotStore(folder, keep=count) as store:
        for number in range(count):
            generator = torch.Generator().manual_seed(number)
            loaded.network.load_state_dict(
                {
                    name: tensor * (1 + NOISE * torch.randn(tensor.shape, generator=generator))
                    if tensor.is_floating_point()
                    else tensor
                    for name, tensor in original.items()
                }
            )

            def write(path: Path) -> None:
                save_checkpoint(path, loaded.network, loaded.meaning)

            yield store.publish(write, step=number, score=1.0)


class Announcer:
    """Announces version after version, each as soon as the one before is kept.

    Args:
        stand: whose depth is told.
        snapshots: the versions.
        maps: end of a window -> depth, filled with what follows the first swap.
    """

    def __init__(self, stand: Stand, snapshots: Sequence[Snapshot]) -> None:
        from std_msgs.msg import String

        from dae_ros.nodes.qos import latched_qos

        self._stand = stand
        self._snapshots = list(snapshots)
        self._message = String
        self._publisher = stand.witness.node.create_publisher(
            String, "distill/snapshot", latched_qos()
        )
        self._next_s = 0.0
        self._first = len(stand.witness.images)
        self.maps: dict[int, NDArray[np.float32]] = {}

    def __call__(self, elapsed_s: float) -> None:
        """Announce the next version where it is time."""
        if elapsed_s >= self._next_s and self._snapshots:
            self._next_s = elapsed_s + SWAP_EVERY_S
            announcement = self._snapshots.pop(0).announcement
            self._publisher.publish(self._message(data=announcement.to_json()))
        images = self._stand.witness.images[self._first :][-2 * COMPARED :]
        first = next((i for i, image in enumerate(images) if image.version == 1), None)
        if first is not None and not self.maps and len(images) - first > COMPARED + 1:
            stamps = {image.stamp_ns: image.end_ns for image in images[first : first + COMPARED]}
            maps = dict(self._stand.witness.maps)
            self.maps = {end: maps[stamp] for stamp, end in stamps.items()}

    def close(self) -> None:
        """Stop announcing."""
        self._stand.witness.node.destroy_publisher(self._publisher)


def fresh_depth(
    recording: Path, weights: Path, first_ns: int, last_ns: int, parameters: Mapping[str, Value]
) -> dict[int, NDArray[np.float32]]:
    """Return what a fresh load makes of the windows from one end to another, without ROS.

    Args:
        recording: that was replayed.
        weights: file.
        first_ns: end of the window before which the state is zero, in event time.
        last_ns: end of the last window.
        parameters: of depth.
    """
    settings = DepthParameters.from_mapping(
        {**parameters, "weights": str(weights), "device": "cpu", "overload": "queue"}
    )
    pipeline = DepthPipeline(settings, create_estimator(settings))
    found: dict[int, NDArray[np.float32]] = {}
    with open_recording(recording) as opened:
        for packet in opened.event_packets("/events"):
            pipeline.feed(packet)
            while (frame := pipeline.step()) is not None:
                if frame.end_ns == first_ns - HOP_NS:
                    pipeline.reset_state("service")
                if first_ns <= frame.end_ns <= last_ns:
                    found[frame.end_ns] = frame.depth
                if frame.end_ns >= last_ns:
                    return found
    return found


def swaps_of(block: Block) -> list[dict[str, Any]]:
    """Return every change of weights: how it went, and what it cost."""
    found = []
    kept = {v.values["version"]: v.values for v in block.verdicts if v.values["verdict"] == "kept"}
    for said in block.verdicts:
        values = said.values
        if values["verdict"] != "swapped":
            continue
        around = [
            (gap, image)
            for gap, image in block.gaps()
            if abs(image.arrival_s - said.arrival_s) < SWAP_EVERY_S / 2
        ]
        at = [
            gap for gap, image in around
            if image.version == values["version"]
        ][:1]  # fmt: skip
        found.append({
            "version": values["version"],
            "code": values["code"],
            "replayed": values["numbers"].get("replayed"),
            "kept": values["version"] in kept,
            "gap_windows": round(at[0], 2) if at else None,
            "longest_gap_near_windows": round(max((g for g, _ in around), default=0.0), 2),
        })  # fmt: skip
    return found


def identical(
    plan: Plan, deployment: Deployment, block: Block, snapshot: Snapshot,
    maps: Mapping[int, NDArray[np.float32]],
) -> dict[str, Any]:  # fmt: skip
    """Compare depth after the first swap with that of a fresh load; see the module."""
    swaps = [
        said.values for said in block.verdicts
        if said.values["verdict"] == "swapped" and said.values["version"] == snapshot.version
    ]  # fmt: skip
    if not swaps or not maps:
        return {"code": "", "replayed": 0, "windows": 0, "equal": 0, "equal_without_replay": 0}
    swap = swaps[0]
    replayed, first_ns = int(swap["numbers"]["replayed"]), min(maps)
    parameters = {n: v for n, v in deployment.depth.items() if n != "follow_snapshots"}
    fresh = fresh_depth(
        plan.recording, snapshot.path, first_ns - replayed * HOP_NS, max(maps), parameters
    )
    other = fresh_depth(plan.recording, snapshot.path, first_ns, max(maps), parameters)
    return {
        "code": swap["code"],
        "replayed": replayed,
        "windows": len(maps),
        "equal": identical_windows(maps, fresh),
        # A comparison that cannot fail proves nothing: without the replay they differ.
        "equal_without_replay": identical_windows(maps, other),
    }


def identical_windows(
    some: Mapping[int, NDArray[np.float32]], others: Mapping[int, NDArray[np.float32]]
) -> int:
    """Return how many windows of some have the same depth, bit for bit, among the others."""
    return sum(
        end in others and np.array_equal(depth, others[end], equal_nan=True)
        for end, depth in some.items()
    )


def goals(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is asked for, and whether it holds."""
    ratios, swaps, blocks = results["ratios"], results["swaps"], results["blocks"]
    longest = max((swap["longest_gap_near_windows"] for swap in swaps), default=float("inf"))
    found = [
        ("p95 with learning over without", ratios["p95"]["ratio"], LARGEST_RATIO),
        ("p99 with learning over without", ratios["p99"]["ratio"], LARGEST_RATIO),
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
        "rate": plan.rate,
        "blocks": [block.to_dict() for block in [*found, swapped]],
        "ratios": ratios,
        "swaps": swaps_of(swapped),
        "identical": identical(plan, deployment, swapped, snapshots[0], announcer.maps),
    }
    results["goals"] = goals(results)
    return results, found


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
            # A step of depth takes most of a window on one core; learning may not take more.
            learner={"threads": 1, "latency_budget_ms": HOP_S * 1e3},
        )
        results, blocks = measure(deployment, plan, arguments.blocks, cores, scratch)
    print("\n| goal | value | bound | met |\n|---|---|---|---|")
    for one in results["goals"]:
        print(f"| {one['goal']} | {one['value']:g} | {one['bound']:g} | {one['met']} |")
    if not arguments.no_record:
        plot(blocks, RESULTS / "undisturbed.png")
        print(f"-> {record('undisturbed', results)}")
    return 0 if all(one["met"] for one in results["goals"]) else 1


def _cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    raise SystemExit(main())
