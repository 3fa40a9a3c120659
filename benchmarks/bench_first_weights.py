"""How right the first weights are on worlds that no training saw.

    python -m benchmarks.bench_first_weights [--folder output/first_weights] [--processes 2]

`--folder` is what scripts/train_first_weights.sh leaves: clips, and a run each for micro,
memoryless, frames and distilled. Every window of every held-out sequence is scored, with the
weights as they ship, in half precision. Beside them stand what has to be beaten: each frame's own
best constant and the training set's mean depth map.

Written are results/first_weights.json, .md, first_weights_curves.png (held-out scores over
updates) and first_weights_worlds.png (what everybody sees in the middle of held-out sequences).
Fields of the JSON, below `results`:

    clips       digest, and training and held-out sequences and windows
    contenders  name -> file, sha256 of the run's checkpoint, step (when it was kept), steps (of the
                run), seed, updates_min (minutes of the updates, scores apart), weights,
                scores (name -> mean over sequences) and sequences (name -> name -> score);
                for what has to be beaten scores and sequences alone
    goals       goal, pixels, value, bound, wanted, met

Names of scores: [events_](aligned|metric)_(abs_rel|delta_1|rmse) and
[events_]aligned_positive_scale; `events_`: over pixels with events in the window, else over all
with ground truth; aligned: after corrected least squares; metric: as put out.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.heldout import (
    MAXIMUM_DEPTH_M,
    FloatImage,
    Scores,
    facts_of,
    score_best_constants,
    score_map,
    score_network,
    training_depths,
)
from benchmarks.record import RESULTS, record
from dae_ros.bags.video import ContactSheet
from dae_ros.distillation.clip_codes import tencode_of_code
from dae_ros.distillation.clip_store import ClipSequence, ClipStore, open_clip_store
from dae_ros.evaluation.alignment import mean_depth_map
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.evaluation.strips import write_png
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
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

# Contender -> folder of its run.
RUNS = {
    "micro": "micro",
    "micro_reset": "micro",
    "micro_memoryless": "memoryless",
    "micro_distilled": "distilled",
    "micro_frames": "frames",
}
FORGETFUL = ("micro_reset",)
CONSTANT, MEAN_MAP = "best_constant", "training_mean"
SHOWN = ("micro", "micro_memoryless", "micro_distilled", MEAN_MAP)
# Held-out sequences in the picture, evenly spread over their list.
WORLDS = 6
PIXELS = {"all": "", "events": "events_"}


@dataclass(frozen=True)
class Task:
    """What one process does.

    Attributes:
        name: of the contender.
        folder: of clips and runs.
        checkpoint: file name in the run's folder.
        windows: of each sequence at most; 0 for all.
    """

    name: str
    folder: Path
    checkpoint: str
    windows: int


def work(task: Task) -> Scores:
    """Score one contender."""
    torch.set_num_threads(1)
    store = open_clip_store(task.folder / "clips")
    if task.name == CONSTANT:
        return score_best_constants(store, task.windows)
    if task.name == MEAN_MAP:
        depth_m = mean_depth_map(training_depths(store), MAXIMUM_DEPTH_M)
        scores = score_map(depth_m, _shipped(task.folder / "micro" / task.checkpoint), store,
                           task.windows)  # fmt: skip
        scores.maps.update(dict.fromkeys(_shown(store, task.windows), depth_m))
        return scores
    return score_network(
        _shipped(task.folder / RUNS[task.name] / task.checkpoint),
        store,
        windows=task.windows,
        forgetful=task.name in FORGETFUL,
        shown=_shown(store, task.windows),
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
            {"goal": goal, "pixels": pixels, "value": round(value, 4), "bound": round(bound, 4),
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


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; return 0 also where goals are missed, which is a result."""
    parser = argparse.ArgumentParser(description="the first weights on held-out worlds")
    parser.add_argument("--folder", type=Path, default=Path("output/first_weights"))
    parser.add_argument("--checkpoint", default="last.safetensors", help="or best.safetensors")
    parser.add_argument("--windows", type=int, default=0, help="of each sequence; 0: all")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    begin_s = time.monotonic()
    store = open_clip_store(options.folder / "clips")
    tasks = [
        Task(name, options.folder, options.checkpoint, options.windows)
        for name in (*RUNS, MEAN_MAP, CONSTANT)
    ]
    scores = _score(tasks, options.processes)
    contenders = {
        name: {**_facts(name, options.folder, options.checkpoint), **found.to_json()}
        for name, found in scores.items()
    }
    reached = goals({name: found.mean for name, found in scores.items()})
    results = {
        "clips": _clips(store),
        "windows_per_sequence": options.windows or "all",
        "contenders": contenders,
        "goals": reached,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = record("first_weights", results, options.out)
    text = markdown(scores, reached)
    (options.out / "first_weights.md").write_text(text, encoding="utf-8")
    write_png(options.out / "first_weights_curves.png", curves(options.folder))
    maps = {name: found.maps for name, found in scores.items()}
    save_worlds(store, maps, options.windows, options.out / "first_weights_worlds.png")
    print(text)
    print(f"{time.monotonic() - begin_s:.0f} s -> {path}")
    return 0


def markdown(scores: Mapping[str, Scores], reached: list[dict[str, Any]]) -> str:
    """Return the tables for people."""
    header = ("Abs Rel", "δ1", "RMSE m", "s > 0", "metric Abs Rel", "metric δ1", "metric RMSE m")
    names = (
        "aligned_abs_rel", "aligned_delta_1", "aligned_rmse", "aligned_positive_scale",
        "metric_abs_rel", "metric_delta_1", "metric_rmse",
    )  # fmt: skip
    lines = ["# First weights on held-out worlds", ""]
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
        lines.append(f"| {sequence.removeprefix('heldout/')} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def curves(folder: Path) -> Picture:
    """Draw the held-out scores of each run over its updates, from its heldout.csv."""
    runs = {name: folder / run for name, run in RUNS.items() if name not in FORGETFUL}
    plots = []
    for column, words in (
        ("metric_abs_rel", "in metres"),
        ("aligned_abs_rel", "after least squares"),
    ):
        series = {name: _column(path / "heldout.csv", column) for name, path in runs.items()}
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
    chosen = _shown(store, windows)
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


def _score(tasks: list[Task], processes: int) -> dict[str, Scores]:
    if processes == 1:
        found = map(work, tasks)
        return {task.name: _told(task, scores) for task, scores in zip(tasks, found, strict=True)}
    # Threads of PyTorch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        results = pool.map(work, tasks)
        return {task.name: _told(task, s) for task, s in zip(tasks, results, strict=True)}


def _told(task: Task, scores: Scores) -> Scores:
    print(f"{task.name}: Abs Rel {scores.mean['aligned_abs_rel']:.3f}", flush=True)
    return scores


def _shipped(path: Path) -> LoadedModel:
    """Load weights as they are after a trip through a file of half precision."""
    loaded = load_checkpoint(path)
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / path.name
        save_checkpoint(half, loaded.network, loaded.meaning, dtype=torch.float16)
        return load_checkpoint(half)


def _shown(store: ClipStore, windows: int) -> dict[str, int]:
    """Return sequence -> window of the pictures: the middle, whatever is seen there."""
    sequences = store.split("heldout")
    count = min(WORLDS, len(sequences))
    chosen = [sequences[round(i)] for i in np.linspace(0, len(sequences) - 1, count)]
    return {item.name: min(len(item), windows or len(item)) // 2 for item in chosen}


def _facts(name: str, folder: Path, checkpoint: str) -> dict[str, Any]:
    if name not in RUNS:
        return {}
    path = folder / RUNS[name] / checkpoint
    loaded, facts = load_checkpoint(path), facts_of(path)
    seconds = _column(path.parent / "updates.csv", "seconds")[1]
    return {
        "file": f"{RUNS[name]}/{checkpoint}",
        "sha256": loaded.digest,
        "stored_as": "float16",
        "step": facts["step"],
        "steps": facts["settings"]["steps"],
        "seed": facts["settings"]["seed"],
        "updates_min": round(sum(seconds) / 60, 1),
        "weights": sum(weight.numel() for weight in loaded.network.parameters()),
    }


def _clips(store: ClipStore) -> dict[str, Any]:
    splits = {split: store.split(split) for split in ("train", "heldout")}
    return {
        "digest": store.digest,
        "height": store.height,
        "width": store.width,
        **{f"{split}_sequences": len(items) for split, items in splits.items()},
        **{f"{split}_windows": sum(map(len, items)) for split, items in splits.items()},
    }


def _column(path: Path, name: str) -> tuple[list[float], list[float]]:
    """Return steps and values of a CSV file of a run."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(name)]
    return [float(row["step"]) for row in rows], [float(row[name]) for row in rows]


def _number(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"


if __name__ == "__main__":
    cv2.setNumThreads(1)
    raise SystemExit(main())
