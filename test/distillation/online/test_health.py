"""The state that the status shows, and when refusals degrade it."""

from __future__ import annotations

import itertools

import pytest

from dae_ros.distillation.online.health import FEWEST_ANSWERS, Gate, Health, RefusalMonitor
from dae_ros.distillation.online.observation import Refusal
from dae_ros.parameters.distillation import OnlineParameters

PARAMETERS = OnlineParameters(degraded_share=0.7, degraded_s=30.0)
SECOND = 1_000_000_000
DARK, FLAT = Refusal("dark", "mean 3"), Refusal("flat", "spread 2")


def feed(
    monitor: RefusalMonitor,
    gate: Gate,
    first_s: int,
    last_s: int,
    refused: int,
    of: int = 10,
    refusal: Refusal = DARK,
) -> None:
    """Give so many answers each second, the first of them refusals."""
    for second, index in itertools.product(range(first_s, last_s), range(of)):
        monitor.answered(gate, refusal if index < refused else None, second * SECOND + index)


def test_it_is_active_or_holds_for_the_first_reason() -> None:
    """A value with a word that tools can read."""
    monitor = RefusalMonitor(PARAMETERS)
    assert monitor.health(0, []) == Health("active")
    held = monitor.health(0, [Refusal("no_frames", "none for 2 s"), DARK])
    assert held == Health("holding", "no_frames", "none for 2 s")
    assert (held.text, Health("active").text) == ("holding:no_frames", "active")


def test_many_refusals_for_half_a_minute_degrade_it() -> None:
    """Eight of ten, but not before the time is over; degraded goes before holding."""
    monitor = RefusalMonitor(PARAMETERS)
    feed(monitor, "frame", 0, 29, refused=8)
    assert monitor.health(29 * SECOND, []).state == "active"
    feed(monitor, "frame", 29, 31, refused=8)
    health = monitor.health(30 * SECOND, [FLAT])
    assert health.text == "degraded:dark"
    assert "80%" in health.detail


def test_a_student_that_sees_nothing_of_the_place_is_said_with_the_ways_out() -> None:
    """Learning holds, and with it whatever would find that the original is better here."""
    monitor = RefusalMonitor(PARAMETERS)
    feed(monitor, "label", 0, 31, refused=8, refusal=Refusal("uncorrelated", "correlation 0.1"))
    health = monitor.health(30 * SECOND, [])
    assert health.text == "holding:poor_student"
    assert "~/reset_to_anchor" in health.detail and "dae-ros distill" in health.detail


@pytest.mark.parametrize(("refused", "state"), [(7, "active"), (8, "degraded")])
def test_the_limit_is_a_share(refused: int, state: str) -> None:
    """Exactly seven of ten are allowed."""
    monitor = RefusalMonitor(PARAMETERS)
    feed(monitor, "frame", 0, 60, refused=refused)
    assert monitor.health(60 * SECOND, []).state == state


def test_it_recovers_by_itself_and_does_not_flutter() -> None:
    """Below half of the answers within half a minute, not at the limit."""
    monitor = RefusalMonitor(PARAMETERS)
    feed(monitor, "frame", 0, 40, refused=10)
    assert monitor.health(40 * SECOND, []).state == "degraded"
    feed(monitor, "frame", 40, 80, refused=6)
    assert monitor.health(80 * SECOND, []).state == "degraded"
    feed(monitor, "frame", 80, 120, refused=4)
    assert monitor.health(120 * SECOND, []).state == "active"
    feed(monitor, "frame", 120, 160, refused=6)
    assert monitor.health(160 * SECOND, []).state == "active"


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_it_recovers_from_the_lowest_limit_too(share: float) -> None:
    """Half a minute without a refusal is enough, however little is allowed."""
    monitor = RefusalMonitor(OnlineParameters(degraded_share=share, degraded_s=30.0))
    feed(monitor, "frame", 0, 40, refused=5)
    assert monitor.health(40 * SECOND, []).text == "degraded:dark"
    feed(monitor, "frame", 40, 120, refused=0)
    assert monitor.health(120 * SECOND, []).state == "active"


def test_labels_are_few_and_count_apart() -> None:
    """A teacher that always fails shows among frames that all pass."""
    monitor = RefusalMonitor(PARAMETERS)
    for second in range(40):
        feed(monitor, "frame", second, second + 1, refused=0, of=20)
        if second % 4 == 0:
            feed(monitor, "label", second, second + 1, refused=1, of=1, refusal=FLAT)
    assert monitor.health(40 * SECOND, []).text == "degraded:flat"


def test_too_few_answers_say_nothing_and_silence_recovers() -> None:
    """A stopped camera is a reason to hold, not a share."""
    monitor = RefusalMonitor(PARAMETERS)
    for index in range(FEWEST_ANSWERS - 1):
        monitor.answered("label", DARK, index * 10 * SECOND)
    assert monitor.health(31 * SECOND, []).state == "active"
    feed(monitor, "frame", 40, 80, refused=10)
    assert monitor.health(80 * SECOND, []).state == "degraded"
    assert monitor.health(200 * SECOND, []).state == "active"
    # After the silence the time begins anew.
    feed(monitor, "frame", 200, 220, refused=10)
    assert monitor.health(220 * SECOND, []).state == "active"


def test_everything_is_counted_and_memory_is_bounded() -> None:
    """Totals by gate and reason since the beginning, whether or not anybody asks for the state."""
    monitor = RefusalMonitor(PARAMETERS)
    feed(monitor, "frame", 0, 1000, refused=2, of=3)
    feed(monitor, "label", 0, 10, refused=1, of=1, refusal=FLAT)
    assert monitor.refused == {"frame": {"dark": 2000}, "label": {"flat": 10}}
    assert monitor.passed == {"frame": 1000}
    assert all(len(bins) <= 31 for bins in monitor._bins.values())


def test_the_commonest_reason_is_told() -> None:
    """Not the first or the last one."""
    monitor = RefusalMonitor(PARAMETERS)
    for second in range(40):
        feed(monitor, "frame", second, second + 1, refused=3, of=3)
        feed(monitor, "frame", second, second + 1, refused=4, of=4, refusal=FLAT)
        feed(monitor, "frame", second, second + 1, refused=2, of=2)
        feed(monitor, "frame", second, second + 1, refused=2, of=2, refusal=FLAT)
    assert monitor.health(40 * SECOND, []).reason == "flat"
