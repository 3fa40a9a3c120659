"""The pictures of the first weights: curves over the updates, and what everybody sees.

Part of bench_first_weights.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.first_weights_report import MEAN_MAP, RUNS
from benchmarks.heldout import MAXIMUM_DEPTH_M, FloatImage
from dae_ros.bags.video import ContactSheet
from dae_ros.distillation.clip_codes import tencode_of_code
from dae_ros.distillation.clip_store import ClipSequence, ClipStore
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.representation.render import (
    Picture,
    color_range,
    depth_color,
    events_image,
    legend,
    side_by_side,
    titled,
)
from dae_ros.runtime.preview import fit, panel_rows

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
            sheet.add(_row(sequence, chosen[sequence.name], found))
    sheet.save(path)


def _row(sequence: ClipSequence, index: int, found: Mapping[str, FloatImage]) -> Picture:
    rows = panel_rows(sequence.windows.shape[-2])
    code = torch.from_numpy(np.array(sequence.windows[index]))
    truth = sequence.depth[index].astype(np.float32)
    near, far = color_range(truth)
    world = sequence.facts["source"].get("world", {})
    words = [sequence.name.partition("_")[2], str(world.get("light", ""))]
    panels = [
        titled(fit(events_image(tencode_of_code(code).numpy()), rows), " ".join(words).strip()),
        titled(fit(depth_color(truth, near, far), rows), "ground truth"),
        titled(legend(rows, near, far, "m"), ""),
    ]
    valid = (truth > 0) & (truth < MAXIMUM_DEPTH_M)
    for name, depth in found.items():
        counted = valid & np.isfinite(depth)
        error = np.abs(depth - truth)[counted] / truth[counted]
        title = f"{name}: Abs Rel {error.mean():.2f}" if counted.any() else name
        panels.append(titled(fit(depth_color(depth, near, far), rows), title))
    return side_by_side(panels)


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
