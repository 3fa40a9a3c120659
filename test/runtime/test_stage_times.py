"""When each stage of a window was done: which packet closed it, and quantiles over windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.runtime.stage_times import PACKETS, Arrivals, StageLatencies, StageTimes
from test.reference.leaky_estimator import LeakyEstimator

MS = 1_000_000
START_NS = 1_700_000_000_000_000_000


class Pipeline:
    """A pipeline on a clock that goes on by 1 ns a look; packet k has the events of 5k..5k+5 ms."""

    def __init__(self, **parameters: object) -> None:
        self.looks = itertools.count(1_000_000)
        chosen = {"window_s": 0.02, "hop_s": 0.02, "orientation": "depth", **parameters}
        self.pipeline = DepthPipeline(
            DepthParameters.from_mapping(chosen), LeakyEstimator(), clock_ns=self.looks.__next__
        )
        self.count = 0

    def feed(self, packets: int) -> None:
        """Feed so many more; the arrival of packet k is k."""
        for _ in range(packets):
            offsets = np.arange(0, 5 * MS, MS).astype(np.uint64)
            stamp_ns = START_NS + self.count * 5 * MS
            payload = (offsets | np.uint64(1 << 63)).tobytes()
            packet = EventPacket("mono", 24, 32, payload, stamp_ns, stamp_ns, self.count, "camera")
            self.pipeline.feed(packet, self.count)
            self.count += 1

    def windows(self) -> list[tuple[int, StageTimes]]:
        """Return end (ms after the start) and times of every window that closes."""
        return [
            ((frame.end_ns - START_NS) // MS, frame.times)
            for frame in iter(self.pipeline.step, None)
        ]


@pytest.mark.parametrize("overload", ["latest", "merge", "queue"])
def test_a_window_counts_from_the_packet_that_closed_it(overload: str) -> None:
    """However many packets came after that one while the worker was busy."""
    made = Pipeline(overload=overload)
    made.feed(15)
    # Packet 4 has the first event at 20 ms, 8 at 40, 12 at 60.
    ends = [20, 40, 60] if overload == "queue" else [60]
    found = made.windows()
    assert [(end, times.arrival_ns) for end, times in found] == [(end, end // 5) for end in ends]
    made.feed(5)
    assert [(end, times.arrival_ns) for end, times in made.windows()] == [(80, 16)]


def test_stages_follow_each_other() -> None:
    """Arrived, decoded, closed, begun, done; no window closes while one is stepped."""
    made = Pipeline(overload="queue")
    made.feed(20)
    before_ns = 0
    for _, times in made.windows():
        row = (times.decoded_ns, times.closed_ns, times.begun_ns, times.done_ns)
        assert list(row) == sorted(set(row)) and times.closed_ns > before_ns
        before_ns = times.done_ns


def test_a_camera_frame_that_comes_late_closed_its_window() -> None:
    """The window ends at its exposure, and counts from its arrival and not from the events'."""
    made = Pipeline(window="frame", overload="queue", stamp_clock="sensor")
    made.feed(12)
    assert made.windows() == []
    made.pipeline.add_frame(Frame(START_NS + 40 * MS, np.zeros((24, 32), np.uint8)), 500)
    ((end, times),) = made.windows()
    assert (end, times.arrival_ns) == (40, 500)
    # One that waits for its events counts from these.
    made.pipeline.add_frame(Frame(START_NS + 70 * MS, np.zeros((24, 32), np.uint8)), 501)
    assert made.windows() == []
    made.feed(6)
    ((end, times),) = made.windows()
    assert end == 70 and times.arrival_ns in (14, 15)


def test_a_window_at_the_end_of_a_recording_counts_from_the_last_packet() -> None:
    """`finish` closes windows without a packet that reached their end."""
    made = Pipeline(overload="queue")
    made.feed(4)
    assert made.windows() == []
    made.pipeline.finish(5 * MS)
    assert [(end, times.arrival_ns) for end, times in made.windows()] == [(20, 3)]


def test_forgotten_packets_cost_accuracy_and_nothing_else() -> None:
    """Of more packets than are kept a window counts from the oldest that is left."""
    arrivals = Arrivals()
    for number in range(PACKETS + 10):
        arrivals.add(100 + number, number, number)
    assert arrivals.closed(105) == (10, 10)
    assert arrivals.closed(200) == (100, 100)
    assert arrivals.closed(10**9) == (PACKETS + 9, PACKETS + 9)
    arrivals.clear()
    arrivals.add(50, 7, 8)
    assert arrivals.closed(40) == (7, 8)


def test_quantiles_are_of_each_stage_and_of_the_whole() -> None:
    """A hundred windows whose stages take 1, 2, 3, 4 and k ms; nothing is said before the first."""
    latencies = StageLatencies()
    assert latencies.to_dict() == {}
    for k in range(1, 101):
        times = StageTimes(k, k + 1 * MS, k + 3 * MS, k + 6 * MS, k + 10 * MS)
        latencies.add(times, k + (10 + k) * MS)
    found = latencies.quantiles()
    assert list(found) == ["decode", "close", "encode", "infer", "publish", "total"]
    for name, took_ms in {"decode": 1.0, "close": 2.0, "encode": 3.0, "infer": 4.0}.items():
        assert (found[name].p50_ms, found[name].max_ms) == (took_ms, took_ms)
    assert found["publish"].p50_ms == pytest.approx(50.5)
    assert found["publish"].p99_ms == pytest.approx(99.01)
    assert (found["total"].p50_ms, found["total"].max_ms) == (pytest.approx(60.5), 110.0)


def test_old_windows_leave_the_quantiles() -> None:
    """The latest 2048 windows count, in one array."""
    latencies = StageLatencies()
    for _ in range(2048):
        latencies.add(StageTimes(0, 0, 0, 0, 9 * MS), 9 * MS)
    for _ in range(2047):
        latencies.add(StageTimes(0, 0, 0, 0, 1 * MS), 1 * MS)
    assert latencies.quantiles()["infer"].max_ms == 9.0
    latencies.add(StageTimes(0, 0, 0, 0, 1 * MS), 1 * MS)
    assert latencies.quantiles()["infer"].max_ms == 1.0
