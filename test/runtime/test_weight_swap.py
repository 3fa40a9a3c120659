"""New weights between two windows: replayed, compared, watched, taken back. One-line networks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from dae_ros.errors import InferenceError, NonFiniteState
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.estimator import ReloadableEstimator
from test.reference.reloadable_estimator import ReloadableEstimator as Network
from test.reference.reloadable_estimator import announced
from test.reference.swap_run import CANARY, NEAR, REPLAY, Run, images, live, replayed


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


def test_weights_are_compared_when_they_remember_as_much(tmp_path: Path) -> None:
    """A memory that fills up over twenty windows is no change of scale, with a node's rules."""
    run, windows = Run(replay_windows=DepthParameters().replay_windows), images(120)
    run.first.decay = 0.9
    run.step(*windows[:60])
    run.swap.announce(announced(tmp_path, 1, gain=1.05, decay=0.9))
    run.step(*windows[60:])
    assert run.said == [(1, "swapped", "replayed"), (1, "kept", "canary")]
    # What it makes of a window is what it will make of it ever after.
    expected = replayed(windows, gain=1.05, decay=0.9)
    np.testing.assert_allclose(run.outputs[60], expected[60], rtol=0.01)


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
        new = run.swap.live
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
    new = run.swap.live
    assert isinstance(new, Network)
    new.fails_at = 1
    run.step(windows[105])
    np.testing.assert_array_equal(run.outputs[-1], windows[105].sum(0, dtype=np.float32))
    assert (run.versions[-1], run.swap.state_age, run.swap.warming) == (0, 1, True)
    assert run.said[-1] == (1, "rolled_back", "not_finite")


@pytest.mark.parametrize("fails_with", [NonFiniteState, InferenceError])
def test_weights_that_were_kept_fail_as_any_weights_do(
    tmp_path: Path, fails_with: type[InferenceError]
) -> None:
    """After the canary an error is an error: it reaches the pipeline, and may have passed then."""
    run, windows = Run(), images(80)
    run.step(*windows[:30])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    run.step(*windows[30:75])
    new = run.swap.live
    assert isinstance(new, Network)
    new.fails_at, new.fails_with = 1, fails_with
    for _ in range(2):
        with pytest.raises(fails_with):
            run.swap.estimate(windows[75])
        run.swap.reset()
    new.fails_at = 0
    run.step(windows[76])
    new.fails_at = 1
    for _ in range(2):
        with pytest.raises(fails_with):
            run.swap.estimate(windows[77])
        run.swap.reset()
    assert run.said == [(1, "swapped", "replayed"), (1, "kept", "canary")]


def test_weights_that_were_kept_and_give_no_numbers_any_more_are_taken_back(tmp_path: Path) -> None:
    """At the third window in a row, which the weights of before make; once, and for good."""
    run, windows = Run(), images(80)
    run.step(*windows[:30])
    announcement = announced(tmp_path, 1, **NEAR)
    run.swap.announce(announcement)
    run.step(*windows[30:75])
    new = run.swap.live
    assert isinstance(new, Network)
    new.fails_at = 1
    for window in windows[75:77]:
        with pytest.raises(NonFiniteState):
            run.swap.estimate(window)
        run.swap.reset()
    run.step(windows[77])
    np.testing.assert_array_equal(run.outputs[-1], windows[77].sum(0, dtype=np.float32))
    assert (run.versions[-1], run.swap.can_roll_back) == (0, False)
    assert run.said[2:] == [(1, "rolled_back", "not_finite")]
    run.swap.announce(announcement)
    assert run.said[3:] == [(1, "refused", "blacklisted")]


def test_a_limit_broken_on_probation_brings_the_old_weights_back(tmp_path: Path) -> None:
    """Drift that begins after the change is seen beside the old weights, which take over whole."""
    run, windows = Run(), images(90)
    run.step(*windows[:30])
    run.swap.announce(announced(tmp_path, 1, **NEAR))
    run.step(*windows[30:40])
    new = run.swap.live
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
