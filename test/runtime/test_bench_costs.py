"""The benchmark of how cost grows: the fitted law, what is measured, and a short run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import bench_costs
from benchmarks.bench_costs import (
    Cameras,
    Panel,
    Work,
    cameras,
    fit,
    main,
    measure,
    path,
    table,
    title,
)
from dae_ros.runtime.benchmark.event_path import WINDOW_NS

SIZE = (48, 64)


def test_a_law_is_found_and_what_does_not_follow_it_is_told() -> None:
    """By hand: y = 2 + 3 x, y = 3 x, and points that no law goes through."""
    x = [1.0, 2.0, 10.0]
    law = fit(x, [5.0, 8.0, 32.0], constant=True)
    assert (law["a"], law["b"]) == pytest.approx((2.0, 3.0))
    assert law["largest_relative_deviation"] == 0.0 and law["holds"] is True
    law = fit(x, [3.0, 6.0, 30.0], constant=False)
    assert (law["a"], law["b"]) == pytest.approx((0.0, 3.0))
    # Of x / y, which are 1/4, 1/3 and 5/16: b = sum / sum of squares; the first is off most.
    law = fit(x, [4.0, 6.0, 32.0], constant=False)
    expected = (1 / 4 + 1 / 3 + 5 / 16) / (1 / 16 + 1 / 9 + 25 / 256)
    assert law["b"] == pytest.approx(expected)
    assert law["largest_relative_deviation"] == pytest.approx(1 - expected / 4, abs=1e-4)
    assert law["holds"] is False
    with pytest.raises(ValueError, match="at least two"):
        fit([1.0, 1.0], [1.0, 2.0], constant=True)


def test_small_costs_count_as_much_as_large_ones() -> None:
    """Shares of a core at 1 to 200 Mev/s: nothing is off by its own size at the low end."""
    rates = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0]
    cores = [0.0174, 0.0236, 0.0348, 0.0491, 0.105, 0.242, 0.38, 0.619]
    law = fit(rates, cores, constant=True)
    off = [abs(law["a"] + law["b"] * x - y) / y for x, y in zip(rates, cores, strict=True)]
    assert max(off) == pytest.approx(law["largest_relative_deviation"], abs=1e-4)
    assert off[0] < 0.1 and max(off) < 0.25


def test_works_make_as_many_windows_as_overlap_and_cameras_ask_for() -> None:
    """Five times the windows at an overlap of five; twice as many with two cameras."""
    once, five = (path(1.0, SIZE, 0.2, overlap=k) for k in (1, 5))
    assert once.do() == once.windows == 24
    # The last hops of the stream end before a whole window does.
    assert five.do() == five.windows and 5 * 23 <= five.windows <= 5 * 25
    assert once.per == five.per == 24.0 * WINDOW_NS
    assert path(1.0, SIZE, 0.2, per_window=True).per == 24e6
    one, two = cameras(1, SIZE), cameras(2, SIZE)
    assert two.windows == 2 * one.windows > 10
    assert one.per == two.per == one.windows * WINDOW_NS


def test_a_run_that_makes_other_windows_is_refused() -> None:
    """Less work than before is no cost to compare."""
    right, wrong = (Work(1.0, lambda: 3, windows, 1.0) for windows in (3, 4))
    panel = Panel([right, wrong], "", True, "", "")
    with pytest.raises(SystemExit, match="3 windows were made, not 4"):
        measure({"overlap": panel}, 0.0, lambda *_: None)


def test_a_law_that_does_not_hold_is_flagged() -> None:
    """In the table and above the picture, with how far it is off."""
    laws = {"x": "cameras", "y": "cores", "law": "cores = b cameras"}
    good = {**laws, **fit([1.0, 2.0], [1.0, 2.2], constant=False)}
    bad = {**laws, **fit([1.0, 2.0], [1.0, 4.0], constant=False)}
    few, many = table({"few": good, "many": bad}).splitlines()[2:]
    assert few == "| few (cameras) | cores = b cameras (cores) | 0 | 1.045 | off by up to 5 % |"
    assert many.endswith("| 0 | 1.2 | **off by up to 40 %: does not hold** |")
    assert title("many", bad) == (
        "many: cores = b cameras; a 0, b 1.2; off by up to 40 %: does not hold"
    )


def test_costs_are_measured_fitted_and_drawn(tmp_path: Path, monkeypatch) -> None:
    """Four panels with their points, laws and one picture; more cameras cost more."""
    monkeypatch.setattr(bench_costs, "RATES_MEVS", (0.1, 0.2))
    monkeypatch.setattr(bench_costs, "MEDIUM_MEVS", 0.2)
    monkeypatch.setattr(bench_costs, "SIZES", (SIZE, (60, 80)))
    monkeypatch.setattr(bench_costs, "CAMERAS", (1, 3))
    monkeypatch.setattr(bench_costs, "OVERLAPS", (1, 5))
    assert main(["--seconds", "0", "--size", "48", "64", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "costs.json").read_text())["results"]
    assert results["size"] == [48, 64]
    for name, points in (
        ("rate", [0.1, 0.2]), ("resolution", [0.003072, 0.0048]), ("cameras", [1, 3]),
        ("overlap", [1, 5]),
    ):  # fmt: skip
        one = results[name]
        assert [x for x, _ in one["points"]] == points
        assert all(y > 0 for _, y in one["points"])
        assert {"law", "x", "y", "a", "b", "largest_relative_deviation", "holds"} <= set(one)
    (_, one), (_, three) = results["cameras"]["points"]
    assert three > 1.5 * one
    assert results["cameras"]["a"] == 0.0
    assert cv2.imread(str(tmp_path / "costs.png")).shape == (880, 1600, 3)


def test_cameras_do_not_share_their_state() -> None:
    """Two runs make the same windows: every pipeline begins anew."""
    made = Cameras(2, SIZE)
    assert np.unique([made.run() for _ in range(3)]).size == 1
