"""The loop: from events and frames to published weights, back again, and on from the disk."""

from __future__ import annotations

import dataclasses
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
from dae_ros.distillation.online.reports import StepReport
from dae_ros.distillation.teacher import FrameTeacher
from dae_ros.errors import DistillationError
from dae_ros.events.frame import Frame
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.runtime.snapshots import read_latest
from test.reference.first_deployment import SEEN, FirstRun, published
from test.reference.full_disk import no_room_beyond
from test.reference.moving_wedge import WedgeSource, wedge_clips
from test.reference.scrolling_wall import MS
from test.reference.wall_deployment import (
    EchoTeacher,
    deployment,
    items,
    parameters,
    run,
)


def test_a_better_student_is_published(
    first_run: FirstRun,
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
    first_run: FirstRun,
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
    first_run: FirstRun,
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
    first_run: FirstRun,
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
    first_run: FirstRun,
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
    first_run: FirstRun,
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
    first_run: FirstRun,
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


def test_clips_that_a_full_disk_refused_are_saved_when_there_is_room(
    student: LoadedModel, teacher: EchoTeacher, tmp_path: Path
) -> None:
    """What a save says is on disk is there: a start finds every clip, pinned ones as well."""
    changes = {"heldout_every": 0, "pinned_clips": 1}
    distiller = deployment(student, teacher, tmp_path, **changes)
    with no_room_beyond(1000):
        reports = list(run(distiller, SEEN[:120]))
        assert not distiller.save()
    assert {"labelled", "learned"} <= {report.action for report in reports}
    assert "Make room" in distiller.status().problem
    assert distiller.save() and distiller.status().problem == ""
    live, anchors = distiller._intake.live, distiller.status().anchors
    distiller.close()
    again = deployment(student, teacher, tmp_path, **changes)
    assert len(live) > 2 and again._intake.live == live
    assert again.status().anchors == anchors
    assert again.status().counts["clips_missing"] == 0
    again.close()


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
