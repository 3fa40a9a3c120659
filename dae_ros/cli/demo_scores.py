"""What the demo says about its depth: scores against ground truth, for people and programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dae_ros.evaluation.report import ALL_PIXELS

_ALIGNMENTS = {"none": "metres, as they are", "lstsq": "after least squares on each frame"}


def scores_of_report(path: Path) -> list[dict[str, Any]]:
    """Return the tables of a `gt_node`'s evaluation.json, [] where it compared nothing."""
    if not path.is_file():
        return []
    document = json.loads(path.read_text(encoding="utf-8"))
    return [_row({**table, **table["sequences"][0]}) for table in document["tables"]]


def scores_of_summary(metrics: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the same tables of the `metrics` in a bag run's summary.json."""
    tables = [] if metrics is None else metrics.get("tables", [])
    return [_row(table) for table in tables if table["pixels"] == ALL_PIXELS and table["frames"]]


def _row(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return one table: every pixel with ground truth, the mean over the windows."""
    metrics = table["metrics"]
    return {
        "alignment": table["scoring"]["alignment"],
        "windows": table["frames"],
        "abs_rel": metrics["abs_rel"],
        "delta_1": metrics["delta_1"],
        "rmse": metrics["rmse"],
        "positive_scale": table["positive_scale"],
        "best_constant_abs_rel": metrics["best_constant_abs_rel"],
    }


def in_words(scores: Sequence[Mapping[str, Any]], truth: str) -> str:
    """Return the scores as a small table.

    Args:
        scores: as above, at least one.
        truth: what depth was compared with.
    """
    lines = [f"Compared with {truth}, {scores[0]['windows']} windows, every pixel that has one:"]
    lines += [
        f"  {_ALIGNMENTS.get(row['alignment'], row['alignment']):38}"
        f"Abs Rel {_number(row['abs_rel'])}   delta_1 {_number(row['delta_1'])}"
        for row in scores
    ]
    lines.append(
        f"  {'to beat: best constant of each frame':38}"
        f"Abs Rel {_number(scores[0]['best_constant_abs_rel'])}"
    )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"
