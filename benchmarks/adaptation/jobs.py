"""What the processes of the adaptation benchmark do, one job after the other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.adaptation.cache import digest_of
from benchmarks.adaptation.controls import run_controls
from benchmarks.adaptation.finished import write_finished
from benchmarks.adaptation.runs import (
    Setting,
    Trip,
    check_shift,
    forget_clips,
    healthy,
    quiet_threads,
    run_offline,
    run_online,
    verdicts_and_refusals,
)
from benchmarks.adaptation.safety import (
    HEALTHY_FILE,
    LATE,
    NONE,
    Case,
    Course,
    published_at,
    run_case,
    run_prefix,
    safety_folder,
)
from benchmarks.adaptation.scores import ELSEWHERE, KNOWN, score_versions
from benchmarks.adaptation.verdicts import summary_of_seed, timeline_of
from benchmarks.adaptation.worlds import (
    Lengths,
    build_places,
    known_folder,
    known_recipe,
    new_kind,
    prepare_seed,
    worlds_folder,
)

HOP_S = 0.05


@dataclass(frozen=True)
class Job:
    """What processes share.

    Attributes:
        setting: of all runs.
        work: where everything is kept.
        course: of runs with faults.
        rounds: how often each negative control is drawn.
    """

    setting: Setting
    work: Path
    course: Course
    rounds: int

    def worlds(self, seed: int) -> Path:
        """Return where the worlds of a seed are."""
        return worlds_folder(self.work, seed, self.setting.lengths)

    def folder(self, seed: int) -> Path:
        """Return where the runs of a seed are."""
        return self.setting.folder(self.work, seed)

    def summary(self, seed: int) -> Path:
        """Return the file that sums up a seed: what it was scored on makes its name."""
        known = digest_of({"known": known_recipe(self.setting.lengths)})
        return self.folder(seed) / f"seed_{known}.json"

    def way(self, seed: int) -> Path:
        """Return the file with scores along the way to what a seed was taught."""
        summary = self.summary(seed)
        return summary.with_name(f"way_{summary.name}")

    def safety(self, seed: int) -> Path:
        """Return where the runs with faults are."""
        return safety_folder(self.work, self.setting, seed, self.course)


def render(work: Path, seed: int, lengths: Lengths) -> None:
    """Render what is missing of a seed's worlds."""
    quiet_threads()
    folder = worlds_folder(work, seed, lengths)
    prepare_seed(folder, seed, lengths, lambda words: _say(f"seed {seed}", words))
    # The last call decides which; `Setting.facts` names them. Relative, so that `work` may move.
    target, known = Path("..") / known_folder(work, lengths).name, folder / KNOWN
    if not known.is_symlink() or known.readlink() != target:
        known.unlink(missing_ok=True)
        known.symlink_to(target)


def render_known(work: Path, lengths: Lengths) -> None:
    """Render what is missing of the places that forgetting is measured by."""
    quiet_threads()
    build_places(known_folder(work, lengths), known_recipe(lengths))


def run_seed(job: Job, seed: int) -> None:
    """Do all of a seed's part of `shift`, and keep it in `Job.summary`."""
    quiet_threads()
    setting, worlds, summary = job.setting, job.worlds(seed), job.summary(seed)
    if summary.exists():
        return
    shift = check_shift(setting, worlds)
    _say(f"seed {seed}", f"teacher against student elsewhere, lead {shift['lead']}")
    facts: dict[str, Any] = {"seed": seed, "kind": new_kind(seed), "shift": shift}
    if not shift["worthwhile"]:
        _say(f"seed {seed}", "refused: the teacher is not better where the student is deployed")
        write_finished(summary, facts)
        return
    online, drive_s = job.folder(seed) / "online", setting.lengths.drive_s
    run = run_online(setting, worlds, online, seed, healthy(), Trip(drive_s, comes_back=True))
    forget_clips(online)
    timeline = timeline_of(run["original"], run["swaps"])
    scores = score_versions(online, [version for _, version in timeline], worlds)
    offline = run_offline(setting, worlds, setting.offline_folder(job.work, seed), seed)
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
    write_finished(summary, facts)


def run_healthy(job: Job, seed: int) -> bool:
    """Drive without a fault until depth has kept a version; return whether it has one."""
    quiet_threads()
    found = run_prefix(job.setting, job.worlds(seed), job.safety(seed), seed, job.course)
    published_s = published_at(found)
    _say("healthy", f"depth has a version after {published_s} s of {found['seconds']:.0f}")
    facts = {"published_s": published_s, "seconds": found["seconds"]}
    write_finished(job.safety(seed) / HEALTHY_FILE, facts)
    return published_s is not None


def run_safety(job: Job, seed: int, case: Case) -> None:
    """Do one case of faults."""
    quiet_threads()
    facts = run_case(job.setting, job.worlds(seed), job.safety(seed), seed, case, job.course)
    _say(
        case.name,
        f"excess {facts['worst_excess']}, {facts['proposed']} candidates proposed and "
        f"{facts['accepted']} accepted meanwhile, {facts['labels']} labels believed",
    )


def run_worse(job: Job, seed: int) -> None:
    """Submit weights that are worse on purpose to the guard of the run without a fault."""
    quiet_threads()
    run = job.safety(seed) / Case(NONE, LATE).name
    run_controls(job.setting, job.worlds(seed), run, seed, job.rounds)


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


def _say(who: str, words: str) -> None:
    print(f"[{os.getpid()}] {who}: {words}", flush=True)
