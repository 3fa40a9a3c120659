"""Live learning without ROS: what is missing is waited for, what fails is tried again."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dae_ros.distillation.online.board import OPEN_AGAIN_NS, Board
from dae_ros.distillation.online.live import (
    RETRY_NS,
)
from dae_ros.distillation.online.reports import LoopReport, StepReport
from dae_ros.errors import ConfigurationError
from dae_ros.events.frame import Frame
from dae_ros.model.checkpoint import load_checkpoint
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.full_disk import no_room_beyond
from test.reference.running_learner import SECOND, SEEN, Make


def test_it_learns_within_its_budget_and_tells_depth_what_to_have(make: Make) -> None:
    """The original is announced first; labels and steps follow, with rests between them."""
    running = make(duty=0.5)
    assert [one.version for one in running.announced] == [1]
    reports = [*running.see(), *running.see(2 * SECOND)]
    assert {"labelled", "learned"} <= {report.action for report in reports}
    assert len(reports) < len(SEEN) / 2, "it must rest"
    status = running.live.status()
    assert status.health.text == "active" and status.loop is not None
    assert status.loop.accepted_steps > 0 and 0 < status.duty <= 0.5


def test_a_teacher_that_is_missing_is_waited_for(
    make: Make, learner_files: Path, tmp_path: Path
) -> None:
    """The status names the file; nothing is announced; when it is there, learning begins."""
    late = tmp_path / "late.yaml"
    running = make(teacher=str(late))
    assert running.see() == [] and running.announced == []
    health = running.live.status().health
    assert health.text == "holding:no_teacher" and "late.yaml" in health.detail
    assert running.live.ask("save") == (False, f"learning has not begun: {health.detail}")
    text = (learner_files / "echo.yaml").read_text(encoding="utf-8")
    late.write_text(
        text.replace("file: echo.onnx", f"file: {learner_files / 'echo.onnx'}"), "utf-8"
    )
    running.now_ns += RETRY_NS
    running.turns(1)
    assert [one.version for one in running.announced] == [1]
    assert running.see()
    assert make(teacher="", folder=str(tmp_path / "other")).live.health.reason == "no_teacher"


def test_without_a_teacher_depth_gets_what_was_learned_before(make: Make, tmp_path: Path) -> None:
    """As after a reboot without the teacher's disk; with it learning goes on from there."""
    first = make()
    first.until_published()
    first.live.end()
    first.live.close()
    again = make(teacher=str(tmp_path / "gone.yaml"))
    assert again.live.health.reason == "no_teacher"
    assert [one.version for one in again.announced] == [first.announced[-1].version]
    assert again.announced[0].sha256 == first.announced[-1].sha256
    # The folder is free meanwhile: somebody who has a teacher may learn in it.
    with_teacher = make()
    assert with_teacher.live.status().loop is not None
    with_teacher.live.close()
    # Of a folder that began with other weights nothing is taken.
    assert make(teacher="", weights="untrained:micro").announced == []


def test_a_folder_in_which_another_learns_is_waited_for(make: Make) -> None:
    """Two learners never write into one folder; the second begins when the first has gone."""
    first, second = make(), make()
    assert second.live.health.reason == "folder" and "another" in second.live.health.detail
    first.live.close()
    second.now_ns += RETRY_NS
    second.turns(1)
    assert second.live.status().loop is not None


def test_facts_of_the_original_that_are_damaged_are_waited_for(make: Make) -> None:
    """The status says which file; the original's weights stay, and nothing is taken for it."""
    first = make()
    first.until_published()
    first.live.close()
    facts = first.announced[0].path.with_suffix(".json")
    content = facts.read_bytes()
    facts.write_bytes(b"{")
    again = make()
    health = again.live.health
    assert health.text == "holding:folder" and "w_000001.json is damaged" in health.detail
    assert again.announced == [] and first.announced[0].path.exists()
    facts.write_bytes(content)
    again.now_ns += RETRY_NS
    again.turns(1)
    assert [one.version for one in again.announced] == [first.announced[-1].version]


def test_what_can_only_be_mended_by_its_user_is_refused(make: Make, learner_files: Path) -> None:
    """No weights, no such device, and a folder that began with other weights."""
    with pytest.raises(ConfigurationError, match="no weights: set 'weights'"):
        make(weights="")
    with pytest.raises(ConfigurationError, match="no device 'abacus'"):
        make(device="abacus")
    make().live.close()
    with pytest.raises(ConfigurationError, match="began with other weights"):
        make(weights="untrained:micro")


def test_a_camera_that_stops_is_noticed_on_its_own_clock(make: Make) -> None:
    """Frames or events that stay away hold learning, whatever time the stamps are on."""
    running = make(hold_after_s=0.5)
    assert "learned" in {report.action for report in running.see()}
    running.now_ns += SECOND
    assert running.turns(3) == []
    assert running.live.health.reason in ("no_events", "no_frames")
    running.see(2 * SECOND, frames=False)
    assert running.live.health.reason == "no_frames"
    assert "learned" in {report.action for report in running.see(4 * SECOND)}


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_clock_that_jumps_begins_the_input_anew(make: Make, jump_s: int) -> None:
    """As when a recording loops, or the time is set: frames of before are left out."""
    running = make()
    running.see()
    before = running.live.status().loop
    running.see(jump_s * SECOND)
    running.live.add_frame(next(item for item in SEEN if isinstance(item, Frame)))
    status = running.live.status()
    assert status.counts == {"clock_jump": 1, "other_clock": 1}
    assert before is not None and status.loop is not None
    assert status.loop.counts["label.accepted"] > before.counts["label.accepted"]
    assert status.health.state == "active"


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
def test_a_frame_of_another_time_before_the_first_events_is_forgotten(
    make: Make, ahead_s: int
) -> None:
    """As from a camera whose clock is set only later: learning does not wait for that time."""
    running = make()
    first = next(item for item in SEEN if isinstance(item, Frame))
    moved_ns = first.stamp_ns + ahead_s * SECOND
    running.live.add_frame(dataclasses.replace(first, stamp_ns=moved_ns))
    assert "learned" in {report.action for report in running.see()}
    status = running.live.status()
    assert status.counts == {"clock_jump": 1} and status.health.state == "active"


def test_work_gives_way_to_what_is_urgent(make: Make) -> None:
    """A step that is interrupted moves nothing, and is done when there is time again."""
    running = make()
    running.see()
    running.now_ns += SECOND  # rested
    before = running.live.status().loop
    running.interrupted = True
    assert running.turns(1) == []
    running.interrupted = False
    status = running.live.status()
    assert status.counts["abandoned"] == 1 and status.loop is not None and before is not None
    assert status.loop.steps == before.steps
    running.now_ns += SECOND
    assert [report.action for report in running.turns(1)] == ["learned"]


def test_depth_that_is_late_or_loses_windows_stops_learning(make: Make) -> None:
    """Nothing is done as long as windows are lost; the status says why."""
    running = make()
    running.see()
    running.live.dropped(3)
    assert running.turns(20) == []
    assert running.live.health.text == "holding:windows_dropped"
    running.now_ns += 6 * SECOND
    assert running.see(8 * SECOND)
    assert running.live.health.state == "active"


@pytest.mark.parametrize("urgent", [False, True])
def test_a_piece_of_work_stands_still_while_depth_loses_windows(
    make: Make, monkeypatch: pytest.MonkeyPatch, urgent: bool
) -> None:
    """It goes on when depth has recovered, unless something urgent came; waiting is no work."""
    running = make()
    running.see()
    running.now_ns += SECOND
    live, looks = running.live, list[tuple[str, float]]()
    assert live._distiller is not None
    learner = live._distiller._learner
    undisturbed = learner.step

    def disturbed(*arguments: Any) -> StepReport:
        live.dropped(3)
        return undisturbed(*arguments)

    def heard() -> bool:
        status = live.status()
        looks.append((status.health.text, status.duty))
        waits = looks[-1] == ("holding:windows_dropped", 0.0)
        running.now_ns += SECOND if waits else 0
        return waits and urgent

    monkeypatch.setattr(learner, "step", disturbed)
    live._interrupted = heard
    done = running.turns(1)
    assert ("holding:windows_dropped", 0.0) in looks
    assert [report.action for report in done] == ([] if urgent else ["learned"])
    assert live.status().counts.get("abandoned", 0) == urgent
    if not urgent:
        rest_ns = live.rest_ns()
        assert rest_ns is not None and rest_ns < 20 * SECOND


def test_nothing_is_announced_before_it_is_activated(make: Make) -> None:
    """Status and answers say so, and what was asked for is announced then."""
    running = make()
    running.until_published()
    running.live.end()
    assert running.live.health.text == "holding:inactive"
    count, version = len(running.announced), running.announced[-1].version
    assert running.live.ask("start") == (True, "it learns when it is activated")
    done, said = running.live.ask("rollback")
    assert done and said.endswith("is announced when this is activated")
    assert len(running.announced) == count
    running.live.begin()
    assert running.live.health.state == "active"
    assert running.announced[-1].version < version and len(running.announced) == count + 1


def test_what_was_set_while_it_runs_outlives_a_pause(make: Make) -> None:
    """A budget is what the node says that it is, also after it was activated again."""
    running = make(duty=0.5)
    parameters = dataclasses.replace(running.live._parameters, duty=0.01, latency_budget_ms=1.0)
    running.live.apply(parameters)
    running.live.end()
    running.live.begin()
    running.see()
    assert 0.0 < running.live.status().duty <= 0.01
    assert running.live._budget.parameters is parameters


def test_a_learner_that_is_stopped_says_so_while_it_is_inactive(make: Make) -> None:
    """Nothing turns then that would look: the status is not what it was when it learned last."""
    running = make()
    running.see()
    assert running.live.health.state == "active"
    running.live.end()
    running.live.ask("stop")
    assert running.live.health.text == "holding:stopped"
    running.live.ask("start")
    assert running.live.health.text == "holding:inactive"


def test_a_full_disk_costs_points_of_curves_and_no_learning(make: Make, tmp_path: Path) -> None:
    """The writer that failed is let go of; with new room another one begins."""
    pytest.importorskip("tensorboard")
    running = make(tensorboard=True, save_every_steps=1000)
    with no_room_beyond(100):
        running.see()
        running.now_ns += OPEN_AGAIN_NS  # and fails again
        running.see(2 * SECOND)
        loop = running.live.status().loop
        assert loop is not None and loop.accepted_steps > 3
        assert "curves for TensorBoard" in loop.problem
    running.now_ns += OPEN_AGAIN_NS
    assert running.see(4 * SECOND)
    loop = running.live.status().loop
    assert loop is not None and "TensorBoard" not in loop.problem
    running.live.close()
    sizes = [path.stat().st_size for path in (tmp_path / "folder" / "tensorboard").iterdir()]
    assert max(sizes) > 100


def test_curves_that_cannot_be_begun_are_begun_later(tmp_path: Path) -> None:
    """A disk that is full from the beginning is a problem in words, and so is one at the end."""
    pytest.importorskip("tensorboard")
    report = LoopReport(
        "learned", step=StepReport(1, True, "accepted", "", 0.5, {}, 0.1, 1e-3, 2, {})
    )
    with no_room_beyond(0):
        board = Board(tmp_path, 0, 0)
        board.write(report, 1, OPEN_AGAIN_NS - 1)
        assert "make room there" in board.problem
    board.write(report, 2, OPEN_AGAIN_NS - 1)
    assert board.problem, "not before its time"
    board.write(report, 3, OPEN_AGAIN_NS)
    assert board.problem == ""
    with no_room_beyond(0):
        board.write(report, 4, OPEN_AGAIN_NS)
        board.close()


def test_what_depth_takes_while_there_is_nothing_to_do_is_usual(make: Make) -> None:
    """Depth that gets slower by itself meanwhile is not what learning does to it."""
    running = make(latency_budget_ms=0.0)
    duty = running.live.status().duty
    for latency_ms in (40.0, 55.0):
        for _ in range(600):
            running.live.depth(latency_ms)
            assert running.turns(1) == []
    assert running.live.status().duty > duty


def test_latencies_do_not_pile_up_while_nothing_can_be_learned(make: Make) -> None:
    """Without a teacher depth goes on to say how late it is, for hours."""
    running = make(teacher="", latency_budget_ms=35.0)
    for _ in range(100):
        running.live.depth(90.0)
        running.now_ns += SECOND // 20
        running.turns(1)
    assert len(running.live._budget._latencies_ms) < 50
    assert running.live.health.reason == "no_teacher" and running.live.status().duty < 0.25 / 16


def test_learning_goes_on_from_the_disk_after_a_kill(make: Make) -> None:
    """Whoever comes after a process that was killed has its steps and its clips, by default."""
    default = OnlineParameters().save_every_steps
    running = make(save_every_steps=default)
    running.see()
    before = running.live.status().loop
    running.live.close()  # without `end`: nothing is saved on the way
    again = make(save_every_steps=default)
    after = again.live.status().loop
    assert before is not None and after is not None
    assert after.accepted_steps == before.accepted_steps > 0
    assert after.clips == before.clips and after.counts["resumed"] == 1


@pytest.mark.parametrize("published", [False, True])
def test_a_learner_whose_state_is_lost_begins_at_what_is_published(
    make: Make, tmp_path: Path, published: bool
) -> None:
    """Not at the original, from which the next version would lose what this one had gained."""
    running = make()
    running.see()
    if published:
        running.publish()
    running.live.close()
    shutil.rmtree(tmp_path / "folder" / "learner")
    again = make().live._distiller
    assert again is not None
    announced = load_checkpoint(again.announcement.path).network.state_dict()
    begun = again._learner.candidate().network.state_dict()
    original = again._learner.original.network.state_dict()
    way = max(float((announced[name] - begin).abs().max()) for name, begin in original.items())
    for name, weight in announced.items():
        # To the bit where nothing was published, but for rounding elsewhere.
        torch.testing.assert_close(begun[name], weight, rtol=0.0, atol=0.01 * way)
    assert again._learner.lineage == ((2, 1) if published else (1,))
    assert again.status().resets == published, "a new folder begins as it is"


def test_stopping_saves_and_costs_nothing_until_it_starts_again(make: Make) -> None:
    """Events and frames are not even read; starting begins with what the camera sees then."""
    running = make()
    running.see()
    done, sentence = running.live.ask("stop")
    assert done and sentence.startswith("stopped, all is in ")
    assert running.see(SECOND) == [] and running.live.health.text == "holding:stopped"
    loop = running.live.status().loop
    assert loop is not None and loop.saved_step == loop.accepted_steps
    frames = loop.counts.get("frame.no_history", 0)
    assert running.live.ask("start") == (True, "learning")
    assert running.see(20 * SECOND)
    loop = running.live.status().loop
    assert loop is not None and loop.counts["frame.no_history"] > frames


def test_a_teacher_that_fails_is_asked_again_later(make: Make, learner_files: Path) -> None:
    """Frames that the network cannot take are said, and depth is not touched."""
    text = (learner_files / "echo.yaml").read_text(encoding="utf-8")
    narrow = learner_files / "narrow.yaml"
    narrow.write_text(text.replace("width: 42", "width: 40"), encoding="utf-8")
    running = make(teacher=str(narrow))
    assert running.see() == []
    health = running.live.health
    assert health.text == "holding:teacher_failed" and "narrow" in health.detail
