"""The benchmark of long runs: slopes, stretches, goals, and a short run that loses packets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_soak import begin_of, camera_late_ms, goals, latency_over_time, main, measure
from benchmarks.bench_soak import slope_per_hour as slope
from benchmarks.live.camera import OPENING, Block, CameraLog, CameraPlan
from benchmarks.live.stand import Window

pytestmark = pytest.mark.ros
MS = 1_000_000


def test_the_slope_is_of_the_second_half() -> None:
    """A leak of 1 MB a minute is 60 MB per hour, whatever the beginning looked like."""
    samples = [(float(s), 500.0 if s < 30 else 100.0 + s / 60.0) for s in range(60)]
    assert slope(samples) == pytest.approx(60.0)
    with pytest.raises(ValueError, match="too few"):
        slope(samples[:2])


def test_latency_is_told_by_stretch_and_the_camera_by_how_far_it_is_behind() -> None:
    """Windows of the last stretch are late, and so is a packet that left 30 ms too late."""
    ends = np.arange(1, 601) * 50
    sent = ends + 1000
    log = CameraLog(sent * MS, ends * MS, np.ones(600, int), np.zeros(600, int), 0.0)
    windows = [
        Window(0, 0, end * MS, (end + 1000 + (9 if end > 29_000 else 2)) * MS) for end in ends
    ]
    found = latency_over_time(windows, log)
    assert len(found) == 60 and sum(one["windows"] for one in found) == 600
    assert {one["p50_ms"] for one in found[:50]} == {2.0}
    assert found[-1]["p50_ms"] == found[-1]["max_ms"] == 9.0
    assert found[0]["s"] < found[-1]["s"] < 30.0
    sent[17] += 30
    late = CameraLog(sent * MS, ends * MS, log.events, log.block, 0.0)
    assert camera_late_ms(late)["max_ms"] == 30.0 and camera_late_ms(late)["p50_ms"] == 0.0
    opened = CameraLog(sent * MS, ends * MS, log.events, np.array([OPENING] * 2 + [0] * 598), 0.0)
    assert begin_of(opened) == 150 * MS


def test_goals_see_every_kind_of_loss() -> None:
    """Each fact alone misses its goal; nothing lost misses none."""
    fine = {
        "packets_sent": 9, "packets_received": 9, "events_sent": 90, "events_decoded": 90,
        "inbox_dropped": 0, "gaps": {}, "windows_missing": 0, "rss_mb": {"slope_per_hour": -1.0},
    }  # fmt: skip
    assert all(one["met"] for one in goals(fine))
    for wrong in (
        {"packets_received": 8}, {"events_decoded": 89}, {"inbox_dropped": 1},
        {"gaps": {"lost": 1}}, {"windows_missing": 1}, {"rss_mb": {"slope_per_hour": 72.0}},
    ):  # fmt: skip
        assert sum(not one["met"] for one in goals({**fine, **wrong})) == 1, wrong


@pytest.mark.slow
def test_packets_that_are_lost_are_counted_on_both_sides() -> None:
    """One in twenty never leaves the camera: depth sees the counter jump, the goals are missed."""
    plan = CameraPlan(48, 64, (Block(0.2, 1.0, 10),), lose=20)
    depth = {"threads": 1, "backend": "torch"}
    results = measure("untrained:tiny", depth, plan, 4.0, 0.5)
    lost = results["packets_sent"] - results["packets_received"]
    assert lost >= results["packets_sent"] // 20 > 5
    # One at the end has nothing behind it that would show that it is missing.
    assert 5 < lost - 1 <= results["packets_lost"] <= lost
    assert results["gaps"]["lost"] > 5
    assert results["events_decoded"] < results["events_sent"]
    missed = {one["goal"] for one in results["goals"] if not one["met"]}
    assert {"packets lost", "events lost", "gaps"} <= missed


@pytest.mark.slow
def test_a_short_soak_has_every_field(tmp_path: Path) -> None:
    """Counts of both sides agree, memory is sampled, and a picture shows both."""
    main([
        "--minutes", "0.07", "--settle-s", "0.5", "--rate", "0.2", "--slots", "10",
        "--size", "48", "64", "--weights", "untrained:tiny", "--backend", "torch",
        "--out", str(tmp_path),
    ])  # fmt: skip
    results = json.loads((tmp_path / "soak_0.07.json").read_text())["results"]
    assert results["packets_sent"] >= results["packets_received"] > 100
    lost = results["packets_sent"] > results["packets_received"]
    assert (results["events_sent"] > results["events_decoded"] > 1000) or not lost
    assert results["windows"] > 10 and results["windows_missing"] >= 0
    assert len(results["rss_mb"]["samples"]) >= 3
    assert 50 < results["rss_mb"]["first"] <= results["rss_mb"]["largest"] < 5000
    assert sum(one["windows"] for one in results["latency_over_time"]) == results["windows"]
    assert len(results["goals"]) == 6
    assert (tmp_path / "soak_0.07.png").stat().st_size > 1000
