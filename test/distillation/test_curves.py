"""Curves as TensorBoard reads them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dae_ros.distillation.curves import FOLDER, Curves
from dae_ros.distillation.journal import Journal
from dae_ros.errors import DistillationError
from test.reference.full_disk import no_room_beyond

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return step and value of each point of each curve."""
    read = EventAccumulator(str(folder / FOLDER)).Reload()
    return {
        tag: [(point.step, point.value) for point in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def test_points_are_read_back(tmp_path: Path) -> None:
    """At once, before anything is closed, and no thread is needed for that."""
    threads = threading.active_count()
    curves = Curves(tmp_path, 0)
    curves.write("learned", 1, {"loss": 0.5, "rate": 0.25})
    curves.write("learned", 2, {"loss": 0.125})
    assert shown(tmp_path) == {
        "learned/loss": [(1, 0.5), (2, 0.125)],
        "learned/rate": [(1, 0.25)],
    }
    assert threading.active_count() == threads
    curves.close()


def test_what_is_done_again_is_not_shown_twice(tmp_path: Path) -> None:
    """Each of many files of the same second goes on from its first step."""
    for first in range(12):
        curves = Curves(tmp_path, first)
        for step in range(first, first + 3):
            curves.write("update", step, {"loss": 100.0 * first + step})
        curves.close()
    assert len([*(tmp_path / FOLDER).iterdir()]) == 12
    kept = [(step, 101.0 * step) for step in range(12)]
    assert shown(tmp_path) == {"update/loss": [*kept, (12, 1112.0), (13, 1113.0)]}


def test_a_point_that_does_not_fit(tmp_path: Path) -> None:
    """It is told at once, what was there before is read, and closing is quiet."""
    curves = Curves(tmp_path, 0)
    curves.write("update", 0, {"loss": 4.0})
    (path,) = (tmp_path / FOLDER).iterdir()
    with no_room_beyond(path.stat().st_size + 3):
        with pytest.raises(OSError, match="File too large"):
            curves.write("update", 1, {"loss": 2.0})
        curves.close()
    assert shown(tmp_path) == {"update/loss": [(0, 4.0)]}


def test_a_training_run_says_that_its_curves_do_not_fit(tmp_path: Path) -> None:
    """From the beginning or later; the error of the run, with what to do."""
    said = r"tensorboard cannot be written: File too large\. Make room"
    (tmp_path / "early").mkdir()
    with no_room_beyond(10), pytest.raises(DistillationError, match=said):
        Journal(tmp_path / "early", 0, tensorboard=True)
    (tmp_path / "late").mkdir()
    with Journal(tmp_path / "late", 0, tensorboard=True) as journal:
        size = max(path.stat().st_size for path in (tmp_path / "late" / FOLDER).iterdir())
        with no_room_beyond(size + 30), pytest.raises(DistillationError, match=said):
            journal.score(1, {"abs_rel": 0.5})
