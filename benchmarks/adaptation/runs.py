"""Runs of the adaptation benchmark: online on drives, offline on the same drive.

Each run has a folder; what is finished there is not done again, what was cut begins anew (offline
distillation goes on where it was stopped). `Setting` names folders after all that runs depend on.

Long because a setting, a run online and one offline are compared with each other, and what they
share is seen where all three stand.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.adaptation.cache import keyed
from benchmarks.adaptation.cost import TimedDistiller
from benchmarks.adaptation.faults import Clock, Drive, Fault, failing_teacher
from benchmarks.adaptation.scores import ELSEWHERE, ERRORS, score_file
from benchmarks.adaptation.verdicts import SMALLEST_LEAD
from benchmarks.adaptation.worlds import CLIPS, DRIVE, RETURN, Lengths, recipes
from dae_ros.bags.recording import open_recording
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.configuration import DistillationParameters, load_settings
from dae_ros.distillation.labels import DepthRange
from dae_ros.distillation.online.adaptation import Adaptation, AdaptationResult
from dae_ros.distillation.online.loop import LEARNER, SNAPSHOTS, OnlineDistiller
from dae_ros.distillation.online.opening import open_student
from dae_ros.distillation.online.scored_pipeline import ScoredPipeline
from dae_ros.distillation.runs import train
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket
from dae_ros.model.durable_files import write_durably
from dae_ros.model.fetch import digest_of
from dae_ros.parameters import DepthParameters
from dae_ros.parameters.declaration import declarations
from dae_ros.parameters.distillation import OnlineParameters
from dae_ros.runtime.depth_frame import DepthFrame

RUN_FILE, OFFLINE_FILE = "run.json", "offline.json"
LAST = "last.safetensors"
# The frame network says metres up to where simulated worlds end.
RANGE = DepthRange(0.3, 80.0)
_SAMPLE_S = 1.0


# Parameters of depth that no run here depends on, nor its folder's name: runs that were recorded
# before there was such a parameter are found again.
IRRELEVANT = frozenset({"calibration", "largest_lag_s"})


@dataclass(frozen=True)
class Setting:
    """What all runs share.

    Attributes:
        student, teacher: checkpoints.
        anchors: clips of A that the student was trained on, and others to measure by.
        steps_per_s: of learning, per simulated second.
        overrides: of the online parameters, name -> value.
        offline: of offline distillation, as name=value.
        lengths: of the worlds.
    """

    student: Path
    teacher: Path
    anchors: Path
    steps_per_s: float
    overrides: Mapping[str, Any]
    offline: tuple[str, ...]
    lengths: Lengths

    def parameters(self, seed: int) -> OnlineParameters:
        """Return the parameters of the loop: the defaults, but for the place and the overrides."""
        values = {
            "near_m": RANGE.minimum_m,
            "far_m": RANGE.maximum_m,
            "seed": seed,
            # What a step costs, and hardly what it learns: for processors with AMX, and room for
            # what the frozen encoder says of every clip.
            "precision": "bfloat16",
            "cache_mb": 3000,
            # Every version is scored, and a run that was cut begins anew.
            "kept_snapshots": 10_000,
            "save_every_steps": 1_000,
        }
        return OnlineParameters.from_mapping({**values, **self.overrides})

    def folder(self, work: Path, seed: int) -> Path:
        """Return where the runs of a seed are, named after all that they depend on but the code."""
        facts = {
            **self._offline_facts(seed),
            "anchors": open_clip_store(self.anchors).digest,
            "steps_per_s": self.steps_per_s,
            "parameters": parameter_values(self.parameters(seed)),
            "depth": {
                name: value
                for name, value in parameter_values(depth_parameters("student")).items()
                if name not in IRRELEVANT
            },
        }
        return keyed(work, f"seed_{seed}", facts)

    def offline_folder(self, work: Path, seed: int) -> Path:
        """Return where offline distillation of a seed is, which knows no parameter of the loop."""
        return keyed(work, f"offline_{seed}", self._offline_facts(seed))

    def _offline_facts(self, seed: int) -> dict[str, Any]:
        return {
            "student": digest_of(self.student),
            "teacher": digest_of(self.teacher),
            "updates": self.steps,
            "offline": list(self.offline),
            "worlds": recipes(seed, self.lengths),
        }

    @property
    def steps(self) -> int:
        """Steps that a drive has time for."""
        return round(self.steps_per_s * self.lengths.drive_s)


class Progress:
    """Prints a line every few seconds of a run, and samples how learning is doing.

    Args:
        name: of the run.
        distiller: of the run.
        length_s: of the run.

    Attributes:
        samples: each second `at_s`, `state`, `labels`, `steps`, `version`, `counts` of the status,
            and `cost`, core seconds of learning so far.
    """

    def __init__(self, name: str, distiller: TimedDistiller, length_s: float) -> None:
        self._name = name
        self._distiller = distiller
        self._length_s = length_s
        self._begun = time.monotonic()
        self._told = 0
        self.samples: list[dict[str, Any]] = []

    def __call__(self, done_s: float, words: str) -> None:
        """Take note of a time."""
        if not self.samples or done_s >= self.samples[-1]["at_s"] + _SAMPLE_S:
            status = self._distiller.status()
            self.samples.append(
                {
                    "at_s": round(done_s, 2),
                    "state": status.health.text,
                    "labels": status.counts.get("label.accepted", 0),
                    "steps": status.accepted_steps,
                    "version": status.version,
                    "counts": {name: count for name, count in status.counts.items() if count},
                    "cost": round(self._distiller.cost.learning_s, 3),
                }
            )
        tenth = int(10 * done_s / self._length_s)
        if tenth > self._told:
            self._told = tenth
            wall_s = time.monotonic() - self._begun
            counts = self._distiller.status().counts
            print(
                f"{self._name}: {done_s:.0f} s in {wall_s:.0f} s, {words}\n"
                f"    {verdicts_and_refusals(counts)}\n"
                f"    core seconds: {self._distiller.cost.to_json()}",
                flush=True,
            )


@dataclass(frozen=True)
class Trip:
    """What a run drives through.

    Attributes:
        length_s: of the drive through B.
        begin_s: where in the drive it begins.
        comes_back: whether A is seen afterwards.
        resumed: folder of a run that goes on: the learner from disk, as after a restart, and depth
            with the version that it had.
    """

    length_s: float
    begin_s: float = 0.0
    comes_back: bool = False
    resumed: Path | None = None


class _Deaf:
    """A pipeline that is told everything and does nothing."""

    def restart(self, cause: str) -> None:
        """See `DepthPipeline.restart`."""

    def feed(self, packet: EventPacket) -> None:
        """See `DepthPipeline.feed`."""

    def add_frame(self, frame: Frame) -> None:
        """See `DepthPipeline.add_frame`."""


class _Unwatched(ScoredPipeline):
    """What frozen weights say on the drive is part of no claim, and costs as much as depth."""

    def __init__(self) -> None:
        self.pipeline = _Deaf()

    def begin(self, start_ns: int, elapsed_s: float) -> None:
        """Do nothing."""

    def truth(self, stamp_ns: int, depth: Any) -> None:
        """Do nothing."""

    def step(self) -> Iterator[DepthFrame]:
        """Yield nothing."""
        yield from ()

    def end(self) -> None:
        """Do nothing."""


class BesideDepth(Adaptation):
    """The loop beside depth; one that goes on from disk first tells depth which version it has.

    Args:
        distiller: learns.
        depth: parameters.
        setting: of the rate.
        fault: of the time that labels take.
        resumed: whether the distiller goes on from disk.
    """

    def __init__(
        self,
        distiller: OnlineDistiller,
        depth: DepthParameters,
        setting: Setting,
        fault: Fault,
        *,
        resumed: bool,
    ) -> None:
        super().__init__(distiller, depth, setting.steps_per_s, fault.label_s)
        self._frozen = _Unwatched()
        if resumed:
            self._swap.announce(distiller.announcement)


def run_online(
    setting: Setting,
    worlds: Path,
    folder: Path,
    seed: int,
    fault: Fault,
    trip: Trip,
    enough: Callable[[AdaptationResult], bool] | None = None,
) -> dict[str, Any]:
    """Learn online on a drive, and write what happened; what is done already is not done again.

    Args:
        setting: what all runs share.
        worlds: folder of the seed's worlds.
        folder: of the run.
        seed: of the benchmark.
        fault: that goes on for a while; `none` for none.
        trip: what is driven through.
        enough: asked all the time; True ends the run. None for all of the trip.

    Returns:
        What `run.json` keeps: `original` and `begun_with` (versions), `swaps`, `versions`,
        `verdicts`, `samples`, `status`, `drive` (the error on the drive itself, every 10 s),
        `seconds`, `wall_s`, and core seconds: `cost` of learning, `depth_s` of everything else:
        depth, reading, scoring.
    """
    if (folder / RUN_FILE).exists():
        return read_json(folder / RUN_FILE)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if trip.resumed is not None:
        for name in (SNAPSHOTS, LEARNER):
            shutil.copytree(trip.resumed / name, folder / name)
    parameters = setting.parameters(seed)
    student = open_student(str(setting.student), setting.anchors, parameters, "cpu")
    teacher = failing_teacher(str(setting.teacher), RANGE, fault)
    begun, begun_core = time.monotonic(), time.process_time()
    with contextlib.ExitStack() as stack:
        distiller = TimedDistiller(
            student.loaded, teacher, student.anchors, parameters, folder, student.device
        )
        stack.callback(distiller.close)
        names = [DRIVE, RETURN] if trip.comes_back else [DRIVE]
        opened = [stack.enter_context(open_recording(worlds / name)) for name in names]
        drives = [Drive(opened[0], fault, trip.length_s, start_s=trip.begin_s)]
        drives += [Drive(recording, fault, begin_s=trip.length_s) for recording in opened[1:]]
        begun_with, resumed = distiller.announcement.version, trip.resumed is not None
        # Depth that goes on has the published weights, and no canary compares them with others.
        weights = distiller.kept_versions()[begun_with] if resumed else setting.student
        depth = depth_parameters(str(weights))
        beside = BesideDepth(distiller, depth, setting, fault, resumed=resumed)
        length_s = trip.length_s + (setting.lengths.return_s if trip.comes_back else 0.0)
        progress = Progress(f"{folder.parent.name}/{folder.name}", distiller, length_s)
        result = beside.run(
            drives,
            report=progress,
            stopped=lambda: enough is not None and enough(beside.result),
        )
        core_s = time.process_time() - begun_core
        facts = {
            "original": min(distiller.kept_versions()),
            "begun_with": begun_with,
            "swaps": result.swaps,
            "versions": result.versions,
            "verdicts": result.verdicts,
            "samples": progress.samples,
            "status": distiller.status().to_dict(),
            "drive": {"mean": result.online.mean(), "every_10_s": result.online.rows()},
            "seconds": result.seconds,
            "wall_s": round(time.monotonic() - begun, 1),
            "cost": distiller.cost.to_json(),
            "depth_s": round(core_s - distiller.cost.learning_s, 1),
        }
    write_durably(folder / RUN_FILE, json.dumps(facts))
    return facts


def verdicts_and_refusals(counts: Mapping[str, int]) -> str:
    """Return in words what the guard said, and what the gates refused."""
    stages = {"verdicts": "verdict.", "labels": "label.", "frames": "frame.", "clips": "replay."}
    return "; ".join(
        f"{words}: " + (", ".join(
            f"{name.removeprefix(stage)} {count}"
            for name, count in sorted(counts.items(), key=lambda item: -item[1])
            if count and name.startswith(stage)
        ) or "none")
        for words, stage in stages.items()
    )  # fmt: skip


def check_shift(setting: Setting, worlds: Path) -> dict[str, Any]:
    """Compare teacher and student elsewhere; there is nothing to gain where it is no better.

    Returns:
        Scores of both on all parts, and `lead`: name -> by which part the teacher's error is
        below the student's; `worthwhile`: whether both are above `SMALLEST_LEAD`.
    """
    student, teacher = (score_file(file, worlds) for file in (setting.student, setting.teacher))
    lead = {}
    for name in ERRORS:
        of_student, of_teacher = student[ELSEWHERE][name], teacher[ELSEWHERE][name]
        known = of_student is not None and of_teacher is not None
        lead[name] = round(1.0 - of_teacher / of_student, 4) if known else None
    return {
        "student": student,
        "teacher": teacher,
        "lead": lead,
        "worthwhile": all(value is not None and value >= SMALLEST_LEAD for value in lead.values()),
    }


def run_offline(setting: Setting, worlds: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Distil from the same teacher on the whole drive, as many updates as it has time for steps.

    All weights learn, and every clip of the drive may be drawn from the first update on: what
    `dae-ros distill` makes of the drive once it is over.

    Returns:
        Scores on all parts, `updates` and their `minutes`.
    """
    kept = folder / OFFLINE_FILE
    if kept.exists():
        return {**read_json(kept), **score_file(folder / LAST, worlds)}
    overrides = [
        f"weights={setting.student}", f"teachers={setting.teacher}", f"clips={worlds / CLIPS}",
        "encoder_weights=''", f"steps={setting.steps}", f"warm_up={setting.steps // 10}",
        f"evaluate_every={setting.steps}", "heldout_windows=1", "threads=1", f"seed={seed}",
        # A student that knows depth is moved, not taught anew.
        "learning_rate=5.0e-4", "muon_rate=5.0e-4", "refuse_after=0", *setting.offline,
    ]  # fmt: skip
    settings = load_settings(DistillationParameters, "first_weights_distilled", overrides)
    begun, begun_core = time.monotonic(), time.process_time()
    told = 0

    def report(fraction: float, detail: str) -> None:
        nonlocal told
        if int(10 * fraction) > told:
            told = int(10 * fraction)
            print(f"{folder.parent.name}/{folder.name}: {detail}", flush=True)

    train(settings, folder, report=report)
    facts = {
        "updates": setting.steps,
        "minutes": round((time.monotonic() - begun) / 60.0, 2),
        "core_s": round(time.process_time() - begun_core, 1),
        "overrides": list(setting.offline),
    }
    write_durably(kept, json.dumps(facts, indent=1))
    return {**facts, **score_file(folder / LAST, worlds)}


def healthy() -> Fault:
    """Return no fault."""
    return Fault("none", 0.0, 0.0, Clock(), 0)


def forget_clips(folder: Path) -> None:
    """Remove what a finished run could learn on from; its versions stay."""
    shutil.rmtree(folder / LEARNER, ignore_errors=True)


def depth_parameters(weights: str) -> DepthParameters:
    """Return the parameters of depth, which judges every version as well."""
    return DepthParameters(weights=weights, device="cpu", threads=1)


def parameter_values(parameters: DepthParameters | OnlineParameters) -> dict[str, Any]:
    """Return name -> value of all parameters, for the results."""
    return {name: getattr(parameters, name) for name in declarations(type(parameters))}


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file of a run holds."""
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def quiet_threads() -> None:
    """Compute on one thread: a run is one of several processes."""
    torch.set_num_threads(1)
