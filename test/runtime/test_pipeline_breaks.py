"""Lost, refused and restarted packets in the pipeline: what resets, and how frames are stamped."""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import Any

import numpy as np
import pytest

from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket, Events, Triggers
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


def test_lost_packets_reset_only_after_a_long_gap() -> None:
    """A short loss keeps the state, a loss longer than gap_reset_ms resets it with cause 'gap'."""
    estimator = LeakyEstimator()
    pipeline = DepthPipeline(parameters(), estimator)
    early = stream(dense(300), 50)
    run(pipeline, [p for p in early if p.seq != 5])
    assert pipeline.statistics().resets == {}
    assert pipeline.statistics().gaps == {"lost": 1}
    late = [
        dataclasses.replace(p, seq=(p.seq or 0) + 100)
        for p in stream(dense(300, start_ns=BASE_NS + 900 * MS), 50)
    ]
    frames = run(pipeline, late)
    assert pipeline.statistics().resets == {"gap": 1}
    assert frames[0].state_age == 1
    assert frames[0].start_ns >= BASE_NS + 900 * MS


def test_time_that_runs_back_restarts_everything() -> None:
    """A bag that loops resets the state and the grid; windows before and after are whole."""
    pipeline = DepthPipeline(parameters(), LeakyEstimator())
    first = run(pipeline, stream(dense(300), 50))
    again = run(pipeline, stream(dense(300), 50))
    assert sum(pipeline.statistics().resets.values()) == 1
    assert [f.start_ns for f in first] == [f.start_ns for f in again]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.depth, b.depth)


def test_resolution_change_resets() -> None:
    """A camera that changes its size gets a fresh ring, surface and state."""
    pipeline = DepthPipeline(parameters(), LeakyEstimator())
    run(pipeline, stream(dense(200), 50))
    bigger = [
        dataclasses.replace(p, height=48, width=64, seq=(p.seq or 0) + 8)
        for p in stream(dense(200, start_ns=BASE_NS + 200 * MS), 50)
    ]
    frames = run(pipeline, bigger)
    assert pipeline.statistics().resets == {"resolution": 1}
    assert frames[0].depth.shape == (48, 64)


def test_non_finite_state_drops_the_frame_and_resets() -> None:
    """A poisoned step publishes nothing, is counted, and the next step starts afresh."""
    estimator = LeakyEstimator()
    estimator.poison_at = 3
    pipeline = DepthPipeline(parameters(), estimator)
    frames = run(pipeline, stream(dense(400), 50))
    assert [f.state_age for f in frames][:4] == [1, 2, 1, 2]
    statistics = pipeline.statistics()
    assert (statistics.errors, statistics.windows_failed) == ({"non_finite_state": 1}, 1)
    assert statistics.resets == {"non_finite": 1}


def test_bad_packets_are_counted_and_the_stream_goes_on() -> None:
    """An unknown encoding is reported and counted; depth of the good packets is unchanged."""
    seen = []
    pipeline = DepthPipeline(parameters(), LeakyEstimator(), on_packet_error=seen.append)
    good = stream(dense(300), 50)
    bad = EventPacket("evt9", HEIGHT, WIDTH, b"\x00\x01", seq=None)
    frames = run(pipeline, [bad, *good])
    clean = run(DepthPipeline(parameters(), LeakyEstimator()), good)
    assert [e.code for e in seen] == ["unsupported_encoding"]
    assert "evt9" in str(seen[0]) and "evt3" in str(seen[0])
    assert len(frames) == len(clean)
    for a, b in zip(frames, clean, strict=True):
        np.testing.assert_array_equal(a.depth, b.depth)


@pytest.mark.parametrize("changes", [{"encoding": "evt9"}, {"height": 0}])
def test_a_refused_packet_in_a_good_stream_resets_nothing(changes: dict[str, Any]) -> None:
    """Its place is one lost packet; state, windows and stamps go on as if it had been lost."""
    packets = evt3_stream(400, 0)
    seen: list[str] = []
    pipeline = DepthPipeline(
        parameters(), LeakyEstimator(), on_packet_error=lambda error: seen.append(error.code)
    )
    damaged = [*packets[:40], dataclasses.replace(packets[40], **changes), *packets[41:]]
    frames = run(pipeline, damaged)
    clean = run(DepthPipeline(parameters(), LeakyEstimator()), packets[:40] + packets[41:])
    assert len(seen) == 1
    assert pipeline.statistics().errors == {seen[0]: 1}
    assert pipeline.statistics().resets == {}
    assert pipeline.statistics().gaps == {"lost": 1}
    assert [f.state_age for f in frames] == list(range(1, len(clean) + 1))
    for a, b in zip(frames, clean, strict=True):
        assert (a.end_ns, a.stamp_ns) == (b.end_ns, b.stamp_ns)
        np.testing.assert_array_equal(a.depth, b.depth)


@pytest.mark.parametrize("window", ["time", "frame"])
def test_a_break_inside_a_packet_leaves_the_stamps_before_it(window: str) -> None:
    """A window that the events before the break close is stamped by the clock of before."""
    packets = evt3_stream(250, 0)
    last = packets[40]  # its first event ends the window at 2.2 s
    later = create_encoder("evt3", WIDTH, HEIGHT).encode(
        Events(
            np.array([MS, 90 * MS], np.int64),
            np.zeros(2, np.uint16),
            np.zeros(2, np.uint16),
            np.zeros(2, np.uint8),
        )
    )[0]
    broken = dataclasses.replace(last, payload=bytes(last.payload) + bytes(later))
    image = np.zeros((HEIGHT, WIDTH), np.uint8)

    def frames_of(packets: list[EventPacket]) -> list[tuple[int, int, int]]:
        pipeline = DepthPipeline(parameters(window=window), LeakyEstimator())
        pipeline.add_frame(Frame(BASE_NS + 2_200 * MS, image))
        frames = run(pipeline, packets)
        return [(f.end_ns, f.stamp_ns, f.event_count) for f in frames if f.end_ns > 2_000 * MS]

    whole = frames_of([*packets[:40], last])
    assert len(whole) == (4 if window == "time" else 1)
    assert frames_of([*packets[:40], broken]) == whole


def _restarted(packets_ms: list[tuple[int, int]]) -> list[bytes]:
    """Evt3 words with a trigger every 40 ms, of a camera that begins anew where time falls."""
    payloads, before_ms = [], 0
    for start_ms, stop_ms in packets_ms:
        if start_ms < before_ms or not payloads:
            encoder = create_encoder("evt3", WIDTH, HEIGHT)
        before_ms = start_ms
        t = np.arange(start_ms * MS, stop_ms * MS, 200_000, dtype=np.int64)
        column = np.arange(len(t))
        events = Events(
            t,
            (column % WIDTH).astype(np.uint16),
            (column % HEIGHT).astype(np.uint16),
            (column % 2).astype(np.uint8),
        )
        edges = np.array([k * MS for k in range(start_ms, stop_ms) if k % 40 == 10], np.int64)
        ones = np.ones(len(edges), np.uint8)
        payloads.append(encoder.encode(events, Triggers(edges, ones, ones.astype(np.uint16)))[0])
    return payloads


@pytest.mark.parametrize("window", ["trigger", "time"])
def test_a_break_inside_a_packet_is_as_one_between_packets(window: str) -> None:
    """The same windows with the same stamps, triggers on both sides of the break included."""
    times_ms = [(t, t + 20) for t in range(5_000, 5_200, 20)] + [(5_200, 5_215)]
    times_ms += [(t, t + 20) for t in range(0, 400, 20)]
    whole = _restarted(times_ms)
    delays_ms = [t - 5_000 if t >= 5_000 else t + 215 for t, _ in times_ms]
    joined = [*whole[:10], whole[10] + whole[11], *whole[12:]]
    frames = []
    for payloads, delays in ((whole, delays_ms), (joined, delays_ms[:11] + delays_ms[12:])):
        pipeline = DepthPipeline(parameters(window=window, window_s=0.02), LeakyEstimator())
        packets = [
            EventPacket("evt3", HEIGHT, WIDTH, payload, 0, BASE_NS + delay_ms * MS, seq)
            for seq, (payload, delay_ms) in enumerate(zip(payloads, delays, strict=True))
        ]
        done = run(pipeline, packets)
        frames.append([(f.start_ns, f.end_ns, f.event_count, f.stamp_ns) for f in done])
        statistics = pipeline.statistics()
        assert statistics.gaps == {"time_backward": 1}
        assert "trigger_not_newer" not in statistics.drops
    assert len(frames[0]) == (5 + 9 if window == "trigger" else 4 + 7)
    assert frames[0] == frames[1]


@pytest.mark.parametrize("stamp_ns", [0, BASE_NS])
def test_stamps_that_tell_no_time_give_sensor_time_and_a_reason(stamp_ns: int) -> None:
    """Depth goes at the speed of the events, and the user hears why it is not in ROS time."""
    packets = [dataclasses.replace(packet, stamp_ns=stamp_ns) for packet in evt3_stream(300, 0)]
    pipeline = DepthPipeline(parameters(), LeakyEstimator())
    frames = run(pipeline, packets)
    assert [f.stamp_ns for f in frames] == [f.end_ns for f in frames] != []
    what = "0" if stamp_ns == 0 else r"always 1700000000\.000 s"
    assert re.search(f"messages is {what}, .* set stamp_clock", pipeline.statistics().no_stamps)
    asked = DepthPipeline(parameters(stamp_clock="sensor"), LeakyEstimator())
    run(asked, packets)
    healthy = DepthPipeline(parameters(), LeakyEstimator())
    run(healthy, evt3_stream(300, 0))
    assert asked.statistics().no_stamps is healthy.statistics().no_stamps is None


def test_arrays_stamped_at_their_last_event_are_no_jump() -> None:
    """Packets of 3 s, 10 ms and 2.5 s in continuous time, each stamped at its end, are one run."""
    borders_ms = [0, 3_000, 3_010, 3_020, 5_520, 5_530]
    packets = [
        mono_packet(dense(stop - start, start_ns=BASE_NS + start * MS), seq=number + 1)
        for number, (start, stop) in enumerate(itertools.pairwise(borders_ms))
    ]
    pipeline = DepthPipeline(parameters(), LeakyEstimator())
    frames = run(pipeline, packets)
    assert pipeline.statistics().gaps == {}
    assert [f.state_age for f in frames] == list(range(1, len(frames) + 1))
