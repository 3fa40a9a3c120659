"""The time-window rule of `docs/time.md`, written out over a whole finished stream.

Straight-line Python over lists: no ring, no schedule, no packets.
"""

from __future__ import annotations

from itertools import pairwise


def time_windows(
    times_ns: list[int], newest_ns: int, length_ns: int, hop_ns: int, max_silence_ns: int
) -> list[tuple[int, int, int, bool]]:
    """Return (start, end, event count, reset before this step) of every window that is stepped.

    Args:
        times_ns: all event times, ascending.
        newest_ns: the newest event or packet time of the stream.
    """
    if not times_ns:
        return []
    end = times_ns[0] - times_ns[0] % hop_ns  # a multiple of the hop that is early enough
    while end - length_ns < times_ns[0]:
        end += hop_ns
    stepped = []
    resumed = [after for t, after in pairwise(times_ns) if after - t > max_silence_ns]
    while end <= newest_ns:
        inside = [t for t in times_ns if end - length_ns <= t < end]
        before = [t for t in times_ns if t < end - length_ns]
        if inside or (before and end - max(before) <= max_silence_ns):
            # The first window that ends after an event that came late.
            reset = any(t < end for t in resumed)
            resumed = [t for t in resumed if t >= end]
            stepped.append((end - length_ns, end, len(inside), reset))
        end += hop_ns
    return stepped
