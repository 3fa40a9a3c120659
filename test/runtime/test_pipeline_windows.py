"""Which windows the pipeline steps, from encoded packets on, against rules for whole streams."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.errors import ConfigurationError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket, Events, Triggers
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.simulation.encoders import create_encoder
from test.reference.leaky_estimator import LeakyEstimator
from test.reference.pipeline_streams import (
    BASE_NS,
    HEIGHT,
    MS,
    WIDTH,
    dense,
    evt3_stream,
    mono_packet,
    parameters,
    run,
    stream,
)
from test.reference.windows import time_windows

times = st.lists(st.integers(0, 40 * MS), min_size=1, max_size=80).map(
    lambda deltas: [BASE_NS + sum(deltas[: i + 1]) // 1000 * 1000 for i in range(len(deltas))]
)


@settings(max_examples=60, deadline=None)
@given(times, st.integers(1, 9), st.sampled_from([(50, 50), (50, 20), (20, 50)]))
def test_time_windows_follow_the_written_rule(
    times_ns: list[int], cut: int, sizes_ms: tuple[int, int]
) -> None:
    """Every window of the rule is stepped once, in order, with the right events and resets."""
    length_ms, hop_ms = sizes_ms
    estimator = LeakyEstimator()
    pipeline = DepthPipeline(
        parameters(window_s=length_ms / 1e3, hop_s=hop_ms / 1e3, max_silence_s=0.2), estimator
    )
    frames = run(pipeline, stream(times_ns, cut))
    expected = time_windows(times_ns, times_ns[-1], length_ms * MS, hop_ms * MS, 200 * MS)
    assert [(f.start_ns, f.end_ns, f.event_count) for f in frames] == [e[:3] for e in expected]
    ages, age = [], 0
    for *_, reset in expected:
        age = 1 if reset else age + 1
        ages.append(age)
    assert [f.state_age for f in frames] == ages


@settings(max_examples=30, deadline=None)
@given(times, st.integers(1, 7), st.integers(1, 5))
def test_grouping_of_calls_changes_nothing(times_ns: list[int], cut: int, group: int) -> None:
    """Feeding several packets before stepping gives the same frames as one at a time."""
    packets = stream(times_ns, cut)
    one = run(DepthPipeline(parameters(), LeakyEstimator()), packets)
    many = run(DepthPipeline(parameters(), LeakyEstimator()), packets, group)
    assert len(one) == len(many)
    for a, b in zip(one, many, strict=True):
        assert (a.stamp_ns, a.index, a.state_age) == (b.stamp_ns, b.index, b.state_age)
        np.testing.assert_array_equal(a.depth, b.depth)


def test_a_packet_longer_than_the_ring_loses_nothing() -> None:
    """One packet of two seconds through a ring of 0.2 s steps every window whole."""
    times_ns = dense(2000)
    small = DepthPipeline(parameters(ring_s=0.2), LeakyEstimator())
    large = DepthPipeline(parameters(), LeakyEstimator())
    frames = run(small, [mono_packet(times_ns, 1)])
    expected = run(large, [mono_packet(times_ns, 1)])
    assert len(frames) == len(expected) == 38 or len(frames) == len(expected) == 39
    for a, b in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(a.depth, b.depth)
    assert "window_evicted" not in small.statistics().drops


def test_count_windows_hold_their_number_of_events() -> None:
    """Count windows close every hop_events events, whatever the packets."""
    times_ns = dense(400)
    for cut in (7, 50, 1000):
        pipeline = DepthPipeline(
            parameters(window="count", window_events=100, hop_events=40), LeakyEstimator()
        )
        frames = run(pipeline, stream(times_ns, cut))
        ends = [100 + 40 * k for k in range((len(times_ns) - 1 - 100) // 40 + 1)]
        assert [f.event_count for f in frames] == [100] * len(ends)
        assert [f.end_ns for f in frames] == [times_ns[e - 1] + 1000 for e in ends]


@pytest.mark.parametrize("overload", ["queue", "latest", "merge"])
def test_count_windows_of_a_quiet_scene_may_be_longer_than_the_ring(overload: str) -> None:
    """At 5 kev/s a window of 30,000 events lasts six seconds, twice ring_s; none is lost."""
    pipeline = DepthPipeline(parameters(window="count", overload=overload), LeakyEstimator())
    frames = run(pipeline, stream(dense(13_000, step_us=200), 500))
    assert [f.event_count for f in frames] == [30_000, 30_000]
    assert "window_evicted" not in pipeline.statistics().drops


def test_a_count_window_must_fit_the_ring() -> None:
    """A window that the memory bound could never hold is refused with a sentence."""
    with pytest.raises(
        ConfigurationError, match=r"'window_events' \(100000\) must not exceed 38461"
    ):
        parameters(window="count", window_events=100_000, ring_mb=1)


def test_frame_windows_end_at_the_middle_of_exposure() -> None:
    """With image_stamp 'start' and 20 ms exposure a window ends 10 ms after the stamp."""
    pipeline = DepthPipeline(
        parameters(window="frame", image_stamp="start", exposure_s=0.02), LeakyEstimator()
    )
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    packets = stream(dense(400), 20)
    pipeline.feed(packets[0])
    stamps = [BASE_NS + k * 33_333_333 for k in range(3, 9)]
    for stamp in stamps:
        pipeline.add_frame(Frame(stamp, image))
    frames = run(pipeline, packets[1:])
    assert [f.end_ns for f in frames] == [(s + 10 * MS) // 1000 * 1000 for s in stamps]
    assert all(f.end_ns - f.start_ns == 50 * MS for f in frames)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(-12, 12), min_size=12, max_size=12), st.integers(0, 9))
def test_frame_windows_do_not_depend_on_the_order_of_topics(
    shifts: list[int], jitter_seed: int
) -> None:
    """However early or late frames arrive between evt3 packets, windows and depth are the same."""
    packets = evt3_stream(500, jitter_seed)
    stamps = [BASE_NS + 2_000_000_000 + 33_333_333 * k for k in range(1, 13)]
    image = np.zeros((HEIGHT, WIDTH), np.uint8)

    def frames_of(places: list[int]) -> list[DepthFrame]:
        pipeline = DepthPipeline(parameters(window="frame"), LeakyEstimator())
        found: list[DepthFrame] = []
        for number in range(-12, len(packets) + 25):
            for stamp, place in zip(stamps, places, strict=True):
                if place == number:
                    pipeline.add_frame(Frame(stamp, image))
            if 0 <= number < len(packets):
                pipeline.feed(packets[number])
            while (frame := pipeline.step()) is not None:
                found.append(frame)
        return found

    on_time = [int((stamp - BASE_NS - 2_000_000_000) // (5 * MS)) for stamp in stamps]
    expected = frames_of(on_time)
    # One topic keeps its own order, whatever happens between the two topics.
    moved = frames_of(sorted(max(-12, p + s) for p, s in zip(on_time, shifts, strict=True)))
    assert len(expected) == 11  # the first frame's window begins before the first event
    assert len(moved) == len(expected)
    for a, b in zip(moved, expected, strict=True):
        assert (a.end_ns, a.stamp_ns, a.event_count) == (b.end_ns, b.stamp_ns, b.event_count)
        np.testing.assert_array_equal(a.depth, b.depth)


def test_trigger_windows_end_at_rising_edges() -> None:
    """Each rising edge whose window begins after the first event ends one; falling edges do not."""
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    t = np.arange(2_000_000_000, 2_400_000_000, 200_000, dtype=np.int64)
    rng = np.random.default_rng(3)
    events = Events(
        t,
        rng.integers(0, WIDTH, len(t)).astype(np.uint16),
        rng.integers(0, HEIGHT, len(t)).astype(np.uint16),
        rng.integers(0, 2, len(t)).astype(np.uint8),
    )
    edges_ns = np.array([2_010, 2_020, 2_100, 2_110, 2_200, 2_210, 2_399], np.int64) * MS
    triggers = Triggers(edges_ns, np.array([1, 0, 1, 0, 1, 0, 1], np.uint8), np.zeros(7, np.uint16))
    payload, base_ns = encoder.encode(events, triggers)
    pipeline = DepthPipeline(parameters(window="trigger", stamp_clock="sensor"), LeakyEstimator())
    pipeline.feed(EventPacket("evt3", HEIGHT, WIDTH, payload, base_ns, BASE_NS, 1))
    frames = []
    while (frame := pipeline.step()) is not None:
        frames.append(frame)
    # The edge at 2.010 s would need events from before the first.
    assert [f.end_ns for f in frames] == [2_100 * MS, 2_200 * MS, 2_399 * MS]
    assert all(f.event_count == 250 for f in frames)
    assert pipeline.statistics().windows_skipped == 1


def test_triggers_of_a_packet_longer_than_the_ring_end_their_windows() -> None:
    """A packet of two seconds through a ring of 0.2 s steps a window at each of its edges."""
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    t = np.arange(2_000_000_000, 4_000_000_000, 500_000, dtype=np.int64)
    events = Events(
        t,
        (np.arange(len(t)) % WIDTH).astype(np.uint16),
        (np.arange(len(t)) % HEIGHT).astype(np.uint16),
        np.ones(len(t), np.uint8),
    )
    edges_ns = np.arange(2_100, 4_000, 100, dtype=np.int64) * MS
    ones = np.ones(len(edges_ns), np.uint8)
    payload, base_ns = encoder.encode(events, Triggers(edges_ns, ones, ones.astype(np.uint16)))
    packet = EventPacket("evt3", HEIGHT, WIDTH, payload, base_ns, BASE_NS, 1)
    pipeline = DepthPipeline(
        parameters(window="trigger", ring_s=0.2, stamp_clock="sensor"), LeakyEstimator()
    )
    frames = run(pipeline, [packet])
    assert [f.end_ns for f in frames] == edges_ns.tolist()
    assert all(f.event_count == 100 for f in frames)
    assert pipeline.statistics().windows_skipped == 0


@pytest.mark.parametrize(
    ("window", "encoding", "text"),
    [
        ("trigger", "mono", r"'mono' packets carry none, only evt3, evt2, evt2.1 do; choose"),
        ("trigger", "evt3", r"without a rising edge of a trigger; connect"),
        ("frame", "mono", r"no camera frame lies inside of the events; see"),
        ("time", "mono", ""),
        ("count", "mono", ""),
    ],
)
def test_windows_that_cannot_close_have_a_reason(window: str, encoding: str, text: str) -> None:
    """Events without the frames or triggers that windows wait for are told, from the first on."""
    pipeline = DepthPipeline(parameters(window=window), LeakyEstimator())
    assert pipeline.statistics().no_ends is None
    run(pipeline, stream(dense(20), 50) if encoding == "mono" else evt3_stream(20, 0))
    reason = pipeline.statistics().no_ends
    assert (reason is None) == (text == "")
    assert re.search(text, reason or "")
