"""The benchmark of overload: what a run shows, which promises it breaks, and a short flood."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_overload import main
from benchmarks.live.camera import OPENING, CameraLog
from benchmarks.live.stand import Window
from benchmarks.overload_figures import AFTER, CALM, FLOOD, figures

pytestmark = pytest.mark.ros
MS = 1_000_000
EVENTS = {"messages": "60", "inbox_dropped": "0"}
COUNTED = {"skipped": "0"}


def log_of() -> CameraLog:
    """A packet at the end of every window: 10 of the opening, 20 calm, 20 flood, 10 after."""
    ends = np.arange(1, 61) * 50 * MS
    block = np.repeat([OPENING, CALM, FLOOD, AFTER], [10, 20, 20, 10])
    return CameraLog(ends + 1000 * MS, ends, np.full(60, 7), block, 0.25)


def windows_of(ends: list[int], late_ms: dict[int, int] | None = None) -> list[Window]:
    """Windows by number, which are received 5 ms after their packet, or when it is said."""
    late = late_ms or {}
    return [
        Window(n - 2, (n - 1) * 50 * MS, n * 50 * MS, (n * 50 + 1000 + late.get(n, 5)) * MS)
        for n in ends
    ]


def held(found: dict) -> dict[str, bool]:
    """Return which promises held, by the first word or two of their line."""
    return {" ".join(p["line"].split()[:2]): p["held"] for p in found["promises"]}


def test_a_run_in_which_nothing_is_dropped_keeps_every_promise() -> None:
    """The windows of each block are told apart, and all of them are there."""
    for policy in ("latest", "merge", "queue"):
        found = figures(policy, windows_of(list(range(2, 61))), log_of(), EVENTS, COUNTED)
        assert (found["windows_due"], found["windows_published"]) == (20, 20)
        assert (
            found["calm"]["p50_ms"] == found["flood"]["max_ms"] == found["after"]["p99_ms"] == 5.0
        )
        assert found["recovery_s"] == 0.005 and found["camera_held_back_s"] == 0.25
        assert found["achieved_mevs"] == pytest.approx(7 / 50_000, abs=1e-3)
        assert all(held(found).values()) and len(held(found)) >= 3


def test_skipped_windows_must_be_counted() -> None:
    """Two windows did not come: the node says two, or the promise is broken."""
    windows = windows_of([n for n in range(2, 61) if n not in (35, 36)])
    found = figures("latest", windows, log_of(), EVENTS, {"skipped": "2"})
    assert found["windows_dropped"] == 2 and all(held(found).values())
    found = figures("latest", windows, log_of(), EVENTS, {"skipped": "1"})
    assert held(found)["windows: skipped"] is False
    found = figures("latest", windows, log_of(), {**EVENTS, "drop.window_evicted": "1"},
                    {"skipped": "1"})  # fmt: skip
    assert all(held(found).values())
    late = windows_of(list(range(5, 61)))
    assert all(held(figures("latest", late, log_of(), EVENTS, {"skipped": "3"})).values())
    assert held(figures("queue", windows, log_of(), EVENTS, COUNTED))["queue steps"] is False


def test_merged_windows_must_cover_what_was_skipped() -> None:
    """One long window over three is whole; without it 100 ms are left out."""
    windows = windows_of([n for n in range(2, 61) if n not in (35, 36)])
    found = figures("merge", windows, log_of(), EVENTS, {"skipped": "2"})
    assert held(found)["merge steps"] is False
    assert [p["value"] for p in found["promises"] if p["line"].startswith("merge")] == [100.0]
    merged = [
        Window(w.index, 34 * 50 * MS, w.end_ns, w.received_ns) if w.end_ns == 37 * 50 * MS else w
        for w in windows
    ]
    assert all(held(figures("merge", merged, log_of(), EVENTS, {"skipped": "2"})).values())
    assert (
        held(figures("latest", merged, log_of(), EVENTS, {"skipped": "2"}))["latest steps"] is False
    )


def test_a_merged_window_may_end_where_the_ring_does() -> None:
    """What left the ring before it could be stepped cannot be covered; other windows must be."""
    log = log_of()
    for first_end, start, kept in ((50, 50, True), (50, 100, True), (50, 150, False)):
        windows = [
            Window(0, (first_end - 50) * MS, first_end * MS, 1100 * MS),
            Window(58, start * MS, 3000 * MS, 4005 * MS),
        ]
        found = figures("merge", windows, log, EVENTS, {"skipped": "57"})
        assert held(found)["merge steps"] is kept, start


def test_a_lost_packet_breaks_the_promise_of_queue() -> None:
    """Whether it was lost on the way or in the inbox."""
    windows = windows_of(list(range(2, 61)))
    for events in ({**EVENTS, "messages": "59"}, {**EVENTS, "inbox_dropped": "1"}):
        assert held(figures("queue", windows, log_of(), events, COUNTED))["a reliable"] is False


def test_recovery_is_when_latency_stays_as_before() -> None:
    """Three late windows after the flood; one at the very end means that it never came."""
    numbers = list(range(2, 61))
    late = dict.fromkeys((51, 52, 54), 300)
    found = figures("latest", windows_of(numbers, late), log_of(), EVENTS, COUNTED)
    # Window 55 is received 4 hops and 5 ms after the first packet after the flood.
    assert found["recovery_s"] == 0.205
    found = figures("latest", windows_of(numbers, {60: 300}), log_of(), EVENTS, COUNTED)
    assert found["recovery_s"] is None and held(found)["latency is"] is False


def test_latency_that_grows_in_the_flood_is_seen() -> None:
    """A second half that is 60 ms later than the first is more than a hop."""
    late = dict.fromkeys(range(41, 51), 65)
    found = figures("latest", windows_of(list(range(2, 61)), late), log_of(), EVENTS, COUNTED)
    assert held(found)["latency does"] is False


@pytest.mark.slow
def test_a_short_flood_of_two_policies(tmp_path: Path) -> None:
    """Every field, blocks told apart, and counts that fit together."""
    main([
        "--policies", "latest", "queue", "--rates", "1", "--calm-s", "2", "--flood-s", "3",
        "--after-s", "3", "--calm-mevs", "0.2", "--slots", "10", "--size", "48", "64",
        "--weights", "untrained:tiny", "--backend", "torch", "--out", str(tmp_path),
    ])  # fmt: skip
    results = json.loads((tmp_path / "overload.json").read_text())["results"]
    assert [row["policy"] for row in results["rows"]] == ["latest", "queue"]
    for row in results["rows"]:
        assert row["windows_due"] >= 40 and row["windows_published"] > 5
        assert row["windows_dropped"] == row["windows_due"] - row["windows_published"]
        assert row["packets_sent"] >= row["packets_received"] > 100
        assert row["calm"]["p50_ms"] > 0 and row["flood"]["p50_ms"] > 0
        assert 0.3 < row["achieved_mevs"] < 1.5
        assert len(row["promises"]) >= 3
    promised = {p["line"]: p["value"] for p in results["rows"][1]["promises"]}
    assert promised["a reliable publisher is held back instead of messages being lost"] == 0
    assert promised["queue steps every one"] == 0
    assert (tmp_path / "overload.png").stat().st_size > 1000
