"""The ring against a plain list of all events ever pushed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.errors import ConfigurationError, TimeDisorder
from dae_ros.events.codecs import create_decoder
from dae_ros.events.packet import Events
from dae_ros.events.ring_buffer import PACKET_BYTES, EventRing, WindowEvicted


def _events(times: list[int], first_number: int = 0) -> Events:
    """Events whose x is their running number, so that each can be told apart."""
    number = np.arange(first_number, first_number + len(times))
    return Events(
        np.array(times, np.int64),
        (number % 65536).astype(np.uint16),
        (number // 65536).astype(np.uint16),
        (number % 2).astype(np.uint8),
    )


def _numbers(events: Events) -> list[int]:
    return (events.y.astype(np.int64) * 65536 + events.x).tolist()


packets = st.lists(
    st.lists(st.integers(0, 30), min_size=0, max_size=12).map(sorted), min_size=1, max_size=25
)


@given(packets, st.integers(1, 200), st.integers(PACKET_BYTES + 13, 12_000), st.data())
@settings(max_examples=200, deadline=None)
def test_any_window_equals_the_list(
    packets: list[list[int]], length_ns: int, capacity: int, data: st.DataObject
) -> None:
    """Any window that is covered equals filtering everything pushed; what is not covered raises."""
    ring = EventRing(length_ns, capacity)
    everything: list[int] = []
    ends: list[int] = []  # of packets with events
    offset = 0
    for gaps in packets:
        times = [offset + gap for gap in gaps]
        ring.push(_events(times, len(everything)))
        everything += times
        ends += [len(everything)] if times else []
        offset = max([offset, *times])
        # the bounds
        kept = everything[ring.oldest_index :]
        count = sum(end > ring.oldest_index for end in ends)
        assert ring.byte_count == 13 * len(kept) + PACKET_BYTES * count <= capacity
        assert ring.event_count + ring.evicted_count == len(everything) == ring.total_pushed
        assert (ring.oldest_ns, ring.newest_ns) == ((kept[0], kept[-1]) if kept else (None, None))
        if (
            13 * len(everything) + PACKET_BYTES * len(ends) <= capacity
        ):  # then only the length may evict
            assert all(t < offset - length_ns for t in everything[: ring.oldest_index])
    for _ in range(6):
        start = data.draw(st.integers(-5, offset + 5))
        end = start + data.draw(st.integers(0, offset + 10))
        expected = [k for k, t in enumerate(everything) if start <= t < end]
        gone = everything[: ring.oldest_index]
        if not ring.covers(start):
            assert any(t >= start for t in gone)
            with pytest.raises(WindowEvicted):
                ring.window(start, end)
            continue
        assert not any(t >= start for t in gone)
        assert _numbers(ring.window(start, end)) == expected
        assert [n for part in ring.slices(start, end) for n in _numbers(part)] == expected
        assert ring.index_of(end) - ring.index_of(start) == len(expected)
    for index in range(ring.oldest_index, ring.total_pushed):
        assert ring.time_of(index) == everything[index]


def test_slices_are_views() -> None:
    """A window shares memory with the packets that were pushed."""
    ring = EventRing(1000, 10_000)
    first, second = _events([1, 2, 3]), _events([4, 5, 6], 3)
    ring.push(first)
    ring.push(second)
    whole, part = ring.slices(0, 6)
    assert whole is first
    assert np.shares_memory(part.t, second.t)
    assert _numbers(ring.window(2, 5)) == [1, 2, 3]


def test_errors_carry_the_bounds() -> None:
    """Evicted windows, unknown indices and backward pushes raise with the data to act upon."""
    ring = EventRing(10, 10_000)
    ring.push(_events([0, 5]))
    ring.push(_events([100, 101], 2))
    assert (ring.evicted_count, ring.oldest_index, ring.oldest_ns) == (2, 2, 100)
    assert ring.covers(6)
    with pytest.raises(WindowEvicted, match="lengthen the ring") as evicted:
        ring.window(5, 101)
    assert evicted.value.data == {
        "start_ns": 5,
        "end_ns": 101,
        "evicted_through_ns": 5,
        "oldest_ns": 100,
    }
    assert isinstance(evicted.value, ValueError)
    for index in (1, 4):
        with pytest.raises(WindowEvicted, match=f"Event {index} is not"):
            ring.time_of(index)
    with pytest.raises(WindowEvicted):
        ring.between(1, 3)
    with pytest.raises(TimeDisorder, match="clear the ring"):
        ring.push(_events([99]))
    with pytest.raises(ConfigurationError, match="must not end"):
        ring.window(101, 100)
    with pytest.raises(ConfigurationError, match="positive length"):
        EventRing(0, 100)


def test_clear_allows_earlier_times_and_keeps_counting() -> None:
    """After clear time may begin again; indices go on, nothing is called evicted."""
    ring = EventRing(10, 10_000)
    ring.push(_events([50, 60]))
    ring.clear()
    assert (ring.oldest_ns, ring.event_count, ring.byte_count, ring.generation) == (None, 0, 0, 1)
    ring.push(_events([1, 2, 3], 2))
    assert _numbers(ring.window(0, 3)) == [2, 3]
    assert (ring.total_pushed, ring.oldest_index, ring.evicted_count) == (5, 2, 0)
    assert ring.time_of(3) == 2


def test_long_runs_of_evictions_stay_exact() -> None:
    """Over many evictions, one push at a time, bounds and windows equal the list's."""
    ring = EventRing(100, 20_000)
    for packet in range(400):
        ring.push(_events([10 * packet, 10 * packet + 5], 2 * packet))
        oldest = max(0, packet - 10)
        assert (ring.oldest_ns, ring.newest_ns) == (10 * oldest, 10 * packet + 5)
        assert ring.oldest_index == 2 * oldest
        assert ring.index_of(-1) == 2 * oldest
        window = ring.window(10 * oldest, 10 * packet + 6)
        assert _numbers(window) == list(range(2 * oldest, 2 * packet + 2))


def test_memory_stays_bounded() -> None:
    """Forty times the capacity in small packets leaves no more than the capacity behind."""
    ring = EventRing(10**12, 500_000)
    tracemalloc.start()
    for packet in range(20_000):
        ring.push(_events(list(range(4 * packet, 4 * packet + 4)), 4 * packet))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert ring.event_count == 4 * (500_000 // (PACKET_BYTES + 52))
    assert used < 500_000


def test_a_payload_that_does_not_fit_leaves_all_events() -> None:
    """Events that are larger with their packet than as columns are kept as columns, every one."""
    rows = np.column_stack([np.full((100, 2), 0x6000), 0x2000 + np.arange(100)])
    words = np.array([0x8000, 0x6000, 0x0007, *rows.ravel()], "<u2")
    (events,) = create_decoder("evt3", 640, 480).decode_packet(words.tobytes()).segments
    ring = EventRing(10**9, PACKET_BYTES + 13 * len(events))
    assert events.byte_count > 13 * len(events)
    ring.push(events)
    assert (ring.event_count, ring.evicted_count) == (100, 0)
    assert ring.covers(0)
    np.testing.assert_array_equal(ring.window(0, 10**9).x, np.arange(100))
