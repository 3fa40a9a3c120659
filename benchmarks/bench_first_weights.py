"""How right the first weights are on worlds that no training saw.

    python -m benchmarks.bench_first_weights [--folder output/first_weights] [--processes 2]

`--folder` is what scripts/train_first_weights.sh leaves: clips, clips_wider, clips_unseen, and
the runs of micro and memoryless (two each), frames and distilled. Every window of every sequence
of two sets is scored, with the weights as they ship, in half precision: the held-out sequences of
clips, which also decided between settings, and those of clips_unseen, which decided nothing.
Beside them stand what has to be beaten: each frame's own best constant and the training set's
mean depth map.

Written are results/first_weights.json, .md, first_weights_curves.png (held-out scores over
updates), first_weights_worlds.png and first_weights_unseen.png (what everybody sees in the middle
of sequences of each set). Fields of the JSON, below `results`:

    clips       digest, and training and held-out sequences and windows
    clips_wider the same of the worlds of second runs, whose held-out sequences are those of clips
    worlds      sequence -> light, motion and fog, where the simulator's usual was changed
    contenders  name -> file, sha256 of the last run's checkpoint, step (when it was kept), weights,
                runs (in order: run, sha256, clips, settings, sha256 of what it started from and
                took its encoder from, and updates_min, its minutes without scores),
                scores (name -> mean over sequences) and sequences (name -> name -> score);
                for what has to be beaten scores and sequences alone
    goals       goal, pixels, value, bound, wanted, met
    unseen      clips, worlds, contenders (scores and sequences alone) and goals of the other set

Names of scores: [events_](aligned|metric)_(abs_rel|delta_1|rmse) and
[events_]aligned_positive_scale; `events_`: over pixels with events in the window, else over all
with ground truth; aligned: after corrected least squares; metric: as put out.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.first_weights.pictures import curves, run_column, save_worlds, shown_windows
from benchmarks.first_weights.report import CONSTANT, FORGETFUL, MEAN_MAP, RUNS, goals, markdown
from benchmarks.heldout import (
    MAXIMUM_DEPTH_M,
    Scores,
    facts_of,
    score_best_constants,
    score_map,
    score_network,
    training_depths,
)
from benchmarks.record import RESULTS, record
from dae_ros.distillation.clip_store import ClipSequence, ClipStore, open_clip_store
from dae_ros.errors import RecordingError, WeightsError
from dae_ros.evaluation.alignment import mean_depth_map
from dae_ros.evaluation.strips import write_png
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from dae_ros.model.fetch import digest_of

HELDOUT, UNSEEN = "heldout", "unseen"
# What second runs learn from.
WIDER = ("clips_wider", "config/train/clips_wider_worlds.yaml")
# Set of worlds -> folder of its clips, and their recipe.
SETS = {
    HELDOUT: ("clips", "config/train/clips_first_weights.yaml"),
    UNSEEN: ("clips_unseen", "config/train/clips_unseen_worlds.yaml"),
}

# Of a run, into the results.
SETTINGS = ("weights", "steps", "seed", "batch", "unroll", "precision")


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


def work(task: Task) -> dict[str, Scores]:
    """Score one contender; return set of worlds -> scores."""
    torch.set_num_threads(1)
    stores = {name: open_clip_store(task.folder / part) for name, (part, _) in SETS.items()}
    if task.name == CONSTANT:
        return {name: score_best_constants(store, task.windows) for name, store in stores.items()}
    if task.name == MEAN_MAP:
        trained_on = (stores[HELDOUT], open_clip_store(task.folder / WIDER[0]))
        depths = (depth for store in trained_on for depth in training_depths(store))
        depth_m = mean_depth_map(depths, MAXIMUM_DEPTH_M)
        metric = _shipped(task.folder / RUNS["micro"][-1] / task.checkpoint)
        found = {
            name: score_map(depth_m, metric, store, task.windows) for name, store in stores.items()
        }
        for name, scores in found.items():
            scores.maps.update(dict.fromkeys(shown_windows(stores[name], task.windows), depth_m))
        return found
    loaded = _shipped(task.folder / RUNS[task.name][-1] / task.checkpoint)
    return {
        name: score_network(
            loaded,
            store,
            windows=task.windows,
            forgetful=task.name in FORGETFUL,
            shown=shown_windows(store, task.windows),
        )
        for name, store in stores.items()
    }


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
    stores = {}
    for name, (part, recipe) in {**SETS, "wider": WIDER}.items():
        try:
            stores[name] = open_clip_store(options.folder / part)
        except RecordingError as error:
            parser.error(
                f"{error.message}. The recipe of these is {recipe}: "
                f"dae-ros clips {recipe} --out {options.folder / part}"
            )
    tasks = [
        Task(name, options.folder, options.checkpoint, options.windows)
        for name in (*RUNS, MEAN_MAP, CONSTANT)
    ]
    found = _score(tasks, options.processes)
    parts = {name: _part(stores[name], {c: found[c][name] for c in found}) for name in SETS}
    for name, contender in parts[HELDOUT]["contenders"].items():
        contender |= _facts(name, options.folder, options.checkpoint)
    results = {
        "windows_per_sequence": options.windows or "all",
        **parts[HELDOUT],
        "clips_wider": _clips(stores["wider"]),
        "unseen": parts[UNSEEN],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = record("first_weights", results, options.out)
    text = ""
    for name, file in ((HELDOUT, "first_weights_worlds.png"), (UNSEEN, "first_weights_unseen.png")):
        scores = {contender: by_set[name] for contender, by_set in found.items()}
        text += markdown(name == UNSEEN, scores, parts[name]["goals"], parts[name]["worlds"])
        maps = {contender: of_one.maps for contender, of_one in scores.items()}
        save_worlds(stores[name], maps, options.windows, options.out / file)
    (options.out / "first_weights.md").write_text(text, encoding="utf-8")
    write_png(options.out / "first_weights_curves.png", curves(options.folder))
    print(text)
    print(f"{time.monotonic() - begin_s:.0f} s -> {path}")
    return 0


def _part(store: ClipStore, scores: dict[str, Scores]) -> dict[str, Any]:
    """Return the fields of one set of worlds."""
    return {
        "clips": _clips(store),
        "worlds": {item.name: _world(item) for item in store.split("heldout")},
        "contenders": {name: found.to_json() for name, found in scores.items()},
        "goals": goals({name: found.mean for name, found in scores.items()}),
    }


def _world(sequence: ClipSequence) -> str:
    """Return what sets a world apart from others of its kind, such as `day, car, fog 60 m`."""
    world = sequence.facts["source"].get("world", {})
    words = [str(world[key]) for key in ("light", "motion") if key in world]
    if world.get("visibility_m"):
        words.append(f"fog {world['visibility_m']:g} m")
    if world.get("distortion_k1"):
        words.append("another lens")
    return ", ".join(words)


def _score(tasks: list[Task], processes: int) -> dict[str, dict[str, Scores]]:
    """Return contender -> set of worlds -> scores."""
    if processes == 1:
        found = map(work, tasks)
        return {task.name: _told(task, scores) for task, scores in zip(tasks, found, strict=True)}
    # Threads of PyTorch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        results = pool.map(work, tasks)
        return {task.name: _told(task, s) for task, s in zip(tasks, results, strict=True)}


def _told(task: Task, scores: dict[str, Scores]) -> dict[str, Scores]:
    means = [f"{found.mean['aligned_abs_rel']:.3f} {name}" for name, found in scores.items()]
    print(f"{task.name}: Abs Rel {', '.join(means)}", flush=True)
    return scores


def _shipped(path: Path) -> LoadedModel:
    """Load weights as they are after a trip through a file of half precision."""
    loaded = load_checkpoint(path)
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / path.name
        save_checkpoint(half, loaded.network, loaded.meaning, dtype=torch.float16)
        return load_checkpoint(half)


def _facts(name: str, folder: Path, checkpoint: str) -> dict[str, Any]:
    if name not in RUNS:
        return {}
    last = RUNS[name][-1]
    loaded = load_checkpoint(folder / last / checkpoint)
    runs = [_run(folder, run, "last.safetensors") for run in RUNS[name][:-1]]
    runs.append(_run(folder, last, checkpoint))
    for before, after in itertools.pairwise(runs):
        if after["started_from"] != before["sha256"]:
            raise WeightsError(
                f"{folder / after['run']} did not start from {before['run']}/last.safetensors; "
                "train it again, as scripts/train_first_weights.sh does"
            )
    return {
        "file": f"{last}/{checkpoint}",
        "sha256": loaded.digest,
        "stored_as": "float16",
        "step": facts_of(folder / last / checkpoint)["step"],
        "weights": sum(weight.numel() for weight in loaded.network.parameters()),
        "runs": runs,
    }


def _run(folder: Path, run: str, checkpoint: str) -> dict[str, Any]:
    facts = facts_of(folder / run / checkpoint)
    settings = facts["settings"]
    seconds = run_column(folder / run / "updates.csv", "seconds")[1]
    return {
        "run": run,
        "sha256": digest_of(folder / run / checkpoint),
        "clips": Path(settings["clips"]).name,
        **{name: settings[name] for name in SETTINGS},
        "weights": _without_folder(settings["weights"]),
        "started_from": facts["started_from"],
        "encoder_from": facts["encoder_from"],
        "updates_min": round(sum(seconds) / 60, 1),
    }


def _without_folder(weights: str) -> str:
    return weights if weights.startswith("untrained:") else "/".join(Path(weights).parts[-2:])


def _clips(store: ClipStore) -> dict[str, Any]:
    splits = {split: store.split(split) for split in ("train", "heldout")}
    return {
        "digest": store.digest,
        "height": store.height,
        "width": store.width,
        **{f"{split}_sequences": len(items) for split, items in splits.items()},
        **{f"{split}_windows": sum(map(len, items)) for split, items in splits.items()},
    }


if __name__ == "__main__":
    cv2.setNumThreads(1)
    raise SystemExit(main())
