"""Encoder kernels of the Prophesee formats (word layouts: `dae_ros.events.codecs`).

All take columns, triggers, `vectors` and the carried state, int64[4] of -1 before the first
payload: evt3 (time in us, row, time in us of the last TIME_HIGH, -), evt2 and evt2.1 (time of the
last TIME_HIGH, -, -, -). Triggers are written before the events of the same microsecond.
"""

# ruff: noqa: ARG001  (all kernels of a kind have the same arguments, needed or not)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel

Int64s = NDArray[np.int64]
UInt16s = NDArray[np.uint16]
UInt8s = NDArray[np.uint8]

# Sensors repeat TIME_HIGH every 16 us, so that one can join late and lose little.
HIGH_PERIOD_US = 16
# A pause is written with TIME_HIGH words in between, so that no step reaches half the range.
LONGEST_STEP_US = 1024 * 4096
FEWEST_IN_VECTOR = 4  # a group costs four words


@kernel
def evt3(
    t: Int64s,
    x: UInt16s,
    y: UInt16s,
    p: UInt8s,
    trigger_t: Int64s,
    trigger_edge: UInt8s,
    trigger_channel: UInt16s,
    vectors: bool,
    state: Int64s,
) -> UInt16s:
    """Return EVT 3.0 words: vector groups of 12 + 12 + 8 columns where that is shorter."""
    now = state[0]
    row = state[1]
    high_time = state[2]
    pause = np.int64(0)
    last = now
    if t.size > 0:
        last = max(last, t[-1] // 1000)
    if trigger_t.size > 0:
        last = max(last, trigger_t[-1] // 1000)
    if now >= 0:
        pause = last - now
    elif t.size > 0:
        pause = last - t[0] // 1000
    if trigger_t.size > 0 and now < 0:
        pause = max(pause, last - trigger_t[0] // 1000)
    words = np.empty(5 * t.size + 4 * trigger_t.size + pause // LONGEST_STEP_US + 8, np.uint16)
    n = 0
    i = 0
    k = 0
    while i < t.size or k < trigger_t.size:
        is_trigger = k < trigger_t.size and (i >= t.size or trigger_t[k] // 1000 <= t[i] // 1000)
        time = trigger_t[k] // 1000 if is_trigger else t[i] // 1000
        if time != now:
            if now >= 0:
                while time - high_time > LONGEST_STEP_US:
                    high_time += LONGEST_STEP_US
                    words[n] = 0x8000 | ((high_time >> 12) & 0xFFF)
                    n += 1
            if now < 0 or time // HIGH_PERIOD_US != high_time // HIGH_PERIOD_US:
                words[n] = 0x8000 | ((time >> 12) & 0xFFF)
                high_time = time
                n += 1
            words[n] = 0x6000 | (time & 0xFFF)
            n += 1
            now = time
        if is_trigger:
            words[n] = 0xA000 | (np.int64(trigger_channel[k]) & 15) << 8 | trigger_edge[k] & 1
            n += 1
            k += 1
            continue
        if y[i] != row:
            row = np.int64(y[i])
            words[n] = row
            n += 1
        first = np.int64(x[i])
        polarity = np.int64(p[i]) << 11
        mask = np.int64(1)
        j = i + 1
        if vectors:
            while (
                j < t.size
                and t[j] // 1000 == time
                and y[j] == row
                and p[j] == p[i]
                and x[j] > x[j - 1]
                and x[j] < first + 32
            ):
                mask |= np.int64(1) << (np.int64(x[j]) - first)
                j += 1
        if j - i >= FEWEST_IN_VECTOR:
            words[n] = 0x3000 | polarity | first
            words[n + 1] = 0x4000 | (mask & 0xFFF)
            words[n + 2] = 0x4000 | ((mask >> 12) & 0xFFF)
            words[n + 3] = 0x5000 | (mask >> 24)
            n += 4
            i = j
        else:
            words[n] = 0x2000 | polarity | first
            n += 1
            i += 1
    state[0] = now
    state[1] = row
    state[2] = high_time
    return words[:n]


@kernel
def evt2(
    t: Int64s,
    x: UInt16s,
    y: UInt16s,
    p: UInt8s,
    trigger_t: Int64s,
    trigger_edge: UInt8s,
    trigger_channel: UInt16s,
    vectors: bool,
    state: Int64s,
) -> NDArray[np.uint32]:
    """Return EVT 2.0 words; this format has no vectors, `vectors` is not used."""
    words = np.empty(2 * (t.size + trigger_t.size), np.uint32)
    high = state[0]
    n = 0
    i = 0
    k = 0
    while i < t.size or k < trigger_t.size:
        is_trigger = k < trigger_t.size and (i >= t.size or trigger_t[k] // 1000 <= t[i] // 1000)
        time = trigger_t[k] // 1000 if is_trigger else t[i] // 1000
        if time >> 6 != high:
            high = time >> 6
            words[n] = 0x80000000 | (high & 0xFFFFFFF)
            n += 1
        low = (time & 63) << 22
        if is_trigger:
            channel = np.int64(trigger_channel[k]) & 31
            words[n] = 0xA0000000 | low | channel << 8 | trigger_edge[k] & 1
            k += 1
        else:
            words[n] = np.int64(p[i]) << 28 | low | np.int64(x[i]) << 11 | np.int64(y[i])
            i += 1
        n += 1
    state[0] = high
    return words[:n]


@kernel
def evt21(
    t: Int64s,
    x: UInt16s,
    y: UInt16s,
    p: UInt8s,
    trigger_t: Int64s,
    trigger_edge: UInt8s,
    trigger_channel: UInt16s,
    vectors: bool,
    state: Int64s,
) -> NDArray[np.uint64]:
    """Return EVT 2.1 words: ascending columns of one block of 32, row and polarity share one.

    Without `vectors` every event gets a word of its own.
    """
    words = np.empty(2 * (t.size + trigger_t.size), np.uint64)
    high = state[0]
    n = 0
    i = 0
    k = 0
    while i < t.size or k < trigger_t.size:
        is_trigger = k < trigger_t.size and (i >= t.size or trigger_t[k] // 1000 <= t[i] // 1000)
        time = trigger_t[k] // 1000 if is_trigger else t[i] // 1000
        if time >> 6 != high:
            high = time >> 6
            words[n] = np.uint64(8) << np.uint64(60) | np.uint64(high & 0xFFFFFFF) << np.uint64(32)
            n += 1
        low = np.uint64(time & 63) << np.uint64(54)
        if is_trigger:
            channel = np.uint64(trigger_channel[k] & 31) << np.uint64(40)
            edge = np.uint64(trigger_edge[k] & 1) << np.uint64(32)
            words[n] = np.uint64(10) << np.uint64(60) | low | channel | edge
            k += 1
        else:
            block = np.int64(x[i]) // 32 * 32
            mask = np.uint64(1) << np.uint64(x[i] - block)
            j = i + 1
            while (
                vectors
                and j < t.size
                and t[j] // 1000 == time
                and y[j] == y[i]
                and p[j] == p[i]
                and x[j] > x[j - 1]
                and x[j] < block + 32
            ):
                mask |= np.uint64(1) << np.uint64(x[j] - block)
                j += 1
            words[n] = (
                np.uint64(p[i]) << np.uint64(60)
                | low
                | np.uint64(block) << np.uint64(43)
                | np.uint64(y[i]) << np.uint64(32)
                | mask
            )
            i = j
        n += 1
    state[0] = high
    return words[:n]
