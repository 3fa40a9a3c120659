"""What the first weights have to reach, and the tables for people: part of bench_first_weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.heldout import Scores

# Contender -> folders of its runs, in order; each begins with what the one before it ended with.
RUNS = {
    "micro": ("micro", "micro_wider"),
    "micro_reset": ("micro", "micro_wider"),
    "micro_first": ("micro",),
    "micro_memoryless": ("memoryless", "memoryless_wider"),
    "micro_distilled": ("distilled",),
    "micro_frames": ("frames",),
}
FORGETFUL = ("micro_reset",)
CONSTANT, MEAN_MAP = "best_constant", "training_mean"
PIXELS = {"all": "", "events": "events_"}
HEAD = ("# First weights on held-out worlds", "")
UNSEEN_HEAD = (
    "",
    "# First weights on worlds that decided nothing",
    "",
    "Nothing was chosen by these; `yard` is a kind of place that no training has.",
    "",
)


def goals(scores: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Compare the scores with what was set as goals.

    Args:
        scores: contender -> name -> mean over sequences.

    Returns:
        goal, pixels, value, bound, wanted (a better number that was hoped for, or None), met.
    """
    rows: list[dict[str, Any]] = []

    def at_most(goal: str, pixels: str, value: float, bound: float, wanted: float | None) -> None:
        add(goal, pixels, value, bound, wanted, value <= bound)

    def add(
        goal: str, pixels: str, value: float, bound: float, wanted: float | None, met: bool
    ) -> None:
        rows.append(
            {"goal": goal, "pixels": pixels, "value": round(value, 6), "bound": round(bound, 6),
             "wanted": wanted, "met": met}
        )  # fmt: skip

    micro = scores["micro"]
    for pixels, prefix in PIXELS.items():
        aligned = f"{prefix}aligned_abs_rel"
        delta, positive = (
            micro[f"{prefix}aligned_delta_1"],
            micro[f"{prefix}aligned_positive_scale"],
        )
        at_most("Abs Rel <= 0.20", pixels, micro[aligned], 0.20, 0.15)
        add("δ1 >= 0.70", pixels, delta, 0.70, 0.80, delta >= 0.70)
        add("scale > 0 on >= 99 % of frames", pixels, positive, 0.99, None, positive >= 0.99)
        constant = scores[CONSTANT][aligned]
        at_most("Abs Rel <= 70 % of the best constant's", pixels, micro[aligned], 0.7 * constant,
                None)  # fmt: skip
        for words, name in (("aligned", aligned), ("in metres", f"{prefix}metric_abs_rel")):
            for goal, contender, other, factor in (
                ("<= 70 % of the mean depth map's", "micro", MEAN_MAP, 0.7),
                ("<= that of micro_memoryless", "micro", "micro_memoryless", 1.0),
                ("of micro_distilled <= 125 % of micro's", "micro_distilled", "micro", 1.25),
            ):
                at_most(f"Abs Rel {goal}, {words}", pixels, scores[contender][name],
                        factor * scores[other][name], None)  # fmt: skip
    return rows


def markdown(
    unseen: bool,
    scores: Mapping[str, Scores],
    reached: list[dict[str, Any]],
    worlds: Mapping[str, str],
) -> str:
    """Return the tables for people, of one set of worlds.

    Args:
        unseen: whether it is the set that decided nothing.
        scores: contender -> scores.
        reached: see `goals`.
        worlds: sequence -> what sets it apart.
    """
    header = ("Abs Rel", "δ1", "RMSE m", "s > 0", "metric Abs Rel", "metric δ1", "metric RMSE m")
    names = (
        "aligned_abs_rel", "aligned_delta_1", "aligned_rmse", "aligned_positive_scale",
        "metric_abs_rel", "metric_delta_1", "metric_rmse",
    )  # fmt: skip
    lines = list(UNSEEN_HEAD if unseen else HEAD)
    for pixels, prefix in PIXELS.items():
        over = "with ground truth" if pixels == "all" else "with ground truth and events"
        lines += [f"Over all pixels {over}; the first four columns after least squares:", ""]
        lines += ["| | " + " | ".join(header) + " |", "|---" * (len(header) + 1) + "|"]
        for contender, found in scores.items():
            values = [_number(found.mean.get(prefix + name)) for name in names]
            lines.append(f"| {contender} | " + " | ".join(values) + " |")
        lines.append("")
    lines += ["| goal | pixels | value | bound | |", "|---|---|---|---|---|"]
    for row in reached:
        verdict = "met" if row["met"] else "**missed**"
        lines.append(
            f"| {row['goal']} | {row['pixels']} | {row['value']:.3f} | {row['bound']:.3f} "
            f"| {verdict} |"
        )
    lines += ["", "Abs Rel after least squares of each sequence, over all pixels:", ""]
    lines += ["| sequence | " + " | ".join(scores) + " |", "|---" * (len(scores) + 1) + "|"]
    for sequence in scores["micro"].sequences:
        values = [
            _number(found.sequences[sequence].get("aligned_abs_rel")) for found in scores.values()
        ]
        words = f"{sequence.removeprefix('heldout/')} {worlds[sequence]}".strip()
        lines.append(f"| {words} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"
