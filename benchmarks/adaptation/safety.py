"""Safety of online adaptation: faults while depth has a learned version, and from the beginning.

A healthy run is driven until depth has kept a first version. Faults of the kind `late` go on from
its state on disk, as after a restart; those of the kind `early` begin with the drive and last until
some time after the healthy run had published. So both go on when publishing is possible, and
how many candidates were proposed meanwhile is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.adaptation.cache import keyed
from benchmarks.adaptation.faults import FAULTS, Clock, Fault
from benchmarks.adaptation.finished import write_finished
from benchmarks.adaptation.runs import (
    RUN_FILE,
    Setting,
    Trip,
    forget_clips,
    healthy,
    read_json,
    run_online,
)
from benchmarks.adaptation.scores import ELSEWHERE, ERRORS, Scores, score_versions
from benchmarks.adaptation.verdicts import (
    LARGEST_EXCESS,
    live_at,
    recovery_s,
    timeline_of,
    worst_excess,
)
from dae_ros.distillation.online.adaptation import AdaptationResult
from dae_ros.errors import ConfigurationError

NONE, PREFIX, CASE_FILE, HEALTHY_FILE = "none", "prefix", "case.json", "healthy.json"
LATE, EARLY = "late", "early"
# From the beginning: what the gates compare with is then learned from the failing teacher itself.
EARLY_FAULTS = ("inverted", "blotchy", "doubled", "drifting")
# Stages of counts that say how often something was refused before it was learned from.
_GATES = ("frame.", "label.")


@dataclass(frozen=True)
class Course:
    """How long things go on, s.

    Attributes:
        settle_s: healthy, before a late fault begins.
        fault_s: a late fault; an early one ends `past_s` after the healthy run's publication.
        past_s: see above.
        after_s: healthy again.
    """

    settle_s: float = 5.0
    fault_s: float = 40.0
    past_s: float = 20.0
    after_s: float = 30.0


@dataclass(frozen=True)
class Case:
    """One fault at one time.

    Attributes:
        fault: its name, or `none`.
        kind: `late` or `early`.
    """

    fault: str
    kind: str

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return f"{self.kind}_{self.fault}"


def all_cases(faults: Sequence[str]) -> list[Case]:
    """Return what is done of these faults: first what goes well, then late and early faults."""
    early = [Case(fault, EARLY) for fault in faults if fault in EARLY_FAULTS]
    return [Case(NONE, LATE), *(Case(fault, LATE) for fault in faults), *early]


def safety_folder(work: Path, setting: Setting, seed: int, course: Course) -> Path:
    """Return where the runs with faults are."""
    return keyed(setting.folder(work, seed), "safety", {"course": asdict(course)})


def run_prefix(
    setting: Setting, worlds: Path, folder: Path, seed: int, course: Course
) -> dict[str, Any]:
    """Drive without a fault until depth has kept a first version.

    Returns:
        What `published_at` takes.
    """

    def kept(result: AdaptationResult) -> bool:
        return any(swap["outcome"] == "kept" for swap in result.swaps)

    # What is left of the drive must be long enough for a late fault.
    longest_s = setting.lengths.drive_s - course.settle_s - course.fault_s - course.after_s
    if longest_s <= 0.0:
        raise ConfigurationError(
            f"the drive of {setting.lengths.drive_s:g} s is too short for a fault of "
            f"{course.fault_s:g} s and what comes before and after it; raise --drive-s, or lower "
            "--fault-s"
        )
    return run_online(
        setting, worlds, folder / PREFIX, seed, healthy(), Trip(longest_s), enough=kept
    )


def published_at(prefix: Mapping[str, Any]) -> float | None:
    """Return when depth took the first version that it kept; None where there was none."""
    kept = [swap["version"] for swap in prefix["swaps"] if swap["outcome"] == "kept"]
    taken = [s["at_s"] for s in prefix["swaps"] if s["outcome"] == "swapped" and kept
             and s["version"] == kept[0]]  # fmt: skip
    return float(taken[0]) if taken else None


def run_case(
    setting: Setting, worlds: Path, folder: Path, seed: int, case: Case, course: Course
) -> dict[str, Any]:
    """Learn online while something goes wrong, and score everything that depth had.

    Args:
        setting: what all runs share.
        worlds: of the seed.
        folder: of all cases, where the prefix is finished; the run's own is below it.
        seed: of the benchmark.
        case: what goes wrong when; the clips of that without a fault stay for controls.
        course: for how long.

    Returns:
        What is claimed of the case, see `summary`; it is also written.

    Raises:
        ConfigurationError: the healthy run has published nothing, so that nothing can be shown.
    """
    own = folder / case.name
    if (own / CASE_FILE).exists():
        return read_json(own / CASE_FILE)
    prefix = read_json(folder / PREFIX / RUN_FILE)
    first_s = published_at(prefix)
    if first_s is None:
        raise ConfigurationError(
            "without any fault nothing was published in "
            f"{prefix['seconds']:.0f} s, so that a fault in which nothing is published would show "
            "nothing; raise --drive-s, or look at the verdicts of the healthy run",
            folder=str(folder / PREFIX),
        )
    if case.kind == LATE:
        begin_s, end_s = course.settle_s, course.settle_s + course.fault_s
        trip = Trip(end_s + course.after_s, prefix["seconds"], resumed=folder / PREFIX)
    else:
        begin_s, end_s = 0.0, first_s + course.past_s
        trip = Trip(min(end_s + course.after_s, setting.lengths.drive_s))
    fault = Fault(case.fault, begin_s, end_s, Clock(), seed)
    run = run_online(setting, worlds, own, seed, fault, trip)
    if case.fault != NONE:
        forget_clips(own)
    timeline = timeline_of(run["begun_with"], run["swaps"])
    versions = [run["original"], *(version for _, version in timeline)]
    scores = score_versions(own, versions, worlds, (ELSEWHERE,))
    facts = {"kind": case.kind, **summary(case.fault, run, scores, begin_s, end_s)}
    write_finished(own / CASE_FILE, facts)
    return facts


def summary(
    name: str,
    run: Mapping[str, Any],
    scores: Mapping[int, Mapping[str, Scores]],
    begin_s: float,
    end_s: float,
) -> dict[str, Any]:
    """Return what a run with a fault shows.

    Returns:
        `labels`: how many were believed during the fault. `proposed`, `accepted`: candidates that
        the guard judged and let pass during the fault; `verdicts`: reason -> how often it said no
        then. `published`: versions before, during and after it; `rolled_back`: refused or taken
        back by depth, or taken back by the loop. `worst_excess`: name of an error
        -> the largest excess over the frozen weights elsewhere, at any time from the fault's begin
        on; `worst_step`: the same over what depth had when it began. `recovered_s`: from its end to
        a label and a step. `refused`: what the gates refused during it. `held`: state -> share of
        its time. `harmless`: no excess above the limit, and it recovered. `proves`: whether
        candidates were proposed meanwhile; what harms nobody because nothing was proposed shows
        what the gates do, and nothing about the guard.
    """
    timeline = timeline_of(run["begun_with"], run["swaps"])
    errors = {
        error: {v: _known(found[ELSEWHERE][error]) for v, found in scores.items()}
        for error in ERRORS
    }
    before = live_at(timeline, begin_s)
    worst, step = (
        {
            error: worst_excess(timeline, values, values[base], begin_s)
            for error, values in errors.items()
        }
        for base in (run["original"], before)
    )
    recovered = recovery_s(run["samples"], end_s)
    times = [v["at_s"] for v in run["versions"] if v["why"] == "published"]
    during = [s["state"] for s in run["samples"] if begin_s <= s["at_s"] < end_s]
    counts = counts_between(run["samples"], begin_s, end_s)
    judged = [v for v in run["verdicts"] if begin_s <= v["at_s"] < end_s]
    harmless = all(value <= LARGEST_EXCESS for value in worst.values()) and recovered is not None
    return {
        "fault": name,
        "begin_s": begin_s,
        "end_s": end_s,
        "seconds": run["seconds"],
        "labels": counts.get("label.accepted", 0),
        "proposed": len(judged),
        "accepted": sum(verdict["accepted"] for verdict in judged),
        "verdicts": dict(
            Counter(refusal["reason"] for v in judged for refusal in v["refusals"]).most_common()
        ),
        "published": {
            "before": sum(t < begin_s for t in times),
            "during": sum(begin_s <= t < end_s for t in times),
            "after": sum(t >= end_s for t in times),
        },
        "rolled_back": sum(
            swap["outcome"] in ("rolled_back", "refused") and swap["code"] != "superseded"
            for swap in run["swaps"]
        )
        + sum(version["why"] == "taken_back" for version in run["versions"]),
        "worst_excess": {error: round(value, 4) for error, value in worst.items()},
        "worst_step": {error: round(value, 4) for error, value in step.items()},
        "recovered_s": None if recovered is None else round(recovered, 1),
        "refused": {
            reason: count
            for reason, count in counts.items()
            if count and reason.startswith(_GATES) and not reason.endswith(".accepted")
        },
        "held": {state: round(n / len(during), 3) for state, n in Counter(during).items()},
        "timeline": [[at_s, version] for at_s, version in timeline],
        "errors": errors["aligned_abs_rel"],
        "core_s": round(sum(run["cost"].values()) + run["depth_s"], 1),
        "harmless": harmless,
        "proves": bool(judged),
    }


def counts_between(
    samples: Sequence[Mapping[str, Any]], begin_s: float, end_s: float
) -> dict[str, int]:
    """Return by how much each count of the status grew between two seconds of a run."""

    def at(second: float) -> Mapping[str, int]:
        found = [sample["counts"] for sample in samples if sample["at_s"] <= second]
        return found[-1] if found else {}

    before, after = at(begin_s), at(end_s)
    return {name: count - before.get(name, 0) for name, count in after.items()}


def verdict_on(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all cases say together.

    Returns:
        `faults`: how many cases with a fault; `proven`: of these harmless although candidates were
        proposed; `nothing_proposed` and `harmful`: names of others; `missing`: names of cases that
        have not been run; `met`: nothing is harmful, something is proven, and nothing is missing.
    """

    def name(case: Mapping[str, Any]) -> str:
        return Case(case["fault"], case["kind"]).name

    faults = [case for case in cases if case["fault"] != NONE]
    harmful = [name(case) for case in cases if not case["harmless"]]
    proven = [name(case) for case in faults if case["harmless"] and case["proves"]]
    quiet = [name(case) for case in faults if case["harmless"] and not case["proves"]]
    done = {name(case) for case in cases}
    missing = [case.name for case in all_cases(FAULTS) if case.name not in done]
    return {
        "faults": len(faults),
        "proven": len(proven),
        "nothing_proposed": quiet,
        "harmful": harmful,
        "missing": missing,
        "met": bool(proven) and not harmful and not missing,
    }


def _known(value: float | None) -> float:
    return float("nan") if value is None else value
