"""Gain against wall-clock time: learner and depth on a core each, from what the runs have cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.adaptation.cost import on_own_core
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.parameters.distillation import OnlineParameters
from dae_ros.representation.render import Picture

# A learner that takes all of its core, and one that rests as the node's does by default.
DUTIES = {"a whole core": 1.0, "the default duty": OnlineParameters().duty}
_ERROR = "aligned_abs_rel"


def wall_table(results: Mapping[str, Any]) -> list[str]:
    """Return what each measured seed cost and when it had gained how much."""
    seeds = [facts for facts in results["seeds"] if "numbers" in facts]
    if not seeds:
        return []
    lines = [
        "## Wall-clock time on two cores",
        "",
        (
            "Core seconds of each run, one thread. The learner has a core of its own and does what "
            "it did in the run, in order, as soon as it has seen it and the work before is done; "
            "depth has the other core. Half of the gain (aligned) was there after:"
        ),
        "",
        (
            "| seed | depth, ms a window | learned, judged, labelled, clips, s | simulated | "
            + " | ".join(f"on {words} ({duty:g})" for words, duty in DUTIES.items())
            + " | end of the drive on a whole core |"
        ),
        "|---" * (5 + len(DUTIES)) + "|",
    ]
    for facts in seeds:
        cost, half = facts["cost"], facts["numbers"][_ERROR]["half_gain_s"]
        spent = ", ".join(
            f"{cost.get(name, 0.0):.0f}" for name in ("learned", "judged", "labelled", "clips")
        )
        # With reading, and scoring on the way: depth alone takes less.
        depth_ms = 1e3 * facts["depth_s"] / facts["windows"]
        walls = [
            "never" if half is None else _minutes(on_own_core(facts["work"], duty)(half))
            for duty in DUTIES.values()
        ]
        end = on_own_core(facts["work"])(results["lengths"]["drive_s"])
        lines.append(
            f"| {facts['seed']} | {depth_ms:.1f} | {spent} "
            f"| {'never' if half is None else _minutes(half)} | {' | '.join(walls)} "
            f"| {_minutes(end)} |"
        )
    return [*lines, ""]


def wall_plot(results: Mapping[str, Any]) -> Picture:
    """Draw the error elsewhere over that of frozen weights, against minutes on a whole core."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for facts in results["seeds"]:
        if "numbers" not in facts:
            continue
        end_of = on_own_core(facts["work"])
        frozen = facts["scores"][str(facts["timeline"][0][1])]["elsewhere"][_ERROR]
        minutes, errors = [0.0], [1.0]
        drive_s = results["lengths"]["drive_s"]
        for at_s, version in facts["timeline"][1:]:
            if at_s > drive_s:
                continue
            error = facts["scores"][str(version)]["elsewhere"][_ERROR]
            # A version is there from one instant on: a step, not a slope.
            minutes += [end_of(at_s) / 60.0] * 2
            errors += [errors[-1], error / frozen]
        minutes.append(end_of(drive_s) / 60.0)
        errors.append(errors[-1])
        series[f"seed {facts['seed']}, {facts['kind']}"] = (minutes, errors)
    title = "other places of B, aligned Abs Rel over frozen's: learner and depth on a core each"
    return line_plot(series, Axes(title, "minutes of wall clock", "ratio"))


def _minutes(seconds: float) -> str:
    return f"{seconds / 60.0:.1f} min"
