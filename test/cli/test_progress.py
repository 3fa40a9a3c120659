"""What is shown while something runs: on a terminal, and in a log."""

from __future__ import annotations

import io

import pytest

from dae_ros.cli import progress
from dae_ros.cli.progress import ProgressBar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time that the bar sees, in s, to be changed by the test."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_for_each_tenth_and_for_each_silence(clock: list[float]) -> None:
    """Nobody waits longer than 10 s for a line, also where the length is not known."""
    log = io.StringIO()
    bar = ProgressBar(log, terminal=False)
    for second in range(26):
        clock[0] = 100.0 + second
        bar.update(None, f"{second} windows")
    assert log.getvalue().splitlines() == ["10 windows, 10 s", "20 windows, 20 s"]
    bar.restart()
    for second in range(26):
        clock[0] = 125.0 + second
        bar.update(second / 130, f"{second} of 130")
    assert log.getvalue().splitlines()[2:] == [
        "10 of 130, 10 s",
        "10 %  13 of 130",
        "23 of 130, 23 s",
    ]


def test_a_log_of_hours_stays_short(clock: list[float]) -> None:
    """The longer it has taken, the rarer are the lines."""
    log = io.StringIO()
    bar = ProgressBar(log, terminal=False)
    for second in range(0, 36_000, 5):
        clock[0] = 100.0 + second
        bar.update(None, "steps")
    assert 80 < len(log.getvalue().splitlines()) < 130


def test_a_note_stands_above_the_moving_line(clock: list[float]) -> None:
    """On a terminal the line is cleared first and drawn again below."""
    log = io.StringIO()
    bar = ProgressBar(log, terminal=True)
    clock[0] += 2.0
    bar.update(0.5, "half")
    bar.note("a sentence")
    clock[0] += 1.0
    bar.update(0.5, "half")
    drawn = "\r\x1b[K[############............]  50%  half  "
    assert log.getvalue() == f"{drawn}2 s left\r\x1b[Ka sentence\n{drawn}3 s left"
