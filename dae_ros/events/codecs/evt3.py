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
"""

from __future__ import annotations

import numpy as np

from dae_ros.events.codecs.layout import (
    BEFORE_SYNC,
    BREAK_CAPACITY,
    BREAKS,
    DROPPED,
    EVENTS,
    NOT_CD,
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

WORD_BYTES = 2

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
# A step forward by nearly the whole range is a step back over the wrap: two units are 8.2 ms.
SEAM = 4096 - 2

# Tables by word type keep the hot loop free of branches that the processor cannot predict.
_EVENT = np.zeros(16, np.uint64)
_EVENT[0x2] = 1
_ROW = np.zeros(16, np.int64)
_ROW[0x0] = -1
_LOW = np.zeros(16, np.int64)
_LOW[0x6] = -1
_HIGH = np.zeros(16, np.int64)
_HIGH[0x8] = -1
_RARE = np.ones(16, np.int64)
_RARE[[0x0, 0x2, 0x6, 0x8]] = 0
_POPULATION = np.array([bin(mask).count("1") for mask in range(4096)], np.uint8)


@kernel
def count(octets: Octets) -> tuple[int, int]:
    """Return how many events and triggers the payload holds, dropped ones included."""
    words = octets[: octets.size // 2 * 2].view(np.uint16)
    singles = 0
    vectors = 0
    triggers = 0
    for i in range(words.size):
        code = words[i] >> 12
        singles += code == 2
        vectors += (code == 4) | (code == 5)
        triggers += code == 10
    if vectors > 0:
        for i in range(words.size):
            code = words[i] >> 12
            if code == 4:
                singles += _POPULATION[words[i] & 4095]
            elif code == 5:
                singles += _POPULATION[words[i] & 255]
    return singles, triggers


@kernel
def decode(
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
    """Decode words to columns (arguments: `layout`); `time_base_ns` is not used by this format.

    Two loops in one: a tight one for a healthy stream, where only table look-ups decide, and a
    step that handles every other word in full. Indices are unsigned, because numba adds a
    wrap-around select to signed ones.
    """
    words = octets[: octets.size // 2 * 2].view(np.uint16)
    size = np.uint64(words.size)
    one = np.uint64(1)
    i = np.uint64(state[POSITION])
    n = np.uint64(state[EVENTS])
    triggers = state[TRIGGERS]
    broken = state[BREAKS]
    dropped = state[DROPPED]
    now = state[NOW]
    now_known = state[NOW_KNOWN]
    sync = state[SYNC]
    high = state[HIGH]
    loops = state[LOOPS]
    row = state[ROW]
    base = state[BASE]
    base_polarity = state[BASE_POLARITY]
    raised = state[RAISED]
    full = False

    while i < size and not full:
        if sync == SYNCED and row >= 0 and raised == 0:
            start_ns = (loops * 4096 + high) * 4_096_000
            high_word = np.int64(0x8000) | high
            while i < size:
                word = np.int64(words[i])
                code = np.uint64(words[i]) >> np.uint64(12)
                value = word & 4095
                time = now ^ ((now ^ (start_ns + value * 1000)) & _LOW[code])
                if (_RARE[code] | (_HIGH[code] & (word ^ high_word))) != 0 or time < now:
                    if code == np.uint64(3):
                        base = value & 2047
                        base_polarity = value >> 11
                        i += one
                        continue
                    if (code == np.uint64(4) or code == np.uint64(5)) and base >= 0:
                        bits = 12
                        if code == np.uint64(5):
                            bits = 8
                        inside = np.int64(row < height)
                        for bit in range(bits):
                            column = base + bit
                            t[n] = now
                            x[n] = column
                            y[n] = row
                            p[n] = base_polarity
                            hit = (value >> bit) & 1
                            n += np.uint64(hit & inside & np.int64(column < width))
                        base += bits
                        i += one
                        continue
                    break
                now = time
                row ^= (row ^ (value & 2047)) & _ROW[code]
                column = value & 2047
                t[n] = now
                x[n] = column
                y[n] = row
                p[n] = value >> 11
                inside = np.int64(column < width) & np.int64(row < height)
                n += _EVENT[code] & np.uint64(inside)
                i += one
            if i == size:
                break

        code = np.int64(words[i]) >> 12
        value = np.int64(words[i]) & 4095
        i += one
        timed = False  # this word sets the time
        time = now
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
            elif row < height:
                for bit in range(bits):
                    if (mask >> bit) & 1 == 1 and column + bit < width:
                        t[n] = now
                        x[n] = column + bit
                        y[n] = row
                        p[n] = polarity
                        n += one
                        counts[TIME_RAISED] += raised
        elif code == 0x3:
            if now_known == 1:
                base = value & 2047
                base_polarity = value >> 11
        elif code == 0x6:
            if sync != NO_TIME:
                sync = SYNCED
                timed = True
                time = (loops * 4096 + high) * 4_096_000 + value * 1000
        elif code == 0x8:
            step = value - high
            if sync == NO_TIME:
                sync = HIGH_SEEN
                high = value
            elif step != 0:
                if step <= -HALF_RANGE:
                    loops += 1
                    counts[WRAPS] += 1
                    step += 4096
                elif step >= SEAM and now_known == 1:
                    loops -= 1
                    step -= 4096
                high = value
                if step < 0:
                    sync = HIGH_SEEN  # the step can only be judged with its TIME_LOW
                elif sync == SYNCED:
                    timed = True
                    time = (loops * 4096 + high) * 4_096_000
        elif code == 0xA:
            if sync == SYNCED:
                trigger_t[triggers] = now
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
            if now_known == 0 or time >= now:
                now = time
                raised = 0
            elif now - time <= tolerance_ns:
                raised = 1
            else:
                breaks[broken, 0] = np.int64(n)
                breaks[broken, 1] = now - time
                broken += 1
                counts[TIME_BREAKS] += 1
                now = time
                raised = 0
                row = ROW_UNKNOWN
                base = -1
                full = broken == BREAK_CAPACITY
            now_known = 1

    if i == size and not full:
        counts[OUT_OF_BOUNDS] += np.int64(t.size) - 1 - np.int64(n) - dropped
    state[POSITION] = np.int64(i)
    state[EVENTS] = np.int64(n)
    state[TRIGGERS] = triggers
    state[BREAKS] = broken
    state[DROPPED] = dropped
    state[NOW] = now
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
