"""Blocks of `bench_undisturbed`: one replay of the same recording, and what was seen of it."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.live.online_stand import DEPTH, LEARNER, Image, Said, Stand
from benchmarks.process_use import cpu_s
from dae_ros.nodes.processes import Process
from dae_ros.parameters import Value

HOP_NS = 50_000_000
HOP_S = HOP_NS / 1e9
# The first windows find cold caches and, in the swapped block, no version to come from.
SETTLE_WINDOWS = 100
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
START_TIMEOUT_S = 300.0
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
    replay, settled_s, busy_s = stand.harness[REPLAY], 0.0, 0.0
    while replay.exit_code is None:
        if not settled_s and len(witness.images) > begin[0] + SETTLE_WINDOWS:
            settled_s = time.monotonic()
            busy_s = cpu_s(stand.harness[LEARNER].pid) if kind == "on" else 0.0
        if settled_s and during is not None:
            during(time.monotonic() - settled_s)
        time.sleep(0.01)
    elapsed_s = time.monotonic() - settled_s
    busy_s = cpu_s(stand.harness[LEARNER].pid) - busy_s if kind == "on" else 0.0
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
        busy_s / elapsed_s,
    )


def paired(off: Block, on: Block) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the latencies of the windows that both blocks have, in order."""
    without, with_learner = off.latency, on.latency
    ends = sorted(without.keys() & with_learner.keys())
    return (
        np.array([without[end] for end in ends]),
        np.array([with_learner[end] for end in ends]),
    )
