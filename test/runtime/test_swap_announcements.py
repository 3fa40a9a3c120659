"""Which announced weights are taken, who is trusted, and where ways back lead."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dae_ros.runtime.canary import StepFacts, SwapRules
from dae_ros.runtime.weight_stages import Candidate, Verdict
from dae_ros.runtime.weight_swap import WeightSwap
from test.reference.reloadable_estimator import ReloadableEstimator as Network
from test.reference.reloadable_estimator import announced
from test.reference.swap_run import CANARY, MS, NEAR, Run, images, live, replayed


def test_versions_never_go_down_by_themselves(tmp_path: Path) -> None:
    """A lower version is refused, unless it is announced as a rollback; what runs is known."""
    run, windows = Run(), images(200)
    run.step(*windows[:20])
    first = announced(tmp_path, 3, **NEAR)
    run.swap.announce(first)
    run.step(*windows[20:80])
    run.swap.announce(first)
    run.swap.announce(announced(tmp_path, 2, gain=1.05))
    run.swap.announce(announced(tmp_path, 3, gain=1.05))
    assert run.said[2:] == [(2, "refused", "downgraded"), (3, "refused", "downgraded")]
    assert run.verdicts[-1].newest_version == 3
    run.swap.announce(announced(tmp_path, 2, gain=1.05, rollback=True))
    run.step(*windows[80:140])
    assert run.versions[-1] == 2
    run.swap.announce(announced(tmp_path, 3, gain=1.06))
    assert run.said[-1] == (3, "refused", "downgraded"), "3 has been in use"
    assert (run.verdicts[-1].live_version, run.verdicts[-1].newest_version) == (2, 3)


@pytest.mark.parametrize("rollback", [False, True])
def test_nobody_is_trusted_who_was_not_watched(tmp_path: Path, rollback: bool) -> None:
    """A way back that was never confirmed has the limits of any version."""
    run, windows = Run(), images(100)
    run.step(*windows[:20])
    run.swap.announce(announced(tmp_path, 3, gain=5.0, decay=0.0, rollback=rollback))
    run.step(*windows[20:])
    assert run.said == [(3, "refused", "scale_step")]
    assert run.verdicts[0].harmful and not run.verdicts[0].watched


def test_no_way_leads_back_to_what_was_withdrawn(tmp_path: Path) -> None:
    """After a way back a person's wish is refused, and what it led back from stays away."""
    run, windows = Run(), images(300)
    run.step(*windows[:20])
    for version, numbers in ((1, {"gain": 1.0}), (2, NEAR)):
        run.swap.announce(announced(tmp_path, version, **numbers))
        run.step(*windows[20 + 50 * (version - 1) : 20 + 50 * version])
    assert run.swap.can_roll_back
    run.swap.announce(announced(tmp_path, 1, gain=1.0, rollback=True, confirmed=True))
    for begin, end in ((120, 130), (130, 180)):  # on probation, and after it
        run.step(*windows[begin:end])
        assert not run.swap.can_roll_back and not run.swap.roll_back()
    run.step(*windows[180:200])
    assert run.versions[120:] == [1] * 80
    assert run.said[4:] == [(1, "swapped", "replayed"), (1, "kept", "canary")]


@pytest.mark.parametrize("code", ["requested", "slow", "not_finite"])
def test_the_way_to_what_was_watched_stays_open(tmp_path: Path, code: str) -> None:
    """A wish or a slow machine of before does not keep the original away; a NaN does."""
    run, windows = Run(), images(200)
    run.step(*windows[:20])
    original = announced(tmp_path, 1, gain=1.0, confirmed=True)
    run.swap.announce(original)
    run.step(*windows[20:25])
    new = run.swap.live
    assert isinstance(new, Network)
    if code == "requested":
        assert run.swap.roll_back()
    elif code == "slow":
        canary = run.swap._canary
        assert canary is not None
        slow = StepFacts(1.0, 1.0, None, 10 * MS)
        canary.comparison.pairs[:] = [(slow, StepFacts(1.0, 1.0, None, MS))] * 16
    else:
        new.fails_at = 1
    run.step(*windows[25:80])
    assert run.said == [(1, "swapped", "replayed"), (1, "rolled_back", code)]
    run.swap.announce(original)
    assert run.said[2:] == [(1, "refused", "blacklisted")], "as it is, it is not wanted"
    run.swap.announce(dataclasses.replace(original, rollback=True))
    run.step(*windows[80:140])
    if code == "not_finite":
        assert run.said[3:] == [(1, "refused", "blacklisted")]
    else:
        assert run.said[3:] == [(1, "swapped", "replayed"), (1, "kept", "canary")]


def test_what_a_canary_kept_is_known_as_long_as_it_is_in_use(tmp_path: Path) -> None:
    """Also where another version came between; what is on probation was not kept yet."""
    run, windows = Run(), images(200)
    run.step(*windows[:20])
    assert run.swap.watched is None
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    run.step(*windows[20:70])
    kept = run.verdicts[-1]
    assert kept.watched and run.swap.watched is kept
    run.swap.announce(announced(tmp_path, 2, gain=1.12))
    run.step(*windows[70:80])
    assert (run.swap.weight_version, run.swap.watched) == (2, None)
    assert run.swap.roll_back()
    run.step(*windows[80:90])
    assert (run.swap.weight_version, run.swap.watched) == (1, kept)


def test_a_way_back_may_be_as_long_as_the_way_there(tmp_path: Path) -> None:
    """Three steps that are allowed lead to depth half as large again; one leads back, watched."""
    run, windows = Run(), images(300)
    run.step(*windows[:20])
    for version, gain in ((1, 1.0), (2, 1.2), (3, 1.4), (4, 1.6)):
        run.swap.announce(announced(tmp_path, version, gain=gain))
        run.step(*windows[20 + 50 * (version - 1) : 20 + 50 * version])
    assert [said[1] for said in run.said] == ["swapped", "kept"] * 4
    run.swap.announce(announced(tmp_path, 1, gain=1.0, rollback=True, confirmed=True))
    run.step(*windows[220:280])
    assert run.said[8:] == [(1, "swapped", "replayed"), (1, "kept", "canary")]
    np.testing.assert_array_equal(run.outputs[-1], replayed(windows[:280])[-1])
    run.swap.announce(announced(tmp_path, 2, fails_at=5, rollback=True))
    run.step(*windows[280:])
    assert run.said[-1] == (2, "refused", "not_finite")


def test_what_depth_kept_before_is_taken_at_once_by_one_that_starts_anew(tmp_path: Path) -> None:
    """Many watched steps away from the original; the same weights unwatched are refused."""
    far = {"gain": 1.6}
    run, windows = Run(), images(140)
    run.step(*windows[:20])
    run.swap.announce(announced(tmp_path, 9, **far))
    run.step(*windows[20:30])
    assert run.said == [(9, "refused", "scale_step")]

    run = Run()
    run.step(*windows[:20])
    run.swap.announce(announced(tmp_path, 9, confirmed=True, **far))
    run.step(*windows[20:80])
    assert run.said == [(9, "swapped", "replayed"), (9, "kept", "canary")]
    run.swap.announce(announced(tmp_path, 10, confirmed=True, fails_at=5))
    run.step(*windows[80:])
    assert run.said[2:] == [(10, "refused", "not_finite")], "confirmed weights are watched too"


def test_weights_that_come_before_the_first_window_are_watched_as_any(tmp_path: Path) -> None:
    """At a start there is no past; as many windows follow as a comparison needs."""
    run, windows = Run(canary_windows=8), images(60)
    run.swap.announce(announced(tmp_path, 9, gain=1.6))
    run.step(*windows)
    assert run.said == [(9, "swapped", "replayed"), (9, "rolled_back", "scale_step")]
    run = Run(canary_windows=8)
    run.swap.announce(announced(tmp_path, 9, gain=1.05))
    run.step(*windows)
    assert run.said == [(9, "swapped", "replayed"), (9, "kept", "canary")]
    run = live(canary_windows=8)
    run.swap.announce(announced(tmp_path, 9, gain=1.6))
    run.step(*windows)
    assert run.said[-1] == (9, "kept", "not_compared"), "no time, and nothing to compare with"


def test_others_may_ask_for_the_phase_while_it_changes(tmp_path: Path) -> None:
    """A candidate that is dropped between two looks at it is no error."""
    run = live()
    run.step(*images(20))
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    looks = [run.swap._candidate]

    class Dropped(WeightSwap):
        # A property in the place of an attribute: another thread changes it between two looks.
        @property
        def _candidate(self) -> Candidate | None:  # type: ignore[override]
            return looks.pop() if looks else None

    run.swap.__class__ = Dropped
    assert [run.swap.phase, run.swap.phase] == ["rehearsal", "steady"]


def test_of_several_announcements_the_last_one_counts(tmp_path: Path) -> None:
    """A canary is never cut short; of what is announced meanwhile the newest follows."""
    run, windows = Run(), images(200)
    run.step(*windows[:20])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    run.step(*windows[20:25])
    second, third = (announced(tmp_path, v, gain=1.1 + v / 100) for v in (2, 3))
    run.swap.announce(second)
    run.swap.announce(second)
    run.swap.announce(third)
    run.step(*windows[25:130])
    assert run.said == [
        (1, "swapped", "replayed"),
        (2, "refused", "superseded"),
        (1, "kept", "canary"),
        (3, "swapped", "replayed"),
        (3, "kept", "canary"),
    ]
    assert run.versions.index(3) == 20 + CANARY


def test_what_is_in_use_may_be_what_is_wanted_last(tmp_path: Path) -> None:
    """Announced again, it ends what waits or rehearses; a canary goes on."""
    run, windows = live(), images(100)
    run.step(*windows[:20])
    first = announced(tmp_path, 1, **NEAR)
    run.swap.announce(first)
    while run.swap.weight_version == 0:
        run.step(windows[len(run.outputs)])
        while run.swap.work(None):
            pass
    run.swap.announce(announced(tmp_path, 2, gain=1.12))
    again = dataclasses.replace(first, rollback=True)
    run.swap.announce(again)
    assert run.said == [(1, "swapped", "replayed"), (2, "refused", "superseded")]
    assert run.swap.phase == "canary"
    for window in windows[40:90]:
        run.step(window)
        while run.swap.work(None):
            pass
    assert run.said[2:] == [(1, "kept", "canary")]
    run.swap.announce(announced(tmp_path, 3, gain=1.13))
    assert run.swap.phase == "rehearsal"
    run.swap.announce(again)
    assert run.said[3:] == [(3, "refused", "superseded")] and run.swap.phase == "steady"


def test_what_waited_during_a_way_back_gives_way_to_what_comes_after_it(tmp_path: Path) -> None:
    """The version that was announced last counts, at whatever step of the way it came."""
    run, windows = Run(), images(100)
    run.step(*windows[:20])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    run.step(*windows[20:30])
    run.swap.announce(announced(tmp_path, 2, gain=1.02))
    new = run.swap.live
    assert isinstance(new, Network)
    new.fails_at = 1
    run.step(windows[30])
    assert run.said[1:] == [(1, "rolled_back", "not_finite")]
    run.swap.announce(announced(tmp_path, 3, gain=1.03))
    assert run.said[2:] == [(2, "refused", "superseded")]
    run.step(*windows[31:33])
    assert run.versions[-1] == 3


def test_a_rollback_forgets_what_is_still_loading(tmp_path: Path) -> None:
    """Weights that are loaded after a person asked for those of before are not used."""
    gate = threading.Event()

    class Slow(Network):
        def successor(self, path: Path, version: int) -> Network:
            assert gate.wait(120.0)
            found = super().successor(path, version)
            # Its class is that of a plain network, which would not wait.
            found.successor = lambda path, version: Slow.successor(found, path, version)  # type: ignore[method-assign]
            return found

    verdicts: list[Verdict] = []
    swap = WeightSwap(Slow(), SwapRules(canary_windows=8), judged=verdicts.append, eager=True)
    windows = images(60)

    def run(until: str) -> None:
        deadline_s = time.monotonic() + 120.0
        while swap.phase != until and time.monotonic() < deadline_s:
            swap.estimate(windows[0])
            time.sleep(0.001)

    swap.announce(announced(tmp_path, 1, **NEAR))
    gate.set()
    run("canary")
    run("steady")
    gate.clear()
    swap.announce(announced(tmp_path, 2, gain=1.05))
    assert swap.phase == "loading"
    assert swap.roll_back()
    assert [(v.version, v.code) for v in verdicts[2:]] == [(2, "superseded")]
    gate.set()
    run("steady")
    for window in windows:
        time.sleep(0.001)
        swap.estimate(window)
    assert swap.weight_version == 0
    assert [(v.version, v.code) for v in verdicts[3:]] == [(1, "requested")]


def test_a_rollback_that_was_asked_for_ends_what_was_on_its_way(tmp_path: Path) -> None:
    """A person's word counts more than a version that is loading or rehearsing."""
    run, windows = live(), images(200)
    run.step(*windows[:20])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    for window in windows[20:100]:
        run.step(window)
        while run.swap.work(None):
            pass
    assert run.said[-1] == (1, "kept", "canary")
    run.swap.announce(announced(tmp_path, 2, gain=1.12))
    run.swap.work(None)
    assert run.swap.phase == "rehearsal"
    assert run.swap.roll_back()
    assert run.said[-1] == (2, "refused", "superseded")
    while run.swap.work(None):
        pass
    run.step(windows[100])
    assert run.versions[-1] == 0
    assert run.said[-1] == (1, "rolled_back", "requested")
