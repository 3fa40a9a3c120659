"""A pipeline that is slower than its events: which windows are skipped or merged, and counted."""

from __future__ import annotations

import numpy as np
import pytest

from dae_ros.events.frame import Frame
from dae_ros.runtime.pipeline import DepthPipeline
from test.reference.leaky_estimator import LeakyEstimator
from test.reference.pipeline_streams import (
    BASE_NS,
    HEIGHT,
    MS,
    WIDTH,
    dense,
    parameters,
    run,
    stream,
)


def test_latest_skips_to_the_newest_window_and_counts() -> None:
    """With the policy latest only the newest closed window is stepped; the others are counted."""
    pipeline = DepthPipeline(parameters(overload="latest"), LeakyEstimator())
    for packet in stream(dense(600), 50):
        pipeline.feed(packet)
    frames = []
    while (frame := pipeline.step()) is not None:
        frames.append(frame)
    assert len(frames) == 1
    newest = BASE_NS + 599_500_000
    assert frames[0].end_ns == newest // (50 * MS) * (50 * MS)
    first_end = -(-(BASE_NS + 50 * MS) // (50 * MS)) * 50 * MS
    assert pipeline.statistics().windows_skipped == (frames[0].end_ns - first_end) // (50 * MS)


def test_merge_lengthens_the_window_over_the_skipped_ones() -> None:
    """With the policy merge one long window covers everything since the last step."""
    pipeline = DepthPipeline(parameters(overload="merge"), LeakyEstimator())
    for packet in stream(dense(600), 50):
        pipeline.feed(packet)
    frame = pipeline.step()
    assert frame is not None and pipeline.step() is None
    first_end = -(-(BASE_NS + 50 * MS) // (50 * MS)) * 50 * MS
    assert frame.start_ns == first_end - 50 * MS
    assert frame.event_count == len([t for t in dense(600) if frame.start_ns <= t < frame.end_ns])


def test_merge_takes_what_the_ring_still_holds() -> None:
    """A step longer than the ring merges the part that is left, in whole hops."""
    pipeline = DepthPipeline(parameters(overload="merge", ring_s=1.0), LeakyEstimator())
    for packet in stream(dense(5_000), 20):
        pipeline.feed(packet)
    frame = pipeline.step()
    assert frame is not None
    assert 0.85 <= (frame.end_ns - frame.start_ns) / 1e9 <= 1.0
    assert frame.start_ns % (50 * MS) == 0
    held = [t for t in dense(5_000) if frame.start_ns <= t < frame.end_ns]
    assert frame.event_count == len(held)


@pytest.mark.parametrize("overload", ["latest", "merge"])
def test_count_windows_that_left_the_ring_are_skipped_and_counted(overload: str) -> None:
    """After a step that took far too long only what the ring still holds is stepped."""
    pipeline = DepthPipeline(
        parameters(
            window="count", window_events=2_000, hop_events=2_000, ring_mb=1, overload=overload
        ),
        LeakyEstimator(),
    )
    for packet in stream(dense(100_000, step_us=500), 500):
        pipeline.feed(packet)
    frame = pipeline.step()
    assert frame is not None and pipeline.step() is None
    assert frame.event_count >= 2_000
    assert pipeline.statistics().windows_skipped >= 98 - 39 * (overload == "merge")


@pytest.mark.parametrize("overload", ["latest", "merge", "queue"])
@pytest.mark.parametrize("window", ["time", "count", "frame"])
def test_windows_that_a_break_in_time_overtakes_are_counted(window: str, overload: str) -> None:
    """However far the step is behind when a bag loops, every closed window is in one count."""
    image = np.zeros((HEIGHT, WIDTH), np.uint8)

    def counts(policy: str, group: int) -> tuple[int, int]:
        pipeline = DepthPipeline(
            parameters(window=window, overload=policy, window_events=100, hop_events=100),
            LeakyEstimator(),
        )
        for k in range(1, 12):
            pipeline.add_frame(Frame(BASE_NS + k * 50 * MS, image))
        frames = run(pipeline, [*stream(dense(600), 50), *stream(dense(300), 50)], group)
        statistics = pipeline.statistics()
        assert statistics.windows == len(frames)
        assert statistics.resets == {"restart": 1}
        return statistics.windows, statistics.windows + statistics.windows_skipped

    _, closed = counts("queue", 1)
    windows, met = counts(overload, 1000)
    assert met == closed
    assert (windows == closed) == (overload == "queue")
