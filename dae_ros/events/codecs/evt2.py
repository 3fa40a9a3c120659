"""EVT 2.0 and EVT 2.1, formats of Prophesee `.raw` files; no ROS driver publishes them.

EVT 2.0 has 32-bit, EVT 2.1 64-bit little-endian words, the type in the top four bits:

                     EVT 2.0                              EVT 2.1
    0x0, 0x1 CD      low time 27..22, column 21..11,      low time 59..54, first column 53..43,
    (OFF, ON)        row 10..0                            row 42..32, mask of 32 columns 31..0
    0x8 TIME_HIGH    28 bits 27..0                        28 bits 59..32
    0xA EXT_TRIGGER  low time 27..22, channel 12..8,      low time 59..54, channel 44..40,
                     edge 0                               edge 32
    skipped          0xD, 0xE, 0xF                        0xE, 0xF

Time in us is TIME_HIGH << 6 | low; it wraps after 2^34 us (4.8 h). The variant of EVT 2.1 with
swapped halves ("legacy endianness") cannot be told from the words and is not supported.
"""

# ruff: noqa: ARG001  (all kernels have the arguments of `layout`, needed or not)

from __future__ import annotations

import numpy as np

from dae_ros.events.codecs.layout import (
    BEFORE_SYNC,
    BREAK_CAPACITY,
    BREAKS,
    DONE,
    DROPPED,
    EVENTS,
    NOW,
    NOW_KNOWN,
    OUT_OF_BOUNDS,
    OWN,
    POSITION,
    SKIPPED_WORD,
    TIME_BREAKS,
    TIME_RAISED,
    TRIGGER_BEFORE_SYNC,
    TRIGGERS,
    UNKNOWN_WORD,
    WRAPS,
)
from dae_ros.events.codecs.types import Int64s, Octets, UInt8s, UInt16s
from dae_ros.events.compilation import kernel

# own state; TIME_HIGH is known where NOW is
HIGH = OWN  # last TIME_HIGH, 28 bits
LOOPS = OWN + 1  # wraps so far

RANGE = 2**28  # in units of TIME_HIGH
HALF_RANGE = 2**27
SEAM = RANGE - 157  # a step forward by at least this is one back over the wrap, up to 10 ms

# position of the only bit of a 32-bit word: a de Bruijn sequence as a perfect hash
DE_BRUIJN = 0x077CB531
BIT = np.zeros(32, np.int64)
for _position in range(32):
    BIT[((DE_BRUIJN << _position) & 0xFFFFFFFF) >> 27] = _position


@kernel
def _time_high(value: int, tolerance_ns: int, at: int, state: Int64s, counts: Int64s,
               breaks: Int64s) -> None:  # fmt: skip
    """Take over a TIME_HIGH word: unwrap it, and break where it lies far back."""
    if state[NOW_KNOWN] == 1:
        step = value - state[HIGH]
        if step <= -HALF_RANGE:
            state[LOOPS] += 1
            counts[WRAPS] += 1
        elif step >= SEAM:
            state[LOOPS] -= 1
    state[HIGH] = value
    time = (state[LOOPS] * RANGE + value) * 64_000
    if state[NOW_KNOWN] == 1 and state[NOW] - time > tolerance_ns:
        breaks[state[BREAKS], 0] = at
        breaks[state[BREAKS], 1] = state[NOW] - time
        breaks[state[BREAKS], 2] = state[TRIGGERS]
        state[BREAKS] += 1
        counts[TIME_BREAKS] += 1
        state[NOW] = time
    elif state[NOW_KNOWN] == 0 or time > state[NOW]:
        state[NOW] = time
    state[NOW_KNOWN] = 1


@kernel
def count_evt2(octets: Octets) -> tuple[int, int]:
    """Return how many events and triggers the payload holds, dropped ones included."""
    words = octets.view(np.uint32)
    events = 0
    triggers = 0
    for i in range(words.size):
        code = words[i] >> 28
        events += code <= 1
        triggers += code == 10
    return events, triggers


@kernel
def count_evt21(octets: Octets) -> tuple[int, int]:
    """Return how many events and triggers the payload holds, dropped ones included."""
    words = octets.view(np.uint64)
    events = 0
    triggers = 0
    for i in range(words.size):
        code = np.int64(words[i] >> np.uint64(60))
        if code <= 1:
            mask = np.int64(words[i] & np.uint64(0xFFFFFFFF))
            mask = mask - ((mask >> 1) & 0x55555555)
            mask = (mask & 0x33333333) + ((mask >> 2) & 0x33333333)
            mask = (mask + (mask >> 4)) & 0x0F0F0F0F
            events += ((mask * 0x01010101) & 0xFFFFFFFF) >> 24
        triggers += code == 10
    return events, triggers


@kernel
def decode_evt2(
    octets: Octets,
    time_base_ns: int,
    width: int,
    height: int,
    tolerance_ns: int,
    state: Int64s,
    counts: Int64s,
    t: Int64s,
    x: UInt16s,
    y: UInt16s,
    p: UInt8s,
    trigger_t: Int64s,
    trigger_edge: UInt8s,
    trigger_channel: UInt16s,
    breaks: Int64s,
) -> None:
    """Decode EVT 2.0 to columns (arguments: `layout`); the time base is not used."""
    words = octets.view(np.uint32)
    i = state[POSITION]
    n = np.uint64(state[EVENTS])
    while i < words.size and state[BREAKS] < BREAK_CAPACITY:
        word = np.int64(words[i])
        code = word >> 28
        i += 1
        if code == 0x8:
            _time_high(word & 0xFFFFFFF, tolerance_ns, np.int64(n), state, counts, breaks)
        elif code <= 0x1 or code == 0xA:
            if state[NOW_KNOWN] == 0:
                if code == 0xA:
                    counts[TRIGGER_BEFORE_SYNC] += 1
                else:
                    counts[BEFORE_SYNC] += 1
                    state[DROPPED] += 1
                continue
            time = (state[LOOPS] * RANGE + state[HIGH]) * 64_000 + ((word >> 22) & 63) * 1000
            now = max(time, state[NOW])
            state[NOW] = now
            if code == 0xA:
                trigger_t[state[TRIGGERS]] = now
                trigger_edge[state[TRIGGERS]] = word & 1
                trigger_channel[state[TRIGGERS]] = (word >> 8) & 31
                state[TRIGGERS] += 1
                continue
            column = (word >> 11) & 2047
            row = word & 2047
            t[n] = now
            x[n] = column
            y[n] = row
            p[n] = code
            stored = np.int64(column < width) & np.int64(row < height)
            counts[TIME_RAISED] += stored & np.int64(time < now)
            n += np.uint64(stored)
        elif code >= 0xD:
            counts[SKIPPED_WORD] += 1
        else:
            counts[UNKNOWN_WORD] += 1
    if i == words.size and state[BREAKS] < BREAK_CAPACITY:
        counts[OUT_OF_BOUNDS] += t.size - 1 - np.int64(n) - state[DROPPED]
        state[DONE] = 1
    state[POSITION] = i
    state[EVENTS] = np.int64(n)


@kernel
def decode_evt21(
    octets: Octets,
    time_base_ns: int,
    width: int,
    height: int,
    tolerance_ns: int,
    state: Int64s,
    counts: Int64s,
    t: Int64s,
    x: UInt16s,
    y: UInt16s,
    p: UInt8s,
    trigger_t: Int64s,
    trigger_edge: UInt8s,
    trigger_channel: UInt16s,
    breaks: Int64s,
) -> None:
    """Decode EVT 2.1 to columns (arguments: `layout`); the time base is not used."""
    words = octets.view(np.uint64)
    i = state[POSITION]
    n = np.uint64(state[EVENTS])
    while i < words.size and state[BREAKS] < BREAK_CAPACITY:
        mask = np.int64(words[i] & np.uint64(0xFFFFFFFF))
        head = np.int64(words[i] >> np.uint64(32))
        code = head >> 28
        i += 1
        if code == 0x8:
            _time_high(head & 0xFFFFFFF, tolerance_ns, np.int64(n), state, counts, breaks)
        elif code <= 0x1 or code == 0xA:
            if state[NOW_KNOWN] == 0:
                if code == 0xA:
                    counts[TRIGGER_BEFORE_SYNC] += 1
                else:
                    while mask != 0:
                        mask &= mask - 1
                        counts[BEFORE_SYNC] += 1
                        state[DROPPED] += 1
                continue
            time = (state[LOOPS] * RANGE + state[HIGH]) * 64_000 + ((head >> 22) & 63) * 1000
            now = max(time, state[NOW])
            state[NOW] = now
            if code == 0xA:
                trigger_t[state[TRIGGERS]] = now
                trigger_edge[state[TRIGGERS]] = head & 1
                trigger_channel[state[TRIGGERS]] = (head >> 8) & 31
                state[TRIGGERS] += 1
                continue
            first = (head >> 11) & 2047
            row = head & 2047
            inside = np.int64(row < height)
            raised = np.int64(time < now)
            while mask != 0:
                lowest = mask & -mask
                mask ^= lowest
                column = first + BIT[((lowest * DE_BRUIJN) & 0xFFFFFFFF) >> 27]
                t[n] = now
                x[n] = column
                y[n] = row
                p[n] = code
                stored = inside & np.int64(column < width)
                counts[TIME_RAISED] += stored & raised
                n += np.uint64(stored)
        elif code >= 0xE:
            counts[SKIPPED_WORD] += 1
        else:
            counts[UNKNOWN_WORD] += 1
    if i == words.size and state[BREAKS] < BREAK_CAPACITY:
        counts[OUT_OF_BOUNDS] += t.size - 1 - np.int64(n) - state[DROPPED]
        state[DONE] = 1
    state[POSITION] = i
    state[EVENTS] = np.int64(n)
