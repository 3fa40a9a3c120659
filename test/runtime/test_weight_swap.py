"""New weights between two windows: replayed, compared, watched, taken back. One-line networks."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dae_ros.errors import InferenceError, NonFiniteState
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.canary import StepFacts, SwapRules
from dae_ros.runtime.estimator import FloatImage, ReloadableEstimator
from dae_ros.runtime.weight_stages import Candidate, Verdict
from dae_ros.runtime.weight_swap import WeightSwap
from test.reference.reloadable_estimator import ReloadableEstimator as Network
from test.reference.reloadable_estimator import announced

REPLAY, CANARY = 16, 40
MS = 1_000_000
# Gain and decay; all but the first must not come to stay.
NEAR = {"gain": 1.1, "decay": 0.45}


def images(count: int) -> list[FloatImage]:
    """Return event images that change slowly, as a scene does."""
    rng = np.random.default_rng(1)
    scene = rng.random((3, 24, 32), dtype=np.float32)
    return [
        (0.9 * scene + 0.1 * rng.random((3, 24, 32), dtype=np.float32)).astype(np.float32)
        for _ in range(count)
    ]


class Run:
    """A swap on the one-line network, with a clock that only stands still or is set."""

    def __init__(self, *, eager: bool = True, background: bool = False, **rules: float) -> None:
        self.verdicts: list[Verdict] = []
        self.now_ns = 0
        self.first = Network()
        self.swap = WeightSwap(
            self.first,
            SwapRules(**{"replay_windows": REPLAY, "canary_windows": CANARY, **rules}),  # type: ignore[arg-type]
            judged=self.verdicts.append,
            eager=eager,
            background=background,
            clock_ns=lambda: self.now_ns,
        )
        self.outputs: list[FloatImage] = []
        self.versions: list[int] = []

    def step(self, *windows: FloatImage) -> None:
        """Step windows and note what came out, and of which version."""
        for window in windows:
            self.outputs.append(self.swap.estimate(window))
            self.versions.append(self.swap.weight_version)

    @property
    def said(self) -> list[tuple[int, str, str]]:
        """Version, outcome and code of all verdicts."""
        return [(v.version, v.outcome, v.code) for v in self.verdicts]


def replayed(windows: list[FloatImage], **numbers: float) -> list[FloatImage]:
    """Return what a fresh network makes of windows."""
    network = Network(**numbers)
    return [network.estimate(window) for window in windows]


def test_the_one_line_network_offers_what_a_backend_must() -> None:
    """The tests' network satisfies the protocol that the PyTorch estimator does."""
    assert isinstance(Network(), ReloadableEstimator)


def test_after_a_change_outputs_are_those_of_a_fresh_load_with_the_last_windows(
    tmp_path: Path,
) -> None:
    """The window after the announcement is the new weights', with sixteen windows replayed."""
    run, windows = Run(), images(100)
    run.step(*windows[:30])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    run.step(*windows[30:])
    assert run.versions == [0] * 30 + [1] * 70
    for output, expected in zip(run.outputs[:30], replayed(windows[:30]), strict=True):
        np.testing.assert_array_equal(output, expected)
    fresh = replayed(windows[30 - REPLAY :], **NEAR)[REPLAY:]
    for output, expected in zip(run.outputs[30:], fresh, strict=True):
        np.testing.assert_array_equal(output, expected)
    assert run.said == [(1, "swapped", "replayed"), (1, "kept", "canary")]
    assert run.verdicts[0].numbers["replayed"] == REPLAY
    kept = run.verdicts[1]
    assert (kept.live_version, kept.live_sha256) == (1, run.swap.digest)
    assert kept.numbers["pairs"] == CANARY
    assert kept.numbers["log_scale"] == pytest.approx(np.log(1.1 / 0.55 * 0.5), abs=0.02)
    assert run.swap.phase == "steady"


def test_a_short_history_is_replayed_whole(tmp_path: Path) -> None:
    """Three windows after a reset the new weights know as much as the old ones did."""
    run, windows = Run(), images(30)
    run.step(*windows[:10])
    run.swap.reset()
    run.step(*windows[10:13])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    run.step(*windows[13:])
    fresh = replayed(windows[10:], **NEAR)
    for output, expected in zip(run.outputs[13:], fresh[3:], strict=True):
        np.testing.assert_array_equal(output, expected)
    assert run.swap.state_age == 20
    assert not run.swap.warming


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ({"gain": 2.0}, "scale_step"),
        ({"gain": -1.0}, "scale_step"),
        ({"gain": 1e-4, "decay": 0.5}, "scale_step"),
        ({"fails_at": 1}, "not_finite"),
        ({"fails_at": 12}, "not_finite"),
    ],
)
def test_harmful_weights_are_found_before_they_are_used(
    tmp_path: Path, numbers: dict[str, float], code: str
) -> None:
    """What the rehearsal shows keeps a version out for good; no output is ever its."""
    run, windows = Run(), images(60)
    run.step(*windows[:30])
    announcement = announced(tmp_path, 1, **numbers)
    run.swap.announce(announcement)
    run.step(*windows[30:])
    for output, expected in zip(run.outputs, replayed(windows), strict=True):
        np.testing.assert_array_equal(output, expected)
    assert run.said == [(1, "refused", code)]
    run.swap.announce(announcement)
    assert run.said[1:] == [(1, "refused", "blacklisted")]
    assert run.verdicts[0].reason in run.verdicts[1].reason
    # A better one may follow.
    run.swap.announce(announced(tmp_path, 2, **NEAR))
    run.step(windows[0])
    assert run.versions[-1] == 2


def test_weights_that_fail_in_use_are_replaced_within_the_window(tmp_path: Path) -> None:
    """A NaN on probation costs no window: the old weights make it, with a state up to date."""
    for fails_with, code in ((NonFiniteState, "not_finite"), (InferenceError, "failed")):
        run, windows = Run(), images(60)
        run.step(*windows[:30])
        announcement = announced(tmp_path, 1, **NEAR)
        run.swap.announce(announcement)
        run.step(*windows[30:35])
        new = run.swap._live
        assert isinstance(new, Network)
        new.fails_at, new.fails_with = new.steps + 1, fails_with
        run.step(*windows[35:])
        assert run.versions == [0] * 30 + [1] * 5 + [0] * 25
        expected = replayed(windows)
        for index in range(35, 60):
            np.testing.assert_array_equal(run.outputs[index], expected[index])
        assert run.said == [(1, "swapped", "replayed"), (1, "rolled_back", code)]
        assert (run.verdicts[1].live_version, run.verdicts[1].live_sha256) == (0, "0" * 64)
        run.swap.announce(announcement)
        assert run.said[2:] == [(1, "refused", "blacklisted")]


def test_a_rescue_without_time_for_a_replay_begins_from_zero(tmp_path: Path) -> None:
    """Where the old weights lag behind, the window is theirs all the same; never a failed state."""
    run, windows = live(), images(120)
    run.step(*windows[:30])
    run.swap.announce(announced(tmp_path, 1, gain=1.0005))
    for window in windows[30:100]:
        run.step(window)
        if run.versions[-1] == 1:
            break
    run.step(*windows[100:105])
    new = run.swap._live
    assert isinstance(new, Network)
    new.fails_at = 1
    run.step(windows[105])
    np.testing.assert_array_equal(run.outputs[-1], windows[105].sum(0, dtype=np.float32))
    assert (run.versions[-1], run.swap.state_age, run.swap.warming) == (0, 1, True)
    assert run.said[-1] == (1, "rolled_back", "not_finite")


def test_weights_that_were_kept_fail_as_any_weights_do(tmp_path: Path) -> None:
    """After the canary an error is an error: it reaches the pipeline."""
    run, windows = Run(), images(80)
    run.step(*windows[:30])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    run.step(*windows[30:75])
    new = run.swap._live
    assert isinstance(new, Network)
    new.fails_at = 1
    with pytest.raises(NonFiniteState):
        run.swap.estimate(windows[75])


def test_a_limit_broken_on_probation_brings_the_old_weights_back(tmp_path: Path) -> None:
    """Drift that begins after the change is seen beside the old weights, which take over whole."""
    run, windows = Run(), images(90)
    run.step(*windows[:30])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    run.step(*windows[30:40])
    new = run.swap._live
    assert isinstance(new, Network)
    for window in windows[40:]:
        new.gain *= 1.02
        run.step(window)
    back = run.versions.index(0, 30)
    assert 48 <= back <= 65
    assert run.versions[back:] == [0] * (90 - back)
    expected = replayed(windows)
    for index in range(back, 90):
        np.testing.assert_array_equal(run.outputs[index], expected[index])
    assert run.said == [(1, "swapped", "replayed"), (1, "rolled_back", "scale_step")]
    assert run.verdicts[1].numbers["log_scale"] > 0.2


def test_a_person_may_ask_for_the_weights_of_before(tmp_path: Path) -> None:
    """During and after the canary: the old weights return with a replayed state, once."""
    for steps in (5, 50):
        run, windows = Run(), images(120)
        assert not run.swap.roll_back()
        run.step(*windows[:30])
        announcement = announced(tmp_path, 1, **NEAR)
        run.swap.announce(announcement)
        run.step(*windows[30 : 30 + steps])
        assert run.swap.roll_back()
        assert run.swap.roll_back(), "it is on its way"
        run.step(*windows[30 + steps :])
        assert run.versions[30 + steps :] == [0] * (90 - steps)
        begin = 0 if steps == 5 else 80 - REPLAY
        for index, expected in enumerate(replayed(windows[begin:]), begin):
            if index >= 30 + steps:
                np.testing.assert_array_equal(run.outputs[index], expected)
        assert run.said[-1] == (1, "rolled_back", "requested")
        assert not run.swap.roll_back()
        run.swap.announce(announcement)
        assert run.said[-1] == (1, "refused", "blacklisted")
        run.swap.announce(announced(tmp_path, 2, gain=1.05))
        run.step(windows[0])
        assert run.versions[-1] == 2


def test_weights_of_before_have_time_to_catch_up(tmp_path: Path) -> None:
    """Late in a canary a window or two behind is no reason to give their state up."""
    run, windows = live(), images(120)
    run.step(*windows[:10])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    for window in windows[10:80]:
        while run.swap.work(None):
            pass
        run.step(window)
        if run.versions.count(1) == 36:
            break
    assert run.swap.phase == "canary"
    assert run.swap.roll_back()
    run.step(windows[80])
    while run.swap.work(None):
        pass
    run.step(windows[81])
    stepped = [*windows[: len(run.outputs) - 2], windows[80], windows[81]]
    np.testing.assert_array_equal(run.outputs[-1], replayed(stepped)[-1])
    assert (run.versions[-2:], run.swap.warming) == ([1, 0], False)


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
    new = run.swap._live
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
    new = run.swap._live
    assert isinstance(new, Network)
    new.fails_at = 1
    run.step(windows[30])
    assert run.said[1:] == [(1, "rolled_back", "not_finite")]
    run.swap.announce(announced(tmp_path, 3, gain=1.03))
    assert run.said[2:] == [(2, "refused", "superseded")]
    run.step(*windows[31:33])
    assert run.versions[-1] == 3


@pytest.mark.parametrize("damage", ["missing", "size", "sha256", "damaged", "other_network"])
def test_a_bad_file_changes_nothing(tmp_path: Path, damage: str) -> None:
    """Each way to be bad has its code; outputs and state go on as if nothing had been said."""
    run, windows = Run(), images(40)
    run.step(*windows[:30])
    numbers = {"network": 7} if damage == "other_network" else NEAR
    announcement = announced(tmp_path, 1, **numbers)
    path = announcement.path
    if damage == "missing":
        path.unlink()
    elif damage == "size":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "sha256":
        path.write_bytes(path.read_bytes()[:-1] + b" ")
    elif damage == "damaged":
        path = tmp_path / "text"
        path.write_text("no weights", encoding="utf-8")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        announcement = Announcement(1, path, sha256, path.stat().st_size)
    run.swap.announce(announcement)
    run.step(*windows[30:])
    assert run.said == [(1, "refused", damage)]
    for output, expected in zip(run.outputs, replayed(windows), strict=True):
        np.testing.assert_array_equal(output, expected)
    # It is not blacklisted: the same version may come again, whole.
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    run.step(windows[0])
    assert run.versions[-1] == 1


def live(**rules: float) -> Run:
    """Return a run in which only `work` steps anything but live windows."""
    return Run(eager=False, **rules)


def test_idle_time_is_used_only_where_a_step_fits(tmp_path: Path) -> None:
    """No step is begun that might end after the next window is due."""
    run, windows = live(), images(40)
    durations = iter([10 * MS] * 10_000)
    clock = run.swap._clock_ns
    ticks = {"running": True}

    def ticking() -> int:
        # Each reading during a step is 10 ms later than the one before.
        if ticks["running"]:
            run.now_ns += next(durations) // 2
        return clock()

    run.swap._clock_ns = ticking
    run.step(*windows[:20])
    ticks["running"] = False
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    cost_ns = run.swap._cost_ns
    assert cost_ns == 5 * MS
    assert not run.swap.work(run.now_ns + cost_ns)
    assert run.swap.work(run.now_ns + 2 * cost_ns)


def test_a_replay_in_idle_time_ends_in_the_same_outputs(tmp_path: Path) -> None:
    """Three steps between windows: nothing changes until the state has caught up, then all does."""
    run, windows = live(), images(60)
    run.step(*windows[:30])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    for window in windows[30:]:
        run.step(window)
        for _ in range(3):
            run.swap.work(None)
    # Sixteen windows wait, each new one adds one and three are done.
    assert run.versions == [0] * 38 + [1] * 22
    fresh = replayed(windows[30 - REPLAY :], **NEAR)
    for index in range(38, 60):
        np.testing.assert_array_equal(run.outputs[index], fresh[index - 30 + REPLAY])
    assert run.swap.state_age == 60 - 30 + REPLAY


def test_a_slow_machine_rehearses_alongside(tmp_path: Path) -> None:
    """One step between windows never catches up: the new weights then begin with a new window."""
    run, windows = live(), images(100)
    run.step(*windows[:30])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    for window in windows[30:]:
        run.step(window)
        run.swap.work(None)
    change = run.versions.index(1)
    assert change <= 30 + 3 * REPLAY + 2
    assert run.said[0] == (1, "swapped", "replayed")
    assert run.verdicts[0].numbers["replayed"] == REPLAY
    fresh = replayed(windows[change - REPLAY :], **NEAR)[REPLAY:]
    for output, expected in zip(run.outputs[change:], fresh, strict=True):
        np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("gain", [1.0005, 1.1])
def test_without_any_idle_time_the_state_is_kept_or_given_up(tmp_path: Path, gain: float) -> None:
    """Nearly equal weights go on with the state; others begin from zero and say so four times."""
    run, windows = live(), images(150)
    run.step(*windows[:30])
    run.swap.announce(announced(tmp_path, 1, gain=gain))
    warming = []
    for window in windows[30:]:
        run.step(window)
        warming.append(run.swap.warming)
    change = run.versions.index(1)
    old = replayed(windows[:change])
    if gain < 1.001:
        assert run.said[0] == (1, "swapped", "kept_state")
        expected = 0.5 * old[-1] + np.float32(gain) * windows[change].sum(0, dtype=np.float32)
        assert not any(warming)
    else:
        assert run.said[0] == (1, "swapped", "zero_state")
        expected = np.float32(gain) * windows[change].sum(0, dtype=np.float32)
        assert [30 + i for i, flag in enumerate(warming) if flag] == list(range(change, change + 4))
    np.testing.assert_array_equal(run.outputs[change], expected)


def test_without_idle_time_the_canary_compares_neighbouring_windows(tmp_path: Path) -> None:
    """A doubled depth is found even where the old weights cannot follow; the old ones return."""
    run, windows = live(), images(300)
    run.step(*windows[:30])
    run.swap.announce(announced(tmp_path, 1, gain=2.0))
    run.step(*windows[30:])
    assert run.said == [(1, "swapped", "zero_state"), (1, "rolled_back", "scale_step")]
    assert run.versions[-1] == 0


def test_waiting_windows_are_bounded(tmp_path: Path) -> None:
    """Whatever is announced and however little time there is, few windows are held."""
    run, windows = live(), images(40)
    most = 0
    for version in range(1, 6):
        run.swap.announce(announced(tmp_path, version, gain=1.0 + version / 100))
        for window in windows * 3:
            run.step(window)
            shadow = run.swap._shadow()
            most = max(most, 0 if shadow is None else len(shadow.pending))
            assert len(run.swap._ring) <= REPLAY
    assert most <= 4 * REPLAY


def test_a_reset_holds_for_both_sets_of_weights(tmp_path: Path) -> None:
    """A reset during rehearsal or canary leaves no window of before in either state."""
    run, windows = live(), images(60)
    run.step(*windows[:30])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    run.swap.work(None)
    run.swap.reset()
    run.step(*windows[30:40])
    assert run.versions[30:] == [1] * 10
    fresh = replayed(windows[30:40], **NEAR)
    np.testing.assert_array_equal(run.outputs[-1], fresh[-1])
    run.swap.reset()
    while run.swap.work(None):
        pass
    run.step(*windows[40:45])
    while run.swap.work(None):
        pass
    assert run.swap.roll_back()
    run.step(windows[45])
    np.testing.assert_array_equal(run.outputs[-1], replayed(windows[40:46])[-1])


def test_loading_never_holds_a_window_up(tmp_path: Path) -> None:
    """A file that takes long to load is loaded beside the windows, on a thread that then ends."""
    gate, threads = threading.Event(), []

    class Slow(Network):
        def successor(self, path: Path, version: int) -> Network:
            threads.append(threading.current_thread())
            assert gate.wait(120.0)
            return super().successor(path, version)

    verdicts: list[Verdict] = []
    swap = WeightSwap(Slow(), SwapRules(), judged=verdicts.append, eager=True, background=True)
    windows = images(100)
    for window in windows[:20]:
        swap.estimate(window)
    swap.announce(announced(tmp_path, 1, **NEAR))
    for window in windows[20:40]:
        swap.estimate(window)
    assert (swap.weight_version, swap.phase) == (0, "loading")
    gate.set()
    deadline_s = time.monotonic() + 120.0
    while swap.phase == "loading" and time.monotonic() < deadline_s:
        time.sleep(0.001)
        swap.work(0)
    assert threads[0] is not threading.current_thread()
    for window in windows[40:45]:
        swap.estimate(window)
    assert swap.weight_version == 1
    threads[0].join(120.0)
    assert not threads[0].is_alive()


def test_a_rollback_forgets_what_is_still_loading(tmp_path: Path) -> None:
    """Weights that are loaded after a person asked for those of before are not used."""
    gate = threading.Event()

    class Slow(Network):
        def successor(self, path: Path, version: int) -> Network:
            assert gate.wait(120.0)
            found = super().successor(path, version)
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
