"""What online adaptation gains under a shift of domain, and that it does no harm.

    python -m benchmarks.bench_adaptation [--folder output/first_weights] [--processes 2]
        [--seeds 0,1,2,3,4] [--drive-s 300] [--student-updates 1000] [--parts shift,safety]

`--folder` is what scripts/train_first_weights.sh leaves: clips, and a run `frames`. The teacher is
that frame network, taught with true depth on worlds of all kinds, which plays the part that a
foundation model has on a robot. The student is trained here, with true depth on the folder's rooms
and corridors alone (A), and deployed in streets and warehouses (B, `adaptation_worlds.py`).

**shift**, for each seed: a drive through B, then A again. The loop is that of `dae-ros adapt`
(gates, guard, publication, canary and rollback), with 2.5 steps for each simulated second. Each
version that depth had is scored against true depth on other places of B, and on ninety of A.
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
verdicts by reason, what the gates refused, and what each part cost. With the same `--work` as the
real thing, or with `--student-file`, no student is trained twice.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from benchmarks.adaptation_cache import keyed
from benchmarks.adaptation_controls import controls_file
from benchmarks.adaptation_faults import FAULTS
from benchmarks.adaptation_jobs import (
    Job,
    look_at,
    render,
    render_known,
    run_healthy,
    run_safety,
    run_seed,
    run_worse,
)
from benchmarks.adaptation_report import markdown, safety_plot, shift_plot
from benchmarks.adaptation_runs import (
    LAST,
    RUN_FILE,
    Setting,
    parameter_values,
    quiet_threads,
    read_json,
)
from benchmarks.adaptation_safety import (
    CASE_FILE,
    LATE,
    NONE,
    PREFIX,
    Case,
    Course,
    all_cases,
    published_at,
    verdict_on,
)
from benchmarks.adaptation_scores import ERRORS
from benchmarks.adaptation_verdicts import shift_claims
from benchmarks.adaptation_wall import wall_plot
from benchmarks.adaptation_worlds import (
    KNOWN_KINDS,
    Lengths,
    build_places,
    clips_of_a,
    replayed_recipe,
    watched_recipe,
)
from benchmarks.record import RESULTS, record
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.configuration import TrainingParameters, load_settings, to_yaml
from dae_ros.distillation.runs import train
from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.strips import write_png
from dae_ros.model.checkpoint import load_checkpoint

PARTS = ("shift", "safety")
# Long enough for a first judgement.
SMOKE_S = 90.0


def prepare(
    folder: Path,
    work: Path,
    updates: int,
    overrides: Sequence[str],
    given: Path | None,
    lengths: Lengths,
) -> tuple[Path, Path]:
    """Make what all runs share, where it is not there: anchors, and the student.

    Args:
        folder: with clips.
        work: where it is kept.
        updates: of the student's training.
        overrides: of its settings.
        given: weights that know A alone, instead of training some.
        lengths: of the places that the guard measures with and that are replayed.

    Returns:
        Folder of the anchors, and the student's checkpoint.
    """
    quiet_threads()
    source = open_clip_store(folder / "clips").digest
    taught = keyed(work, "taught", {"source": source})
    store = clips_of_a([folder / "clips"], taught)
    shared = {"watched": watched_recipe(lengths), "replayed": replayed_recipe(lengths)}
    anchors = keyed(work, "anchors", {"source": source, **shared})
    places = [
        build_places(keyed(work, name, {"recipe": recipe}), recipe)
        for name, recipe in shared.items()
    ]
    clips_of_a([taught, *places], anchors)
    if given is not None:
        return anchors, given
    settings = load_settings(
        TrainingParameters,
        Path(__file__).with_name("adaptation_student.yaml"),
        [f"clips={taught}", f"steps={updates}", f"warm_up={updates // 10}",
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
    lengths = Lengths(options.drive_s, options.return_s, options.place_s, options.known_s)
    if options.smoke:
        seeds = seeds[:1]
        lengths = Lengths(min(options.drive_s, SMOKE_S), 1.0, 1.0, options.known_s)
    # Threads of PyTorch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context) as pool:
        # Worlds need no student, who is being trained meanwhile.
        driven = seeds if "shift" in parts else seeds[:1]
        rendered = [pool.submit(render, work, seed, lengths) for seed in driven]
        rendered.append(pool.submit(render_known, work, lengths))
        anchors, student = prepare(
            folder, work, options.student_updates, options.student, options.student_file, lengths
        )
        setting = Setting(
            student, teacher, anchors, options.steps_per_s, overrides,
            tuple(options.offline), lengths,
        )  # fmt: skip
        for future in rendered:
            future.result()
        job = Job(setting, work, Course(fault_s=options.fault_s), options.rounds)
        if options.smoke:
            look_at(job, seeds[0])
            return 0
        _do(pool, job, parts, seeds, faults)
    results = _plain(collect(job, seeds))
    path = record("adaptation", results, options.out)
    text = markdown(results)
    (options.out / "adaptation.md").write_text(text, encoding="utf-8")
    write_png(options.out / "adaptation_shift.png", shift_plot(results))
    write_png(options.out / "adaptation_safety.png", safety_plot(results))
    write_png(options.out / "adaptation_wall.png", wall_plot(results))
    print(f"{text}\n-> {path}")
    return 0


def _do(
    pool: ProcessPoolExecutor, job: Job, parts: Sequence[str], seeds: Sequence[int],
    faults: Sequence[str],
) -> None:  # fmt: skip
    """Run everything; cases of faults wait for the healthy run that they go on from."""
    first = pool.submit(run_healthy, job, seeds[0]) if "safety" in parts else None
    waited: list[Future[None]] = []
    if "shift" in parts:
        waited += [pool.submit(run_seed, job, seed) for seed in seeds]
    # Where even the healthy run publishes nothing, a fault shows nothing.
    if first is not None and first.result():
        without, *cases = (
            pool.submit(run_safety, job, seeds[0], case) for case in all_cases(faults)
        )
        without.result()
        waited += [*cases, pool.submit(run_worse, job, seeds[0])]
    for future in waited:
        future.result()


def collect(job: Job, seeds: Sequence[int]) -> dict[str, Any]:
    """Return everything that is finished with these settings, of this or an earlier call."""
    setting = job.setting
    done = _finished(job.summary(seed) for seed in seeds)
    folder = job.safety(seeds[0])
    safety = _finished(folder / case.name / CASE_FILE for case in all_cases(FAULTS))
    healthy_runs = _finished([folder / PREFIX / RUN_FILE])
    controls = _finished([controls_file(folder / Case(NONE, LATE).name, job.rounds)])
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
            for error in ERRORS
        },
        "safety": safety,
        "safety_verdict": verdict_on(safety) if safety else None,
        "healthy": [
            {"published_s": published_at(run), "seconds": run["seconds"]} for run in healthy_runs
        ],
        "controls": controls[0] if controls else None,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("output/first_weights"))
    parser.add_argument("--work", type=Path, default=Path("output/adaptation"))
    parser.add_argument("--teacher", type=Path, help="a frame network instead of the folder's")
    parser.add_argument("--parts", default=",".join(PARTS), help="of shift, safety")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="separated by commas")
    parser.add_argument("--faults", default=",".join(FAULTS), help="separated by commas")
    parser.add_argument("--drive-s", type=float, default=300.0, help="in B, simulated")
    parser.add_argument("--return-s", type=float, default=60.0, help="in A afterwards")
    parser.add_argument(
        "--place-s", type=float, default=15.0, help="of each place of B to score on"
    )
    parser.add_argument("--known-s", type=float, default=Lengths.known_s, help="of each of A")
    parser.add_argument("--fault-s", type=float, default=Course.fault_s, help="of a late fault")
    parser.add_argument("--smoke", action="store_true", help="a look at the first seed; see above")
    parser.add_argument("--steps-per-s", type=float, default=2.5)
    parser.add_argument("--student-updates", type=int, default=1000)
    parser.add_argument(
        "--student-file", type=lambda text: Path(text).resolve(), help="weights that know A alone"
    )
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


def _finished(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [read_json(path) for path in paths if path.exists()]


if __name__ == "__main__":
    raise SystemExit(main())
