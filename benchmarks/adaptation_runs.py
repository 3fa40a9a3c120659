"""Runs of the adaptation benchmark: online on drives, offline on the same drive, and their scores.

Each run has a folder; what is finished there is not done again, what was cut begins anew (offline
distillation goes on where it was stopped).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.adaptation_faults import Clock, Drive, Fault, failing_teacher
from benchmarks.adaptation_verdicts import SMALLEST_LEAD
from benchmarks.adaptation_worlds import CLIPS, DRIVE, KNOWN_KINDS, RETURN, Lengths
from benchmarks.heldout import kind_of, rounded, score_network
from dae_ros.bags.recording import open_recording
from dae_ros.distillation.clip_store import ClipStore, open_clip_store
from dae_ros.distillation.clip_writer import write_durably
from dae_ros.distillation.configuration import DistillationParameters, load_settings
from dae_ros.distillation.labels import DepthRange
from dae_ros.distillation.online.adaptation import Adaptation, AdaptationResult
from dae_ros.distillation.online.loop import LEARNER, SNAPSHOTS, OnlineDistiller
from dae_ros.distillation.online.opening import open_student
from dae_ros.distillation.runs import train
from dae_ros.distillation.validation import mean_of_scores
from dae_ros.model.checkpoint import load_checkpoint
from dae_ros.parameters import DepthParameters
from dae_ros.parameters.declaration import declarations
from dae_ros.parameters.distillation import OnlineParameters

ELSEWHERE, KNOWN = "elsewhere", "known"
PARTS = (ELSEWHERE, KNOWN)
NUMBERS = (
    "aligned_abs_rel", "aligned_delta_1", "aligned_positive_scale", "metric_abs_rel",
    "metric_delta_1",
)  # fmt: skip
RUN_FILE, SCORES_FILE, LAST = "run.json", "scores.json", "last.safetensors"
# The frame network says metres up to where simulated worlds end.
RANGE = DepthRange(0.3, 80.0)
_SAMPLE_S = 1.0


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
            # Every version is scored, and a run that was cut begins anew.
            "kept_snapshots": 10_000,
            "save_every_steps": 1_000,
        }
        return OnlineParameters.from_mapping({**values, **self.overrides})

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
        samples: each second `at_s`, `state`, `labels`, `steps`, `version`.
    """

    def __init__(self, name: str, distiller: OnlineDistiller, length_s: float) -> None:
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
                }
            )
        tenth = int(10 * done_s / self._length_s)
        if tenth > self._told:
            self._told = tenth
            wall_s = time.monotonic() - self._begun
            print(f"{self._name}: {done_s:.0f} s in {wall_s:.0f} s, {words}", flush=True)


def run_online(
    setting: Setting,
    worlds: Path,
    folder: Path,
    seed: int,
    fault: Fault,
    *,
    drive_s: float,
    comes_back: bool,
) -> dict[str, Any]:
    """Learn online on a drive, and write what happened; what is done already is not done again.

    Args:
        setting: what all runs share.
        worlds: folder of the seed.
        folder: of the run.
        seed: of the benchmark.
        fault: that goes on for a while; `none` for none.
        drive_s: how much of the drive.
        comes_back: whether A is seen afterwards.

    Returns:
        What `run.json` keeps: `original` (version), `swaps`, `versions`, `verdicts`, `samples`,
        `status`, `drive` (errors of both on the drive itself, every 10 s), `seconds` and `wall_s`.
    """
    if (folder / RUN_FILE).exists():
        return _read(folder / RUN_FILE)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parameters = setting.parameters(seed)
    student = open_student(str(setting.student), setting.anchors, parameters, "cpu")
    teacher = failing_teacher(str(setting.teacher), RANGE, fault)
    depth = DepthParameters(weights=str(setting.student), device="cpu", threads=1)
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        distiller = student.learn(teacher, folder)
        stack.callback(distiller.close)
        names = [DRIVE, RETURN] if comes_back else [DRIVE]
        opened = [stack.enter_context(open_recording(worlds / name)) for name in names]
        drives = [Drive(opened[0], fault, drive_s)]
        drives += [Drive(recording, fault, begin_s=drive_s) for recording in opened[1:]]
        adaptation = Adaptation(distiller, depth, setting.steps_per_s, fault.label_s)
        length_s = drive_s + (setting.lengths.return_s if comes_back else 0.0)
        progress = Progress(f"{folder.parent.name}/{folder.name}", distiller, length_s)
        original = distiller.announcement.version
        result = adaptation.run(drives, report=progress, stopped=lambda: False)
        facts = {
            "original": original,
            "swaps": result.swaps,
            "versions": result.versions,
            "verdicts": result.verdicts,
            "samples": progress.samples,
            "status": distiller.status().to_dict(),
            "drive": _curves(result),
            "seconds": result.seconds,
            "wall_s": round(time.monotonic() - begun, 1),
        }
    write_durably(folder / RUN_FILE, json.dumps(facts))
    return facts


def score_versions(
    folder: Path, versions: Sequence[int], store: ClipStore, parts: Sequence[str] = PARTS
) -> dict[int, dict[str, dict[str, float | None]]]:
    """Return version -> part -> name -> score of versions that a run has published.

    Args:
        folder: of the run; what is scored already is not scored again.
        versions: which.
        store: clips of the seed.
        parts: which of `PARTS`.
    """
    kept = folder / SCORES_FILE
    scores: dict[str, Any] = _read(kept) if kept.exists() else {}
    for version in sorted(set(versions)):
        found = scores.setdefault(str(version), {})
        missing = [part for part in parts if part not in found]
        if missing:
            path = folder / SNAPSHOTS / f"w_{version:06d}.safetensors"
            found |= score_file(path, store, missing)
            write_durably(kept, json.dumps(scores, indent=1))
    return {version: scores[str(version)] for version in sorted(set(versions))}


def score_file(
    path: Path, store: ClipStore, parts: Sequence[str] = PARTS, windows: int = 0
) -> dict[str, dict[str, float | None]]:
    """Return part -> name -> mean score over its places, of weights in a file.

    Args:
        path: a checkpoint.
        store: clips of a seed.
        parts: which of `PARTS`.
        windows: of each place at most; 0 for all.
    """
    kinds: dict[str, Callable[[str], bool]] = {
        ELSEWHERE: lambda name: kind_of(name) not in KNOWN_KINDS,
        KNOWN: lambda name: kind_of(name) in KNOWN_KINDS,
    }
    scores: dict[str, dict[str, float | None]] = {}
    for part in parts:
        chosen = tuple(
            item for item in store.sequences if item.split == "heldout" and kinds[part](item.name)
        )
        only = ClipStore(
            store.folder, store.event_encoder, store.height, store.width, chosen, store.digest
        )
        found = score_network(load_checkpoint(path), only, windows=windows)
        mean = mean_of_scores(list(found.sequences.values()))
        scores[part] = rounded({name: mean[name] for name in NUMBERS})
    return scores


def check_shift(setting: Setting, worlds: Path) -> dict[str, Any]:
    """Compare teacher and student elsewhere; there is nothing to gain where it is no better.

    Returns:
        Scores of both on all parts, and `lead`: name -> by which part the teacher's error is
        below the student's; `worthwhile`: whether both are above `SMALLEST_LEAD`.
    """
    path = worlds / "shift.json"
    digests = [load_checkpoint(file).digest for file in (setting.student, setting.teacher)]
    if path.exists():
        kept = _read(path)
        if kept["digests"] == digests:
            return kept
    store = open_clip_store(worlds / CLIPS)
    student, teacher = (score_file(file, store) for file in (setting.student, setting.teacher))
    lead = {}
    for name in ("aligned_abs_rel", "metric_abs_rel"):
        of_student, of_teacher = student[ELSEWHERE][name], teacher[ELSEWHERE][name]
        known = of_student is not None and of_teacher is not None
        lead[name] = round(1.0 - of_teacher / of_student, 4) if known else None
    facts = {
        "digests": digests,
        "student": student,
        "teacher": teacher,
        "lead": lead,
        "worthwhile": all(value is not None and value >= SMALLEST_LEAD for value in lead.values()),
    }
    write_durably(path, json.dumps(facts, indent=1))
    return facts


def run_offline(setting: Setting, worlds: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Distil from the same teacher on the whole drive, as many updates as it has time for steps.

    All weights learn, and every clip of the drive may be drawn from the first update on: what
    `dae-ros distill` makes of the drive once it is over.

    Returns:
        Scores on all parts, `updates` and their `minutes`.
    """
    kept = folder / SCORES_FILE
    if kept.exists():
        return _read(kept)
    overrides = [
        f"weights={setting.student}", f"teachers={setting.teacher}", f"clips={worlds / CLIPS}",
        "encoder_weights=''", f"steps={setting.steps}", f"warm_up={setting.steps // 10}",
        f"evaluate_every={setting.steps}", "heldout_windows=1", "threads=1", f"seed={seed}",
        # A student that knows depth is moved, not taught anew.
        "learning_rate=5.0e-4", "muon_rate=5.0e-4", "refuse_after=0", *setting.offline,
    ]  # fmt: skip
    settings = load_settings(DistillationParameters, "first_weights_distilled", overrides)
    begun = time.monotonic()
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
        "overrides": list(setting.offline),
        **score_file(folder / LAST, open_clip_store(worlds / CLIPS)),
    }
    write_durably(kept, json.dumps(facts, indent=1))
    return facts


def healthy() -> Fault:
    """Return no fault."""
    return Fault("none", 0.0, 0.0, Clock(), 0)


def forget_clips(folder: Path) -> None:
    """Remove what a finished run could learn on from; its versions stay."""
    shutil.rmtree(folder / LEARNER, ignore_errors=True)


def parameter_values(parameters: OnlineParameters) -> dict[str, Any]:
    """Return name -> value of all parameters, for the results."""
    return {name: getattr(parameters, name) for name in declarations(OnlineParameters)}


def _curves(result: AdaptationResult) -> dict[str, Any]:
    return {
        name: {"mean": curve.mean(), "every_10_s": curve.rows()}
        for name, curve in (("frozen", result.frozen), ("online", result.online))
    }


def _read(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def quiet_threads() -> None:
    """Compute on one thread: a run is one of several processes."""
    torch.set_num_threads(1)
