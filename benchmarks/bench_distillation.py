"""What each idea of distillation is worth, on a student that meets worlds it was never shown.

    python -m benchmarks.bench_distillation [--folder output/first_weights] [--processes 2]
        [--rows ssi,gradient] [--seeds 0,1,2] [--updates 240]

Every row goes on from the same student: `micro`, taught with true depth in rooms and corridors
alone (`--start`), for as many updates as a row has. It then sees events of the other training
worlds, streets and warehouses, with labels of a frame network and nothing else, and is scored on
all held-out sequences, those of the kinds that were new apart. Each row adds one idea to the one
before:

    none           the student as it begins
    ssi            L_si: squared error after least squares; a tenth of each label's pixels trimmed
    gradient       + 0.25 L_reg, the published loss
    normalisation  + 0.5 hybrid depth normalisation
    local_global   + 0.5 local-global in half of the updates
    two_teachers   + another teacher in 30 % of the updates, one at a time, never averaged

The teacher is `frames` of the folder; the second one is the same network trained here with seed 1
for `--teacher-updates`. Both see frames only. Labels are judged, and refused where they fit the
student upside down, from a third of the run on. Seeds change the order of clips, not the start.

Everything is kept in FOLDER/distillation_table, and goes on where it was stopped: a row can be run
on another day, or machine. Written are results/distillation.json, .md and distillation_curves.png,
from the rows that are finished. One thread per row; at most ten minutes each for 240 updates.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.distillation_report import NONE, PARTS, columns_of, curves, markdown
from benchmarks.heldout import facts_of, kind_of, rounded, score_network
from benchmarks.record import RESULTS, record
from dae_ros.distillation.clip_store import (
    SEQUENCE_FILE,
    STORE_FILE,
    digest_of_facts,
    open_clip_store,
    read_facts,
)
from dae_ros.distillation.configuration import (
    DistillationParameters,
    TrainingParameters,
    load_settings,
)
from dae_ros.distillation.runs import train
from dae_ros.distillation.validation import mean_of_scores
from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.strips import write_png
from dae_ros.model.checkpoint import load_checkpoint
from dae_ros.model.durable_files import write_durably

# Row -> what it adds to the rows before it. `{first}` and `{second}` are the teachers.
ROWS: Mapping[str, Mapping[str, str]] = {
    "ssi": {"loss": "published", "alpha": "0.0", "trim": "0.1", "normalisation": "hybrid",
            "normalised_weight": "0.0", "teachers": "{first}"},
    "gradient": {"alpha": "0.25"},
    "normalisation": {"normalised_weight": "0.5"},
    "local_global": {"local_global_share": "0.5", "local_global_weight": "0.5"},
    "two_teachers": {"teachers": "{first}:0.7,{second}:0.3"},
}  # fmt: skip
# A student that knows depth is moved, not taught anew.
LEARNING_RATE = "5.0e-4"
LAST = "last.safetensors"
# Of each held-out sequence, for the curves; the table counts all.
CURVE_WINDOWS = 20


@dataclass(frozen=True)
class Plan:
    """What all rows share.

    Attributes:
        source: folder of the first weights: clips, and the teacher's run.
        folder: of this table.
        start_kinds: kinds of worlds that the student knows.
        updates, teacher_updates: of a row and of the start, and of the second teacher.
        overrides: settings of every run, as name=value; they go before all others.
        windows: of each held-out sequence that the table counts; 0 for all.
    """

    source: Path
    folder: Path
    start_kinds: tuple[str, ...]
    updates: int
    teacher_updates: int
    overrides: tuple[str, ...]
    windows: int

    @property
    def first_teacher(self) -> Path:
        """The frame network of the folder."""
        return self.source / "frames" / "last.safetensors"

    @property
    def second_teacher(self) -> Path:
        """The one that is trained here."""
        return self.folder / "second_teacher" / LAST

    @property
    def start(self) -> Path:
        """The student that every row begins with."""
        return self.folder / "start" / LAST

    def run(self, row: str, seed: int) -> Path:
        """Return the folder of a row."""
        return self.folder / f"{row}_{seed}"


def subset(source: Path, folder: Path, kinds: Sequence[str], *, keep: bool) -> None:
    """Make a store of the training sequences of some kinds, or of all others; links, no copies.

    Args:
        source: a finished store; all its held-out sequences stay.
        folder: of the new one; what is there is completed.
        kinds: of worlds, as `kind_of` names them.
        keep: whether to keep these kinds, or the others.

    Raises:
        ConfigurationError: nothing would be left to train on.
    """
    store = open_clip_store(source)
    facts = read_facts(source / STORE_FILE)
    names = [
        item.name
        for item in store.sequences
        if item.split == "heldout" or (kind_of(item.name) in kinds) == keep
    ]
    if facts is None or not any(name.startswith("train/") for name in names):
        raise ConfigurationError(
            f"no training sequence of {source} is left {'with' if keep else 'without'} "
            f"{', '.join(kinds)}; it holds {', '.join(_kinds(store.split('train')))}",
            kinds=tuple(kinds),
        )
    for name in names:
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to((source / name).resolve())
    found = [read_facts(folder / name / SEQUENCE_FILE) for name in names]
    chosen = [item for item in found if item is not None]
    facts |= {
        "sequences": names,
        "windows": sum(item["windows"] for item in chosen),
        "digest": digest_of_facts(chosen),
    }
    write_durably(folder / STORE_FILE, json.dumps(facts, indent=1))


def settings_of(plan: Plan, row: str, seed: int) -> DistillationParameters:
    """Return the settings of a row: those of all rows up to it."""
    names = list(ROWS)
    values: dict[str, str] = {}
    for name in names[: names.index(row) + 1]:
        values |= ROWS[name]
    teachers = {"first": str(plan.first_teacher), "second": str(plan.second_teacher)}
    values["teachers"] = values["teachers"].format(**teachers)
    values |= {
        "weights": str(plan.start),
        "clips": str(plan.folder / "clips_new"),
        "learning_rate": LEARNING_RATE,
        "muon_rate": LEARNING_RATE,
        "refuse_after": str(plan.updates // 3),
        "seed": str(seed),
        **_pace(plan.updates),
    }
    return load_settings(
        DistillationParameters, "first_weights_distilled", _overrides(values, plan.overrides)
    )


def prepare(plan: Plan, rows: Sequence[str], processes: int) -> None:
    """Make what rows begin with, where it is not there: clips, start, second teacher."""
    source = plan.source / "clips"
    subset(source, plan.folder / "clips_known", plan.start_kinds, keep=True)
    subset(source, plan.folder / "clips_new", plan.start_kinds, keep=False)
    jobs = [(plan, "first_weights_micro", "start", plan.folder / "clips_known", 0, plan.updates)]
    if "two_teachers" in rows:
        jobs.append(
            (plan, "first_weights_frames", "second_teacher", source, 1, plan.teacher_updates)
        )
    _in_processes(_supervise, jobs, processes)


def finish_row(plan: Plan, row: str, seed: int) -> dict[str, Any]:
    """Train a row to its end and score it; what is done already is not done again.

    Returns:
        What `scores.json` in its folder keeps: minutes of the updates, labels that were judged and
        refused, part -> name -> score, and sequence -> name -> score.
    """
    folder = plan.start.parent if row == NONE else plan.run(row, seed)
    kept = folder / "scores.json"
    if row != NONE:
        train(settings_of(plan, row, seed), folder, report=_progress(f"{row} {seed}"))
    weights = load_checkpoint(folder / LAST)
    if kept.exists():
        done: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if done["weights"] == weights.digest and done["windows"] == plan.windows:
            return done
    torch.set_num_threads(1)
    scores = score_network(weights, open_clip_store(plan.source / "clips"), windows=plan.windows)
    parts = {
        part: rounded(
            mean_of_scores(
                [
                    values
                    for name, values in scores.sequences.items()
                    if (kind_of(name) in plan.start_kinds) == (part == "known")
                ]
            )
        )
        for part in PARTS
    }
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    done = {
        "weights": weights.digest,
        "windows": plan.windows,
        "updates_min": round(sum(columns_of(folder / "updates.csv")["seconds"]) / 60, 2),
        "labels_judged": report["judged"],
        "labels_refused": report["refused"],
        "parts": parts,
        **scores.to_json(),
    }
    write_durably(kept, json.dumps(done, indent=1))
    return done


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, print and write the table."""
    parser = argparse.ArgumentParser(description="the distillation table")
    parser.add_argument("--folder", type=Path, default=Path("output/first_weights"))
    parser.add_argument("--rows", default=",".join(ROWS), help="some of them, separated by commas")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--updates", type=int, default=240)
    parser.add_argument("--teacher-updates", type=int, default=480)
    parser.add_argument("--start", default="room,corridor", help="kinds that the student knows")
    parser.add_argument("--windows", type=int, default=0, help="of each sequence; 0: all")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="NAME=VALUE"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    rows, seeds = options.rows.split(","), [int(seed) for seed in options.seeds.split(",")]
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        parser.error(f"there is no row {', '.join(unknown)}; known: {', '.join(ROWS)}")
    plan = Plan(
        source=options.folder.resolve(),
        folder=options.folder.resolve() / "distillation_table",
        start_kinds=tuple(options.start.split(",")),
        updates=options.updates,
        teacher_updates=options.teacher_updates,
        overrides=tuple(options.overrides),
        windows=options.windows,
    )
    prepare(plan, rows, options.processes)
    # The longest rows first, so that the processes end together.
    todo = [(plan, row, seed) for row in reversed(rows) for seed in seeds]
    _in_processes(finish_row, [(plan, NONE, 0), *todo], options.processes)
    results = collect(plan)
    options.out.mkdir(parents=True, exist_ok=True)
    path = record("distillation", results, options.out)
    text = markdown(results)
    (options.out / "distillation.md").write_text(text, encoding="utf-8")
    write_png(options.out / "distillation_curves.png", curves(results, plan.start.parent, plan.run))
    print(f"{text}\n-> {path}")
    return 0


def collect(plan: Plan) -> dict[str, Any]:
    """Return the table of every row that is finished, of this or an earlier call."""
    table = []
    for row in (NONE, *ROWS):
        folders = [plan.start.parent] if row == NONE else sorted(plan.folder.glob(f"{row}_[0-9]*"))
        files = [folder / "scores.json" for folder in folders]
        runs = {
            file.parent.name.rpartition("_")[2] if row != NONE else "0": json.loads(
                file.read_text(encoding="utf-8")
            )
            for file in files
            if file.exists()
        }
        if runs:
            table.append({"row": row, "adds": dict(ROWS.get(row, {})), "seeds": runs})
    teachers = {"first": plan.first_teacher, "second": plan.second_teacher}
    return {
        "updates": plan.updates,
        "start_kinds": list(plan.start_kinds),
        "overrides": list(plan.overrides),
        "start": load_checkpoint(plan.start).digest,
        "teachers": {
            name: {
                "sha256": load_checkpoint(path).digest,
                "step": facts_of(path)["step"],
                "seed": facts_of(path)["settings"]["seed"],
            }
            for name, path in teachers.items()
            if path.exists()
        },
        "rows": table,
    }


def _supervise(plan: Plan, preset: str, name: str, clips: Path, seed: int, updates: int) -> None:
    values = {"clips": str(clips), "seed": str(seed), **_pace(updates)}
    settings = load_settings(TrainingParameters, preset, _overrides(values, plan.overrides))
    train(settings, plan.folder / name, report=_progress(name))


def _pace(updates: int) -> dict[str, str]:
    """Return how a short run of one thread goes."""
    return {
        "steps": str(updates),
        "warm_up": str(updates // 10),
        "evaluate_every": str(max(1, updates // 4)),
        "heldout_windows": str(CURVE_WINDOWS),
        "threads": "1",
        # The teacher's encoder has seen the worlds that must be new to the student.
        "encoder_weights": "''",
    }


def _overrides(values: Mapping[str, str], last: Sequence[str]) -> list[str]:
    return [*(f"{name}={value}" for name, value in values.items()), *last]


def _in_processes(function: Any, jobs: Sequence[tuple[Any, ...]], processes: int) -> None:
    if processes == 1:
        for job in jobs:
            function(*job)
        return
    # Threads of PyTorch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        for future in [pool.submit(function, *job) for job in jobs]:
            future.result()


def _progress(name: str) -> Any:
    """Return a report that prints a line twenty times in a run."""
    told = -1

    def report(fraction: float, detail: str) -> None:
        nonlocal told
        if int(fraction * 20) > told:
            told = int(fraction * 20)
            print(f"[{os.getpid()}] {name}: {detail}", flush=True)

    return report


def _kinds(sequences: Sequence[Any]) -> list[str]:
    return sorted({kind_of(item.name) for item in sequences})


if __name__ == "__main__":
    raise SystemExit(main())
