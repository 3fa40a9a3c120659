"""The time-window rule of `docs/time.md`, written out over a whole finished stream.

Straight-line Python over lists: no ring, no schedule, no packets.
"""

from __future__ import annotations


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
    after_silence = False
    while end <= newest_ns:
        inside = [t for t in times_ns if end - length_ns <= t < end]
        before = [t for t in times_ns if t < end - length_ns]
        silent = not inside and (not before or end - max(before) > max_silence_ns)
        if silent:
            after_silence = True
        else:
            stepped.append((end - length_ns, end, len(inside), after_silence))
            after_silence = False
        end += hop_ns
    return stepped
