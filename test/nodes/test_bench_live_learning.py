"""The benchmark of learning on live nodes: what it compares, and when it calls depth better."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.adaptation.scores import Scores
from benchmarks.adaptation.worlds import NEW_KINDS, Lengths
from benchmarks.bench_live_learning import drive_parameters, lead_of, plot, summary, table
from benchmarks.live.truth import STRETCH, Against, Pair, compare, pairs_of

pytestmark = pytest.mark.ros
HOP_NS = 50_000_000
TRUE = np.linspace(2.0, 8.0, 48, dtype=np.float32).reshape(6, 8)
SAID = {"verdicts": {"accepted": 1}, "counts": {}, "state": "active", "swaps": []}


def against(factors: list[float], offset_ns: int = 0) -> Against:
    """Return depth that is wrong by these factors, window by window."""
    found = Against("test")
    for number, factor in enumerate(factors, 1):
        found.add_truth(number * HOP_NS, TRUE)
        found.add_depth(number * HOP_NS + offset_ns, factor * TRUE)
    found.end()
    return found


def test_both_nodes_are_compared_on_the_same_windows_and_by_version() -> None:
    """Errors in metres see a factor that alignment takes away; a window of one alone is none."""
    live, frozen = against([1.2, 1.1, 1.1], 3), against([1.2, 1.2])
    versions = {HOP_NS + 3: 1, 2 * HOP_NS + 3: 2, 3 * HOP_NS + 3: 2}
    pairs = pairs_of(live, frozen, versions)
    assert [(pair.at_s, pair.version) for pair in pairs] == [(0.0, 1), (0.05, 2)]
    assert [pair.live["metric"] for pair in pairs] == pytest.approx([0.2, 0.1], abs=1e-5)
    assert [pair.frozen["metric"] for pair in pairs] == pytest.approx([0.2, 0.2], abs=1e-5)
    assert all(pair.live["aligned"] < 1e-4 for pair in pairs)
    # An image whose status did not come is nobody's.
    assert [p.version for p in pairs_of(live, frozen, {HOP_NS + 3: 1})] == [1]
    assert pairs_of(live, frozen, {}) == []


def windows(version: int, live: float, count: int, seed: int = 0) -> list[Pair]:
    """Return windows of both nodes with scattered errors; the frozen one's mean is 0.4."""
    random = np.random.default_rng(seed)
    frozen = random.uniform(0.3, 0.5, count)
    own = frozen * live / 0.4
    return [
        Pair(0.05 * n, version, {"aligned": a, "metric": a}, {"aligned": b, "metric": b})
        for n, (a, b) in enumerate(zip(own.tolist(), frozen.tolist(), strict=True))
    ]


def test_a_ratio_comes_with_the_interval_over_stretches() -> None:
    """Equal factors leave no doubt; too few windows give no interval, none give nothing."""
    found = compare(windows(2, 0.3, 10 * STRETCH), "metric")
    assert found["windows"] == 10 * STRETCH
    assert [found["low"], found["ratio"], found["high"]] == pytest.approx([0.75] * 3)
    few = compare(windows(2, 0.3, STRETCH + 1), "metric")
    assert few["ratio"] == pytest.approx(0.75) and few["high"] is None
    assert compare([], "metric")["windows"] == 0
    mixed = windows(2, 0.3, 5 * STRETCH) + windows(2, 0.5, 5 * STRETCH)
    found = compare(mixed, "metric")
    assert found["low"] < 0.9 and found["high"] > 1.0


def scores(error: float | None) -> Scores:
    return {"aligned_abs_rel": error, "metric_abs_rel": error}


def test_goals_need_a_learned_version_that_is_truly_better_here_and_elsewhere() -> None:
    """Nothing learned, nothing better, or better here alone: each misses its goals."""
    before = windows(1, 0.4, 4 * STRETCH)
    better = [*before, *windows(2, 0.3, 4 * STRETCH)]

    def met(pairs: list[Pair], elsewhere: dict[str, Scores]) -> list[bool]:
        return [one["met"] for one in summary(pairs, SAID, elsewhere)["goals"]]

    both = {"original": scores(0.5), "learned": scores(0.4)}
    assert met(better, both) == [True] * 5
    assert met(before, both) == [False, False, False, True, True]
    assert met([*before, *windows(2, 0.42, 4 * STRETCH)], both)[:3] == [True, False, False]
    assert met(better, {**both, "learned": scores(0.6)}) == [True, True, True, False, False]
    assert met(better, {"original": scores(0.5)})[3:] == [False, False]


def test_results_become_json_a_table_and_a_picture(tmp_path: Path) -> None:
    """Means of original and learned windows, and of every version."""
    pairs = [*windows(1, 0.4, 2 * STRETCH), *windows(2, 0.3, 2 * STRETCH)]
    found = summary(pairs, SAID, {"original": scores(0.5)})
    json.dumps(found, allow_nan=False)
    assert found["before"]["metric"]["ratio"] == pytest.approx(1.0)
    text = table(found)
    assert "| learned | metric | 40 |" in text and "| version 2 | aligned | 40 |" in text
    assert "accepted 1" in text and "| - | 1 | **no** |" in text
    plot(pairs, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_the_teacher_must_lead_in_both_errors() -> None:
    """A part of the student's error; an unknown one is none."""
    lead = lead_of({"aligned_abs_rel": 0.4, "metric_abs_rel": 0.5}, scores(0.3))
    assert lead == pytest.approx({"aligned": 0.25, "metric": 0.4})
    assert np.isnan(lead_of(scores(0.4), scores(None))["metric"])


def test_the_drive_is_that_of_the_adaptation_benchmark(tmp_path: Path) -> None:
    """Its parameters are drawn by its seed, and the simulator takes them as they are."""
    world = drive_parameters(tmp_path, 1, Lengths(30.0, 1.0, 5.0))
    assert (world["scene"], world["seed"], world["duration_s"]) == (NEW_KINDS[1], 2001, 30.0)
    assert yaml.safe_load((tmp_path / "drives.yaml").read_text())["train"]
    assert not any(isinstance(value, dict) for value in world.values())
