"""Pauses of a camera: what is stepped in them, and that what comes after begins anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket
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


def paused(pause_ms: int, phase_ms: int = 0, each_ms: int = 400) -> list[int]:
    """Event times before and after a pause."""
    begin_ns = BASE_NS + phase_ms * MS
    return [
        *dense(each_ms, start_ns=begin_ns),
        *dense(each_ms, start_ns=begin_ns + (each_ms + pause_ms) * MS),
    ]


def packets_of(times_ns: list[int], cut: int) -> list[EventPacket]:
    """Packets of `cut` events; a long pause lies between two, as `mono` has 32 bits."""
    middle = len(times_ns) // 2
    if times_ns[middle] - times_ns[middle - 1] < 3_000 * MS:
        return stream(times_ns, cut)
    packets = stream(times_ns[:middle], cut)
    rest = stream(times_ns[middle:], cut)
    return packets + [replace(one, seq=len(packets) + one.seq) for one in rest]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["queue", "latest", "merge"]),
    st.sampled_from([1_400, 5_000, 2_500_000]),
    st.integers(0, 49),
    st.sampled_from([1, 7, 66, 1_000]),
    st.sampled_from([1, 3, 50]),
)
def test_after_a_silence_depth_begins_anew(
    overload: str, pause_ms: int, phase_ms: int, cut: int, group: int
) -> None:
    """Under every policy, in every phase of the grid, in packets of any size: one reset."""
    times_ns = paused(pause_ms, phase_ms)
    pipeline = DepthPipeline(parameters(overload=overload), LeakyEstimator())
    frames = run(pipeline, packets_of(times_ns, cut), group)
    resumed_ns = times_ns[len(times_ns) // 2]
    after = [frame for frame in frames if frame.end_ns > resumed_ns]
    assert after[0].state_age == 1 and pipeline.statistics().resets == {"silence": 1}
    # Nothing of before is merged with what comes after, and the pause is no overload.
    assert all(frame.start_ns > resumed_ns - 51 * MS for frame in after)
    found = pipeline.statistics()
    assert found.windows_silent >= (pause_ms - 1_100) // 50
    assert len(frames) + found.windows_skipped <= 2 * 400 // 50 + (1_000 + 50) // 50 + 1


@pytest.mark.parametrize("overload", ["queue", "latest", "merge"])
@pytest.mark.parametrize("cut", [30, 1_000])
def test_count_windows_do_not_reach_over_a_silence(overload: str, cut: int) -> None:
    """They begin to count at the first event after it, with a new state."""
    times_ns = paused(2_500_000)
    pipeline = DepthPipeline(
        parameters(window="count", window_events=300, hop_events=300, overload=overload),
        LeakyEstimator(),
    )
    frames = run(pipeline, packets_of(times_ns, cut))
    resumed_ns = times_ns[800]
    assert [f.state_age for f in frames if f.start_ns >= resumed_ns][:1] == [1]
    assert all(f.end_ns < resumed_ns or f.start_ns >= resumed_ns for f in frames)
    if overload == "queue":
        assert [f.event_count for f in frames] == [300] * 4
        assert [f.start_ns for f in frames] == [times_ns[k] for k in (0, 300, 800, 1_100)]


@pytest.mark.parametrize("overload", ["queue", "latest"])
def test_frames_of_a_silence_end_no_windows_after_it(overload: str) -> None:
    """Camera frames go on while nothing moves; with the next event the state begins anew."""
    times_ns = paused(3_500)
    resumed_ns = times_ns[800]
    pipeline = DepthPipeline(parameters(window="frame", overload=overload), LeakyEstimator())
    packets = stream(times_ns, 20)
    frames = []
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    for index, packet in enumerate(packets):
        if index == 40:  # the first after the pause; frames came before it
            for k in range(1, 90):
                pipeline.add_frame(Frame(times_ns[799] + 33 * k * MS, image))
        pipeline.feed(packet)
        while (frame := pipeline.step()) is not None:
            frames.append(frame)
    last = Frame(resumed_ns + 200 * MS, image)
    pipeline.add_frame(last)
    while (frame := pipeline.step()) is not None:
        frames.append(frame)
    assert frames[-1].end_ns == last.stamp_ns // 1000 * 1000
    assert frames[-1].state_age == 1 and pipeline.statistics().resets == {"silence": 1}


@pytest.mark.parametrize("overload", ["queue", "latest"])
def test_windows_at_frames_do_not_depend_on_which_topic_came_first(overload: str) -> None:
    """Neither those of a silence, in which no window is stepped, nor those around it."""
    times_ns = paused(2_500)
    resumed_ns, packets = times_ns[800], stream(times_ns, 20)
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    last = resumed_ns - 5 * MS
    found = []
    for late in (False, True):
        pipeline = DepthPipeline(parameters(window="frame", overload=overload), LeakyEstimator())
        frames = [Frame(BASE_NS + 33 * k * MS, image) for k in range(2, 120)]
        depth = []
        for packet in packets:
            # Of a silence they come one by one; which of two that come together is first is open.
            for frame in [one for one in frames if one.stamp_ns < min(packet.stamp_ns, last)]:
                frames.remove(frame)
                pipeline.add_frame(frame)
            due = [one for one in frames if one.stamp_ns <= packet.stamp_ns]
            frames = frames[len(due) :]
            for item in [packet, *due] if late else [*due, packet]:
                pipeline.feed(item) if item is packet else pipeline.add_frame(item)
            while (result := pipeline.step()) is not None:
                depth.append(result)
        found.append([(one.end_ns, one.state_age, one.event_count) for one in depth])
        silence = (times_ns[799] + 1_000 * MS, resumed_ns)
        assert not [one.end_ns for one in depth if silence[0] < one.end_ns < silence[1]]
        assert pipeline.statistics().resets == {"silence": 1}
    assert found[0] == found[1]


@pytest.mark.parametrize("cut", [7, 1_000])
def test_a_pause_longer_than_the_ring_loses_no_window(cut: int) -> None:
    """With `queue`, where a silence is longer still: what comes after would evict what waits."""
    pipeline = DepthPipeline(parameters(max_silence_s=60.0), LeakyEstimator())
    frames = run(pipeline, packets_of(paused(20_000), cut))
    ends_ms = [(frame.end_ns - BASE_NS) // MS for frame in frames]
    assert ends_ms == list(range(ends_ms[0], ends_ms[-1] + 1, 50))
    assert pipeline.statistics().drops.get("window_evicted", 0) == 0


def test_a_window_of_an_hour_is_a_window() -> None:
    """Events less than a silence apart, for longer than the times of a surface reach."""
    times_ns = dense(3_600_000, step_us=900_000)
    pipeline = DepthPipeline(
        parameters(window="count", window_events=3_000, hop_events=3_000), LeakyEstimator()
    )
    frames = run(pipeline, stream(times_ns, 4))
    assert [f.event_count for f in frames] == [3_000]
    assert frames[0].end_ns - frames[0].start_ns > 2_148_000_000_000
