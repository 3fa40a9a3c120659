"""Events with the time of a shared clock straight onto the last events of the pixels.

For packets in which all is well, which are nearly all: the time before them is known, theirs
neither runs back nor rolls over, and every event is valid and lies on the sensor. Any other packet
is left to its decoder (`absolute`, where the formats are described), from its first word on. What
was put until then does no harm: the same events come again, in the same order.

The arguments of every kernel are those of `evt3_put.put`.
"""

# ruff: noqa: ARG001  (all kernels have the same arguments, needed or not)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.codecs.absolute import IS_EVENT, KEEP, SECOND_NS, SHIFT, TAKE
from dae_ros.events.codecs.layout import NOT_PUT, NOW, NOW_KNOWN
from dae_ros.events.codecs.types import Int64s, Octets
from dae_ros.events.compilation import kernel

# Events of `libcaer_cmp` that are unfolded at a time, so that they stay in the nearest cache; and
# what one word of it unfolds to at most.
_BLOCK = 2048
_LARGEST_VECTOR = 8


@kernel
def put_mono(
    octets: Octets,
    time_base_ns: int,
    width: int,
    height: int,
    state: Int64s,
    counts: Int64s,
    entries: NDArray[np.uint32],
    base_us: int,
    before_us: int,
    fewest: int,
    ends_ns: Int64s,
) -> int:
    """Put the events of a `mono` packet."""
    if state[NOW_KNOWN] != 1:
        return NOT_PUT
    words = octets.view(np.uint64)
    low = np.uint64(0xFFFFFFFF)
    now_ns, before_ns, base_ns = state[NOW], before_us * 1000, base_us * 1000
    if now_ns < base_ns + 1000:  # an entry of 0 is no event
        return NOT_PUT
    columns, rows = np.uint64(width), np.uint64(height)
    for i in range(words.size):
        word = words[i]
        time_ns = time_base_ns + np.int64(word & low)
        column = (word >> np.uint64(32)) & np.uint64(0xFFFF)
        row = (word >> np.uint64(48)) & np.uint64(0x7FFF)
        if time_ns < now_ns or time_ns >= before_ns or column >= columns or row >= rows:
            return NOT_PUT
        now_ns = time_ns
        time_us = np.uint64(time_ns - base_ns) // np.uint64(1000)
        entries[row * columns + column] = np.uint32(time_us << np.uint64(1) | word >> np.uint64(63))
    ends_ns[0], ends_ns[1] = time_base_ns + np.int64(words[0] & low), now_ns
    state[NOW] = now_ns
    return words.size


@kernel
def put_libcaer(
    octets: Octets,
    time_base_ns: int,
    width: int,
    height: int,
    state: Int64s,
    counts: Int64s,
    entries: NDArray[np.uint32],
    base_us: int,
    before_us: int,
    fewest: int,
    ends_ns: Int64s,
) -> int:
    """Put the events of a `libcaer` packet, whose times do not roll over."""
    if state[NOW_KNOWN] != 1:
        return NOT_PUT
    words = octets.view(np.uint64)
    # Whole microseconds of the time base count from the surface's base.
    since_us = time_base_ns // 1000 - base_us
    first_us = np.int64(words[0] >> np.uint64(32))
    if time_base_ns + first_us * 1000 < state[NOW] or since_us + first_us < 1:
        return NOT_PUT
    # Invalid times, from 2^31 on, lie beyond what any window may hold.
    now_us, before = first_us, min(before_us - base_us - since_us, np.int64(2**31))
    columns, rows = np.uint64(width), np.uint64(height)
    for i in range(words.size):
        word = words[i]
        time_us = np.int64(word >> np.uint64(32))
        column = (word >> np.uint64(17)) & np.uint64(0x7FFF)
        row = (word >> np.uint64(2)) & np.uint64(0x7FFF)
        if time_us < now_us or time_us >= before or column >= columns or row >= rows:
            return NOT_PUT
        if word & np.uint64(1) == 0:
            return NOT_PUT
        now_us = time_us
        polarity = (word >> np.uint64(1)) & np.uint64(1)
        value = np.uint64(since_us + time_us) << np.uint64(1) | polarity
        entries[row * columns + column] = np.uint32(value)
    ends_ns[0], ends_ns[1] = time_base_ns + first_us * 1000, time_base_ns + now_us * 1000
    state[NOW] = ends_ns[1]
    return words.size


@kernel
def put_libcaer_cmp(
    octets: Octets,
    time_base_ns: int,
    width: int,
    height: int,
    state: Int64s,
    counts: Int64s,
    entries: NDArray[np.uint32],
    base_us: int,
    before_us: int,
    fewest: int,
    ends_ns: Int64s,
) -> int:
    """Put the events of a `libcaer_cmp` packet: unfolded without a branch, then put, by turns."""
    if state[NOW_KNOWN] != 1:
        return NOT_PUT
    words = octets.view(np.uint16)
    since_us = time_base_ns // 1000 - base_us
    now_us = max(-((time_base_ns - state[NOW]) // 1000), 1 - since_us)
    before = before_us - base_us - since_us
    unfolded = np.empty(_BLOCK + _LARGEST_VECTOR, np.int64)
    packed = np.int64(0)
    column_known = np.uint64(0)
    base, base_polarity = np.int64(-1), np.int64(0)
    columns, low = np.uint64(width), np.uint64(2047)
    total = 0
    i, words_count = np.uint64(0), np.uint64(words.size)
    while i < words_count:
        n = np.uint64(0)
        while i < words_count and n < np.uint64(_BLOCK):
            word = words[i]
            i += np.uint64(1)
            code = np.uint64(word) >> np.uint64(12)
            value = np.int64(word) & 4095
            packed = (packed & KEEP[code]) | (value & TAKE[code]) << SHIFT[code]
            unfolded[n] = packed
            n += IS_EVENT[code] & column_known
            if code >= np.uint64(4) or column_known == np.uint64(0):
                if code == np.uint64(2):
                    column_known = np.uint64(1)
                elif code == np.uint64(4):
                    base, base_polarity = value & 2047, value & 2048
                elif code == np.uint64(5):
                    if base < 0 or base > 2048 - 8 or column_known == np.uint64(0):
                        return NOT_PUT
                    start = packed & ~np.int64(0xFFF) | base_polarity | base
                    for bit in range(8):
                        unfolded[n] = start + bit
                        n += np.uint64((value >> bit) & 1)
                    base += 8
                elif code > np.uint64(5) or code == np.uint64(3):
                    return NOT_PUT
        if n == 0:
            continue
        # Everything is looked at before anything is put: without branches that is quick.
        events = unfolded[:n]
        first_us, last_us = events[0] >> 23, events[n - np.uint64(1)] >> 23
        odd = (first_us - now_us) | (before - 1 - last_us)
        for k in range(events.size - 1):
            odd |= (events[k + 1] >> 23) - (events[k] >> 23)
        for k in range(events.size):
            odd |= (width - 1 - (events[k] >> 12 & 2047)) | (height - 1 - (events[k] & 2047))
        if odd < 0:
            return NOT_PUT
        now_us = last_us
        for k in range(events.size):
            event = np.uint64(events[k])
            pixel = (event & low) * columns + (event >> np.uint64(12) & low)
            time_us = np.uint64(since_us) + (event >> np.uint64(23))
            polarity = event >> np.uint64(11) & np.uint64(1)
            entries[pixel] = np.uint32(time_us << np.uint64(1) | polarity)
        if total == 0:
            ends_ns[0] = time_base_ns + first_us * 1000
        total += events.size
    if total < fewest:
        return NOT_PUT
    ends_ns[1] = time_base_ns + now_us * 1000
    state[NOW] = ends_ns[1]
    return total


@kernel
def put_cdr(
    octets: Octets,
    time_base_ns: int,
    width: int,
    height: int,
    state: Int64s,
    counts: Int64s,
    entries: NDArray[np.uint32],
    base_us: int,
    before_us: int,
    fewest: int,
    ends_ns: Int64s,
) -> int:
    """Put the events of an `event_array_cdr`; the time base is not used."""
    if state[NOW_KNOWN] != 1:
        return NOT_PUT
    halves = octets[: octets.size // 2 * 2].view(np.uint16)
    quarters = octets[: octets.size // 4 * 4].view(np.uint32)
    now_ns, before_ns, base_ns = state[NOW], before_us * 1000, base_us * 1000
    if now_ns < base_ns + 1000:
        return NOT_PUT
    columns, rows = np.uint64(width), np.uint64(height)
    records = np.uint64((octets.size + 3) // 16)
    for k in range(records):
        # the padding before the seconds is missing in record 0 only
        half = np.uint64(8) * k - np.uint64(k > np.uint64(0))
        stamp = np.uint64(4) * k + np.uint64(1)
        column, row = np.uint64(halves[half]), np.uint64(halves[half + np.uint64(1)])
        seconds = np.int64(quarters[stamp])
        nanoseconds = np.int64(quarters[stamp + np.uint64(1)])
        polarity = np.uint64(octets[np.uint64(16) * k + np.uint64(12)])
        time_ns = seconds * SECOND_NS + nanoseconds
        if time_ns < now_ns or time_ns >= before_ns or column >= columns or row >= rows:
            return NOT_PUT
        # (seconds that ROS 2 would read as negative lie beyond what any window may hold)
        if nanoseconds >= SECOND_NS or polarity > np.uint64(1):
            return NOT_PUT
        now_ns = time_ns
        if k == np.uint64(0):
            ends_ns[0] = time_ns
        time_us = np.uint64(time_ns - base_ns) // np.uint64(1000)
        entries[row * columns + column] = np.uint32(time_us << np.uint64(1) | polarity)
    ends_ns[1] = now_ns
    state[NOW] = now_ns
    return int(np.int64(records))


@kernel
def put_ros1(
    octets: Octets,
    time_base_ns: int,
    width: int,
    height: int,
    state: Int64s,
    counts: Int64s,
    entries: NDArray[np.uint32],
    base_us: int,
    before_us: int,
    fewest: int,
    ends_ns: Int64s,
) -> int:
    """Put the events of an `event_array_ros1`; the time base is not used."""
    if state[NOW_KNOWN] != 1:
        return NOT_PUT
    now_ns, before_ns, base_ns = state[NOW], before_us * 1000, base_us * 1000
    if now_ns < base_ns + 1000:
        return NOT_PUT
    columns, rows = np.uint64(width), np.uint64(height)
    records = np.uint64(octets.size // 13)
    for k in range(records):
        at = np.uint64(13) * k
        column = np.uint64(octets[at]) | np.uint64(octets[at + np.uint64(1)]) << np.uint64(8)
        row = np.uint64(octets[at + np.uint64(2)])
        row |= np.uint64(octets[at + np.uint64(3)]) << np.uint64(8)
        seconds, nanoseconds = np.int64(0), np.int64(0)
        for byte in range(4):
            low = at + np.uint64(4 + byte)
            seconds |= np.int64(octets[low]) << (8 * byte)
            nanoseconds |= np.int64(octets[low + np.uint64(4)]) << (8 * byte)
        polarity = np.uint64(octets[at + np.uint64(12)])
        time_ns = seconds * SECOND_NS + nanoseconds
        if time_ns < now_ns or time_ns >= before_ns or column >= columns or row >= rows:
            return NOT_PUT
        # (seconds that ROS 2 would read as negative lie beyond what any window may hold)
        if nanoseconds >= SECOND_NS or polarity > np.uint64(1):
            return NOT_PUT
        now_ns = time_ns
        if k == np.uint64(0):
            ends_ns[0] = time_ns
        time_us = np.uint64(time_ns - base_ns) // np.uint64(1000)
        entries[row * columns + column] = np.uint32(time_us << np.uint64(1) | polarity)
    ends_ns[1] = now_ns
    state[NOW] = now_ns
    return int(np.int64(records))
