"""EVT 2.0 and 2.1 straight onto the last events of the pixels.

For packets in which all is well: time is known, grows or stays and does not wrap, every event lies
on the sensor, and nothing but events, times and words that are skipped occurs. Any other packet is
left to its decoder (`evt2`), from its first word on. What was put until then does no harm: the same
events come again, in the same order.

The arguments of both kernels are those of `evt3_put.put`.
"""

# ruff: noqa: ARG001  (all kernels have the same arguments, needed or not)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.codecs.evt2 import BIT, DE_BRUIJN, HIGH, LOOPS, RANGE
from dae_ros.events.codecs.layout import NOT_PUT, NOW, NOW_KNOWN, SKIPPED_WORD
from dae_ros.events.codecs.types import Int64s, Octets
from dae_ros.events.compilation import kernel


@kernel
def put_evt2(
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
    """Put the events of an EVT 2.0 packet; the time base is not used."""
    if state[NOW_KNOWN] != 1:
        return NOT_PUT
    words = octets.view(np.uint32)
    high, now_us = state[HIGH], state[NOW] // 1000
    high_us = (state[LOOPS] * RANGE + high) * 64
    if now_us <= base_us or now_us >= before_us:
        return NOT_PUT
    columns, rows = np.uint64(width), np.uint64(height)
    events, skipped, last_us = 0, 0, np.int64(-1)
    for i in range(words.size):
        word = np.int64(words[i])
        code = word >> 28
        if code <= 0x1:
            time_us = high_us + ((word >> 22) & 63)
            column, row = np.uint64(word >> 11) & np.uint64(2047), np.uint64(word & 2047)
            if time_us < now_us or time_us >= before_us or column >= columns or row >= rows:
                return NOT_PUT
            now_us = time_us
            if last_us < 0:
                ends_ns[0] = time_us * 1000
            last_us = time_us
            value = np.uint64(time_us - base_us) << np.uint64(1) | np.uint64(code)
            entries[row * columns + column] = np.uint32(value)
            events += 1
        elif code == 0x8:
            # a step back over the wrap looks like one of hours, beyond what may be put
            step = (word & 0xFFFFFFF) - high
            if step < 0 or high_us + step * 64 >= before_us:
                return NOT_PUT
            high += step
            high_us += step * 64
            now_us = max(now_us, high_us)
        elif code >= 0xD:
            skipped += 1
        else:
            return NOT_PUT
    if events < fewest:
        return NOT_PUT
    ends_ns[1] = last_us * 1000
    state[HIGH] = high
    state[NOW] = now_us * 1000
    counts[SKIPPED_WORD] += skipped
    return events


@kernel
def put_evt21(
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
    """Put the events of an EVT 2.1 packet; the time base is not used."""
    if state[NOW_KNOWN] != 1:
        return NOT_PUT
    words = octets.view(np.uint64)
    high, now_us = state[HIGH], state[NOW] // 1000
    high_us = (state[LOOPS] * RANGE + high) * 64
    if now_us <= base_us or now_us >= before_us:
        return NOT_PUT
    columns, rows = np.uint64(width), np.uint64(height)
    events, skipped, last_us = 0, 0, np.int64(-1)
    for i in range(words.size):
        mask = np.int64(words[i] & np.uint64(0xFFFFFFFF))
        head = np.int64(words[i] >> np.uint64(32))
        code = head >> 28
        if code <= 0x1:
            time_us = high_us + ((head >> 22) & 63)
            first, row = np.uint64(head >> 11) & np.uint64(2047), np.uint64(head & 2047)
            if time_us < now_us or time_us >= before_us:
                return NOT_PUT
            now_us = time_us
            if mask == 0:
                continue
            if row >= rows:
                return NOT_PUT
            if last_us < 0:
                ends_ns[0] = time_us * 1000
            last_us = time_us
            value = np.uint32(np.uint64(time_us - base_us) << np.uint64(1) | np.uint64(code))
            begin, end = row * columns + first, (row + np.uint64(1)) * columns
            while mask != 0:
                lowest = mask & -mask
                mask ^= lowest
                pixel = begin + np.uint64(BIT[((lowest * DE_BRUIJN) & 0xFFFFFFFF) >> 27])
                if pixel >= end:
                    return NOT_PUT
                entries[pixel] = value
                events += 1
        elif code == 0x8:
            # as above
            step = (head & 0xFFFFFFF) - high
            if step < 0 or high_us + step * 64 >= before_us:
                return NOT_PUT
            high += step
            high_us += step * 64
            now_us = max(now_us, high_us)
        elif code >= 0xE:
            skipped += 1
        else:
            return NOT_PUT
    if events < fewest:
        return NOT_PUT
    ends_ns[1] = last_us * 1000
    state[HIGH] = high
    state[NOW] = now_us * 1000
    counts[SKIPPED_WORD] += skipped
    return events
