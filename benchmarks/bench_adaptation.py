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
tenth, aligned and in metres, there is nothing to gain and the seed is refused. No claim is met
with fewer seeds than were asked for, and than five.

**safety**, in the worlds of the first seed: a healthy run until depth has kept a version that was
learned; from its state on, one run for each fault of teacher, calibration or cameras
(`adaptation_faults.py`) and one without, and some faults from the first second on
(`adaptation_safety.py`). And weights that are worse on purpose, submitted to the guard of the run
without a fault.

All is kept in `--work`, in folders named after everything but the code that runs depend on
(`adaptation_cache.py`); what is finished is taken over, a run that was cut begins anew. Written are
results/adaptation.json, .md, adaptation_shift.png, adaptation_wall.png and adaptation_safety.png,
from what is finished. One thread per process.

    python -m benchmarks.bench_adaptation --smoke --work output/adaptation_smoke

takes a look at the first seed: 90 s of its drive, online alone, nothing claimed; printed are
verdicts by reason, what the gates refused, and what each part cost.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.adaptation_cache import keyed
from benchmarks.adaptation_controls import run_controls
from benchmarks.adaptation_faults import FAULTS
from benchmarks.adaptation_report import markdown, safety_plot, shift_plot
from benchmarks.adaptation_runs import (
    LAST,
    Setting,
    Trip,
    check_shift,
    forget_clips,
    healthy,
    parameter_values,
    quiet_threads,
    read_json,
    run_offline,
    run_online,
    verdicts_and_refusals,
)
from benchmarks.adaptation_safety import (
    CASE_FILE,
    LATE,
    NONE,
    Case,
    Course,
    all_cases,
    published_at,
    run_case,
    run_prefix,
    safety_folder,
    verdict_on,
)
from benchmarks.adaptation_scores import ELSEWHERE, KNOWN, score_versions
from benchmarks.adaptation_verdicts import shift_claims, summary_of_seed, timeline_of
from benchmarks.adaptation_wall import wall_plot
from benchmarks.adaptation_worlds import (
    KNOWN_KINDS,
    Lengths,
    anchor_clips,
    new_kind,
    prepare_seed,
    worlds_folder,
)
from benchmarks.record import RESULTS, record
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.clip_writer import write_durably
from dae_ros.distillation.configuration import TrainingParameters, load_settings, to_yaml
from dae_ros.distillation.runs import train
from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.strips import write_png
from dae_ros.model.checkpoint import load_checkpoint

PARTS = ("shift", "safety")
SEED_FILE = "seed.json"
# Long enough for a first judgement.
SMOKE_S = 90.0
HOP_S = 0.05


@dataclass(frozen=True)
class Job:
    """What processes share.

    Attributes:
        setting: of all runs.
        work: where everything is kept.
        course: of runs with faults.
    """

    setting: Setting
    work: Path
    course: Course

    def worlds(self, seed: int) -> Path:
        """Return where the worlds of a seed are, all of them rendered."""
        folder = worlds_folder(self.work, seed, self.setting.lengths)
        prepare_seed(folder, seed, self.setting.lengths, lambda words: _say(f"seed {seed}", words))
        return folder

    def folder(self, seed: int) -> Path:
        """Return where the runs of a seed are."""
        return self.setting.folder(self.work, seed)

    def safety(self, seed: int) -> Path:
        """Return where the runs with faults are."""
        return safety_folder(self.work, self.setting, seed, self.course)


def prepare(folder: Path, work: Path, updates: int, overrides: Sequence[str]) -> tuple[Path, Path]:
    """Make what all runs share, where it is not there: anchors, and the student.

    Returns:
        Folder of the anchors, and the student's checkpoint.
    """
    quiet_threads()
    source = open_clip_store(folder / "clips").digest
    anchors = keyed(work, "anchors", {"source": source})
    store = anchor_clips(folder / "clips", anchors)
    settings = load_settings(
        TrainingParameters,
        Path(__file__).with_name("adaptation_student.yaml"),
        [f"clips={anchors}", f"steps={updates}", f"warm_up={updates // 10}",
         f"evaluate_every={max(1, updates // 4)}", *overrides],
    )  # fmt: skip
    # Where the clips lie changes no weight.
    values = {**yaml.safe_load(to_yaml(settings)), "clips": store.digest}
    student = keyed(work, "student", values)
    told = -1

    def report(fraction: float, detail: str) -> None:
        nonlocal told
        if int(20 * fraction) > told:
            told = int(20 * fraction)
            print(f"student: {detail}", flush=True)

    train(settings, student, report=report)
    return anchors, student / LAST


def run_seed(job: Job, seed: int) -> None:
    """Do all of a seed's part of `shift`, and keep it in `seed.json`."""
    quiet_threads()
    setting, worlds, folder = job.setting, job.worlds(seed), job.folder(seed)
    if (folder / SEED_FILE).exists():
        return
    shift = check_shift(setting, worlds, folder)
    _say(f"seed {seed}", f"teacher against student elsewhere, lead {shift['lead']}")
    facts: dict[str, Any] = {"seed": seed, "kind": new_kind(seed), "shift": shift}
    if not shift["worthwhile"]:
        _say(f"seed {seed}", "refused: the teacher is not better where the student is deployed")
        write_durably(folder / SEED_FILE, json.dumps(facts, indent=1))
        return
    online, drive_s = folder / "online", setting.lengths.drive_s
    run = run_online(setting, worlds, online, seed, healthy(), Trip(drive_s, comes_back=True))
    forget_clips(online)
    timeline = timeline_of(run["original"], run["swaps"])
    scores = score_versions(online, [version for _, version in timeline], worlds)
    offline = run_offline(setting, worlds, folder / "offline", seed)
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
        "cost": run["cost"],
        "depth_s": run["depth_s"],
        "work": [[sample["at_s"], sample["cost"]] for sample in run["samples"]],
        "windows": round(run["seconds"] / HOP_S),
        **summary_of_seed(
            timeline,
            {part: {v: found[part] for v, found in scores.items()} for part in (ELSEWHERE, KNOWN)},
            offline[ELSEWHERE],
            drive_s,
        ),
    }
    write_durably(folder / SEED_FILE, json.dumps(facts, indent=1))


def run_healthy(job: Job, seed: int) -> None:
    """Drive without a fault until depth has kept a version; say when."""
    quiet_threads()
    found = run_prefix(job.setting, job.worlds(seed), job.safety(seed), seed, job.course)
    _say("healthy", f"depth has a version after {published_at(found)} s")


def run_safety(job: Job, seed: int, case: Case) -> None:
    """Do one case of faults."""
    quiet_threads()
    facts = run_case(job.setting, job.worlds(seed), job.safety(seed), seed, case, job.course)
    _say(
        case.name,
        f"excess {facts['worst_excess']}, {facts['proposed']} candidates proposed and "
        f"{facts['accepted']} accepted meanwhile, {facts['labels']} labels believed",
    )


def look_at(job: Job, seed: int) -> None:
    """Do the first minutes of a seed online, and print what happened."""
    quiet_threads()
    drive_s = job.setting.lengths.drive_s
    folder = job.folder(seed) / "look"
    run = run_online(job.setting, job.worlds(seed), folder, seed, healthy(), Trip(drive_s))
    print(verdicts_and_refusals(run["status"]["counts"]))
    print(f"core seconds of learning: {run['cost']}, of depth and reading: {run['depth_s']}")
    for verdict in run["verdicts"]:
        reasons = ", ".join(refusal["reason"] for refusal in verdict["refusals"])
        print(f"  {verdict['at_s']:.0f} s: {reasons or 'accepted'}")


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, print and write everything that is finished."""
    options = _parser().parse_args(arguments)
    parts, seeds = options.parts.split(","), [int(seed) for seed in options.seeds.split(",")]
    faults = options.faults.split(",") if options.faults else []
    for wanted, known in ((parts, PARTS), (faults, FAULTS)):
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise ConfigurationError(f"there is no {', '.join(unknown)}; known: {', '.join(known)}")
    folder, work = options.folder.resolve(), options.work.resolve()
    teacher = folder / "frames" / LAST if options.teacher is None else options.teacher.resolve()
    overrides = {
        name: yaml.safe_load(value)
        for name, _, value in (item.partition("=") for item in options.overrides)
    }
    anchors, student = prepare(folder, work, options.student_updates, options.student)
    lengths = Lengths(options.drive_s, options.return_s, options.place_s)
    if options.smoke:
        lengths = Lengths(min(options.drive_s, SMOKE_S), 1.0, 1.0)
    setting = Setting(
        student, teacher, anchors, options.steps_per_s, overrides, tuple(options.offline), lengths
    )
    job = Job(setting, work, Course(fault_s=options.fault_s))
    if options.smoke:
        look_at(job, seeds[0])
        return 0
    _do(job, parts, seeds, faults, options.processes)
    controls = None
    if "safety" in parts:
        quiet_threads()
        healthy_run = job.safety(seeds[0]) / Case(NONE, LATE).name
        controls = run_controls(
            setting, job.worlds(seeds[0]), healthy_run, seeds[0], options.rounds
        )
    results = _plain(collect(job, seeds, controls))
    path = record("adaptation", results, options.out)
    text = markdown(results)
    (options.out / "adaptation.md").write_text(text, encoding="utf-8")
    write_png(options.out / "adaptation_shift.png", shift_plot(results))
    write_png(options.out / "adaptation_safety.png", safety_plot(results))
    write_png(options.out / "adaptation_wall.png", wall_plot(results))
    print(f"{text}\n-> {path}")
    return 0


def _do(
    job: Job, parts: Sequence[str], seeds: Sequence[int], faults: Sequence[str], processes: int
) -> None:
    """Run everything; cases of faults wait for the healthy run that they go on from."""
    job.worlds(seeds[0])  # of the healthy run and of the first seed, which begin together
    # Threads of PyTorch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        first = pool.submit(run_healthy, job, seeds[0]) if "safety" in parts else None
        waited: list[Future[None]] = []
        if "shift" in parts:
            waited += [pool.submit(run_seed, job, seed) for seed in seeds]
        if first is not None:
            first.result()
            waited += [pool.submit(run_safety, job, seeds[0], case) for case in all_cases(faults)]
        for future in waited:
            future.result()


def collect(job: Job, seeds: Sequence[int], controls: dict[str, Any] | None) -> dict[str, Any]:
    """Return everything that is finished with these settings, of this or an earlier call."""
    setting = job.setting
    done = _finished(job.folder(seed) / SEED_FILE for seed in seeds)
    folder = job.safety(seeds[0])
    safety = _finished(folder / case.name / CASE_FILE for case in all_cases(FAULTS))
    measured = [facts for facts in done if "numbers" in facts]
    return {
        "student": {"sha256": load_checkpoint(setting.student).digest, "kinds": list(KNOWN_KINDS)},
        "teacher": {"sha256": load_checkpoint(setting.teacher).digest},
        "steps_per_s": setting.steps_per_s,
        "lengths": asdict(setting.lengths),
        "course": asdict(job.course),
        "overrides": dict(setting.overrides),
        "offline_overrides": list(setting.offline),
        "parameters": parameter_values(setting.parameters(0)),
        "seeds": done,
        "declared_seeds": list(seeds),
        "refused_seeds": [facts["seed"] for facts in done if "numbers" not in facts],
        "claims": {
            error: [
                claim.to_json()
                for claim in shift_claims([f["numbers"][error] for f in measured], len(seeds))
            ]
            for error in ("aligned_abs_rel", "metric_abs_rel")
        },
        "safety": safety,
        "safety_verdict": verdict_on(safety) if safety else None,
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
    parser.add_argument("--place-s", type=float, default=15.0, help="of each place to score on")
    parser.add_argument("--fault-s", type=float, default=Course.fault_s, help="of a late fault")
    parser.add_argument("--smoke", action="store_true", help="a look at the first seed; see above")
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


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: None where a number is none."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _say(who: str, words: str) -> None:
    print(f"[{os.getpid()}] {who}: {words}", flush=True)


def _finished(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [read_json(path) for path in paths if path.exists()]


if __name__ == "__main__":
    raise SystemExit(main())
