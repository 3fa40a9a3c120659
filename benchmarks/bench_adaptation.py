"""What online adaptation gains under a shift of domain, and that it does no harm.

    python -m benchmarks.bench_adaptation [--processes 2] [--seeds 0,1,2,3,4]
        [--parts shift,safety,way] [--drive-s 300] [--work output/adaptation]

The student was taught with true depth on rooms and corridors alone (A), and is deployed in streets
and warehouses (B, `adaptation/worlds.py`). It lies there as well; adaptation/student.yaml says
how it was made, and `--student-updates 1000` makes another one. The teacher is the shipped
`micro_frames`, taught with true depth on worlds of all kinds, which plays the part that a
foundation model has on a robot.

**shift**, for each seed: a drive through B, then A again. The loop is that of `dae-ros adapt`
(gates, guard, publication, canary and rollback), with 2.5 steps for each simulated second. Each
version that depth had is scored against true depth on other places of B, and on ninety of A.
Beside it stand the weights that never change, and offline distillation from the same teacher on the
same drive: all weights, as many updates as online had time for steps, every clip from the start.
Before, teacher and student are compared elsewhere in B: where the teacher is not better by a
tenth, aligned and in metres, there is nothing to gain and the seed is refused. No claim is met
with fewer than five seeds.

**safety**, in the worlds of seed 0: a healthy run until depth has kept a version that was
learned; from its state on, one run for each fault of teacher, calibration or cameras
(`adaptation/faults.py`) and one without, and some faults from the first second on
(`adaptation/safety.py`). And weights that are worse on purpose, submitted to the guard of the run
without a fault.

**way**: the weights between the original and what each seed was taught, scored in the same places.

All is kept in `--work`, in folders named after everything but the code that runs depend on
(`adaptation/cache.py`); what is finished is taken over, from there or from results/adaptation.json,
a run that was cut begins anew. `--seeds`, `--parts` and `--faults` say what to do now. Written are
results/adaptation.json, .md, adaptation_shift.png, adaptation_wall.png, adaptation_safety.png once
there are faults, adaptation_way.png once there are ways, and adaptation_places.png if the weights
of all finished seeds are in `--work`. One thread per process.

    python -m benchmarks.bench_adaptation --smoke

takes a look at the first seed: 90 s of its drive, online alone, nothing claimed; printed are
verdicts by reason, what the gates refused, and what each part cost.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from benchmarks.adaptation.cache import keyed
from benchmarks.adaptation.controls import controls_file
from benchmarks.adaptation.faults import FAULTS
from benchmarks.adaptation.finished import read_finished, take_over
from benchmarks.adaptation.jobs import (
    Job,
    look_at,
    render,
    render_known,
    run_healthy,
    run_safety,
    run_seed,
    run_worse,
)
from benchmarks.adaptation.pictures import places_picture
from benchmarks.adaptation.report import markdown, safety_plot, shift_plot
from benchmarks.adaptation.runs import (
    LAST,
    Setting,
    parameter_values,
    quiet_threads,
    read_json,
)
from benchmarks.adaptation.safety import (
    CASE_FILE,
    HEALTHY_FILE,
    LATE,
    NONE,
    Case,
    Course,
    all_cases,
    verdict_on,
)
from benchmarks.adaptation.scores import ERRORS
from benchmarks.adaptation.verdicts import FEWEST_SEEDS, shift_claims
from benchmarks.adaptation.wall import wall_plot
from benchmarks.adaptation.way import run_way, way_plot
from benchmarks.adaptation.worlds import (
    KNOWN_KINDS,
    Lengths,
    build_places,
    linked_clips,
    replayed_recipe,
    taught_recipe,
    watched_recipe,
)
from benchmarks.record import RESULTS, record
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.configuration import TrainingParameters, load_settings, to_yaml
from dae_ros.distillation.runs import train
from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.strips import write_png
from dae_ros.model.checkpoint import load_checkpoint

PARTS = ("shift", "safety", "way")
# Long enough for a first judgement.
SMOKE_S = 90.0
RESULT = "adaptation.json"
SEEDS, SAFETY_SEED = tuple(range(FEWEST_SEEDS)), 0
STUDENT = Path(__file__).parent / "adaptation" / "student.safetensors"
TEACHER = Path(__file__).parents[1] / "models" / "micro_frames.safetensors"


def prepare(
    work: Path, given: Path, updates: int, overrides: Sequence[str], lengths: Lengths
) -> tuple[Path, Path]:
    """Make what all runs share, where it is not there: anchors, and the student.

    Args:
        work: where it is kept.
        given: weights that know A alone.
        updates: of the training of others instead; 0 for none.
        overrides: of its settings.
        lengths: of the places that the guard measures with and that are replayed.

    Returns:
        Folder of the anchors, and the student's checkpoint.
    """
    quiet_threads()
    shared = {
        "taught": taught_recipe(),
        "watched": watched_recipe(lengths),
        "replayed": replayed_recipe(lengths),
    }
    anchors = keyed(work, "anchors", shared)
    places = [
        build_places(keyed(work, name, {"recipe": recipe}), recipe)
        for name, recipe in shared.items()
    ]
    linked_clips(places, anchors)
    if not updates:
        return anchors, given
    return anchors, taught_student(work, places[0], updates, overrides)


def taught_student(work: Path, clips: Path, updates: int, overrides: Sequence[str]) -> Path:
    """Train the student that knows A alone, or go on where that was stopped.

    Args:
        work: where it is kept.
        clips: of `taught_recipe`.
        updates: of its training.
        overrides: of its settings.

    Returns:
        Its checkpoint.
    """
    settings = load_settings(
        TrainingParameters,
        Path(__file__).parent / "adaptation" / "student.yaml",
        [f"clips={clips}", f"steps={updates}", f"warm_up={updates // 10}",
         f"evaluate_every={max(1, updates // 4)}", *overrides],
    )  # fmt: skip
    # Where the clips lie changes no weight.
    values = {**yaml.safe_load(to_yaml(settings)), "clips": open_clip_store(clips).digest}
    student = keyed(work, "student", values)
    told = -1

    def report(fraction: float, detail: str) -> None:
        nonlocal told
        if int(20 * fraction) > told:
            told = int(20 * fraction)
            print(f"student: {detail}", flush=True)

    train(settings, student, report=report)
    return student / LAST


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, print and write everything that is finished."""
    options = _parser().parse_args(arguments)
    parts, seeds = options.parts.split(","), [int(seed) for seed in options.seeds.split(",")]
    faults = options.faults.split(",") if options.faults else []
    for wanted, known in ((parts, PARTS), (faults, FAULTS)):
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise ConfigurationError(f"there is no {', '.join(unknown)}; known: {', '.join(known)}")
    work, out = options.work.resolve(), options.out.resolve()
    overrides = {
        name: yaml.safe_load(value)
        for name, _, value in (item.partition("=") for item in options.overrides)
    }
    lengths = Lengths(options.drive_s, options.return_s, options.place_s, options.known_s)
    if options.smoke:
        parts, seeds = ["shift"], seeds[:1]
        lengths = Lengths(min(options.drive_s, SMOKE_S), 1.0, 1.0, options.known_s)
    # Threads of PyTorch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context) as pool:
        # Worlds need no student, who is being trained meanwhile.
        driven = {
            *(seeds if "shift" in parts else ()),
            *([SAFETY_SEED] if "safety" in parts else ()),
        }
        rendered = [pool.submit(render, work, seed, lengths) for seed in sorted(driven)]
        rendered.append(pool.submit(render_known, work, lengths))
        anchors, student = prepare(
            work, options.student, options.student_updates, options.training, lengths
        )
        setting = Setting(
            student, options.teacher, anchors, options.steps_per_s, overrides,
            tuple(options.offline), lengths,
        )  # fmt: skip
        for future in rendered:
            future.result()
        job = Job(setting, work, Course(fault_s=options.fault_s), options.rounds)
        if options.smoke:
            look_at(job, seeds[0])
            return 0
        if (out / RESULT).exists():
            taken = take_over(read_json(out / RESULT)["results"], work)
            print(f"{taken} seeds and faults were finished before", flush=True)
        _do(pool, job, parts, seeds, faults)
    results = _plain(collect(job, sorted({*SEEDS, *seeds})))
    path = record("adaptation", results, out)
    text = markdown(results)
    (out / "adaptation.md").write_text(text, encoding="utf-8")
    write_png(out / "adaptation_shift.png", shift_plot(results))
    if results["safety"]:
        write_png(out / "adaptation_safety.png", safety_plot(results))
    write_png(out / "adaptation_wall.png", wall_plot(results))
    if results["way"]:
        write_png(out / "adaptation_way.png", way_plot(results))
    quiet_threads()
    places = places_picture(job, results["seeds"])
    if places is not None:
        write_png(out / "adaptation_places.png", places)
    print(f"{text}\n-> {path}")
    return 0


def _do(
    pool: ProcessPoolExecutor, job: Job, parts: Sequence[str], seeds: Sequence[int],
    faults: Sequence[str],
) -> None:  # fmt: skip
    """Run everything; cases of faults wait for the healthy run that they go on from."""
    cases = all_cases(faults) if "safety" in parts else []
    wanted = [_case_of(job, SAFETY_SEED, case) for case in cases]
    if cases:
        wanted.append(_controls_of(job, SAFETY_SEED))
    missing = not all(path.exists() for path in wanted)
    first = pool.submit(run_healthy, job, SAFETY_SEED) if missing else None
    waited: list[Future[None]] = []
    if "shift" in parts:
        waited += [pool.submit(run_seed, job, seed) for seed in seeds]
    # Where even the healthy run publishes nothing, a fault shows nothing.
    if first is not None and first.result():
        without, *others = (pool.submit(run_safety, job, SAFETY_SEED, case) for case in cases)
        without.result()
        waited += [*others, pool.submit(run_worse, job, SAFETY_SEED)]
    for future in waited:
        future.result()
    if "way" in parts:
        for future in [pool.submit(run_way, job, seed) for seed in seeds]:
            future.result()


def collect(job: Job, seeds: Sequence[int]) -> dict[str, Any]:
    """Return everything that is finished with these settings, of this or an earlier call."""
    setting = job.setting
    work = job.work
    done = read_finished(work, (job.summary(seed) for seed in seeds))
    way = read_finished(work, (job.way(seed) for seed in seeds))
    safety = read_finished(work, (_case_of(job, SAFETY_SEED, case) for case in all_cases(FAULTS)))
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
        "way": way,
        "safety": safety,
        "safety_verdict": verdict_on(safety) if safety else None,
        "healthy": read_finished(work, [job.safety(SAFETY_SEED) / HEALTHY_FILE]),
        "controls": read_finished(work, [_controls_of(job, SAFETY_SEED)]),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("output/adaptation"))
    parser.add_argument(
        "--teacher", type=_path, default=TEACHER, help="a frame network, micro_frames by default"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="of shift, safety, way")
    parser.add_argument(
        "--seeds", default=",".join(map(str, SEEDS)), help="to do now, separated by commas"
    )
    parser.add_argument(
        "--faults", default=",".join(FAULTS), help="to make now, separated by commas"
    )
    parser.add_argument("--drive-s", type=float, default=300.0, help="in B, simulated")
    parser.add_argument("--return-s", type=float, default=60.0, help="in A afterwards")
    parser.add_argument(
        "--place-s", type=float, default=15.0, help="of each place of B to score on"
    )
    parser.add_argument("--known-s", type=float, default=Lengths.known_s, help="of each of A")
    parser.add_argument("--fault-s", type=float, default=Course.fault_s, help="of a late fault")
    parser.add_argument("--smoke", action="store_true", help="a look at the first seed; see above")
    parser.add_argument("--steps-per-s", type=float, default=2.5)
    parser.add_argument("--student", type=_path, default=STUDENT, help="weights that know A alone")
    parser.add_argument(
        "--student-updates", type=int, default=0, help="so many make a student instead; 1000"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each negative control")
    parser.add_argument("--processes", type=int, default=1)
    for name, what in (
        ("set", "parameter of online learning"),
        ("student-set", "setting of that training"),
        ("offline-set", "setting of offline distillation"),
    ):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="NAME=VALUE", help=what,
            dest={"set": "overrides", "student-set": "training"}.get(name, "offline"),
        )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def _path(text: str) -> Path:
    return Path(text).resolve()


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: None where a number is none."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _case_of(job: Job, seed: int, case: Case) -> Path:
    return job.safety(seed) / case.name / CASE_FILE


def _controls_of(job: Job, seed: int) -> Path:
    return controls_file(job.safety(seed) / Case(NONE, LATE).name, job.rounds)


if __name__ == "__main__":
    raise SystemExit(main())
