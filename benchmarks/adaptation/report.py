"""Tables and pictures of the adaptation benchmark, from its results alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.adaptation.verdicts import (
    FEWEST_SEEDS,
    LARGEST_EXCESS,
    LARGEST_FORGETTING,
    live_at,
)
from benchmarks.adaptation.wall import wall_table
from benchmarks.adaptation.way import way_table
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.representation.render import Picture

ERRORS = {"aligned_abs_rel": "aligned", "metric_abs_rel": "in metres"}
_STEP_S = 5.0
_FAULT = ("begin_s", "end_s")


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
        *wall_table(results),
        *way_table(results),
        *_safety(results),
        *_controls(results),
        *_made(results),
    ]
    return "\n".join(lines) + "\n"


def shift_plot(results: Mapping[str, Any]) -> Picture:
    """Draw errors elsewhere over simulated seconds, a mean over seeds, and each seed's in A."""
    seeds = [facts for facts in results["seeds"] if "numbers" in facts]
    lengths = results["lengths"]
    end_s = lengths["drive_s"] + lengths["return_s"]
    seconds = np.arange(0.0, end_s + _STEP_S / 2, _STEP_S).tolist()
    plots = []
    for title, metric, label in (
        ("aligned", "aligned_abs_rel", "Abs Rel"),
        ("in metres", "metric_abs_rel", "Abs Rel"),
        ("aligned", "aligned_delta_1", "delta 1"),
    ):
        series: dict[str, tuple[list[float], list[float]]] = {}
        if seeds:
            online = [
                [_at(facts, second, "elsewhere", metric) for second in seconds] for facts in seeds
            ]
            frozen = [_at(facts, 0.0, "elsewhere", metric) for facts in seeds]
            bound = [_number(facts["offline"]["elsewhere"][metric]) for facts in seeds]
            series["frozen"] = ([0.0, end_s], [fmean(frozen)] * 2)
            series["offline distillation"] = ([0.0, end_s], [fmean(bound)] * 2)
            # Last, so that it is seen where it lies on another.
            series["online"] = (seconds, np.mean(online, axis=0).tolist())
        axes = Axes(
            f"other places of B, {title}, mean of {len(seeds)} seeds; "
            f"A again from {lengths['drive_s']:g} s",
            "simulated s",
            label,
        )
        plots.append(line_plot(series, axes))
    # In percent, without offline distillation: beside what that forgets nothing else can be seen.
    for title, metric in (("aligned", "aligned_abs_rel"), ("in metres", "metric_abs_rel")):
        series = {}
        for facts in seeds:
            frozen_error = _at(facts, 0.0, "known", metric)
            excess = [
                100.0 * (_at(facts, second, "known", metric) / frozen_error - 1.0)
                for second in seconds
            ]
            series[f"seed {facts['seed']}, {facts['kind']}"] = (seconds, excess)
        if seeds:
            series["limit"] = ([0.0, end_s], [100.0 * LARGEST_FORGETTING] * 2)
        axes = Axes(
            f"other places of A, {title}, Abs Rel above frozen's; A again from "
            f"{lengths['drive_s']:g} s",
            "simulated s",
            "%",
        )
        plots.append(line_plot(series, axes))
    return np.concatenate(plots)


def safety_plot(results: Mapping[str, Any]) -> Picture:
    """Draw the range of what depth had elsewhere under all faults, above frozen's, over time."""
    plots = []
    for kind, words in (("late", "a version is learned"), ("early", "from the beginning")):
        cases = [facts for facts in results["safety"] if facts["kind"] == kind]
        begin_s, end_s = (max((facts[at] for facts in cases), default=0.0) for at in _FAULT)
        title = f"other places of B, aligned, Abs Rel above frozen's; {words}; faults from "
        axes = Axes(f"{title}{begin_s:.0f} to {end_s:.0f} s", "simulated s", "%")
        plots.append(line_plot(safety_lines(cases), axes))
    return np.concatenate(plots)


def safety_lines(cases: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Return, over seconds, how much worse than frozen depth was, in percent.

    Args:
        cases: of one kind.

    Returns:
        `no fault` where it was driven, the `worst` and the `best` of all faults at each time, and
        the `limit`: name -> (seconds, percent).
    """
    end_s = min((facts["seconds"] for facts in cases), default=0.0)
    # A second: versions that were in use for a short time are seen.
    seconds = np.arange(0.0, end_s, 1.0).tolist()
    found = {}
    for facts in cases:
        errors = {int(version): _number(error) for version, error in facts["errors"].items()}
        # The original is the first version of all.
        frozen = errors[min(errors)]
        timeline = [(at_s, version) for at_s, version in facts["timeline"]]
        found[facts["fault"]] = [
            100.0 * (errors[live_at(timeline, second)] / frozen - 1.0) for second in seconds
        ]
    lines = {"no fault": found.pop("none")} if "none" in found else {}
    if found:
        lines[f"worst of {len(found)} faults"] = np.max(list(found.values()), axis=0).tolist()
        lines[f"best of {len(found)} faults"] = np.min(list(found.values()), axis=0).tolist()
    lines["limit"] = [100.0 * LARGEST_EXCESS] * len(seconds)
    return {name: (seconds, values) for name, values in lines.items()}


def _claims(results: Mapping[str, Any]) -> list[str]:
    lines = ["| claim | errors | value | limit | met |", "|---|---|---|---|---|"]
    done = sum("numbers" in facts for facts in results["seeds"])
    wanted = max(len(results["declared_seeds"]), FEWEST_SEEDS)
    words_of = {
        (True, True): "yes",
        (True, False): "**no**",
        (False, False): f"not yet: {done} of {wanted} seeds",
    }
    for error, claims in results["claims"].items():
        lines += [
            f"| {claim['claim']} | {ERRORS[error]} | {_figure(claim['value'])} "
            f"| {claim['limit']:g} | {words_of[claim['complete'], claim['met']]} |"
            for claim in claims
        ]
    found = {facts["seed"]: facts for facts in results["seeds"]}
    for seed in results["declared_seeds"]:
        if seed not in found:
            lines += ["", f"Seed {seed} is not done."]
        elif seed in results["refused_seeds"]:
            lead = found[seed]["shift"]["lead"]
            words = ", ".join(f"{_percent(lead[error])} {name}" for error, name in ERRORS.items())
            why = f"the teacher has too little to teach there (its lead is {words})"
            lines += ["", f"Seed {seed} was refused: {why}."]
    return [*lines, ""]


def _seeds(results: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Domain shift",
        "",
        (
            "| seed | B | errors | teacher | frozen | online | offline | gain | half of it after "
            "| worst excess | A: worst ever, after B, after A | A's worst place, after B "
            "| versions | minutes online, offline |"
        ),
        "|---" * 14 + "|",
    ]
    for facts in results["seeds"]:
        for error, words in ERRORS.items():
            teacher = facts["shift"]["teacher"]["elsewhere"][error]
            begin = f"| {facts['seed']} | {facts['kind']} | {words} | {_figure(teacher)} "
            if "numbers" not in facts:
                student = facts["shift"]["student"]["elsewhere"][error]
                lines.append(f"{begin}| {_figure(student)} " + "| refused " + "| " * 9 + "|")
                continue
            found = facts["numbers"][error]
            half = found["half_gain_s"]
            lines.append(
                f"{begin}| {_figure(found['frozen'])} | {_figure(found['adapted'])} "
                f"| {_figure(found['bound'])} | {_figure(found['gain_share'])} "
                f"| {'never' if half is None else f'{half:.0f} s'} "
                f"| {_percent(found['worst_excess'])} | {_percent(found['known_worst'])}, "
                f"{_percent(found['known_after_b'])}, {_percent(found['known_after_a'])} "
                f"| {_percent(found['worst_place_excess'])} ({found['worst_place']}) "
                f"| {facts['versions']} "
                f"| {facts['wall_s'] / 60:.1f}, {facts['offline']['minutes']:.1f} |"
            )
    return [*lines, ""]


def _safety(results: Mapping[str, Any]) -> list[str]:
    if not results["safety"]:
        return [
            line
            for run in results["healthy"]
            if run["published_s"] is None
            for line in (
                "## Faults",
                "",
                f"Nothing was published in {run['seconds']:.0f} s without a fault: none was made.",
                "",
            )
        ]
    said = results["safety_verdict"]
    lines = [
        "## Faults",
        "",
        (
            f"{said['proven']} of {said['faults']} faults did no harm although candidates were "
            f"proposed while they went on. Nothing was proposed during: "
            f"{', '.join(said['nothing_proposed']) or 'none'}. Harmful: "
            f"{', '.join(said['harmful']) or 'none'}. Not done: "
            f"{', '.join(said['missing']) or 'none'}."
        ),
        "",
        (
            "| fault | labels believed, refused | candidates proposed, accepted | the guard's "
            "reasons | published before, during, after | refused or taken back by depth | worst "
            "over frozen, aligned, in metres | over what depth had | recovered after | commonest "
            "refusals | harmless |"
        ),
        "|---" * 11 + "|",
    ]
    for facts in results["safety"]:
        published = facts["published"]
        refused = sorted(facts["refused"].items(), key=lambda item: -item[1])[:3]
        labels = sum(n for name, n in facts["refused"].items() if name.startswith("label."))
        recovered = facts["recovered_s"]
        harmless = "**no**" if not facts["harmless"] else "yes"
        if facts["harmless"] and not facts["proves"]:
            harmless = "nothing proposed"
        lines.append(
            f"| {facts['kind']}: {facts['fault']} | {facts['labels']}, {labels} "
            f"| {facts['proposed']}, {facts['accepted']} | {_counts(facts['verdicts'])} "
            f"| {published['before']}, {published['during']}, {published['after']} "
            f"| {facts['rolled_back']} | {_both(facts['worst_excess'])} "
            f"| {_both(facts['worst_step'])} "
            f"| {'never' if recovered is None else f'{recovered:.1f} s'} "
            f"| {_counts(dict(refused))} | {harmless} |"
        )
    return [*lines, ""]


def _controls(results: Mapping[str, Any]) -> list[str]:
    if not results["controls"]:
        return []
    (controls,) = results["controls"]
    lines = [
        "## Weights that are worse on purpose",
        "",
        (
            f"{controls['submitted']} candidates that true depth elsewhere shows to be worse were "
            f"submitted to a guard with {controls['heldout_blocks']} held-out blocks and "
            f"{controls['anchors']} anchors; {controls['accepted']} were accepted, "
            f"{controls['unjudged']} were not even judged for want of evidence."
        ),
        "",
        "| kind | size | submitted | accepted | reasons |",
        "|---|---|---|---|---|",
    ]
    for row in controls["rows"]:
        lines.append(
            f"| {row['kind']} | {row['size']:g} | {row['submitted']} | {row['accepted']} "
            f"| {_counts(row['reasons'])} |"
        )
    return [*lines, ""]


def _made(results: Mapping[str, Any]) -> list[str]:
    """Return what was measured where: a benchmark of hours may be joined from several days."""
    lines = [
        "## Made",
        "",
        "| what | date | commit | processor, usable cores |",
        "|---|---|---|---|",
    ]
    named = [
        *((f"seed {facts['seed']}", facts) for facts in results["seeds"]),
        *((f"way of seed {facts['seed']}", facts) for facts in results["way"]),
        *((f"{facts['kind']}: {facts['fault']}", facts) for facts in results["safety"]),
        *(("weights that are worse on purpose", facts) for facts in results["controls"]),
    ]
    for name, facts in named:
        made = facts["made"]
        changed = " with changes" if made["uncommitted_changes"] else ""
        cpu = made["machine"]["cpu"]
        lines.append(
            f"| {name} | {made['date']} | {made['commit'][:7]}{changed} "
            f"| {cpu['model']}, {cpu['usable_cores']} |"
        )
    return [*lines, ""] if named else []


def _at(facts: Mapping[str, Any], second: float, part: str, name: str) -> float:
    timeline: Sequence[tuple[float, int]] = facts["timeline"]
    return _number(facts["scores"][str(live_at(timeline, second))][part][name])


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "-"


def _both(values: Mapping[str, float | None]) -> str:
    return ", ".join(_percent(values[error]) for error in ERRORS)


def _figure(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:+.1f} %"
