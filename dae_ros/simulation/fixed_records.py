"""Encoder kernels of libcaer, mono and the event arrays (layouts: `dae_ros.events.codecs`).

All take columns with times already relative to the time base, and `vectors`; payloads of these
encodings stand alone, so there is no state.
"""

# ruff: noqa: ARG001  (all kernels of a kind have the same arguments, needed or not)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel

Int64s = NDArray[np.int64]
UInt16s = NDArray[np.uint16]
UInt8s = NDArray[np.uint8]

FEWEST_IN_VECTOR = 3  # base and mask cost two words


@kernel
def libcaer(t: Int64s, x: UInt16s, y: UInt16s, p: UInt8s, vectors: bool) -> NDArray[np.uint32]:
    """Return pairs of (data, time in us) with the valid bit set."""
    words = np.empty(2 * t.size, np.uint32)
    for i in range(t.size):
        words[2 * i] = np.int64(x[i]) << 17 | np.int64(y[i]) << 2 | np.int64(p[i]) << 1 | 1
        words[2 * i + 1] = t[i] // 1000
    return words


@kernel
def libcaer_cmp(t: Int64s, x: UInt16s, y: UInt16s, p: UInt8s, vectors: bool) -> UInt16s:
    """Return compressed libcaer words; time words first, then column, then row or vector."""
    words = np.empty(4 * t.size, np.uint16)
    high = np.int64(0)
    low = np.int64(0)
    column = np.int64(-1)
    n = 0
    i = 0
    while i < t.size:
        time = t[i] // 1000
        if time >> 12 != high:
            high = time >> 12
            words[n] = high
            n += 1
        if time & 0xFFF != low:
            low = time & 0xFFF
            words[n] = 0x1000 | low
            n += 1
        if x[i] != column:
            column = np.int64(x[i])
            words[n] = 0x2000 | column
            n += 1
        first = np.int64(y[i])
        polarity = np.int64(p[i]) << 11
        mask = np.int64(1)
        j = i + 1
        while (
            vectors
            and j < t.size
            and t[j] // 1000 == time
            and x[j] == column
            and p[j] == p[i]
            and y[j] > y[j - 1]
            and y[j] < first + 8
        ):
            mask |= np.int64(1) << (np.int64(y[j]) - first)
            j += 1
        if j - i >= FEWEST_IN_VECTOR:
            words[n] = 0x4000 | polarity | first
            words[n + 1] = 0x5000 | mask
            n += 2
            i = j
        else:
            words[n] = 0x3000 | polarity | first
            n += 1
            i += 1
    return words[:n]


@kernel
def mono(t: Int64s, x: UInt16s, y: UInt16s, p: UInt8s, vectors: bool) -> NDArray[np.uint64]:
    """Return 64-bit words: time in ns, column, row, polarity."""
    words = np.empty(t.size, np.uint64)
    for i in range(t.size):
        address = np.uint64(x[i]) | np.uint64(y[i]) << np.uint64(16)
        address |= np.uint64(p[i]) << np.uint64(31)
        words[i] = np.uint64(t[i]) | address << np.uint64(32)
    return words


@kernel
def event_array_cdr(t: Int64s, x: UInt16s, y: UInt16s, p: UInt8s, vectors: bool) -> UInt8s:
    """Return the records of a ROS 2 event array from the first to the last, padding zeroed."""
    octets = np.zeros(max(16 * t.size - 3, 0), np.uint8)
    for i in range(t.size):
        at = 0 if i == 0 else 16 * i - 2
        stamp = at + (4 if i == 0 else 6)
        seconds = t[i] // 1_000_000_000
        nanoseconds = t[i] - seconds * 1_000_000_000
        octets[at] = x[i] & 255
        octets[at + 1] = x[i] >> 8
        octets[at + 2] = y[i] & 255
        octets[at + 3] = y[i] >> 8
        for shift in range(4):
            octets[stamp + shift] = (seconds >> (8 * shift)) & 255
            octets[stamp + 4 + shift] = (nanoseconds >> (8 * shift)) & 255
        octets[stamp + 8] = p[i]
    return octets


@kernel
def event_array_ros1(t: Int64s, x: UInt16s, y: UInt16s, p: UInt8s, vectors: bool) -> UInt8s:
    """Return the packed 13-byte records of a ROS 1 event array."""
    octets = np.empty(13 * t.size, np.uint8)
    for i in range(t.size):
        at = 13 * i
        seconds = t[i] // 1_000_000_000
        nanoseconds = t[i] - seconds * 1_000_000_000
        octets[at] = x[i] & 255
        octets[at + 1] = x[i] >> 8
        octets[at + 2] = y[i] & 255
        octets[at + 3] = y[i] >> 8
        for shift in range(4):
            octets[at + 4 + shift] = (seconds >> (8 * shift)) & 255
            octets[at + 8 + shift] = (nanoseconds >> (8 * shift)) & 255
        octets[at + 12] = p[i]
    return octets
