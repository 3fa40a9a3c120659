"""Changes of weights beside a live camera: in idle time, without any, and while a file loads."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dae_ros.runtime.canary import SwapRules
from dae_ros.runtime.weight_stages import Verdict
from dae_ros.runtime.weight_swap import WeightSwap
from test.reference.reloadable_estimator import ReloadableEstimator as Network
from test.reference.reloadable_estimator import announced
from test.reference.swap_run import MS, NEAR, REPLAY, images, live, replayed


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
