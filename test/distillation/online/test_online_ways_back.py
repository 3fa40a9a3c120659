"""Versions that are taken back: what is then announced, kept, forgotten and waited for."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
import torch

from dae_ros.distillation.online.reports import LoopReport
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint
from dae_ros.runtime.snapshots import read_latest
from test.reference.first_deployment import SEEN, FirstRun, published
from test.reference.wall_deployment import (
    EchoTeacher,
    deployment,
    depth_says,
    run,
)


def test_what_depth_rejects_is_taken_back(
    first_run: FirstRun,
    student: LoadedModel,
    teacher: EchoTeacher,
    tmp_path: Path,
) -> None:
    """The version is not announced any more, and learning begins anew from the one in use."""
    folder = shutil.copytree(first_run[0], tmp_path / "copy")
    distiller = deployment(student, teacher, folder)
    bad = distiller.announcement
    assert distiller.answered(depth_says(bad, "refused", "missing")) is None
    assert distiller.answered(depth_says(bad, "refused", "superseded")) is None
    assert distiller.answered(depth_says(bad, "swapped", "replayed")) is None
    back = distiller.answered(depth_says(bad, "rolled_back", "flicker"))
    assert back is not None and back.version == 1 and back.rollback
    assert distiller.answered(depth_says(bad, "rolled_back", "flicker")) is None, "once"
    assert distiller.answered(depth_says(back, "refused", "flicker")) is None, "it is the original"
    latest = read_latest(folder / "snapshots")
    assert latest is not None and latest.version == 1
    weights = load_checkpoint(latest.path).network.state_dict()
    original = student.network.state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in weights.items())
    assert distiller.status().rollbacks == 1 and distiller.status().resets == 1
    assert distiller.rollback() is None
    distiller.close()
    # Whoever comes after it knows as well, whatever became of the announcement.
    (folder / "snapshots" / "LATEST.json").unlink()
    again = deployment(student, teacher, folder)
    assert again.announcement.version == 1
    again.close()


def test_a_kill_on_the_way_back_does_not_bring_withdrawn_weights_along(
    first_run: FirstRun,
    student: LoadedModel,
    teacher: EchoTeacher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed between LATEST.json and the learner's save, it begins anew from what is published."""

    class Kill(BaseException):
        """Ends a process as a signal does."""

    def killed() -> bool:
        raise Kill

    folder = shutil.copytree(first_run[0], tmp_path / "copy")
    distiller = deployment(student, teacher, folder)
    bad = distiller.announcement
    monkeypatch.setattr(distiller, "save", killed)
    with pytest.raises(Kill):
        distiller.answered(depth_says(bad, "rolled_back", "flicker"))
    distiller.close()
    again = deployment(student, teacher, folder)
    assert again.announcement.version == 1
    learned = again._learner.candidate().network.state_dict()
    original = student.network.state_dict()
    assert all(torch.equal(learned[name], original[name]) for name in original)
    assert again._learner.lineage == (1,)
    again.close()


def test_a_version_that_cannot_be_written_is_said_until_one_can(
    student: LoadedModel, teacher: EchoTeacher, tmp_path: Path
) -> None:
    """What was accepted and not written is not published, and a save that works hides nothing."""
    distiller = deployment(student, teacher, tmp_path)
    blocked = tmp_path / "snapshots" / "LATEST.json.tmp"
    blocked.mkdir()
    reports = run(distiller, SEEN)
    report = next(one for one in reports if one.verdict is not None and one.verdict.accepted)
    assert report.announcement is None
    assert distiller.save()
    status = distiller.status()
    assert "snapshots cannot be written" in status.problem
    assert (status.version, status.published, status.counts["verdict.accepted"]) == (1, 0, 1)
    blocked.rmdir()
    assert any(one.announcement is not None for one in reports)
    status = distiller.status()
    assert (status.published, status.problem) == (1, "")
    distiller.close()


def test_learning_waits_while_nobody_knows_what_was_taken_back(
    first_run: FirstRun,
    student: LoadedModel,
    teacher: EchoTeacher,
    tmp_path: Path,
) -> None:
    """A list that is damaged at run time holds learning and every way back until it is mended."""
    folder = shutil.copytree(first_run[0], tmp_path / "copy")
    distiller = deployment(student, teacher, folder)
    learned = distiller.announcement
    damaged = folder / "snapshots" / "WITHDRAWN.json"
    damaged.write_text("{", encoding="utf-8")
    assert distiller.reset_to_anchor() is None
    says = depth_says(learned, "rolled_back", "flicker")
    assert distiller.answered(says) is None
    distiller.look(0)
    assert distiller.health.text == "holding:folder"
    assert "WITHDRAWN.json" in distiller.health.detail
    assert "WITHDRAWN.json" in distiller.status().problem
    assert distiller.announcement == learned
    damaged.unlink()
    distiller.look(0)
    assert distiller.health.reason != "folder"
    back = distiller.answered(says)
    assert back is not None and back.version == 1 and distiller.status().problem == ""
    distiller.close()


def test_what_is_known_of_withdrawn_weights_is_forgotten(
    first_run: FirstRun,
    student: LoadedModel,
    teacher: EchoTeacher,
    tmp_path: Path,
) -> None:
    """After a way back neither their states nor their scales count, also after a restart."""
    folder = shutil.copytree(first_run[0], tmp_path / "copy")
    distiller = deployment(student, teacher, folder)
    learner, gate = distiller._learner, distiller._intake._gate
    assert learner.lineage == tuple(range(distiller.announcement.version, 0, -1))
    gate._scales.extend([1.2] * 10)
    assert distiller.reset_to_anchor() is not None
    assert learner.lineage == (1,) and not gate._scales
    distiller.close()
    again = deployment(student, teacher, folder)
    assert again._learner.lineage == (1,) and not again._intake._gate._scales
    following = next(one.announcement for one in run(again, SEEN) if one.announcement is not None)
    assert following.version > max(published(first_run[1]))
    assert again._learner.lineage == (following.version, 1)
    again.close()


def test_what_is_worse_than_the_original_in_another_place_is_taken_back(
    first_run: FirstRun,
    student: LoadedModel,
    tmp_path: Path,
) -> None:
    """Where the labels agree with the original again, it is published again, by the loop alone."""
    folder = shutil.copytree(first_run[0], tmp_path / "copy")
    distiller = deployment(student, EchoTeacher(student, SEEN, 1.0), folder, judged_blocks=6)
    learned = distiller.announcement.version
    assert learned > 1
    reports: list[LoopReport] = []
    # Learning goes on from there, so that what comes next is not looked at.
    for begin in itertools.islice(itertools.cycle(range(0, len(SEEN), 8)), len(SEEN)):
        if begin == 0:
            distiller.begin_input()
        reports += run(distiller, SEEN[begin : begin + 8])
        if any(report.announcement for report in reports):
            break
    back = next(report for report in reports if report.announcement and report.verdict)
    assert back.announcement is not None and back.verdict is not None
    assert (back.announcement.version, back.announcement.rollback, back.reset) == (
        1,
        True,
        "original",
    )
    assert back.verdict.published_worse and not back.verdict.accepted
    assert back.verdict.numbers["gain_of_going_back"] > 0.01
    status = distiller.status()
    assert status.counts["verdict.published_worse"] == 1 and status.rollbacks == 1
    latest = read_latest(folder / "snapshots")
    assert latest is not None and latest.version == 1
    distiller.close()
