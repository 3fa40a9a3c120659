"""Safety of online adaptation: faults that end half-way, and candidates worse on purpose."""

from __future__ import annotations

import json
import math
import tempfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.adaptation_faults import Clock, Fault
from benchmarks.adaptation_runs import (
    ELSEWHERE,
    PARTS,
    Setting,
    forget_clips,
    run_online,
    score_file,
    score_versions,
)
from benchmarks.adaptation_verdicts import (
    LARGEST_EXCESS,
    excess,
    recovery_s,
    timeline_of,
    worst_excess,
)
from benchmarks.adaptation_worlds import CLIPS
from dae_ros.distillation.clip_store import ClipStore, open_clip_store
from dae_ros.distillation.clip_writer import write_durably
from dae_ros.distillation.online.anchors import anchors_of_store
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.guard import Guard
from dae_ros.distillation.online.loop import LEARNER, SNAPSHOTS
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.persistence import OnlineStore
from dae_ros.distillation.online.replay import HeldoutBlock, ReplayBuffer
from dae_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dae_ros.parameters.distillation import OnlineParameters

NONE, CONTROL_FILE = "none", "controls.json"
# A fault begins when a drive is this part over, and ends half-way.
BEGINS, ENDS = 0.1, 0.5
# What is submitted to the guard, and how far it goes: parts of each weight's own size for noise, a
# factor of depth, or the part of the way to weights that know nothing.
WORSE = {
    "noise": (0.03, 0.1, 0.3),
    "scaled": (0.85, 1.2, 2.0),
    "unlearned": (0.05, 0.2, 0.6),
    "backwards": (0.5, 1.0, 2.0),
}
_OUTPUT = "depth_head.scratch.output_conv2."
# Windows of each place elsewhere by which a candidate is shown to be worse.
SHOWN_WINDOWS = 60
# Refusals that say how often something was refused before it was learned from.
_GATES = ("frame.", "label.")


def run_fault(
    setting: Setting, worlds: Path, folder: Path, seed: int, name: str, drive_s: float
) -> dict[str, Any]:
    """Learn online while something goes wrong, and score everything that depth had.

    Args:
        setting: what all runs share.
        worlds: of the seed.
        folder: of all faults; the run's own is below it.
        seed: of the benchmark.
        name: of the fault; `none` for none, whose clips stay for `run_controls`.
        drive_s: how long to drive.

    Returns:
        What is claimed of the fault, see `summary`.
    """
    fault = Fault(name, BEGINS * drive_s, ENDS * drive_s, Clock(), seed)
    run = run_online(setting, worlds, folder / name, seed, fault, drive_s=drive_s, comes_back=False)
    if name != NONE:
        forget_clips(folder / name)
    timeline = timeline_of(run["original"], run["swaps"])
    store = open_clip_store(worlds / CLIPS)
    scores = score_versions(folder / name, [version for _, version in timeline], store, PARTS)
    return summary(name, run, scores, fault.begin_s, fault.end_s)


def summary(
    name: str,
    run: Mapping[str, Any],
    scores: Mapping[int, Mapping[str, Mapping[str, float | None]]],
    begin_s: float,
    end_s: float,
) -> dict[str, Any]:
    """Return what a run with a fault shows.

    Returns:
        `published`: versions before the fault, during it and after it. `worst_excess`: name of an
        error -> the largest excess over the frozen weights elsewhere, at any time from the fault's
        begin on. `recovered_s`: from its end to a label and a step. `refused`: stage and reason ->
        how often. `held`: state -> share of the fault's time. `harmless`: no excess above the
        limit, and it recovered.
    """
    timeline = timeline_of(run["original"], run["swaps"])
    errors = {
        error: {v: _known(found[ELSEWHERE][error]) for v, found in scores.items()}
        for error in ("aligned_abs_rel", "metric_abs_rel")
    }
    worst = {
        error: worst_excess(timeline, values, values[run["original"]], begin_s)
        for error, values in errors.items()
    }
    recovered = recovery_s(run["samples"], end_s)
    times = [v["at_s"] for v in run["versions"] if v["why"] == "published"]
    during = [s["state"] for s in run["samples"] if begin_s <= s["at_s"] < end_s]
    harmless = all(value <= LARGEST_EXCESS for value in worst.values()) and recovered is not None
    return {
        "fault": name,
        "begin_s": begin_s,
        "end_s": end_s,
        "published": {
            "before": sum(t < begin_s for t in times),
            "during": sum(begin_s <= t < end_s for t in times),
            "after": sum(t >= end_s for t in times),
        },
        "rolled_back": sum(swap["outcome"] == "rolled_back" for swap in run["swaps"]),
        "worst_excess": {error: round(value, 4) for error, value in worst.items()},
        "recovered_s": None if recovered is None else round(recovered, 1),
        "refused": {
            reason: count
            for reason, count in run["status"]["counts"].items()
            if count and reason.startswith(_GATES) and not reason.endswith(".accepted")
        },
        "held": {state: round(n / len(during), 3) for state, n in Counter(during).items()},
        "timeline": [[at_s, version] for at_s, version in timeline],
        "errors": errors["aligned_abs_rel"],
        "harmless": harmless,
    }


def run_controls(
    setting: Setting, worlds: Path, folder: Path, seed: int, rounds: int
) -> dict[str, Any]:
    """Submit weights that are worse on purpose to the guard of the run without a fault.

    The guard judges by the held-out clips that the run has left and the anchors, as it would have
    judged the run's next candidate. What true depth elsewhere does not show to be worse by more
    than `LARGEST_EXCESS` in either error is counted apart: it is no negative control.

    Args:
        setting: what all runs share.
        worlds: of the seed.
        folder: of all faults.
        seed: of the benchmark.
        rounds: how often each kind and size is drawn.

    Returns:
        `submitted` (shown to be worse), `accepted` of these, `not_worse`, and of each kind and
        size the reasons of its refusals.
    """
    kept = folder / CONTROL_FILE
    if kept.exists():
        done: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return done
    parameters = setting.parameters(seed)
    loaded = load_checkpoint(setting.student)
    blocks, measured = _judged_by(setting, folder / NONE, parameters)
    original = ClipNetwork(loaded.network.eval().requires_grad_(False), loaded.meaning)
    newest = sorted((folder / NONE / SNAPSHOTS).glob("w_*.safetensors"))[-1]
    published = original.with_weights(load_checkpoint(newest).network.state_dict())
    guard = Guard(original, parameters, metric=loaded.meaning.scale == "metric")
    store = open_clip_store(worlds / CLIPS)
    usual = _true_errors(published, store)
    rows = []
    for kind, sizes in WORSE.items():
        for size in sizes:
            row: dict[str, Any] = {"kind": kind, "size": size, "submitted": 0, "accepted": 0}
            reasons: Counter[str] = Counter()
            # What nothing is drawn for is the same every time.
            for index in range(rounds if kind in ("noise", "unlearned") else 1):
                generator = torch.Generator().manual_seed(
                    zlib.crc32(f"{seed} {kind} {size} {index}".encode())
                )
                candidate = published.with_weights(
                    worse(kind, size, published, original, generator)
                )
                errors = _true_errors(candidate, store)
                if not any(
                    not excess(error, usual[name]) <= LARGEST_EXCESS
                    for name, error in errors.items()
                ):
                    continue
                verdict = guard.judge(candidate, published, blocks, measured)
                row["submitted"] += 1
                row["accepted"] += verdict.accepted
                reasons.update(verdict.reasons or ("accepted",))
            rows.append({**row, "reasons": dict(reasons)})
            print(f"control {rows[-1]}", flush=True)
    facts = {
        "submitted": sum(row["submitted"] for row in rows),
        "accepted": sum(row["accepted"] for row in rows),
        "heldout_blocks": len(blocks),
        "anchors": len(measured),
        "rows": rows,
    }
    write_durably(kept, json.dumps(facts, indent=1))
    return facts


def worse(
    kind: str,
    size: float,
    published: ClipNetwork,
    original: ClipNetwork,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return weights of which it is hoped that they are worse than the published ones.

    Args:
        kind: `noise` on every weight, in parts of its layer's deviation; `scaled`: depth times a
            factor; `unlearned`: part of the way to weights that were drawn anew; `backwards`: from
            the original by so many times the way to the published ones, but the other way.
        size: how far.
        published, original: where it begins.
        generator: of what is drawn.
    """
    own, first = published.network.state_dict(), original.network.state_dict()
    result = {}
    for name, weight in own.items():
        result[name] = weight.clone()
        if not weight.is_floating_point():
            continue
        deviation = weight.std(correction=0) if weight.numel() > 1 else weight.abs().mean()
        drawn = torch.randn(weight.shape, generator=generator) * deviation
        if kind == "noise":
            result[name] = weight + size * drawn
        elif kind == "unlearned":
            result[name] = torch.lerp(weight, drawn, size)
        elif kind == "backwards":
            result[name] = first[name] - size * (weight - first[name])
    if kind == "scaled":
        # The networks that learn online here give exp(x).
        biases = [name for name in own if name.startswith(_OUTPUT) and name.endswith(".bias")]
        last = sorted(biases)[-1]
        result[last] = own[last] + math.log(size)
    return result


def _known(value: float | None) -> float:
    return float("nan") if value is None else value


def _judged_by(
    setting: Setting, run: Path, parameters: OnlineParameters
) -> tuple[tuple[HeldoutBlock, ...], tuple[LabelledClip, ...]]:
    """Return the held-out blocks and the anchors that a finished run has left on disk."""
    replay = ReplayBuffer(parameters)
    store = open_clip_store(setting.anchors)
    anchors = anchors_of_store(store, store.event_encoder, parameters)
    with OnlineStore(run / LEARNER) as learner:
        state = learner.load()
        if state is None:
            raise RuntimeError(f"{run} has no clips any more; remove it and run again")
        replay.restore(state["intake"]["replay"], learner.clips("clip"))
        anchors.restore(state["intake"]["anchors"], learner.clips("anchor"))
    return replay.heldout(), anchors.measured


def _true_errors(network: ClipNetwork, store: ClipStore) -> dict[str, float]:
    """Return name -> error elsewhere, over the first windows; NaN where the output is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.safetensors"
        save_checkpoint(path, network.network, network.meaning)
        scores = score_file(path, store, (ELSEWHERE,), windows=SHOWN_WINDOWS)[ELSEWHERE]
    return {name: _known(scores[name]) for name in ("aligned_abs_rel", "metric_abs_rel")}
