"""EVT 3.0, the native format of Prophesee sensors of the third generation and later.

16-bit little-endian words, the type in bits 15..12 (Prophesee, "EVT 3.0 format"):

    0x0 ADDR_Y          row (10..0); the camera's master/slave flag (11) is not used
    0x1 EM ADDR_Y       row of events that are not change detection
    0x2 ADDR_X          column (10..0), polarity (11): one event
    0x3 VECT_BASE_X     first column (10..0) and polarity (11) of the vectors that follow
    0x4 VECT_12         12 events, one per set bit, then the base moves on by 12
    0x5 VECT_8          8 events likewise
    0x6 TIME_LOW        time in us, low 12 bits
    0x8 TIME_HIGH       time in us, next 12 bits: the time wraps every 16.777216 s
    0xA EXT_TRIGGER     edge (0) and channel (11..8)
    0x7 0x9 0xD 0xE 0xF continuation, padding, IMU and other words: skipped
    0xB 0xC             reserved

Time is unwrapped over half the range. The rules where the format leaves a choice are written in
`docs/time.md`.

Long because the decoder is one state machine that has to be compiled as one function.
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
    NOT_CD,
    NOW,
    NOW_KNOWN,
    ORIGIN,
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
from dae_ros.events.packed import ADDRESS_MASK, LONGEST_US, ROW_SHIFT, TIME_SHIFT

# own state
SYNC = OWN  # one of the next three
NO_TIME, HIGH_SEEN, SYNCED = 0, 1, 2
HIGH = OWN + 1  # last TIME_HIGH, 12 bits
LOOPS = OWN + 2  # wraps so far
ROW = OWN + 3  # current row, or one of the next two
ROW_UNKNOWN, ROW_NOT_CD = -1, -2
BASE = OWN + 4  # vector base, -1 unknown
BASE_POLARITY = OWN + 5
RAISED = OWN + 6  # 1 while the sensor's time lies below NOW

HALF_RANGE = 2048  # in units of TIME_HIGH
# A step forward by nearly the whole range is a step back over the wrap: between two times that are
# 10 ms apart there are up to three units.
SEAM = 4096 - 3

# An event is one int64 (`packed`) with polarity and column as in ADDR_X. Each common word replaces
# one field of it, by tables over the word type: no branch that the processor cannot predict.
_KEEP = np.full(16, -1, np.int64)
_TAKE = np.zeros(16, np.int64)
_SHIFT = np.zeros(16, np.int64)
for _code, _take, _shift in ((0x0, 0x7FF, ROW_SHIFT), (0x2, 0xFFF, 0), (0x6, 0xFFF, TIME_SHIFT)):
    _KEEP[_code] = ~(_take << _shift)
    _TAKE[_code] = _take
    _SHIFT[_code] = _shift
_EVENT = np.zeros(16, np.uint64)
_EVENT[0x2] = 1
# A word is rare where it differs in these bits from the last TIME_HIGH: types other than the four
# common ones always do, a TIME_HIGH does when its time changed.
_RARE = np.full(16, 0xF000, np.int64)
_RARE[[0x0, 0x2, 0x6]] = 0
_RARE[0x8] = 0x0FFF
# VECT_12 and VECT_8: which bits of the word are the mask, and how many
_VECTOR_MASK = np.zeros(16, np.int64)
_VECTOR_BITS = np.zeros(16, np.int64)
_VECTOR_MASK[[0x4, 0x5]] = 0xFFF, 0xFF
_VECTOR_BITS[[0x4, 0x5]] = 12, 8
_POPULATION = np.array([bin(mask).count("1") for mask in range(4096)], np.uint8)
_LANES = np.uint64(0x0001000100010001)  # four words at a time, as the lanes of one uint64
_BLOCK = 4096  # 16-bit counters of up to 12 per word must not overflow in a block


@kernel
def count(octets: Octets) -> tuple[int, int]:
    """Return how many events and triggers the payload holds, dropped ones included."""
    words = octets[: octets.size // 2 * 2].view(np.uint16)
    fours = octets[: octets.size // 8 * 8].view(np.uint64)
    nibble = _LANES * np.uint64(15)
    four = np.uint64(4)
    events = 0
    triggers = 0
    for start in range(0, fours.size, _BLOCK):
        block = fours[start : start + _BLOCK]
        # a lane whose type differs from the wanted one carries into bit 4
        other = np.uint64(0)
        no_vector = np.uint64(0)
        no_trigger = np.uint64(0)
        for i in range(block.size):
            types = (block[i] >> np.uint64(12)) & nibble
            other += (((types ^ (_LANES * np.uint64(2))) + nibble) >> four) & _LANES
            vector = (types | _LANES) ^ (_LANES * np.uint64(5))
            no_vector += ((vector + nibble) >> four) & _LANES
            no_trigger += (((types ^ (_LANES * np.uint64(10))) + nibble) >> four) & _LANES
        events += 4 * block.size - _sum_lanes(other)
        triggers += 4 * block.size - _sum_lanes(no_trigger)
        if _sum_lanes(no_vector) < 4 * block.size:
            hits = np.uint64(0)
            for i in range(block.size):
                types = (block[i] >> np.uint64(12)) & nibble
                no_12 = (((types ^ (_LANES * np.uint64(4))) + nibble) >> four) & _LANES
                no_8 = (((types ^ (_LANES * np.uint64(5))) + nibble) >> four) & _LANES
                bits = (no_12 ^ _LANES) * np.uint64(0xFFF) + (no_8 ^ _LANES) * np.uint64(0xFF)
                bits &= block[i]
                bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
                pairs = np.uint64(0x3333333333333333)
                bits = (bits & pairs) + ((bits >> np.uint64(2)) & pairs)
                bits = (bits + (bits >> four)) & np.uint64(0x0F0F0F0F0F0F0F0F)
                hits += (bits + (bits >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
            events += _sum_lanes(hits)
    for i in range(fours.size * 4, words.size):
        code = words[i] >> 12
        if code == 4:
            events += _POPULATION[words[i] & 4095]
        elif code == 5:
            events += _POPULATION[words[i] & 255]
        events += code == 2
        triggers += code == 10
    return events, triggers


@kernel
def _sum_lanes(lanes: int) -> int:
    """Return the sum of the four 16-bit lanes of a uint64."""
    total = np.int64(0)
    for lane in range(4):
        total += np.int64((lanes >> np.uint64(16 * lane)) & np.uint64(0xFFFF))
    return int(total)


@kernel
def _remove_outside(
    begin: int, end: int, width: int, height: int, rows: Int64s, breaks: Int64s, broken: int
) -> int:
    """Close the gaps that events outside the sensor leave; return the new end of the rows."""
    kept = begin
    cut = 0
    for k in range(begin, end):
        while cut < broken and breaks[cut, 0] <= k:
            if breaks[cut, 0] == k:
                breaks[cut, 0] = kept
            cut += 1
        packed = rows[k]
        rows[kept] = packed
        inside = packed & ADDRESS_MASK < width and (packed >> ROW_SHIFT) & ADDRESS_MASK < height
        kept += int(inside)
    while cut < broken:
        breaks[cut, 0] = kept
        cut += 1
    return kept


@kernel
def decode(
    octets: Octets,
    time_base_ns: int,
    width: int,
    height: int,
    tolerance_ns: int,
    state: Int64s,
    counts: Int64s,
    rows: Int64s,
    trigger_t: Int64s,
    trigger_edge: UInt8s,
    trigger_channel: UInt16s,
    breaks: Int64s,
) -> None:
    """Decode words to rows (arguments: `layout`); `time_base_ns` is not used by this format.

    A tight loop for the healthy stream, a step that handles every other word in full, and a pass
    that looks for events outside the sensor. Indices are unsigned, because numba adds a
    wrap-around select to signed ones.
    """
    words = octets[: octets.size // 2 * 2].view(np.uint16)
    size = np.uint64(words.size)
    one = np.uint64(1)
    i = np.uint64(state[POSITION])
    begin = state[EVENTS]
    n = np.uint64(begin)
    triggers = state[TRIGGERS]
    broken = state[BREAKS]
    dropped = state[DROPPED]
    now_us = state[NOW] // 1000
    now_known = state[NOW_KNOWN]
    sync = state[SYNC]
    high = state[HIGH]
    loops = state[LOOPS]
    row = state[ROW]
    base = state[BASE]
    base_polarity = state[BASE_POLARITY]
    raised = state[RAISED]
    tolerance_us = tolerance_ns // 1000
    origin_us = state[ORIGIN]
    if i == 0 or abs(now_us - origin_us) > LONGEST_US:
        origin_us = now_us // 4096 * 4096  # so that TIME_LOW is the low part of the time field
    full = False

    while i < size and not full:
        if sync == SYNCED and row >= 0 and raised == 0:
            packed = (now_us - origin_us) << TIME_SHIFT | row << ROW_SHIFT
            high_word = np.int64(0x8000) | high
            while i < size:
                word = np.int64(words[i])
                code = np.uint64(words[i]) >> np.uint64(12)
                after = (packed & _KEEP[code]) | (word & _TAKE[code]) << _SHIFT[code]
                rare = ((word ^ high_word) & _RARE[code]) != 0
                if rare or after < packed >> TIME_SHIFT << TIME_SHIFT:
                    if code == np.uint64(3):
                        base = word & 2047
                        base_polarity = (word >> 11) & 1
                        i += one
                        continue
                    if _VECTOR_BITS[code] > 0 and 0 <= base <= 2048 - 12:
                        mask = word & _VECTOR_MASK[code]
                        start = packed & ~np.int64(0xFFF) | base_polarity << 11 | base
                        for bit in range(12):
                            rows[n] = start + bit
                            n += np.uint64((mask >> bit) & 1)
                        base += _VECTOR_BITS[code]
                        i += one
                        continue
                    break
                packed = after
                rows[n] = packed
                n += _EVENT[code]
                i += one
            now_us = origin_us + (packed >> TIME_SHIFT)
            row = (packed >> ROW_SHIFT) & 2047
            if i == size:
                break

        code = np.int64(words[i]) >> 12
        value = np.int64(words[i]) & 4095
        i += one
        timed = False  # this word sets the time
        time_us = now_us
        if code == 0x0:
            if now_known == 1:
                row = value & 2047
        elif code == 0x1:
            if now_known == 1:
                row = ROW_NOT_CD
        elif code == 0x2 or code == 0x4 or code == 0x5:
            column = value & 2047
            polarity = value >> 11
            bits = 1
            mask = np.int64(1)
            if code != 0x2:
                bits = 12 if code == 0x4 else 8
                mask = value & ((1 << bits) - 1)
                column = base
                polarity = base_polarity
                if base >= 0:
                    base += bits
            hits = np.int64(_POPULATION[mask])
            if row == ROW_NOT_CD:
                counts[NOT_CD] += hits
                dropped += hits
            elif sync != SYNCED or row < 0 or column < 0:
                counts[BEFORE_SYNC] += hits
                dropped += hits
            else:
                start = (now_us - origin_us) << TIME_SHIFT | row << ROW_SHIFT | polarity << 11
                for bit in range(bits):
                    if (mask >> bit) & 1 == 1 and column + bit < 2048:
                        rows[n] = start + column + bit
                        n += one
                        inside = np.int64(column + bit < width) & np.int64(row < height)
                        counts[TIME_RAISED] += raised & inside
        elif code == 0x3:
            if now_known == 1:
                base = value & 2047
                base_polarity = value >> 11
        elif code == 0x6:
            if sync != NO_TIME:
                sync = SYNCED
                timed = True
                time_us = (loops * 4096 + high) * 4096 + value
        elif code == 0x8:
            step = value - high
            if sync == NO_TIME:
                sync = HIGH_SEEN
                high = value
            elif step != 0:
                if step <= -HALF_RANGE:
                    loops += 1
                    counts[WRAPS] += 1
                elif step >= SEAM and now_known == 1:
                    loops -= 1
                high = value
                # What may be disorder must not lose events: they keep the newest time. A break for
                # certain leaves them without a time until its TIME_LOW.
                if now_known == 1:
                    time_us = (loops * 4096 + high) * 4096
                    sync = SYNCED
                    if time_us >= now_us:
                        timed = True
                    else:
                        raised = 1
                        if now_us - time_us > tolerance_us + 4095:
                            sync = HIGH_SEEN
        elif code == 0xA:
            if sync == SYNCED:
                trigger_t[triggers] = now_us * 1000
                trigger_edge[triggers] = value & 1
                trigger_channel[triggers] = value >> 8
                triggers += 1
            else:
                counts[TRIGGER_BEFORE_SYNC] += 1
        elif code == 0xB or code == 0xC:
            counts[UNKNOWN_WORD] += 1
        else:
            counts[SKIPPED_WORD] += 1

        if timed:
            if now_known == 0 or time_us >= now_us:
                now_us = time_us
                raised = 0
            elif now_us - time_us <= tolerance_us:
                raised = 1
            else:
                breaks[broken, 0] = np.int64(n)
                breaks[broken, 1] = (now_us - time_us) * 1000
                breaks[broken, 2] = triggers
                broken += 1
                counts[TIME_BREAKS] += 1
                now_us = time_us
                raised = 0
                row = ROW_UNKNOWN
                base = -1
            now_known = 1
            full = broken == BREAK_CAPACITY or abs(now_us - origin_us) > LONGEST_US

    end = np.int64(n)
    outside = np.int64(0)
    new = rows[begin:end]  # from 0 on: LLVM does not vectorise this loop with an offset
    for k in range(new.size):
        outside |= (width - 1 - (new[k] & ADDRESS_MASK)) | (
            height - 1 - ((new[k] >> ROW_SHIFT) & ADDRESS_MASK)
        )
    if outside < 0:
        end = _remove_outside(begin, end, width, height, rows, breaks, broken)

    done = i == size and broken < BREAK_CAPACITY
    if done:
        counts[OUT_OF_BOUNDS] += np.int64(rows.size) - 1 - end - dropped
    state[DONE] = np.int64(done)
    state[POSITION] = np.int64(i)
    state[EVENTS] = end
    state[TRIGGERS] = triggers
    state[BREAKS] = broken
    state[DROPPED] = dropped
    state[ORIGIN] = origin_us
    state[NOW] = now_us * 1000
    state[NOW_KNOWN] = now_known
    state[SYNC] = sync
    state[HIGH] = high
    state[LOOPS] = loops
    state[ROW] = row
    state[BASE] = base
    state[BASE_POLARITY] = base_polarity
    state[RAISED] = raised


def forget_position(state: Int64s) -> None:
    """Keep the time; events wait for the next ADDR_Y and vectors for the next VECT_BASE_X."""
    state[ROW] = ROW_UNKNOWN
    state[BASE] = -1
