"""The benchmark of latency: its camera, what it joins window by window, and a run over DDS."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_latency import main
from benchmarks.latency_figures import (
    durations,
    histogram,
    inflation,
    missing_windows,
    steps_by_block,
)
from benchmarks.live.camera import (
    OPENING,
    STEP_US,
    TYPE_NAME,
    Block,
    Camera,
    CameraLog,
    CameraPlan,
    cycle,
    schedule,
)
from benchmarks.live.stand import Window, read_stages, sensor_to_topic_ns
from dae_ros.events.cdr import read_packet
from dae_ros.events.stream import EventStream
from dae_ros.runtime.trace import Trace, write_trace

pytestmark = pytest.mark.ros
MS = 1_000_000


def log_of(sent_ms: list[int], newest_ms: list[int], block: list[int]) -> CameraLog:
    """Return the log of a camera that sent one event with each message."""
    return CameraLog(
        np.array(sent_ms) * MS, np.array(newest_ms) * MS, np.ones(len(sent_ms), np.int64),
        np.array(block), 0.0,
    )  # fmt: skip


@pytest.mark.parametrize("slots", [1, 25])
def test_cycles_follow_each_other_as_one_stream(slots: int) -> None:
    """Over two wraps of the sensor's counter: the first cycle's events, moved on, without a gap."""
    messages = cycle(48, 64, Block(0.004, 1.0, slots))
    steps_per_cycle = Block(0.004, 1.0, slots).cycle_steps
    assert len(messages) * slots * 1024 == steps_per_cycle * STEP_US == 1_024_000
    stream, first, seq = EventStream(), None, 0
    for number in range(35):
        steps, found = 1 + number * steps_per_cycle, []
        for message in messages:
            packet = read_packet(TYPE_NAME, message.at(steps, seq, 7_000_000_123 + seq))
            assert (packet.seq, packet.stamp_ns) == (seq, 7_000_000_123 + seq)
            (part,) = stream.feed(packet)
            assert part.gap is None and len(part.events) == message.events
            assert part.newest_time_ns == message.newest_ns + steps * STEP_US * 1000
            found.append(part.events)
            seq += 1
        times, places = (
            np.concatenate([getattr(events, name) for events in found]) for name in ("t", "x")
        )
        first = first or (times, places)
        assert np.array_equal(times, first[0] + number * 1_024_000_000)
        assert np.array_equal(places, first[1])
    assert stream.counts()["wraps"] == 2


def test_stamps_and_events_go_on_alike_when_the_camera_is_held_back() -> None:
    """A publisher that blocks for a while: stamps say when the camera had each packet."""
    sent = []

    class Publisher:
        def publish(self, data: bytes) -> None:
            time.sleep(0.2 if len(sent) == 5 else 0.0)
            sent.append(read_packet(TYPE_NAME, data))
            if len(sent) == 40:
                camera.leaving.set()

    camera = Camera(CameraPlan(48, 64, (Block(0.1, 1.0, 10),)), Publisher())
    camera.planned.set()
    camera.run()
    assert [packet.seq for packet in sent] == list(range(40))
    assert set(np.diff([packet.stamp_ns for packet in sent])) == {10_240_000}


def test_a_camera_opens_quietly_and_ends_with_its_last_block() -> None:
    """The opening lasts until it is told; the last block is repeated."""
    plan = CameraPlan(48, 64, (Block(1.0, 3.0), Block(0.01, 1.0, 25)))
    assert CameraPlan.from_json(plan.to_json()) == plan
    planned = threading.Event()
    blocks = schedule(plan, planned)
    assert [next(blocks)[0] for _ in range(3)] == [OPENING] * 3
    planned.set()
    found = [next(blocks) for _ in range(4)]
    assert [(number, cycles) for number, _, cycles in found] == [(0, 3), (1, 1), (1, 1), (1, 1)]


def test_a_window_counts_from_the_first_packet_that_reaches_its_end() -> None:
    """Also one that ends exactly where a packet does; beyond the last packet there is none."""
    log = log_of([10, 20, 30, 40], [100, 150, 200, 250], [0, 0, 0, 0])
    assert log.closing(np.array([100, 101, 150, 250]) * MS).tolist() == [0, 1, 1, 3]
    windows = [Window(0, 50 * MS, 100 * MS, 12 * MS), Window(0, 100 * MS, 160 * MS, 37 * MS)]
    assert sensor_to_topic_ns(windows, log).tolist() == [2 * MS, 7 * MS]
    with pytest.raises(ValueError, match="after the newest"):
        log.closing(np.array([251]) * MS)


def test_stages_of_three_processes_add_up(tmp_path: Path) -> None:
    """Camera, trace and listener of one window; a window without a trace is left out."""
    row = np.array(
        [[1, 150 * MS, 7, 5, 1, 0, 21 * MS, 23 * MS, 26 * MS, 30 * MS, 45 * MS, 51 * MS]]
    )
    path = tmp_path / "trace.json"
    write_trace(Trace(row, 0, "", ""), path, rest=lambda: None)
    stages = read_stages(path)
    log = log_of([10, 20, 30], [100, 150, 200], [0, 0, 0])
    windows = [Window(0, 100 * MS, 150 * MS, 47 * MS), Window(0, 150 * MS, 200 * MS, 99 * MS)]
    found = {
        name: (values / MS).tolist() for name, values in durations(windows, log, stages).items()
    }
    assert found == {
        "transport": [1], "decode": [2], "close": [3], "encode": [4], "infer": [15],
        "deliver": [2], "sensor_to_topic": [27], "all_but_model": [12], "in_node": [15],
        "before_model": [9],
    }  # fmt: skip


def test_windows_that_never_came_are_missing() -> None:
    """Two of five."""
    windows = [Window(0, 0, end * MS, 0) for end in (50, 100, 250)]
    assert missing_windows(windows) == 2
    assert missing_windows([]) == 0


def test_steps_belong_to_the_block_that_closed_their_window() -> None:
    """The first half second of a block is left out."""
    sent = [0, 300, 600, 900, 1200, 1500, 1800]
    log = log_of(sent, sent, [OPENING, 0, 0, 0, 1, 1, 1])
    stages = {end * MS: {"encode": 0, "infer": end} for end in (600, 900, 1200, 1500, 1750)}
    found = {block: steps.tolist() for block, steps in steps_by_block(log, stages).items()}
    assert found == {OPENING: [], 0: [900], 1: [1750]}


def test_inflation_is_the_ratio_of_medians_with_an_interval_over_pairs() -> None:
    """Equal pairs leave no doubt; pairs that disagree do; an empty block is refused."""
    steps = np.arange(100, 200)
    same = inflation([(steps, steps * 11 // 10)] * 4)
    assert same["pairs"] == 4 and same["steps"] == 800
    assert same["low"] == same["ratio"] == same["high"] == pytest.approx(1.1, abs=0.01)
    mixed = inflation([(steps, steps), (steps, 2 * steps), (steps, steps)])
    assert mixed["low"] == 1.0 and mixed["high"] == 2.0
    with pytest.raises(ValueError, match="without steps"):
        inflation([(steps, steps[:0])])


def test_the_histogram_shows_shares() -> None:
    """A picture, whatever the durations."""
    picture = histogram({"a": np.array([1, 2, 3]) * MS, "b": np.array([0])}, "latency")
    assert picture.shape == (440, 800, 3)


@pytest.mark.slow
def test_latency_is_measured_over_dds(tmp_path: Path) -> None:
    """A short run of all three parts: every field, stages that add up, everything received."""
    main([
        "--seconds", "2", "--pairs", "1", "--block-s", "2", "--settle-s", "0.5", "--rate", "0.2",
        "--slots", "10", "--size", "48", "64", "--weights", "untrained:tiny", "--backend", "torch",
        "--out", str(tmp_path),
    ])  # fmt: skip
    results = json.loads((tmp_path / "latency.json").read_text())["results"]
    for part in ("path", "shipped"):
        one = results[part]
        assert one["windows"] > 2 and one["backend"] == "torch"
        # A machine that is busy with something else may lose some: they are told.
        lost = one["packets_sent"] - one["packets_received"]
        assert one["packets_received"] > 100 and 0 <= one["packets_lost"] <= lost
        assert (one["events_sent"] == one["events_decoded"]) == (lost == 0)
        assert 0.1 < one["rate_mevs"] < 0.25
        assert one["infer"]["p50_ms"] < one["sensor_to_topic"]["p50_ms"]
        assert one["all_but_model"]["p50_ms"] < one["sensor_to_topic"]["p50_ms"]
        assert one["in_node"]["p50_ms"] > 0
    assert results["inflation"]["steps"] > 2 and results["inflation"]["ratio"] > 0
    assert len(results["goals"]) == 8
    assert (tmp_path / "latency.png").stat().st_size > 1000
