"""EVT 3.0 straight onto the last events of the pixels, without rows in between.

For packets in which all is well, which are nearly all: the stream is synchronised, time does not
run back or wrap, every event lies on the sensor and nothing but events, times and words that are
skipped occurs. Any other packet is left to `evt3.decode`, from its first word on. What was put
until then does no harm: the same events come again, in the same order.

Words are mostly columns, so they have a loop of their own, whose branch is taken until the row
changes: a chain of comparisons instead would become a jump by table, which processors predict
worse.
"""

# ruff: noqa: ARG001  (the kernels of all formats have the same arguments, needed or not)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.codecs.evt3 import (
    BASE,
    BASE_POLARITY,
    HALF_RANGE,
    HIGH,
    LOOPS,
    RAISED,
    ROW,
    SYNC,
    SYNCED,
)
from dae_ros.events.codecs.layout import NOT_PUT, NOW, NOW_KNOWN, ORIGIN, SKIPPED_WORD
from dae_ros.events.codecs.types import Int64s, Octets
from dae_ros.events.compilation import kernel
from dae_ros.events.packed import LONGEST_US


@kernel
def put(
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
    """Put the events of a packet on the sensor; return how many, `NOT_PUT` where not all were.

    Args:
        octets: whole words.
        time_base_ns: for other formats.
        width, height: of the sensor in px.
        state, counts: of the decoder (`layout`); changed where all was done.
        entries, base_us, before_us: see `LastEvents`.
        fewest: events, at least 1, of a packet that may be put.
        ends_ns: int64[2], receives the times of the first and the last event.
    """
    words = octets[: octets.size // 2 * 2].view(np.uint16)
    now_us = state[NOW] // 1000
    origin_us = now_us // 4096 * 4096  # as `evt3.decode` has it
    epoch = state[LOOPS] * 4096 + state[HIGH]
    if (
        state[SYNC] != SYNCED
        or state[NOW_KNOWN] != 1
        or state[ROW] < 0
        # The decoder keeps a row outside: that packet was its, what follows in the row is as well.
        or state[ROW] >= height
        or state[RAISED] != 0
        or now_us // 4096 != epoch
        or now_us >= before_us
        or before_us - origin_us > LONGEST_US
    ):
        return NOT_PUT
    # Indices are unsigned, because numba adds a wrap-around select to signed ones.
    one, columns, eleven = np.uint64(1), np.uint64(width), np.uint64(2047)
    high_word = np.uint16(0x8000 | state[HIGH])
    row = state[ROW]
    row_begin = np.uint64(row) * columns
    base, base_polarity = state[BASE], state[BASE_POLARITY]
    value = np.uint32((now_us - base_us) << 1)
    skipped = others = in_vectors = 0
    first, last = 0, words.size - 1
    while first < words.size and not _holds_events(words[first]):
        first += 1
    if first == words.size:
        return NOT_PUT
    while last > first and not _holds_events(words[last]):
        last -= 1
    i = np.uint64(0)
    # Up to the first event and up to the last one, to know when they were; then the rest.
    for part in range(3):
        stop = np.uint64(words.size)
        if part == 0:
            stop = np.uint64(first + 1)
        elif part == 1:
            stop = np.uint64(last + 1)
        while i < stop:
            word = words[i]
            while (word & np.uint16(0xF000)) == np.uint16(0x2000):
                column = np.uint64(word) & eleven
                if column >= columns:
                    return NOT_PUT
                polarity = np.uint32((word >> np.uint16(11)) & np.uint16(1))
                entries[row_begin + column] = value | polarity
                i += one
                if i == stop:
                    break
                word = words[i]
            if i == stop:
                break
            i += one
            others += 1
            if word < np.uint16(0x1000):  # ADDR_Y
                row = np.int64(word & np.uint16(2047))
                if row >= height:
                    return NOT_PUT
                row_begin = np.uint64(row) * columns
                continue
            code = word >> np.uint16(12)
            number = np.int64(word & np.uint16(4095))
            if code == 0x6 or code == 0x8:
                if code == 0x8:
                    if word == high_word:
                        continue
                    step = number - (epoch & 4095)
                    if step <= 0 or step >= HALF_RANGE:
                        return NOT_PUT
                    epoch += step
                    high_word = word
                    number = np.int64(0)
                time_us = epoch * 4096 + number
                if time_us < now_us or time_us >= before_us:
                    return NOT_PUT
                now_us = time_us
                value = np.uint32((now_us - base_us) << 1)
            elif code == 0x3:
                base, base_polarity = number & 2047, number >> 11
            elif code == 0x4 or code == 0x5:
                mask, bits = number, 12
                if code == 0x5:
                    mask, bits = number & 255, 8
                room = max(min(width - base, np.int64(12)), np.int64(0))
                if base < 0 or mask >> room != 0:
                    return NOT_PUT
                pixel = row_begin + np.uint64(base)
                while mask != 0:
                    if mask & 1:
                        in_vectors += 1
                        entries[pixel] = value | np.uint32(base_polarity)
                    pixel += one
                    mask >>= 1
                base += bits
            elif code == 0x7 or code == 0x9 or code >= 0xD:
                skipped += 1
            else:
                return NOT_PUT
        if part < 2:
            ends_ns[part] = now_us * 1000
    events = words.size - others + in_vectors
    if events < fewest:
        return NOT_PUT
    state[ORIGIN] = origin_us
    state[NOW] = now_us * 1000
    state[HIGH] = epoch & 4095
    state[ROW] = row
    state[BASE] = base
    state[BASE_POLARITY] = base_polarity
    counts[SKIPPED_WORD] += skipped
    return events


@kernel
def _holds_events(word: int) -> bool:
    code = word >> 12
    if code == 0x2:
        return True
    return (code == 0x4 and word & 4095 != 0) or (code == 0x5 and word & 255 != 0)
