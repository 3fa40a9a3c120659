"""The pictures of the first weights: curves over the updates, and what everybody sees.

Part of bench_first_weights.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.depth_rows import depth_row
from benchmarks.first_weights.report import MEAN_MAP, RUNS
from benchmarks.heldout import FloatImage
from dae_ros.bags.video import ContactSheet
from dae_ros.distillation.clip_store import ClipStore
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.representation.render import Picture

SHOWN = ("micro", "micro_memoryless", "micro_distilled", MEAN_MAP)
DRAWN = ("micro", "micro_memoryless", "micro_distilled", "micro_frames")
# Held-out sequences in the picture, evenly spread over their list.
WORLDS = 6


def curves(folder: Path) -> Picture:
    """Draw the held-out scores of contenders over the updates of all their runs."""
    plots = []
    for column, words in (
        ("metric_abs_rel", "in metres"),
        ("aligned_abs_rel", "after least squares"),
    ):
        series = {name: _series([folder / run for run in RUNS[name]], column) for name in DRAWN}
        title = f"held-out clips while training, {words}"
        plots.append(line_plot(series, Axes(title, "update", "Abs Rel")))
    return np.concatenate(plots)


def save_worlds(
    store: ClipStore, maps: Mapping[str, Mapping[str, FloatImage]], windows: int, path: Path
) -> None:
    """Write a row of panels for some sequences: events, truth, and what contenders say, in metres.

    All depths of a row share the colours of its truth.
    """
    sheet = ContactSheet(columns=1, most=WORLDS + WORLDS % 2, widest_px=1500)
    chosen = shown_windows(store, windows)
    for sequence in store.split("heldout"):
        if sequence.name in chosen:
            found = {name: maps[name][sequence.name] for name in SHOWN}
            sheet.add(depth_row(sequence, chosen[sequence.name], found))
    sheet.save(path)


def shown_windows(store: ClipStore, windows: int) -> dict[str, int]:
    """Return sequence -> window of the pictures: the middle, whatever is seen there."""
    sequences = store.split("heldout")
    count = min(WORLDS, len(sequences))
    chosen = [sequences[round(i)] for i in np.linspace(0, len(sequences) - 1, count)]
    return {item.name: min(len(item), windows or len(item)) // 2 for item in chosen}


def _series(runs: Sequence[Path], name: str) -> tuple[list[float], list[float]]:
    steps: list[float] = []
    values: list[float] = []
    begun = 0.0
    for run in runs:
        of_run = run_column(run / "heldout.csv", name)
        steps += [begun + step for step in of_run[0]]
        values += of_run[1]
        begun += run_column(run / "updates.csv", "seconds")[0][-1]
    return steps, values


def run_column(path: Path, name: str) -> tuple[list[float], list[float]]:
    """Return steps and values of a CSV file of a run."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(name)]
    return [float(row["step"]) for row in rows], [float(row[name]) for row in rows]
