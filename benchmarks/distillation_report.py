"""Table and curves of the distillation benchmark, from its results and its runs' files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.representation.render import Picture

NONE = "none"
PARTS = ("new", "known")
CURVE_FILE = "heldout.csv"


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table for people; with several seeds mean, lowest and highest."""
    columns = [
        (part, f"{pixels}aligned_{name}")
        for part in PARTS
        for pixels in ("", "events_")
        for name in ("abs_rel", "delta_1")
    ]
    seen = {"new": "new worlds", "known": "known worlds"}
    header = [
        f"{seen[part]}{', events' if 'events' in name else ''}: "
        f"{'Abs Rel' if 'abs_rel' in name else 'δ1'}"
        for part, name in columns
    ]
    lines = ["# Distillation, one idea after the other", ""]
    known = ", ".join(results["start_kinds"])
    lines.append(
        f"`micro`, {results['updates']} updates a row, scored after least squares on held-out "
        f"worlds of the kinds that the student had never seen (new), and of those it began with "
        f"({known})."
    )
    lines += ["", "| row | seeds | " + " | ".join(header) + " | labels refused | minutes |"]
    lines.append("|---" * (len(header) + 4) + "|")
    for entry in results["rows"]:
        runs = list(entry["seeds"].values())
        cells = [_spread([run["parts"][part].get(name) for run in runs]) for part, name in columns]
        judged = sum(run["labels_judged"] for run in runs)
        refused = sum(run["labels_refused"] for run in runs)
        lines.append(
            f"| {entry['row']} | {len(runs)} | {' | '.join(cells)} "
            f"| {f'{100 * refused / judged:.1f} %' if judged else '-'} "
            f"| {_minutes(entry['row'], runs)} |"
        )
    return "\n".join(lines) + "\n"


def curves(results: Mapping[str, Any], start: Path, run: Callable[[str, int], Path]) -> Picture:
    """Draw what heldout.csv has over the updates of each row, mean of its seeds.

    Args:
        results: with the rows.
        start: folder of the run that all rows go on from.
        run: the folder of a row's run with a seed.
    """
    plots = []
    # The start was scored on the same windows when its own training ended.
    begun = columns_of(start / CURVE_FILE)["aligned_abs_rel"][-1]
    for column, words in (
        ("aligned_abs_rel", "true depth"),
        ("label_aligned_abs_rel", "labels of the first teacher"),
    ):
        series = {}
        for entry in results["rows"]:
            if entry["row"] == NONE:
                continue
            folders = [run(entry["row"], int(seed)) for seed in entry["seeds"]]
            runs = [columns_of(folder / CURVE_FILE) for folder in folders]
            values = np.mean([run[column] for run in runs], axis=0).tolist()
            first = [begun] if column == "aligned_abs_rel" else [float("nan")]
            series[entry["row"]] = ([0.0, *runs[0]["step"]], first + values)
        title = f"held-out clips against {words}, after least squares"
        plots.append(line_plot(series, Axes(title, "update", "Abs Rel")))
    return np.concatenate(plots)


def columns_of(path: Path) -> dict[str, list[float]]:
    """Return the columns of a CSV file of a run; what is empty there is NaN."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or "nan") for row in rows] for name in rows[0]}


def _minutes(row: str, runs: Sequence[Mapping[str, Any]]) -> str:
    return "-" if row == NONE else f"{fmean(run['updates_min'] for run in runs):.1f}"


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if len(known) == 1:
        return f"{known[0]:.3f}"
    return f"{fmean(known):.3f} ({min(known):.3f} to {max(known):.3f})"
