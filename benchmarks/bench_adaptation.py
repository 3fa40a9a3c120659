"""What online adaptation gains under a shift of domain, and that it does no harm.

    python -m benchmarks.bench_adaptation [--folder output/first_weights] [--processes 2]
        [--seeds 0,1,2,3,4] [--drive-s 300] [--student-updates 1000] [--parts shift,safety]

`--folder` is what scripts/train_first_weights.sh leaves: clips, and a run `frames`. The teacher is
that frame network, taught with true depth on worlds of all kinds, which plays the part that a
foundation model has on a robot. The student is trained here, with true depth on the folder's rooms
and corridors alone (A), and deployed in streets and warehouses (B, `adaptation_worlds.py`).

**shift**, for each seed: a drive through B, then A again. The loop is that of `dae-ros adapt`
(gates, guard, publication, canary and rollback), with 2.5 steps for each simulated second. Each
version that depth had is scored against true depth on other places of B, and on other places of A.
Beside it stand the weights that never change, and offline distillation from the same teacher on the
same drive: all weights, as many updates as online had time for steps, every clip from the start.
Before, teacher and student are compared elsewhere in B: where the teacher is not better by a
tenth, aligned and in metres, there is nothing to gain and the seed is refused.

**safety**, on the drive of the first seed, `--safety-s` long: one run for each fault of teacher,
calibration or cameras (`adaptation_faults.py`), which begins when a tenth is over and ends
half-way; and weights that are worse on purpose, submitted to the guard of the run without a fault.

All is kept in `--work` and goes on where it was stopped: each seed and fault has a folder, and a
run that was cut begins anew. Written are results/adaptation.json, .md, adaptation_shift.png and
adaptation_safety.png, from what is finished. One thread per process.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from benchmarks.adaptation_faults import FAULTS
from benchmarks.adaptation_report import markdown, safety_plot, shift_plot
from benchmarks.adaptation_runs import (
    ELSEWHERE,
    KNOWN,
    LAST,
    Setting,
    check_shift,
    forget_clips,
    healthy,
    parameter_values,
    quiet_threads,
    run_offline,
    run_online,
    score_versions,
)
from benchmarks.adaptation_safety import NONE, run_controls, run_fault
from benchmarks.adaptation_verdicts import shift_claims, summary_of_seed, timeline_of
from benchmarks.adaptation_worlds import (
    CLIPS,
    KNOWN_KINDS,
    Lengths,
    anchor_clips,
    new_kind,
    prepare_seed,
)
from benchmarks.record import RESULTS, record
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.clip_writer import write_durably
from dae_ros.distillation.configuration import TrainingParameters, load_settings
from dae_ros.distillation.runs import train
from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.strips import write_png
from dae_ros.model.checkpoint import load_checkpoint

PARTS = ("shift", "safety")
SEED_FILE, SAFETY_FILE = "seed.json", "safety.json"


def prepare(folder: Path, work: Path, updates: int, overrides: Sequence[str]) -> tuple[Path, Path]:
    """Make what all runs share, where it is not there: anchors, and the student.

    Returns:
        Folder of the anchors, and the student's checkpoint.
    """
    quiet_threads()
    anchors = work / "anchors"
    anchor_clips(folder / "clips", anchors)
    settings = load_settings(
        TrainingParameters,
        Path(__file__).with_name("adaptation_student.yaml"),
        [f"clips={anchors}", f"steps={updates}", f"warm_up={updates // 10}",
         f"evaluate_every={max(1, updates // 4)}", *overrides],
    )  # fmt: skip
    told = -1

    def report(fraction: float, detail: str) -> None:
        nonlocal told
        if int(20 * fraction) > told:
            told = int(20 * fraction)
            print(f"student: {detail}", flush=True)

    train(settings, work / "student", report=report)
    return anchors, work / "student" / LAST


def run_seed(setting: Setting, work: Path, seed: int) -> dict[str, Any]:
    """Do all of a seed's part of `shift`, and return what `seed.json` keeps."""
    quiet_threads()
    folder = work / f"seed_{seed}"
    prepare_seed(folder, seed, setting.lengths, lambda words: _say(f"seed {seed}", words))
    shift = check_shift(setting, folder)
    _say(f"seed {seed}", f"teacher against student elsewhere, lead {shift['lead']}")
    facts: dict[str, Any] = {"seed": seed, "kind": new_kind(seed), "shift": shift}
    if not shift["worthwhile"]:
        _say(f"seed {seed}", "refused: the teacher is not better where the student is deployed")
        write_durably(folder / SEED_FILE, json.dumps(facts, indent=1))
        return facts
    online = folder / "online"
    run = run_online(
        setting, folder, online, seed, healthy(), drive_s=setting.lengths.drive_s, comes_back=True
    )
    forget_clips(online)
    timeline = timeline_of(run["original"], run["swaps"])
    store = open_clip_store(folder / CLIPS)
    scores = score_versions(online, [version for _, version in timeline], store)
    offline = run_offline(setting, folder, folder / "offline", seed)
    facts |= {
        "timeline": timeline,
        "scores": {str(version): found for version, found in scores.items()},
        "offline": offline,
        "drive": run["drive"],
        "verdicts": [
            {key: verdict[key] for key in ("at_s", "accepted", "part", "reset")}
            | {"reasons": [refusal["reason"] for refusal in verdict["refusals"]]}
            for verdict in run["verdicts"]
        ],
        "swaps": run["swaps"],
        "status": run["status"],
        "wall_s": run["wall_s"],
        **summary_of_seed(
            timeline,
            {part: {v: found[part] for v, found in scores.items()} for part in (ELSEWHERE, KNOWN)},
            offline[ELSEWHERE],
            setting.lengths.drive_s,
        ),
    }
    write_durably(folder / SEED_FILE, json.dumps(facts, indent=1))
    return facts


def run_safety(setting: Setting, work: Path, seed: int, fault: str, drive_s: float) -> None:
    """Do one fault, and keep what it shows; after the one without a fault also the controls."""
    quiet_threads()
    worlds, folder = work / f"seed_{seed}", work / "safety"
    facts = run_fault(setting, worlds, folder, seed, fault, drive_s)
    write_durably(folder / fault / SAFETY_FILE, json.dumps(facts, indent=1))
    _say(f"fault {fault}", f"excess {facts['worst_excess']}, {facts['published']} published")


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, print and write everything that is finished."""
    options = _parser().parse_args(arguments)
    parts, seeds = options.parts.split(","), [int(seed) for seed in options.seeds.split(",")]
    faults = options.faults.split(",") if options.faults else []
    for wanted, known in ((parts, PARTS), (faults, FAULTS)):
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise ConfigurationError(f"there is no {', '.join(unknown)}; known: {', '.join(known)}")
    if "safety" in parts and options.safety_s > options.drive_s:
        raise ConfigurationError("--safety-s is a part of the drive; lower it, or raise --drive-s")
    folder, work = options.folder.resolve(), options.work.resolve()
    teacher = folder / "frames" / LAST if options.teacher is None else options.teacher.resolve()
    overrides = {
        name: yaml.safe_load(value)
        for name, _, value in (item.partition("=") for item in options.overrides)
    }
    anchors, student = prepare(folder, work, options.student_updates, options.student)
    setting = Setting(
        student, teacher, anchors, options.steps_per_s, overrides, tuple(options.offline),
        Lengths(options.drive_s, options.return_s, options.place_s),
    )  # fmt: skip
    # A fault needs the worlds of the first seed, so that these come first.
    prepare_seed(
        work / f"seed_{seeds[0]}", seeds[0], setting.lengths, lambda words: _say("worlds", words)
    )
    jobs: list[tuple[Any, ...]] = []
    if "shift" in parts:
        jobs += [(run_seed, setting, work, seed) for seed in seeds]
    if "safety" in parts:
        jobs += [
            (run_safety, setting, work, seeds[0], fault, options.safety_s)
            for fault in (NONE, *faults)
        ]
    _in_processes(jobs, options.processes)
    controls = None
    if "safety" in parts:
        quiet_threads()
        controls = run_controls(
            setting, work / f"seed_{seeds[0]}", work / "safety", seeds[0], options.rounds
        )
    results = _plain(collect(setting, work, seeds, controls))
    path = record("adaptation", results, options.out)
    text = markdown(results)
    (options.out / "adaptation.md").write_text(text, encoding="utf-8")
    write_png(options.out / "adaptation_shift.png", shift_plot(results))
    write_png(options.out / "adaptation_safety.png", safety_plot(results))
    print(f"{text}\n-> {path}")
    return 0


def collect(
    setting: Setting, work: Path, seeds: Sequence[int], controls: dict[str, Any] | None
) -> dict[str, Any]:
    """Return everything that is finished, of this or an earlier call."""
    of_seeds = [_read(work / f"seed_{seed}" / SEED_FILE) for seed in seeds]
    done = [facts for facts in of_seeds if facts is not None]
    faults = [_read(work / "safety" / name / SAFETY_FILE) for name in (NONE, *FAULTS)]
    safety = [facts for facts in faults if facts is not None]
    measured = [facts for facts in done if "numbers" in facts]
    return {
        "student": {"sha256": load_checkpoint(setting.student).digest, "kinds": list(KNOWN_KINDS)},
        "teacher": {"sha256": load_checkpoint(setting.teacher).digest},
        "steps_per_s": setting.steps_per_s,
        "lengths": asdict(setting.lengths),
        "overrides": dict(setting.overrides),
        "offline_overrides": list(setting.offline),
        "parameters": parameter_values(setting.parameters(0)),
        "seeds": done,
        "refused_seeds": [facts["seed"] for facts in done if "numbers" not in facts],
        "claims": {
            error: [
                claim.to_json() for claim in shift_claims([f["numbers"][error] for f in measured])
            ]
            for error in ("aligned_abs_rel", "metric_abs_rel")
        },
        "safety": safety,
        "harmless": all(facts["harmless"] for facts in safety) if safety else None,
        "controls": controls,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="online adaptation: gain and safety")
    parser.add_argument("--folder", type=Path, default=Path("output/first_weights"))
    parser.add_argument("--work", type=Path, default=Path("output/adaptation"))
    parser.add_argument("--teacher", type=Path, help="a frame network instead of the folder's")
    parser.add_argument("--parts", default=",".join(PARTS), help="of shift, safety")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="separated by commas")
    parser.add_argument("--faults", default=",".join(FAULTS), help="separated by commas")
    parser.add_argument("--drive-s", type=float, default=300.0, help="in B, simulated")
    parser.add_argument("--return-s", type=float, default=60.0, help="in A afterwards")
    parser.add_argument("--place-s", type=float, default=20.0, help="of each place to score on")
    parser.add_argument("--safety-s", type=float, default=150.0, help="of the drive, for a fault")
    parser.add_argument("--steps-per-s", type=float, default=2.5)
    parser.add_argument("--student-updates", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5, help="of each negative control")
    parser.add_argument("--processes", type=int, default=1)
    for name, what in (
        ("set", "parameter of online learning"),
        ("student-set", "setting of the student's training"),
        ("offline-set", "setting of offline distillation"),
    ):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="NAME=VALUE", help=what,
            dest={"set": "overrides"}.get(name, name.partition("-")[0]),
        )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def _in_processes(jobs: Sequence[tuple[Any, ...]], processes: int) -> None:
    if processes == 1:
        for function, *arguments in jobs:
            function(*arguments)
        return
    # Threads of PyTorch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        for future in [pool.submit(*job) for job in jobs]:
            future.result()


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: None where a number is none."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _say(who: str, words: str) -> None:
    print(f"[{os.getpid()}] {who}: {words}", flush=True)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


if __name__ == "__main__":
    raise SystemExit(main())
