"""Live learning without ROS: what is missing is waited for, what depth says is followed."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dae_ros.distillation.online.live import (
    ANNOUNCE_AGAIN_NS,
    RETRY_NS,
    LiveDistillation,
    release_unused,
)
from dae_ros.distillation.online.reports import LoopReport
from dae_ros.distillation.online.verdict import Verdict as GuardVerdict
from dae_ros.errors import ConfigurationError
from dae_ros.events.frame import Frame
from dae_ros.model.checkpoint import LoadedModel, save_checkpoint
from dae_ros.parameters import DistillationNodeParameters
from dae_ros.parameters.distillation import OnlineParameters
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.snapshots import read_latest, withdrawn
from dae_ros.runtime.weight_stages import Outcome, Verdict
from test.reference.echo_onnx import write_echo
from test.reference.scrolling_wall import MS
from test.reference.wall_deployment import PARAMETERS, EchoTeacher, depth_says, items

SEEN = items(1, 1000)
SECOND = 1_000_000_000
Make = Callable[..., "Running"]


class Running:
    """Live learning with a clock of its own, and everything that it announced."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.now_ns = 0
        self.step_ns = 20 * MS  # what every look at the clock takes
        self.announced: list[Announcement] = []
        self.interrupted = False
        self.live = LiveDistillation(
            DistillationNodeParameters.from_mapping(values),
            announce=self.announced.append,
            interrupted=lambda: self.interrupted,
            clock_ns=self._clock,
        )
        self.live.begin()

    def _clock(self) -> int:
        self.now_ns += self.step_ns
        return self.now_ns

    def see(self, offset_ns: int = 0, *, frames: bool = True) -> list[LoopReport]:
        """Hand over all that the camera saw, moved in time, and turn; return what was done."""
        reports = []
        for item in SEEN:
            moved_ns = item.stamp_ns + offset_ns
            if not isinstance(item, Frame):
                time_base_ns = item.time_base_ns + offset_ns
                self.live.feed(
                    dataclasses.replace(item, stamp_ns=moved_ns, time_base_ns=time_base_ns)
                )
            elif frames:
                self.live.add_frame(dataclasses.replace(item, stamp_ns=moved_ns))
            reports += self.turns(1)
        return reports

    def turns(self, count: int) -> list[LoopReport]:
        """Turn so often; return what was done."""
        return [report for _ in range(count) if (report := self.live.turn()) is not None]

    def until_published(self) -> None:
        """See the same again and again, until a version follows the original."""
        first = self.announced[-1].version
        for again in range(10):
            self.see(11 * again * SECOND)  # so far apart are pinned anchors
            if self.announced[-1].version > first:
                return
        raise AssertionError(self.live.status())

    def publish(self) -> Announcement:
        """Publish what was learned, whatever that is."""
        distiller = self.live._distiller
        assert distiller is not None
        made = distiller._publish(distiller._learner.candidate(), GuardVerdict((), {}))
        assert made is not None
        self.announced.append(made)
        return made

    def depth_says(self, outcome: Outcome, code: str, live_version: int = 1) -> None:
        """Let depth answer the last announcement."""
        last = self.announced[-1]
        live = last.sha256 if outcome in ("swapped", "kept") else "0" * 64
        self.live.depth_answered(
            Verdict(last.version, last.sha256, outcome, code, "so", live_version, live)
        )


@pytest.fixture(scope="module")
def files(student: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, and a teacher that says 1.2 times what it says."""
    folder = tmp_path_factory.mktemp("files")
    save_checkpoint(folder / "student.safetensors", student.network, student.meaning)
    write_echo(folder, EchoTeacher(student, SEEN, 1.2).known, 1.2)
    return folder


@pytest.fixture
def make(files: Path, tmp_path: Path) -> Iterator[Make]:
    """Begin to learn with the parameters of a test; closed at its end."""
    made: list[Running] = []

    def build(**changes: Any) -> Running:
        values = {
            **PARAMETERS, "pinned_clips": 2, "weights": str(files / "student.safetensors"),
            "teacher": str(files / "echo.yaml"), "folder": str(tmp_path / "folder"),
            "device": "cpu", "threads": 1, "duty": 1.0, "hold_after_s": 5.0, **changes,
        }  # fmt: skip
        made.append(Running(values))
        return made[-1]

    yield build
    for running in made:
        running.live.close()


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


def test_a_teacher_that_is_missing_is_waited_for(make: Make, files: Path, tmp_path: Path) -> None:
    """The status names the file; nothing is announced; when it is there, learning begins."""
    late = tmp_path / "late.yaml"
    running = make(teacher=str(late))
    assert running.see() == [] and running.announced == []
    health = running.live.status().health
    assert health.text == "holding:no_teacher" and "late.yaml" in health.detail
    assert running.live.ask("save") == (False, f"learning has not begun: {health.detail}")
    text = (files / "echo.yaml").read_text(encoding="utf-8")
    late.write_text(text.replace("file: echo.onnx", f"file: {files / 'echo.onnx'}"), "utf-8")
    running.now_ns += RETRY_NS
    running.turns(1)
    assert [one.version for one in running.announced] == [1]
    assert running.see()
    assert make(teacher="", folder=str(tmp_path / "other")).live.health.reason == "no_teacher"


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


def test_what_can_only_be_mended_by_its_user_is_refused(make: Make, files: Path) -> None:
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


def test_memory_that_is_held_for_later_is_given_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the hold would never end where PyTorch keeps what it has: once, when it begins."""
    given_back: list[str] = []
    monkeypatch.setattr(
        "dae_ros.distillation.online.live.release_unused",
        lambda device: given_back.append(device.type),
    )
    running = make()
    running.see()
    distiller = running.live._distiller
    assert distiller is not None
    cache = distiller._learner._lessons._cache
    assert cache.byte_count > 0
    running.live.apply(dataclasses.replace(running.live._parameters, memory_mb=1))
    running.now_ns += SECOND
    assert running.turns(1) == [] and running.live.health.reason == "memory"
    assert (cache.byte_count, given_back) == (0, ["cpu"])
    running.now_ns += SECOND
    running.turns(1)
    assert given_back == ["cpu"]
    running.live.apply(running.live._parameters)
    running.now_ns += SECOND
    assert running.turns(1) and running.live.health.state == "active"


def test_memory_of_work_that_failed_for_want_of_it_is_given_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only when nothing holds it any more: an error that is handled holds what was in hand."""
    running = make()
    running.see()
    distiller = running.live._distiller
    assert distiller is not None
    in_hand: list[weakref.ref[torch.Tensor]] = []
    held: list[bool] = []

    def no_room(*_: object, **__: object) -> None:
        activations = torch.zeros(3)
        in_hand.append(weakref.ref(activations))
        raise torch.cuda.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(distiller, "work", no_room)
    monkeypatch.setattr(
        "dae_ros.distillation.online.live.release_unused",
        lambda device: held.append(in_hand[-1]() is not None),
    )
    running.now_ns += SECOND
    assert running.turns(1) == [] and running.live.health.text == "holding:memory"
    assert held == [False]


def test_latencies_do_not_pile_up_while_nothing_can_be_learned(make: Make) -> None:
    """Without a teacher depth goes on to say how late it is, for hours."""
    running = make(teacher="")
    for _ in range(100):
        running.live.depth(90.0)
        running.now_ns += SECOND // 20
        running.turns(1)
    assert len(running.live._budget._latencies_ms) < 50
    assert running.live.health.reason == "no_teacher" and running.live.status().duty < 0.25 / 16


def test_unused_memory_of_a_gpu_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own cache is emptied; the machine's memory needs nothing."""
    emptied: list[None] = []
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: emptied.append(None))
    release_unused(torch.device("cpu"))
    assert not emptied
    release_unused(torch.device("cuda"))
    assert len(emptied) == 1


def test_what_depth_takes_back_is_not_announced_any_more(make: Make) -> None:
    """A version that depth rolled back gives way to the one that depth has."""
    running = make()
    running.until_published()
    bad = running.announced[-1]
    assert [one.version for one in running.announced[:2]] == [1, 2]
    running.depth_says("swapped", "replayed", live_version=bad.version)
    assert running.announced[-1] == bad
    running.depth_says("rolled_back", "flicker")
    back = running.announced[-1]
    assert (back.version, back.rollback) == (1, True)
    loop = running.live.status().loop
    assert loop is not None and (loop.version, loop.rollbacks, loop.counts["rejected"]) == (1, 1, 1)
    running.depth_says("refused", "superseded")
    assert running.announced[-1] == back
    assert running.live.ask("rollback") == (False, "there is nothing before version 1")


def test_what_depth_has_watched_and_kept_is_announced_as_that(make: Make) -> None:
    """Once, and for later starts; what depth began with, or has only just taken, is not."""
    running = make()
    running.depth_says("kept", "start")
    running.depth_says("kept", "not_compared")
    running.depth_says("swapped", "replayed")
    running.until_published()
    assert [one.confirmed for one in running.announced] == [True, False]
    bare = running.announced[-1]
    count = len(running.announced)
    running.depth_says("swapped", "replayed")
    assert running.announced[count:] == []
    for _ in range(2):
        running.depth_says("kept", "canary")
    assert running.announced[count:] == [dataclasses.replace(bare, confirmed=True)]
    folder = bare.path.parent
    latest = read_latest(folder)
    assert latest is not None and latest.announcement == running.announced[-1]
    assert not running.publish().confirmed


def test_what_depth_kept_is_noted_as_soon_as_the_disk_allows(make: Make) -> None:
    """A confirmation that could not be written is tried again; nobody has to say it twice."""
    running = make()
    running.turns(1)
    bare = running.publish()
    blocked = bare.path.with_suffix(".json.tmp")
    blocked.mkdir()
    running.depth_says("kept", "canary")
    assert running.announced[-1] == bare
    blocked.rmdir()
    running.turns(1)
    assert running.announced[-1] == bare, "not at every turn"
    running.now_ns += ANNOUNCE_AGAIN_NS
    running.turns(1)
    assert running.announced[-1] == dataclasses.replace(bare, confirmed=True)
    running.now_ns += ANNOUNCE_AGAIN_NS
    running.turns(1)
    assert [one.version for one in running.announced] == [1, 2, 2], "once"


def test_a_person_who_takes_depth_back_is_followed(make: Make) -> None:
    """What depth went back to is announced, and what was on its way to depth is withdrawn too."""
    running = make()
    second, third, fourth = (running.publish() for _ in range(3))
    say = running.live.depth_answered
    say(depth_says(fourth, "refused", "superseded", third))  # by the rollback
    assert running.announced[-1] == fourth
    say(depth_says(third, "rolled_back", "requested", second))
    back = running.announced[-1]
    assert (back.sha256, back.rollback) == (second.sha256, True)
    gone = withdrawn(second.path.parent)
    assert set(gone) == {third.sha256, fourth.sha256}
    assert gone[third.sha256].startswith("version 3: depth does not want it: so")
    # Whatever depth took of another folder, a person does not want: what is announced may follow.
    elsewhere = Announcement(9, Path("/elsewhere"), "9" * 64, 1)
    count = len(running.announced)
    say(depth_says(elsewhere, "rolled_back", "requested"))
    assert running.announced[count:] == [back]
    say(depth_says(elsewhere, "rolled_back", "requested", second))
    assert running.announced[count:] == [back], "it has that"


def test_depth_that_does_not_go_back_holds_learning(make: Make) -> None:
    """Only the original is left, and depth goes on with what was withdrawn: all is told again."""
    running = make()
    second = running.publish()
    assert running.live.ask("reset_to_anchor")[0]
    back = running.announced[-1]
    count = len(running.announced)
    running.live.depth_answered(depth_says(back, "rolled_back", "slow", second))
    assert running.live.health.text == "holding:not_taken"
    running.now_ns += ANNOUNCE_AGAIN_NS
    running.turns(1)
    assert running.announced[count:] == [back]
    running.depth_says("swapped", "replayed")
    assert running.live.health.reason != "not_taken"
    running.live.depth_answered(depth_says(back, "rolled_back", "slow"))
    assert running.live.health.reason != "not_taken", "depth has what it began with"


def test_an_original_that_was_not_wanted_once_is_announced_as_a_way_back(make: Make) -> None:
    """A person took depth back from it, depth followed another folder, and this one is new."""
    running = make()
    original = running.announced[-1]
    elsewhere = Announcement(9, Path("/elsewhere"), "9" * 64, 1)
    running.live.depth_answered(depth_says(original, "refused", "blacklisted", elsewhere))
    assert running.live.health.text == "holding:not_taken"
    running.now_ns += ANNOUNCE_AGAIN_NS
    running.turns(1)
    assert running.announced == [original, dataclasses.replace(original, rollback=True)]


def test_a_version_that_depth_cannot_read_holds_learning_and_is_announced_again(
    make: Make,
) -> None:
    """A folder that is not mounted there, or another network: learning on would be in vain."""
    running = make()
    running.depth_says("refused", "missing", live_version=0)
    assert running.see() == []
    health = running.live.health
    assert health.text == "holding:not_taken" and "version 1 [missing]: so" in health.detail
    running.now_ns += ANNOUNCE_AGAIN_NS
    running.turns(1)
    assert [one.version for one in running.announced] == [1, 1]
    running.depth_says("kept", "canary")
    assert running.live.health.reason != "not_taken"


def test_what_depth_cannot_read_holds_nothing_once_another_is_announced(make: Make) -> None:
    """Depth says nothing of a version that it has: a way back to it ends the hold."""
    running = make()
    second = running.publish()
    third = running.publish()
    running.live.depth_answered(depth_says(third, "refused", "memory", second))
    assert running.live.health.text == "holding:not_taken"
    assert running.live.ask("rollback") == (
        True, "version 2 is announced; depth says when it is in use"
    )  # fmt: skip
    assert running.live.health.reason != "not_taken"
    count = len(running.announced)
    running.now_ns += ANNOUNCE_AGAIN_NS
    running.turns(1)
    assert running.announced[count:] == []


def test_numbers_begin_above_those_that_depth_has_seen(make: Make) -> None:
    """A folder that is new announces its version as a way back, and numbers the next ones above."""
    running = make()
    running.depth_says("refused", "downgraded", live_version=7)
    assert [(one.version, one.rollback) for one in running.announced] == [(1, False), (1, True)]
    assert running.publish().version == 8
    last = running.announced[-1]
    numbers = {"newest_version": 12.0}
    say = Verdict(8, last.sha256, "refused", "downgraded", "so", 7, "0" * 64, numbers)
    running.live.depth_answered(say)
    assert running.announced[-1] == dataclasses.replace(last, rollback=True)
    assert running.publish().version == 13


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


def test_a_teacher_that_fails_is_asked_again_later(make: Make, files: Path) -> None:
    """Frames that the network cannot take are said, and depth is not touched."""
    text = (files / "echo.yaml").read_text(encoding="utf-8")
    narrow = files / "narrow.yaml"
    narrow.write_text(text.replace("width: 42", "width: 40"), encoding="utf-8")
    running = make(teacher=str(narrow))
    assert running.see() == []
    health = running.live.health
    assert health.text == "holding:teacher_failed" and "narrow" in health.detail
