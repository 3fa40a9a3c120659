"""The pipeline from encoded packets to depth frames, against rules for whole streams."""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.errors import ConfigurationError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket, Events, Triggers
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.depth_frame import DepthFrame, DepthScale
from dae_ros.runtime.estimator import OutputMeaning
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.simulation.encoders import create_encoder
from test.reference.leaky_estimator import LeakyEstimator
from test.reference.windows import time_windows

HEIGHT, WIDTH = 24, 32
MS = 1_000_000
BASE_NS = 1_700_000_000_000_000_000


def mono_packet(times_ns: list[int], seq: int, seed: int = 0, stamp_ns: int = 0) -> EventPacket:
    """Pack times at pseudo-random pixels as `mono` words (spec: 32 bit dt, x, y, polarity)."""
    rng = np.random.default_rng(seed + seq)
    base = times_ns[0] if times_ns else BASE_NS
    words = [
        (t - base)
        | int(rng.integers(WIDTH)) << 32
        | int(rng.integers(HEIGHT)) << 48
        | int(rng.integers(2)) << 63
        for t in times_ns
    ]
    return EventPacket(
        encoding="mono",
        height=HEIGHT,
        width=WIDTH,
        seq=seq,
        time_base_ns=base,
        stamp_ns=stamp_ns or (times_ns[-1] if times_ns else BASE_NS),
        frame_id="camera",
        payload=np.array(words, np.uint64).tobytes(),
    )


def parameters(**changes: object) -> DepthParameters:
    """Parameters with the queue policy."""
    return DepthParameters.from_mapping({"overload": "queue", **changes})


def run(pipeline: DepthPipeline, packets: list[EventPacket], group: int = 1) -> list[DepthFrame]:
    """Feed packets `group` at a time and step until nothing is left."""
    frames = []
    for start in range(0, len(packets), group):
        for packet in packets[start : start + group]:
            pipeline.feed(packet)
        while (frame := pipeline.step()) is not None:
            frames.append(frame)
    return frames


def stream(times_ns: list[int], cut: int) -> list[EventPacket]:
    """Cut a stream of times into packets of `cut` events."""
    return [
        mono_packet(times_ns[i : i + cut], seq=i // cut + 1) for i in range(0, len(times_ns), cut)
    ]


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


def dense(duration_ms: int, step_us: int = 500, start_ns: int = BASE_NS) -> list[int]:
    """Evenly spaced event times."""
    return [start_ns + i * step_us * 1000 for i in range(duration_ms * 1000 // step_us)]


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
    assert statistics.errors == {"non_finite_state": 1}
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


@pytest.mark.parametrize(
    ("meaning", "orientation", "scale", "kind"),
    [
        (OutputMeaning(), "checkpoint", 0.0, "relative"),
        (OutputMeaning(), "checkpoint", 2.0, "relative"),
        (OutputMeaning(), "depth", 2.0, "metric"),
        (OutputMeaning(orientation="depth"), "checkpoint", 2.0, "metric"),
        (OutputMeaning(orientation="depth", metric=True), "checkpoint", 0.0, "metric"),
        (OutputMeaning(orientation="depth", metric=True), "depth", 0.0, "metric"),
    ],
)
def test_metres_only_where_scale_and_orientation_are_known(
    meaning: OutputMeaning, orientation: str, scale: float, kind: str
) -> None:
    """Orientation is never guessed: without it even a given scale stays relative."""
    assert DepthScale.choose(meaning, orientation, scale, 0.0).kind == kind


@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_an_orientation_that_contradicts_the_weights_is_refused(scale: float) -> None:
    """Weights that know their orientation are believed; the sentence says what to do."""
    meaning = OutputMeaning(orientation="depth", metric=True)
    with pytest.raises(ConfigurationError, match=r"is inverse_depth.*leave 'orientation'"):
        DepthScale.choose(meaning, "inverse_depth", scale, 0.0)


def test_inverse_depth_becomes_metres_and_invalid_becomes_nan() -> None:
    """1 / (scale p + shift), NaN where that is not a positive finite number."""
    scale = DepthScale("inverse_depth", True, 0.5, 0.0)
    metres = scale.apply(np.array([[1.0, 4.0], [0.0, -1.0]], np.float32))
    np.testing.assert_array_equal(metres, np.array([[2.0, 0.5], [np.nan, np.nan]], np.float32))


@pytest.mark.parametrize("name", ["untrained:e2depth", "untrained:micro"])
def test_networks_of_other_inputs_step(name: str) -> None:
    """A network on voxel grids and a compact one run in the pipeline, with a preview image."""
    chosen = parameters(weights=name, threads=1)
    pipeline = DepthPipeline(chosen, create_estimator(chosen))
    frames = run(pipeline, stream(dense(160), 50))
    assert len(frames) >= 2
    assert frames[0].image.shape == (3, HEIGHT, WIDTH)
    assert frames[0].depth.shape == (HEIGHT, WIDTH)
    assert not np.array_equal(frames[0].depth, frames[1].depth)


def evt3_stream(duration_ms: int, jitter_seed: int) -> list[EventPacket]:
    """Evt3 packets of 5 ms whose stamps lag the events by 1 ms plus an exponential delay."""
    rng = np.random.default_rng(jitter_seed)
    encoder = create_encoder("evt3", WIDTH, HEIGHT)
    packets = []
    for number in range(duration_ms // 5):
        t = 2_000_000_000 + number * 5 * MS + np.arange(0, 5 * MS, 100_000, dtype=np.int64)
        events = Events(
            t,
            rng.integers(0, WIDTH, len(t)).astype(np.uint16),
            rng.integers(0, HEIGHT, len(t)).astype(np.uint16),
            rng.integers(0, 2, len(t)).astype(np.uint8),
        )
        payload, base_ns = encoder.encode(events)
        delay_ns = MS + int(rng.exponential(4 * MS))
        packets.append(
            EventPacket(
                "evt3", HEIGHT, WIDTH, payload, base_ns, BASE_NS + int(t[0]) + delay_ns, number + 1
            )
        )
    return packets


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
