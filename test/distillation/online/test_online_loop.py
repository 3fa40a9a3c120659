"""The loop: from events and frames to published weights, back again, and on from the disk."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.online.anchor_streams import Excerpt
from dae_ros.distillation.online.anchors import anchors_of_store
from dae_ros.distillation.online.learner import LEARNING_RATES, PROTECTED_RATE, Learner
from dae_ros.distillation.online.loop import OnlineDistiller
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.reports import LoopReport, StepReport
from dae_ros.distillation.teacher import FrameTeacher
from dae_ros.errors import DistillationError
from dae_ros.events.frame import Frame
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint
from dae_ros.runtime.snapshots import read_latest
from test.reference.moving_wedge import WedgeSource, wedge_clips
from test.reference.scrolling_wall import MS
from test.reference.wall_deployment import (
    EchoTeacher,
    deployment,
    depth_says,
    items,
    parameters,
    run,
)

SEEN = items(1, 2000)


@pytest.fixture(scope="module")
def teacher(student: LoadedModel) -> EchoTeacher:
    """Says 1.2 times what the student says."""
    return EchoTeacher(student, SEEN, 1.2)


@pytest.fixture(scope="module")
def first_run(
    student: LoadedModel, teacher: EchoTeacher, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[LoopReport], dict[str, object]]:
    """A deployment that has seen everything: folder, reports, status at the end."""
    folder = tmp_path_factory.mktemp("first")
    distiller = deployment(student, teacher, folder)
    reports = list(run(distiller, SEEN))
    distiller.save()
    status = distiller.status().to_dict()
    distiller.close()
    return folder, reports, status


def published(reports: list[LoopReport]) -> list[int]:
    return [r.announcement.version for r in reports if r.announcement is not None]


def test_a_better_student_is_published(
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
) -> None:
    """Labels become clips, clips steps, steps a candidate, and the guard lets it out, numbered."""
    folder, reports, status = first_run
    actions = [report.action for report in reports]
    assert actions[0] == "labelled" and {"learned", "judged"} <= set(actions)
    versions = published(reports)
    assert versions and versions[0] == 2 and versions == sorted(versions)
    latest = read_latest(folder / "snapshots")
    assert latest is not None and latest.version == status["version"] == versions[-1]
    verdicts = [r.verdict for r in reports if r.verdict is not None and r.announcement is not None]
    assert all(v.accepted and v.numbers["gain"] > 0 for v in verdicts)
    # The error on new labels, measured before they are learned from, falls as well.
    errors = [r.label.error for r in reports if r.label is not None and r.label.clip is not None]
    assert errors[-1] < errors[0]


def test_a_label_is_told_with_the_frame_that_it_is_of(student: LoadedModel, tmp_path: Path) -> None:
    """That is an earlier one than the clip's last where the last window has too few events."""
    quiet = [
        item
        if isinstance(item, Frame) or (item.stamp_ns - SEEN[0].stamp_ns) % (200 * MS) < 150 * MS
        else dataclasses.replace(item, payload=item.payload[:8])
        for item in items(1, 1000)
    ]
    distiller = deployment(student, EchoTeacher(student, quiet, 1.2), tmp_path)
    reports = [report.label for report in run(distiller, quiet) if report.label is not None]
    distiller.close()
    told = [(one.clip, one.frame) for one in reports if one.clip is not None]
    assert any(clip.labelled[-1] + 1 < len(clip.observation) for clip, _ in told)
    for clip, frame in told:
        assert frame is not None
        assert frame.stamp_ns == clip.observation.ends_ns[clip.labelled[-1]]


def test_clips_and_places_share_a_step(
    student: LoadedModel,
    teacher: EchoTeacher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of a step are visits of places, and a pinned clip now and then.

    What layers see at these places is protected, which makes steps longer.
    """
    sources = [[WedgeSource(seed, 28, 42, windows=12)] for seed in (1, 2)]
    store = open_clip_store(wedge_clips(tmp_path / "places", *sources))
    settings = parameters(
        batch_clips=4, anchor_share=0.5, anchor_streams=5, measured_windows=6, pinned_clips=1,
        learning_rate=0.0,
    )  # fmt: skip
    found: list[tuple[int, int, int]] = []
    rates: set[float] = set()
    step = Learner.step

    def counted(
        self: Learner,
        clips: Sequence[LabelledClip],
        anchors: Sequence[LabelledClip | Excerpt],
        number: int,
        pause: Callable[[], None],
    ) -> StepReport:
        excerpts = [anchor for anchor in anchors if isinstance(anchor, Excerpt)]
        found.append((len(clips), len(anchors) - len(excerpts), len(excerpts)))
        report = step(self, clips, anchors, number, pause)
        rates.add(self.learning_rate)
        return report

    monkeypatch.setattr(Learner, "step", counted)
    distiller = OnlineDistiller(
        student, teacher.teacher(), anchors_of_store(store, "tencode", settings), settings,
        tmp_path / "folder", torch.device("cpu"),
    )  # fmt: skip
    list(run(distiller, SEEN))
    distiller.close()
    assert (2, 0, 2) in found and set(found) <= {(2, 0, 2), (2, 1, 1)}
    assert rates == {LEARNING_RATES["micro"] * PROTECTED_RATE}


def test_equal_runs_give_equal_weights(
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
    student: LoadedModel,
    teacher: EchoTeacher,
    tmp_path: Path,
) -> None:
    """The same events, frames and times give the same versions, bit for bit."""
    folder, reports, _ = first_run
    distiller = deployment(student, teacher, tmp_path)
    again = list(run(distiller, SEEN))
    distiller.close()
    assert published(again) == published(reports)
    first, second = read_latest(folder / "snapshots"), read_latest(tmp_path / "snapshots")
    assert first is not None and second is not None and first.sha256 == second.sha256


def test_nothing_moves_while_it_is_stopped_or_frames_are_missing(
    student: LoadedModel, teacher: EchoTeacher, tmp_path: Path
) -> None:
    """Stopped, or without frames, it does not work, says why, and goes on when that is over."""
    distiller = deployment(student, teacher, tmp_path)
    distiller.stop()
    assert list(run(distiller, SEEN[:60])) == []
    assert distiller.status().health.text == "holding:stopped"
    distiller.start()
    distiller.begin_input()
    events_alone = [item for item in SEEN if not hasattr(item, "image")]
    assert list(run(distiller, events_alone)) == []
    assert distiller.status().health.reason == "no_frames"
    distiller.begin_input()
    assert any(report.action == "labelled" for report in run(distiller, SEEN[:60]))
    distiller.close()


def test_it_goes_on_from_the_disk(
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
    student: LoadedModel,
    teacher: EchoTeacher,
    tmp_path: Path,
) -> None:
    """Weights, clips, steps and version are there again; two at once are refused."""
    first, _, status = first_run
    folder = shutil.copytree(first, tmp_path / "copy")
    distiller = deployment(student, teacher, folder)
    with pytest.raises(DistillationError, match="another process"):
        deployment(student, teacher, folder)
    now = distiller.status().to_dict()
    for name in ("version", "accepted_steps", "steps", "clips", "heldout_blocks"):
        assert now[name] == status[name], name
    # A camera that is switched on again begins its clock anew; its clips come after the others.
    reports = list(run(distiller, SEEN[:60]))
    kept = [r.label.clip for r in reports if r.label is not None and r.label.split]
    last_ns = SEEN[-1].stamp_ns - 200 * MS
    assert kept and all(clip and clip.observation.start_ns >= last_ns for clip in kept)
    distiller.close()


def test_a_damaged_state_is_counted_and_the_one_before_it_taken(
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
    student: LoadedModel,
    teacher: EchoTeacher,
    tmp_path: Path,
) -> None:
    """The status says what the restart cost; what was learned before is there."""
    first, _, status = first_run
    folder = shutil.copytree(first, tmp_path / "copy")
    path = folder / "learner" / "state.bin"
    path.write_bytes(path.read_bytes()[:-1])
    distiller = deployment(student, teacher, folder)
    now = distiller.status()
    assert now.counts["state_damaged"] == 1 and now.counts["resumed"] == 1
    assert now.accepted_steps > 0 and now.version == status["version"]
    distiller.close()


def test_another_tier_is_said_when_learning_goes_on(
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
    student: LoadedModel,
    teacher: EchoTeacher,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The parameter wins over what was saved, which the log says."""
    folder = shutil.copytree(first_run[0], tmp_path / "copy")
    distiller = deployment(student, teacher, folder, tier=1)
    assert distiller.status().tier == 1
    assert "tier 2 has learned so far and 'tier' is 1" in caplog.text
    distiller.close()


class RenamedTeacher(EchoTeacher):
    """The same answers, of another file."""

    def teacher(self) -> FrameTeacher:
        told = super().teacher()
        told.digest = "1" * 64
        return told


@pytest.mark.parametrize("what", ["teacher", "unroll", "heldout_every"])
def test_clips_of_another_teacher_or_cut_are_given_up(
    what: str,
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
    student: LoadedModel,
    teacher: EchoTeacher,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Weights and versions stay; what taught and judged before does neither any more."""
    folder = shutil.copytree(first_run[0], tmp_path / "copy")
    asked = RenamedTeacher(student, SEEN, 1.2) if what == "teacher" else teacher
    now = parameters()
    changes = {"teacher": {}, "unroll": {"unroll": now.unroll - 1},
               "heldout_every": {"heldout_every": now.heldout_every + 1}}[what]  # fmt: skip
    distiller = deployment(student, asked, folder, **changes)
    status = distiller.status()
    assert (status.clips, status.heldout_blocks) == (0, 0)
    assert status.version == first_run[2]["version"]
    assert status.counts["clips_given_up"] > 0 and not status.counts["clips_missing"]
    assert f"of another {what} (" in caplog.text
    list(run(distiller, SEEN[:80]))
    distiller.save()
    clips = distiller.status().clips
    assert clips > 0
    distiller.close()
    again = deployment(student, asked, folder, **changes)
    assert again.status().clips == clips
    again.close()


def test_a_kill_does_not_mix_the_clips_of_two_teachers(
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
    student: LoadedModel,
    teacher: EchoTeacher,
    tmp_path: Path,
) -> None:
    """Killed with its first clip by another teacher; then the first one is asked again."""
    folder = shutil.copytree(first_run[0], tmp_path / "copy")
    other = deployment(student, RenamedTeacher(student, SEEN, 1.2), folder)
    first = next(report for report in run(other, SEEN) if report.label and report.label.split)
    assert first.label is not None and first.label.clip is not None
    assert first.label.clip.teacher_digest == "1" * 64
    other.close()
    again = deployment(student, teacher, folder)
    assert "1" * 64 not in {clip.teacher_digest for clip in again._intake.replay.clips}
    again.close()


def test_what_depth_rejects_is_taken_back(
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
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
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
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
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
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
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
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
    first_run: tuple[Path, list[LoopReport], dict[str, object]],
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


def test_the_teacher_is_not_asked_about_what_nobody_would_keep(
    student: LoadedModel, teacher: EchoTeacher, tmp_path: Path
) -> None:
    """A clip that is like the last one costs no label; asked were only those that are kept."""
    distiller = deployment(student, teacher, tmp_path, largest_similarity=-1.0, heldout_every=0)
    asked = teacher.frames
    reports = [report for report in run(distiller, SEEN[:120]) if report.label is not None]
    kept = [report.label for report in reports if report.label and report.label.split]
    refusals = [report.label.refusal for report in reports if report.label and report.label.refusal]
    assert len(kept) == 1 and {refusal.reason for refusal in refusals} == {"redundant"}
    assert len(refusals) > 3 and teacher.frames - asked == 2 * len(kept)
    # It is no sign of trouble, however many there are.
    assert distiller.health.state == "active"
    distiller.close()


def test_a_machine_that_is_slower_than_its_camera_learns_as_well(
    student: LoadedModel, teacher: EchoTeacher, tmp_path: Path
) -> None:
    """Where a clip waits at each call, labels and steps take turns."""
    distiller = deployment(student, teacher, tmp_path, heldout_every=0)
    actions = []
    for item in SEEN[:200]:
        distiller.add_frame(item) if isinstance(item, Frame) else distiller.feed(item)
        waits = False
        while distiller.take_in(item.stamp_ns):
            waits = True
        if waits and (report := distiller.work(item.stamp_ns)) is not None:
            actions.append(report.action)
    distiller.close()
    first = actions.index("learned")
    assert actions[first : first + 6] == ["learned", "labelled"] * 3
