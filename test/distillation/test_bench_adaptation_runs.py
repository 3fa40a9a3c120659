"""The adaptation benchmark's folders, and what its runs with faults prove."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.adaptation import jobs
from benchmarks.adaptation.cache import KEY_FILE, keyed, write_once
from benchmarks.adaptation.cost import on_own_core
from benchmarks.adaptation.faults import FAULTS
from benchmarks.adaptation.finished import read_finished, take_over, write_finished
from benchmarks.adaptation.jobs import Job
from benchmarks.adaptation.runs import RUN_FILE, Setting, verdicts_and_refusals
from benchmarks.adaptation.safety import (
    EARLY,
    EARLY_FAULTS,
    LATE,
    NONE,
    PREFIX,
    Case,
    Course,
    all_cases,
    counts_between,
    published_at,
    run_case,
    run_prefix,
    verdict_on,
)
from benchmarks.adaptation.scores import (
    ERRORS,
    PARTS,
    PLACES,
    score_file,
    score_files,
    weights_digest,
)
from benchmarks.adaptation.worlds import Lengths, known_folder, worlds_folder
from dae_ros.errors import ConfigurationError
from dae_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dae_ros.model.untrained import untrained
from test.reference.moving_wedge import WedgeSource, wedge_clips


def test_a_folder_is_named_after_its_facts(tmp_path: Path) -> None:
    """The same facts in another order give the same folder, others another; people can read why."""
    first = keyed(tmp_path, "runs", {"a": 1, "b": [2, 3]})
    assert keyed(tmp_path, "runs", {"b": [2, 3], "a": 1}) == first
    assert keyed(tmp_path, "runs", {"a": 1, "b": [3, 2]}) != first
    assert json.loads((first / KEY_FILE).read_text()) == {"a": 1, "b": [2, 3]}
    write_once(first / "file", "one")
    write_once(first / "file", "two")
    assert (first / "file").read_text() == "one\n"


def test_what_results_hold_is_finished_on_another_machine(tmp_path: Path) -> None:
    """Files come out as they went in, with what made them; what is there is not touched."""
    here, there = tmp_path / "here", tmp_path / "there"
    paths = [here / "seed_0_ab" / "seed_cd.json", here / "seed_0_ab" / "late_none" / "case.json"]
    for index, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        write_finished(path, {"index": index, "none": None, "numbers": [0.25, "x"]})
    seeds, safety = ([*read_finished(here, [path, here / "missing.json"])] for path in paths)
    assert seeds[0]["place"] == "seed_0_ab/seed_cd.json" and len(seeds) == len(safety) == 1
    assert {"commit", "date", "machine"} <= seeds[0]["made"].keys()
    results = json.loads(
        json.dumps({"seeds": seeds, "safety": safety, "healthy": [], "controls": []})
    )
    kept = there / "seed_0_ab" / "late_none" / "case.json"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"own": 1}')
    assert take_over(results, there) == 1
    assert json.loads(kept.read_text()) == {"own": 1}
    again = read_finished(there, [there / path.relative_to(here) for path in paths[:1]])
    assert again == seeds
    assert take_over(results, there) == 0


def test_runs_of_other_settings_weights_and_worlds_are_kept_apart(tmp_path: Path) -> None:
    """Everything that a run depends on is in its folder's name; what does not matter is not."""
    for name, value in (("student", 0.0), ("teacher", 1.0)):
        loaded = untrained("micro")
        with torch.no_grad():
            next(iter(loaded.network.parameters())).fill_(value)
        save_checkpoint(tmp_path / f"{name}.safetensors", loaded.network, loaded.meaning)
    wedge_clips(tmp_path / "anchors", [WedgeSource(1, windows=2)], [WedgeSource(2, windows=2)])
    wedge_clips(tmp_path / "others", [WedgeSource(3, windows=2)], [WedgeSource(4, windows=2)])
    usual: dict[str, Any] = {
        "student": tmp_path / "student.safetensors", "teacher": tmp_path / "teacher.safetensors",
        "anchors": tmp_path / "anchors", "steps_per_s": 2.5, "overrides": {}, "offline": (),
        "lengths": Lengths(30.0, 10.0, 5.0),
    }  # fmt: skip
    changes: list[dict[str, Any]] = [
        {}, {"student": usual["teacher"]}, {"teacher": usual["student"]},
        {"anchors": tmp_path / "others"}, {"steps_per_s": 2.0},
        {"overrides": {"learning_rate": 1e-3}}, {"offline": ("steps=3",)},
        {"lengths": Lengths(31.0, 10.0, 5.0)},
    ]  # fmt: skip
    folders = [Setting(**{**usual, **change}).folder(tmp_path, 0) for change in changes]
    assert len(set(folders)) == len(changes)
    assert Setting(**usual).folder(tmp_path, 0) == folders[0]
    assert Setting(**usual).folder(tmp_path, 1) not in folders
    # What is learned offline is the same whatever the loop's parameters and anchors are.
    offline = [Setting(**{**usual, **change}).offline_folder(tmp_path, 0) for change in changes]
    alike = [
        change for change, folder in zip(changes, offline, strict=True) if folder == offline[0]
    ]
    assert alike == [{}, changes[3], changes[5]]
    assert len(set(offline)) == len(changes) - 2
    assert Setting(**usual).offline_folder(tmp_path, 1) not in offline
    # No run depends on what it is only scored on, but its summary does.
    settings = [usual, {**usual, "lengths": Lengths(30.0, 10.0, 5.0, 6.0)}]
    jobs = [Job(Setting(**values), tmp_path, Course(), 1) for values in settings]
    assert jobs[0].folder(0) == jobs[1].folder(0) == jobs[0].summary(0).parent
    assert jobs[0].summary(0) != jobs[1].summary(0)
    # Worlds are the same whoever learns in them.
    worlds = {worlds_folder(tmp_path, 0, Lengths(30.0, 10.0, s)) for s in (5.0, 5.0, 6.0)}
    assert len(worlds) == 2


def test_equal_weights_have_one_digest_whatever_their_files_note(tmp_path: Path) -> None:
    """A version that is published again is not scored again; one bit more is another one."""
    loaded = untrained("micro")
    digests = []
    for number in range(3):
        if number == 2:
            with torch.no_grad():
                next(iter(loaded.network.parameters())).view(-1)[0] += 1e-3
        path = tmp_path / f"{number}.safetensors"
        save_checkpoint(path, loaded.network, loaded.meaning, extra={"step": str(number)})
        digests.append(weights_digest(load_checkpoint(path)))
    assert digests[0] == digests[1] != digests[2]


def case(name: str, kind: str = LATE, **changes: Any) -> dict[str, Any]:
    return {"fault": name, "kind": kind, "harmless": True, "proves": True, **changes}


def test_what_harms_nobody_because_nothing_was_proposed_proves_nothing() -> None:
    """It is named; a harmful case, a missing one, or none that proves anything spoils the claim."""
    every = [case(c.fault, c.kind) for c in all_cases(FAULTS)]
    assert verdict_on(every)["met"] and verdict_on(every)["proven"] == len(every) - 1
    quiet = [{**one, "proves": one["fault"] == "doubled"} for one in every]
    said = verdict_on(quiet)
    assert said["proven"] == 2 and "late_inverted" in said["nothing_proposed"] and said["met"]
    assert not verdict_on([{**one, "proves": False} for one in every])["met"]
    assert verdict_on(every[:-1])["missing"] == [f"early_{EARLY_FAULTS[-1]}"]
    harmful = verdict_on([*every[:3], {**every[3], "harmless": False}, *every[4:]])
    assert not harmful["met"] and harmful["harmful"] == [Case(every[3]["fault"], LATE).name]


def test_smoothly_wrong_teachers_fail_early_and_late() -> None:
    """And every fault is made after a publication."""
    names = {(one.fault, one.kind) for one in all_cases(FAULTS)}
    assert {("doubled", LATE), ("doubled", EARLY), ("drifting", EARLY)} <= names
    assert {(fault, LATE) for fault in (NONE, *FAULTS)} <= names


def test_counts_grow_between_two_seconds() -> None:
    """A run that goes on from another has counts at its beginning, which are not its own."""
    samples = [
        {"at_s": 0.5, "counts": {"label.noisy": 7}},
        {"at_s": 2.0, "counts": {"label.noisy": 9, "label.accepted": 1}},
        {"at_s": 4.0, "counts": {"label.noisy": 20}},
    ]
    assert counts_between(samples, 1.0, 3.0) == {"label.noisy": 2, "label.accepted": 1}
    assert counts_between(samples, 0.0, 1.0) == {"label.noisy": 7}


def test_a_publication_counts_when_depth_keeps_it() -> None:
    """From when depth had it, not from the verdict of the canary."""
    swaps = [
        {"at_s": 60.0, "version": 2, "outcome": "swapped"},
        {"at_s": 61.0, "version": 2, "outcome": "rolled_back"},
        {"at_s": 80.0, "version": 3, "outcome": "swapped"},
        {"at_s": 82.5, "version": 3, "outcome": "kept"},
    ]
    assert published_at({"swaps": swaps}) == 80.0
    assert published_at({"swaps": swaps[:2]}) is None


def test_faults_need_a_healthy_run_that_published(tmp_path: Path) -> None:
    """Otherwise nothing published would be no proof; and a drive must be long enough for both."""
    setting = Setting(tmp_path, tmp_path, tmp_path, 2.5, {}, (), Lengths(75.0, 10.0, 5.0))
    with pytest.raises(ConfigurationError, match="--drive-s"):
        run_prefix(setting, tmp_path, tmp_path, 0, Course())
    (tmp_path / PREFIX).mkdir()
    (tmp_path / PREFIX / RUN_FILE).write_text(json.dumps({"swaps": [], "seconds": 70.0}))
    with pytest.raises(ConfigurationError, match="nothing was published in 70 s"):
        run_case(setting, tmp_path, tmp_path, 0, Case("doubled", LATE), Course())


def test_a_look_names_the_commonest_first() -> None:
    """Verdicts by reason and what the gates refused, and that there were none."""
    counts = {"verdict.no_gain": 1, "verdict.accepted": 3, "label.noisy": 0, "frame.dark": 2}
    words = verdicts_and_refusals(counts)
    assert words == ("verdicts: accepted 3, no_gain 1; labels: none; frames: dark 2; clips: none")


def test_a_learner_on_its_own_core_works_in_order_and_not_ahead() -> None:
    """It waits for what it has not seen, and falls behind where a second costs more than one."""
    work = [(1.0, 0.5), (2.0, 3.5), (3.0, 4.0), (20.0, 5.0)]
    end_of = on_own_core(work)
    # 1 + 0.5; then max(1.5, 2) + 3; then 5 + 0.5; idle until 20.
    assert [end_of(s) for s in (0.3, 1.0, 1.5, 3.0, 20.0, 99.0)] == [1.5, 1.5, 5.0, 5.5, 21.0, 21.0]
    assert on_own_core(work, duty=0.5)(2.0) == 8.0


def test_the_places_that_were_known_are_those_of_the_last_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seed's `known` leads to the clips of its lengths, also where the work folder was moved."""
    monkeypatch.setattr(jobs, "prepare_seed", lambda *_: None)
    for known_s in (5.0, 6.0, 5.0):
        lengths = Lengths(30.0, 10.0, 5.0, known_s)
        jobs.render(tmp_path / "work", 0, lengths)
        link = worlds_folder(tmp_path / "work", 0, lengths) / "known"
        assert link.resolve() == known_folder(tmp_path / "work", lengths).resolve()
    moved = (tmp_path / "work").rename(tmp_path / "elsewhere")
    assert (worlds_folder(moved, 0, lengths) / "known").resolve() == known_folder(moved, lengths)


def test_versions_are_scored_once_and_together_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On each place of either part; equal weights are looked up, whosever they are."""
    held = [WedgeSource(seed, windows=10) for seed in (2, 3)]
    for name in ("together", "alone"):
        for part in (tmp_path / name, tmp_path / name / "known"):
            wedge_clips(part / "clips", [WedgeSource(1, windows=2)], held)
    loaded = untrained("micro")
    meaning = dataclasses.replace(loaded.meaning, orientation="depth", scale="metric")
    files = []
    for number in range(3):
        if number == 1:
            with torch.no_grad():
                loaded.network.depth_head.scratch.output_conv1.weight.mul_(1.5)
        files.append(tmp_path / f"{number}.safetensors")
        save_checkpoint(files[-1], loaded.network, meaning)
    alone = [score_file(file, tmp_path / "alone") for file in files]
    assert score_files(files, tmp_path / "together") == alone
    assert alone[1] == alone[2] != alone[0]
    for part in PARTS:
        scores = alone[0][part]
        places = scores[PLACES]
        assert len(places) == 2
        for error in ERRORS:
            mean = sum(found[error] for found in places.values()) / 2
            assert scores[error] == pytest.approx(mean, abs=2e-5)
    assert len(list((tmp_path / "together" / "known" / "scores").iterdir())) == 2
    monkeypatch.setattr("benchmarks.adaptation.scores.score_networks", None)
    assert score_files(files[::-1], tmp_path / "together") == alone[::-1]
