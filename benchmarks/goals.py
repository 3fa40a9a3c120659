"""Goals of benchmarks: what was measured beside its bound, and how that is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Goal = dict[str, Any]


def conclude(results: dict[str, Any], goals: list[Goal], load_at_start: float) -> None:
    """Print what was reached and what was not, and put it into the results.

    Args:
        results: of the benchmark; gets `goals` and `load_1_minute_at_start`.
        goals: compared with them.
        load_at_start: of the machine, before the benchmark's own.
    """
    results["goals"], results["load_1_minute_at_start"] = goals, round(load_at_start, 2)
    print("\n" + "\n".join(goal_lines(goals)))
    if load_at_start > 1.0:
        print(
            f"\n**The load was {load_at_start:.1f} at the start: something else ran, and times are "
            "too long.** Ratios suffer less; measure again on a quiet machine."
        )


def goal_lines(goals: Iterable[Goal]) -> list[str]:
    """Return goals as a table in Markdown."""
    lines = ["| goal | value | bound | |", "|---|---|---|---|"]
    for goal in goals:
        value = "-" if goal["value"] is None else f"{goal['value']:.3g}"
        verdict = {True: "met", False: "**missed**", None: "not measured"}[goal["met"]]
        lines.append(f"| {goal['goal']} | {value} | {goal['bound']} | {verdict} |")
    return lines


def at_least(goal: str, value: float | None, bound: float) -> Goal:
    """Return a goal that is met from a bound on; None: not measured."""
    met = None if value is None else value >= bound
    return {"goal": goal, "value": _rounded(value), "bound": f">= {bound:g}", "met": met}


def at_most(goal: str, value: float | None, bound: float) -> Goal:
    """Return a goal that is met up to a bound; None: not measured."""
    met = None if value is None else value <= bound
    return {"goal": goal, "value": _rounded(value), "bound": f"<= {bound:g}", "met": met}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
