"""What the counts of what was dropped, or odd, mean: in words, for whoever reads a summary."""

from __future__ import annotations

from collections.abc import Mapping

DROP_MEANINGS: Mapping[str, str] = {
    "skipped_word": "words without events (padding, IMU, other data of the sensor); nothing lost",
    "wraps": "roll-overs of the sensor's time counter; nothing lost",
    "time_raised": "events whose time ran back by 10 ms at most; kept, with the newest time",
    "evicted_events": "events that left the ring, as it keeps ring_s or ring_mb; nothing lost "
    "unless window_evicted is counted as well",
    "duplicate_packets": "packets that repeat another; left out",
    "late_packets": "packets that came after their successors; left out",
    "lost_packets": "packets that are missing, by their sequence numbers",
    "out_of_bounds": "events outside of the sensor's size; left out",
    "before_sync": "events before the stream had told time and place; left out",
    "not_cd": "words of another kind of event than changes of light; left out",
    "invalid": "events that contradict their own layout; left out",
    "unknown_word": "words of a reserved type; left out",
    "trigger_before_sync": "triggers before the stream had told the time; left out",
    "time_breaks": "places where time ran back by more than 10 ms; the state was reset",
    "trailing_bytes": "bytes after the last whole word of a packet; left out",
    "frame_without_events": "camera frames for which no events came; no window ends there",
    "frame_not_newer": "camera frames that are not newer than the one before; no window ends there",
    "trigger_not_newer": "triggers that are not newer than the one before; no window ends there",
    "window_evicted": "windows whose events had left the ring; not stepped",
}
"""By the name of the count. Codes of errors and causes of gaps have counts of their own."""


def meanings_of(drops: Mapping[str, int]) -> dict[str, str]:
    """Return what those counts mean that this table knows, by name."""
    return {name: DROP_MEANINGS[name] for name in sorted(drops) if name in DROP_MEANINGS}
