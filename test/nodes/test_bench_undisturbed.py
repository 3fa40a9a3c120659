"""The benchmark of depth's latency beside a learner: its statistics, and what it compares with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench_undisturbed import goals, ratio_interval, table
from benchmarks.live.online_stand import Image, Said
from benchmarks.live.undisturbed_blocks import HOP_NS, Block, paired
from benchmarks.live.undisturbed_swaps import fresh_depth, identical_windows, swaps_of
from dae_ros.bags.message_types import EVENT_PACKET
from dae_ros.bags.writer import BagWriter
from dae_ros.events.cdr import write_packet
from dae_ros.events.packet import EventPacket
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.pipeline import DepthPipeline
from test.reference.wall_deployment import items

pytestmark = pytest.mark.ros
SMALL = {"weights": "untrained:tiny", "threads": 1, "device": "cpu"}


def images(ends: list[int], latency_ms: float = 1.0, version: int = 0) -> list[Image]:
    """Return images at these windows, which arrive when they end."""
    return [Image(0.05 * end, end, end * HOP_NS, version, "", latency_ms + end) for end in ends]


def test_windows_that_never_came_are_lost_and_gaps_are_counted_in_windows() -> None:
    """Two of six are missing; the longest gap is of three windows."""
    block = Block("off", images([10, 11, 14, 15]), 0.05)
    assert block.lost == 2
    assert [round(gap, 6) for gap, _ in block.gaps()] == [1.0, 3.0, 1.0]
    said = block.to_dict()
    assert (said["windows"], said["lost"], said["longest_gap_windows"]) == (4, 2, 3.0)
    assert said["p50_ms"] == 13.5


def test_blocks_are_compared_on_the_windows_that_both_have() -> None:
    """In the order of time, whatever is missing on either side."""
    off, on = paired(
        Block("off", images([1, 2, 3, 5]), 0.05), Block("on", images([2, 3, 4, 5], 2.0), 0.05)
    )
    assert off.tolist() == [3.0, 4.0, 6.0] and on.tolist() == [4.0, 5.0, 7.0]


def test_the_interval_holds_the_ratio_and_grows_with_the_spread() -> None:
    """Without noise it is a point; with noise of its own on each side it is not."""
    random = np.random.default_rng(3)
    off = random.gamma(9.0, 2.0, 2000)
    ratio, low, high = ratio_interval([(off, 1.1 * off)], 0.95)
    assert [low, ratio, high] == pytest.approx([1.1] * 3)
    pairs = [(random.gamma(9.0, 2.0, 2000), random.gamma(9.0, 2.2, 2000)) for _ in range(3)]
    ratio, low, high = ratio_interval(pairs, 0.95)
    assert low < 1.1 < high and low < ratio < high and high - low > 0.02


def test_a_fresh_load_begins_with_the_window_it_is_told(tmp_path: Path) -> None:
    """As a recording that begins there, bit for bit; and it has a memory."""
    packets = [item for item in items(1, 1000) if isinstance(item, EventPacket)]
    with BagWriter(tmp_path / "recording") as bag:
        for packet in packets:
            bag.write("/events", EVENT_PACKET, packet.stamp_ns, write_packet(packet))
    parameters = DepthParameters.from_mapping({**SMALL, "overload": "queue"})

    def depth_of(seen: list[EventPacket]) -> dict[int, np.ndarray]:
        pipeline = DepthPipeline(parameters, create_estimator(parameters))
        found = {}
        for packet in seen:
            pipeline.feed(packet)
            while (frame := pipeline.step()) is not None:
                found[frame.end_ns] = frame.depth
        return found

    whole = depth_of(packets)
    first_ns, last_ns = sorted(whole)[6], sorted(whole)[10]
    late = depth_of([p for p in packets if p.time_base_ns >= first_ns - HOP_NS])
    fresh = fresh_depth(
        tmp_path / "recording", Path(SMALL["weights"]), first_ns, last_ns, {"threads": 1}
    )
    assert sorted(fresh) == [first_ns + number * HOP_NS for number in range(5)]
    assert identical_windows(fresh, late) == 5
    assert identical_windows(fresh, whole) == 0


def verdict(outcome: str, arrival_s: float) -> Said:
    values = {"verdict": outcome, "version": 1, "code": "replayed", "numbers": {"replayed": 16}}
    return Said(arrival_s, values)


def test_a_swap_costs_the_gap_before_its_first_image() -> None:
    """That gap, the longest one near it, and whether the version stayed."""
    before, after = images([1, 2, 3]), images([5, 6], version=1)
    block = Block("swaps", [*before, *after], 0.05, [verdict("swapped", 0.2)])
    (swap,) = swaps_of(block)
    assert (swap["gap_windows"], swap["longest_gap_near_windows"], swap["kept"]) == (
        2.0,
        2.0,
        False,
    )
    block.verdicts.append(verdict("kept", 0.3))
    assert swaps_of(block)[0]["kept"] is True


def results(high: float) -> dict[str, Any]:
    """Return those of one pair of blocks, without a swap."""
    block = {
        "kind": "on", "windows": 9, "lost": 0, "steps": 5, "p50_ms": 1.0, "p95_ms": 2.0,
        "p99_ms": 3.0, "longest_gap_windows": 1.1, "cpu_percent": 25.0,
    }  # fmt: skip
    found: dict[str, Any] = {
        "ratios": {
            "p50": {"ratio": 1.0, "low": 0.9, "high": 1.1},
            "p95": {"ratio": 1.1, "low": 1.05, "high": 1.15},
            "p99": {"ratio": 1.12, "low": 1.0, "high": high},
        },
        "swaps": [],
        "blocks": [block, {**block, "kind": "off", "lost": 3, "steps": 0}],
        "identical": {"windows": 0, "equal": 0},
    }
    return {**found, "goals": goals(found)}


def test_goals_are_missed_where_nothing_was_compared() -> None:
    """No swap is no proof that swaps cost nothing."""
    met = [one["met"] for one in results(1.19)["goals"]]
    assert met == [True, True, True, True, False, False]


def test_a_ratio_is_judged_by_the_upper_end_of_its_interval() -> None:
    """What is only probably fast enough is not; point and interval both stand in the table."""
    found = results(1.25)
    assert [one["met"] for one in found["goals"]][:2] == [True, False]
    assert [one["value"] for one in found["goals"]][:2] == [1.15, 1.25]
    text = table(found)
    assert "| p99 | 1.120 | 1.000 to 1.250 |" in text and "1.12 measured" in text
    assert "| off | 9 | 3 | 1.0, 2.0, 3.0 | 1.1 | 0 | 25 % |" in text
