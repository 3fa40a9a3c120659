"""Tables and pictures of the adaptation benchmark, from its results alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.adaptation_verdicts import live_at
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.representation.render import Picture

ERRORS = {"aligned_abs_rel": "aligned", "metric_abs_rel": "in metres"}
_STEP_S = 5.0


def markdown(results: Mapping[str, Any]) -> str:
    """Return the tables for people."""
    lengths, kinds = results["lengths"], ", ".join(results["student"]["kinds"])
    lines = [
        "# Online adaptation",
        "",
        (
            f"Student: {kinds} (A). Drive of {lengths['drive_s']:g} s "
            f"in B, {results['steps_per_s']:g} steps per simulated second, then "
            f"{lengths['return_s']:g} s of A."
        ),
        "",
        *_claims(results),
        *_seeds(results),
        *_safety(results),
        *_controls(results),
    ]
    return "\n".join(lines) + "\n"


def shift_plot(results: Mapping[str, Any]) -> Picture:
    """Draw errors elsewhere and on known places over simulated seconds, mean over the seeds."""
    seeds = [facts for facts in results["seeds"] if "numbers" in facts]
    lengths = results["lengths"]
    end_s = lengths["drive_s"] + lengths["return_s"]
    seconds = np.arange(0.0, end_s + _STEP_S / 2, _STEP_S).tolist()
    plots = []
    for part, title, metric, label in (
        ("elsewhere", "other places of B", "aligned_abs_rel", "Abs Rel, aligned"),
        ("elsewhere", "other places of B", "metric_abs_rel", "Abs Rel, in metres"),
        ("elsewhere", "other places of B", "aligned_delta_1", "delta 1, aligned"),
        ("known", "other places of A", "aligned_abs_rel", "Abs Rel, aligned"),
    ):
        series: dict[str, tuple[list[float], list[float]]] = {}
        if seeds:
            online = [[_at(facts, second, part, metric) for second in seconds] for facts in seeds]
            frozen = [_at(facts, 0.0, part, metric) for facts in seeds]
            bound = [_number(facts["offline"][part][metric]) for facts in seeds]
            series["online"] = (seconds, np.mean(online, axis=0).tolist())
            series["frozen"] = ([0.0, end_s], [fmean(frozen)] * 2)
            series["offline distillation"] = ([0.0, end_s], [fmean(bound)] * 2)
        axes = Axes(
            f"{title}, mean of {len(seeds)} seeds; A again from {lengths['drive_s']:g} s",
            "simulated s",
            label,
        )
        plots.append(line_plot(series, axes))
    return np.concatenate(plots)


def safety_plot(results: Mapping[str, Any]) -> Picture:
    """Draw the aligned error elsewhere of what depth had, over time, a line for each fault."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    begin_s = end_s = 0.0
    for facts in results["safety"]:
        begin_s, end_s = facts["begin_s"], facts["end_s"]
        seconds = np.arange(0.0, 2 * end_s + _STEP_S / 2, _STEP_S).tolist()
        errors = {int(version): error for version, error in facts["errors"].items()}
        timeline = [(at_s, version) for at_s, version in facts["timeline"]]
        series[facts["fault"]] = (seconds, [errors[live_at(timeline, s)] for s in seconds])
    title = f"other places of B; faults go on from {begin_s:g} to {end_s:g} s"
    return line_plot(series, Axes(title, "simulated s", "Abs Rel, aligned"))


def _claims(results: Mapping[str, Any]) -> list[str]:
    lines = ["| claim | errors | value | limit | met |", "|---|---|---|---|---|"]
    for error, claims in results["claims"].items():
        lines += [
            f"| {claim['claim']} | {ERRORS[error]} | {_figure(claim['value'])} "
            f"| {claim['limit']:g} | {'yes' if claim['met'] else '**no**'} |"
            for claim in claims
        ]
    refused = results["refused_seeds"]
    if refused:
        lines += ["", f"Seeds without anything to gain: {', '.join(map(str, refused))}."]
    return [*lines, ""]


def _seeds(results: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Domain shift",
        "",
        (
            "| seed | B | errors | teacher | frozen | online | offline | gain | half of it after "
            "| worst excess | A: worst, after B, after A | versions | minutes online, offline |"
        ),
        "|---" * 13 + "|",
    ]
    for facts in results["seeds"]:
        for error, words in ERRORS.items():
            teacher = facts["shift"]["teacher"]["elsewhere"][error]
            begin = f"| {facts['seed']} | {facts['kind']} | {words} | {_figure(teacher)} "
            if "numbers" not in facts:
                student = facts["shift"]["student"]["elsewhere"][error]
                lines.append(f"{begin}| {_figure(student)} " + "| refused " + "| " * 8 + "|")
                continue
            found = facts["numbers"][error]
            half = found["half_gain_s"]
            lines.append(
                f"{begin}| {_figure(found['frozen'])} | {_figure(found['adapted'])} "
                f"| {_figure(found['bound'])} | {_figure(found['gain_share'])} "
                f"| {'never' if half is None else f'{half:.0f} s'} "
                f"| {_percent(found['worst_excess'])} | {_percent(found['forgetting'])}, "
                f"{_percent(found['known_after_b'])}, {_percent(found['known_after_a'])} "
                f"| {facts['versions']} "
                f"| {facts['wall_s'] / 60:.1f}, {facts['offline']['minutes']:.1f} |"
            )
    return [*lines, ""]


def _safety(results: Mapping[str, Any]) -> list[str]:
    if not results["safety"]:
        return []
    lines = [
        "## Faults",
        "",
        (
            "| fault | published before, during, after | taken back | worst excess, aligned, in "
            "metres | recovered after | commonest refusals | harmless |"
        ),
        "|---" * 7 + "|",
    ]
    for facts in results["safety"]:
        published, worst = facts["published"], facts["worst_excess"]
        refused = sorted(facts["refused"].items(), key=lambda item: -item[1])[:3]
        recovered = facts["recovered_s"]
        lines.append(
            f"| {facts['fault']} | {published['before']}, {published['during']}, "
            f"{published['after']} | {facts['rolled_back']} "
            f"| {_percent(worst['aligned_abs_rel'])}, {_percent(worst['metric_abs_rel'])} "
            f"| {'never' if recovered is None else f'{recovered:.1f} s'} "
            f"| {', '.join(f'{name} {count}' for name, count in refused)} "
            f"| {'yes' if facts['harmless'] else '**no**'} |"
        )
    return [*lines, ""]


def _controls(results: Mapping[str, Any]) -> list[str]:
    controls = results["controls"]
    if controls is None:
        return []
    lines = [
        "## Weights that are worse on purpose",
        "",
        (
            f"{controls['submitted']} candidates that true depth elsewhere shows to be worse were "
            f"submitted to a guard with {controls['heldout_blocks']} held-out blocks and "
            f"{controls['anchors']} anchors; {controls['accepted']} were accepted."
        ),
        "",
        "| kind | size | submitted | accepted | reasons |",
        "|---|---|---|---|---|",
    ]
    for row in controls["rows"]:
        reasons = ", ".join(f"{name} {count}" for name, count in row["reasons"].items())
        lines.append(
            f"| {row['kind']} | {row['size']:g} | {row['submitted']} | {row['accepted']} "
            f"| {reasons or '-'} |"
        )
    return [*lines, ""]


def _at(facts: Mapping[str, Any], second: float, part: str, name: str) -> float:
    timeline: Sequence[tuple[float, int]] = facts["timeline"]
    return _number(facts["scores"][str(live_at(timeline, second))][part][name])


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _figure(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:+.1f} %"
