"""What depth says of a version is followed: kept, taken back, not to be read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dae_ros.distillation.online.depth_answers import (
    ANNOUNCE_AGAIN_NS,
)
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.snapshots import read_latest, withdrawn
from dae_ros.runtime.weight_stages import Verdict
from test.reference.running_learner import Make
from test.reference.wall_deployment import depth_says


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
