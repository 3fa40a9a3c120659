"""Weights that are worse on purpose, submitted to the guard: negative controls."""

from __future__ import annotations

import math
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.adaptation.cache import digest_of
from benchmarks.adaptation.finished import write_finished
from benchmarks.adaptation.runs import Setting, read_json
from benchmarks.adaptation.scores import ELSEWHERE, ERRORS, score_file
from benchmarks.adaptation.verdicts import LARGEST_EXCESS, excess
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.online.anchors import anchors_of_store
from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.guard import Guard
from dae_ros.distillation.online.loop import LEARNER, SNAPSHOTS
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.persistence import OnlineStore
from dae_ros.distillation.online.replay import HeldoutBlock, ReplayBuffer
from dae_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dae_ros.parameters.distillation import OnlineParameters

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


def run_controls(
    setting: Setting, worlds: Path, run: Path, seed: int, rounds: int
) -> dict[str, Any]:
    """Submit weights that are worse on purpose to the guard of the run without a fault.

    The guard judges by the held-out clips that the run has left and the anchors, as it would have
    judged the run's next candidate. What true depth elsewhere does not show to be worse by more
    than `LARGEST_EXCESS` in either error is counted apart: it is no negative control.

    Args:
        setting: what all runs share.
        worlds: of the seed.
        run: folder of the run without a fault; results are kept there.
        seed: of the benchmark.
        rounds: how often each kind and size is drawn.

    Returns:
        `submitted` (shown to be worse), `accepted` of these, `unjudged` (refused for want of
        evidence alone, which shows nothing), and of each kind and size the reasons of its refusals.
    """
    kept = controls_file(run, rounds)
    if kept.exists():
        return read_json(kept)
    parameters = setting.parameters(seed)
    loaded = load_checkpoint(setting.student)
    blocks, measured = _judged_by(setting, run, parameters)
    original = ClipNetwork(loaded.network.eval().requires_grad_(False), loaded.meaning)
    newest = sorted((run / SNAPSHOTS).glob("w_*.safetensors"))[-1]
    published = original.with_weights(load_checkpoint(newest).network.state_dict())
    guard = Guard(original, parameters, metric=loaded.meaning.scale == "metric")
    usual = _true_errors(published, worlds)
    rows, unjudged = [], 0
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
                errors = _true_errors(candidate, worlds)
                if not any(
                    not excess(error, usual[name]) <= LARGEST_EXCESS
                    for name, error in errors.items()
                ):
                    continue
                verdict = guard.judge(candidate, published, blocks, measured)
                row["submitted"] += 1
                row["accepted"] += verdict.accepted
                unjudged += verdict.reasons == ("not_enough_evidence",)
                reasons.update(verdict.reasons or ("accepted",))
            rows.append({**row, "reasons": dict(reasons)})
            print(f"control {rows[-1]}", flush=True)
    facts = {
        "submitted": sum(row["submitted"] for row in rows),
        "accepted": sum(row["accepted"] for row in rows),
        "unjudged": unjudged,
        "heldout_blocks": len(blocks),
        "anchors": len(measured),
        "rows": rows,
    }
    write_finished(kept, facts)
    return facts


def controls_file(run: Path, rounds: int) -> Path:
    """Return where `run_controls` keeps its results."""
    asked = {"rounds": rounds, "worse": {kind: list(sizes) for kind, sizes in WORSE.items()}}
    return run / f"controls_{digest_of(asked)}.json"


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
    return replay.heldout(), anchors.measured()


def _true_errors(network: ClipNetwork, worlds: Path) -> dict[str, float]:
    """Return name -> error elsewhere, over the first windows; NaN where the output is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.safetensors"
        save_checkpoint(path, network.network, network.meaning)
        scores = score_file(path, worlds, (ELSEWHERE,), windows=SHOWN_WINDOWS)[ELSEWHERE]
    return {name: math.nan if (found := scores[name]) is None else found for name in ERRORS}
