"""What lies on the way from the original weights to what a drive has taught: why not all of it.

Part of bench_adaptation. The version that depth had at the end of a drive lies `candidate_part` of
the way to what was learned. Here that way is gone to its end and scored at some parts of it: the
gain elsewhere in B, and what becomes of the places of A.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch

from benchmarks.adaptation.finished import write_finished
from benchmarks.adaptation.jobs import Job
from benchmarks.adaptation.runs import quiet_threads, read_json
from benchmarks.adaptation.scores import (
    ELSEWHERE,
    ERRORS,
    KNOWN,
    PLACES,
    Scores,
    score_weights,
)
from benchmarks.adaptation.verdicts import live_at
from dae_ros.distillation.online.loop import SNAPSHOTS
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint
from dae_ros.model.networks import build_network
from dae_ros.representation.render import Picture

# Of the way to what was learned; 0 is the original.
WAY_PARTS = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)


def run_way(job: Job, seed: int) -> None:
    """Score the way of a seed that is finished, and keep it in `Job.way`.

    Does nothing where the seed was refused, or finished on another machine, which has its weights.
    """
    quiet_threads()
    kept, summary = job.way(seed), job.summary(seed)
    if kept.exists() or not summary.exists():
        return
    facts = read_json(summary)
    if "numbers" not in facts:
        return
    setting = job.setting
    version = live_at(facts["timeline"], setting.lengths.drive_s + setting.lengths.return_s)
    path = job.folder(seed) / "online" / SNAPSHOTS / f"w_{version:06d}.safetensors"
    if not path.exists():
        return
    original, published = load_checkpoint(setting.student), load_checkpoint(path)
    whole = 1.0 / setting.parameters(seed).candidate_part
    weights = [between(original, published, part * whole) for part in WAY_PARTS]
    found = score_weights(weights, job.worlds(seed))
    rows = [
        {"part": part, **{where: _against(found[0][where], scores[where]) for where in scores}}
        for part, scores in zip(WAY_PARTS, found, strict=True)
    ]
    candidate_part = setting.parameters(seed).candidate_part
    write_finished(
        kept, {"seed": seed, "version": version, "candidate_part": candidate_part, "rows": rows}
    )


def between(original: LoadedModel, other: LoadedModel, part: float) -> LoadedModel:
    """Return weights at a part of the way from the original (0) to others (1), or beyond them.

    Args:
        original, other: of one configuration.
        part: of the way.
    """
    begin, end = original.network.state_dict(), other.network.state_dict()
    mixed = dataclasses.replace(original, network=build_network(original.config))
    mixed.network.load_state_dict(
        {
            name: torch.lerp(value, end[name], part) if value.is_floating_point() else value
            for name, value in begin.items()
        }
    )
    mixed.network.eval()
    return mixed


def way_table(results: Mapping[str, Any]) -> list[str]:
    """Return the section of the report, nothing where no way was scored."""
    if not results["way"]:
        return []
    lines = [
        "## The way to what was learned",
        "",
        (
            "The weights of a version lie between the original ones and what was learned; 1 is all "
            "of the way. Errors beside the original's:"
        ),
        "",
        (
            "| seed | part | elsewhere in B, aligned | in metres | A, aligned | in metres "
            "| A's worst place, in metres |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for facts in results["way"]:
        for row in facts["rows"]:
            marked = "**" if row["part"] == facts["candidate_part"] else ""
            worst = row[KNOWN]["worst_place"]
            lines.append(
                f"| {facts['seed']} | {marked}{row['part']:g}{marked} | "
                + " | ".join(
                    f"{row[where][error]:+.1%}" for where in (ELSEWHERE, KNOWN) for error in ERRORS
                )
                + f" | {worst['excess']:+.1%} ({worst['place']}) |"
            )
    return [*lines, ""]


def way_plot(results: Mapping[str, Any]) -> Picture:
    """Draw errors beside the original's over the part of the way, means over the seeds."""
    plots = []
    for where, title in ((ELSEWHERE, "other places of B"), (KNOWN, "other places of A")):
        series = {
            words: (
                list(WAY_PARTS),
                [
                    fmean(facts["rows"][index][where][error] for facts in results["way"])
                    for index in range(len(WAY_PARTS))
                ],
            )
            for error, words in zip(ERRORS, ("aligned", "in metres"), strict=True)
        }
        axes = Axes(
            f"{title}: Abs Rel against the original's, mean of {len(results['way'])} seeds",
            "part of the way to what was learned",
            "excess",
        )
        plots.append(line_plot(series, axes))
    return np.concatenate(plots)


def _against(original: Scores, scores: Scores) -> dict[str, Any]:
    """Return by how much errors are above the original's, and of the place that lost most."""
    found: dict[str, Any] = {error: scores[error] / original[error] - 1.0 for error in ERRORS}
    error = ERRORS[1]
    places: Sequence[tuple[float, str]] = sorted(
        (own[error] / original[PLACES][place][error] - 1.0, place)
        for place, own in scores[PLACES].items()
    )
    excess, place = places[-1]
    return {**found, "worst_place": {"excess": excess, "place": place}}
