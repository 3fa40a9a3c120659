"""Repacking ROS 1 event arrays, against the library's own converter."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.bags.event_arrays import event_array_to_cdr
from dae_ros.bags.message_types import EVENT_ARRAY, known_types
from dae_ros.events.cdr import read_ros1_packet
from test.reference.mvsec_bag import START_NS, event_array_bytes

EVENT = st.tuples(
    st.integers(0, 2**31 * 10**9 - 1),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.integers(0, 1),
)


@settings(deadline=None)
@given(events=st.lists(EVENT, max_size=40), name=st.text("ab/_", max_size=9))
def test_repacked_arrays_equal_the_converters_bytes(events, name):
    """Any array, in any order and of any frame_id, becomes byte for byte what rosbags makes."""
    data = event_array_bytes(events, 3, START_NS, name)
    packet = read_ros1_packet(EVENT_ARRAY, data)
    assert event_array_to_cdr(packet) == bytes(known_types().ros1_to_cdr(data, EVENT_ARRAY))
