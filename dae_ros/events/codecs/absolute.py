"""The encodings whose events carry the time of a clock that others share. All little-endian.

`mono`, 8 bytes per event, of old drivers and of converters: bits 31..0 time in ns after the time
base, 47..32 column, 62..48 row, 63 polarity.

`libcaer`, 8 bytes per event, iniVation's own layout: uint32 data (bit 0 valid, bit 1 polarity,
bits 16..2 row, bits 31..17 column), then the time in us after the time base, 31 bits that roll
over every 35.8 min. A fall by more than 2^30 us is a roll-over, a smaller one is disorder; a rise
by more than that after a roll-over is disorder at the seam. Roll-overs count within one payload:
the driver puts earlier ones into the time base.

`libcaer_cmp`, 16-bit words of the ROS driver `libcaer_driver`, the type in bits 15..12. Columns
come first and vectors run along rows, the other way round than in EVT 3.0. Every payload starts
at time 0 after its time base and without a position, so that each decodes alone:

    0 TIME_HIGH (unit 4096 us)   1 TIME_LOW (us)      2 ADDR_X column (10..0)
    3 ADDR_Y row (10..0), polarity (11): one event
    4 VECT_BASE_Y row, polarity  5 VECT_8 mask of 8 rows, then the base moves on by 8

`event_array_cdr`, the records of a ROS 2 `EventArray` (dvs_msgs, prophesee_event_msgs,
dv_ros2_msgs) as XCDR1 lays them out: uint16 x, uint16 y, int32 s, uint32 ns, bool polarity.
Record 0 takes 13 bytes; record k begins at 14 + 16 (k - 1) and has 2 bytes of padding after y.

`event_array_ros1`, the same as ROS 1 writes it: 13 bytes without padding, seconds unsigned.
Seconds with the top bit set are invalid in both: no ROS 2 stamp holds them.

Long because all five share one order pass, and compiled functions of one file do not call those
of another (`compilation`).
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
    INVALID,
    NOW,
    NOW_KNOWN,
    ORDERED,
    OUT_OF_BOUNDS,
    POSITION,
    TIME_BREAKS,
    TIME_RAISED,
    UNKNOWN_WORD,
    WRAPS,
)
from dae_ros.events.codecs.types import Int64s, Octets, UInt8s, UInt16s
from dae_ros.events.compilation import kernel

HALF_RANGE_US = 2**30  # libcaer
RANGE_US = 2**31
SECOND_NS = 1_000_000_000
SIGNED_S = 2**31  # seconds that ROS 2 would read as negative


def whole_array_octets(size: int) -> int:
    """Return how many of `size` octets are whole CDR records (the last has no tail padding)."""
    records = (size + 3) // 16
    return 16 * records - 3 if records > 0 else 0


@kernel
def _order(
    t: Int64s,
    capacity: int,
    tolerance_ns: int,
    state: Int64s,
    counts: Int64s,
    breaks: Int64s,
) -> None:
    """Raise times that lie a little back, note where they lie far back, and close the payload."""
    n = state[EVENTS]
    i = state[ORDERED]
    broken = state[BREAKS]
    if n > 0:
        now = state[NOW] if state[NOW_KNOWN] == 1 else t[0]
        if i == 0 and t[0] >= now:
            backward = np.int64(0)
            for k in range(n - 1):  # no branch: LLVM vectorises this
                backward |= t[k + 1] - t[k]
            if backward >= 0:
                i = n
                now = t[n - 1]
        while i < n and broken < BREAK_CAPACITY:
            time = t[i]
            if time < now:
                if now - time <= tolerance_ns:
                    time = now
                    t[i] = now
                    counts[TIME_RAISED] += 1
                else:
                    breaks[broken, 0] = i
                    breaks[broken, 1] = now - time
                    breaks[broken, 2] = 0  # these encodings carry no triggers
                    broken += 1
                    counts[TIME_BREAKS] += 1
            now = time
            i += 1
        state[NOW] = now
        state[NOW_KNOWN] = 1
    if i == n and broken < BREAK_CAPACITY:
        counts[OUT_OF_BOUNDS] += capacity - n - state[DROPPED]
        state[DONE] = 1
    state[ORDERED] = i
    state[BREAKS] = broken


@kernel
def count_mono(octets: Octets) -> tuple[int, int]:
    """Return the number of events and 0 triggers; for `libcaer` too."""
    return octets.size // 8, 0


@kernel
def count_libcaer_cmp(octets: Octets) -> tuple[int, int]:
    """Return the number of events, dropped ones included, and 0 triggers."""
    words = octets.view(np.uint16)
    events = 0
    for i in range(words.size):
        events += words[i] >> 12 == 3
    for i in range(words.size):
        if words[i] >> 12 == 5:
            mask = np.int64(words[i] & 255)
            mask = (mask & 0x55) + ((mask >> 1) & 0x55)
            mask = (mask & 0x33) + ((mask >> 2) & 0x33)
            events += (mask & 0x0F) + (mask >> 4)
    return events, 0


@kernel
def count_cdr(octets: Octets) -> tuple[int, int]:
    """Return the number of records and 0 triggers."""
    return (octets.size + 3) // 16, 0


@kernel
def count_ros1(octets: Octets) -> tuple[int, int]:
    """Return the number of records and 0 triggers."""
    return octets.size // 13, 0


@kernel
def decode_mono(
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
    """Decode `mono` to columns (arguments: `layout`)."""
    if state[POSITION] == 0:
        words = octets.view(np.uint64)
        n = np.uint64(0)
        for i in range(words.size):
            word = words[i]
            address = np.int64(word >> np.uint64(32))
            column = address & 0xFFFF
            row = (address >> 16) & 0x7FFF
            t[n] = time_base_ns + np.int64(word & np.uint64(0xFFFFFFFF))
            x[n] = column
            y[n] = row
            p[n] = address >> 31
            n += np.uint64(np.int64(column < width) & np.int64(row < height))
        state[EVENTS] = np.int64(n)
        state[POSITION] = words.size
    _order(t, t.size - 1, tolerance_ns, state, counts, breaks)


@kernel
def decode_libcaer(
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
    """Decode `libcaer` to columns (arguments: `layout`)."""
    if state[POSITION] == 0:
        words = octets.view(np.uint64)
        n = np.uint64(0)
        rolled_us = np.int64(0)
        last_us = np.int64(-1)
        for i in range(words.size):
            data = np.int64(words[i] & np.uint64(0xFFFFFFFF))
            time_us = np.int64(words[i] >> np.uint64(32))
            if (data & 1) == 0 or time_us >= RANGE_US:
                counts[INVALID] += 1
                state[DROPPED] += 1
                continue
            if last_us >= 0 and time_us - last_us < -HALF_RANGE_US:
                rolled_us += RANGE_US
                counts[WRAPS] += 1
            elif last_us >= 0 and time_us - last_us > HALF_RANGE_US and rolled_us > 0:
                rolled_us -= RANGE_US
            last_us = time_us
            column = data >> 17
            row = (data >> 2) & 0x7FFF
            t[n] = time_base_ns + (rolled_us + time_us) * 1000
            x[n] = column
            y[n] = row
            p[n] = (data >> 1) & 1
            n += np.uint64(np.int64(column < width) & np.int64(row < height))
        state[EVENTS] = np.int64(n)
        state[POSITION] = words.size
    _order(t, t.size - 1, tolerance_ns, state, counts, breaks)


# While `libcaer_cmp` is being decoded an event is one int64: polarity and row as in ADDR_Y (bits
# 11..0), column (22..12), time in us after the base (46..23). Each word of the first four types
# replaces one field, by tables over the type: no branch that the processor cannot predict.
KEEP = np.full(16, -1, np.int64)
TAKE = np.zeros(16, np.int64)
SHIFT = np.zeros(16, np.int64)
for _code, _take, _shift in ((0, 0xFFF, 35), (1, 0xFFF, 23), (2, 0x7FF, 12), (3, 0xFFF, 0)):
    KEEP[_code] = ~(_take << _shift)
    TAKE[_code] = _take
    SHIFT[_code] = _shift
IS_EVENT = np.zeros(16, np.uint64)
IS_EVENT[3] = 1


@kernel
def decode_libcaer_cmp(
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
    """Decode `libcaer_cmp` to columns (arguments: `layout`)."""
    if state[POSITION] == 0:
        words = octets.view(np.uint16)
        n = np.uint64(0)
        packed = np.int64(0)
        column_known = np.uint64(0)
        base = np.int64(-1)  # not yet known
        base_polarity = np.int64(0)
        unknown = 0
        early = np.int64(0)
        for i in range(words.size):
            code = np.uint64(words[i]) >> np.uint64(12)
            value = np.int64(words[i]) & 4095
            packed = (packed & KEEP[code]) | (value & TAKE[code]) << SHIFT[code]
            t[n] = packed
            n += IS_EVENT[code] & column_known
            if code >= np.uint64(4) or column_known == np.uint64(0):
                if code == np.uint64(2):
                    column_known = np.uint64(1)
                elif code == np.uint64(3):
                    early += 1 - np.int64(column_known)
                elif code == np.uint64(4):
                    base = value & 2047
                    base_polarity = value & 2048
                elif code == np.uint64(5):
                    start = packed & ~np.int64(0xFFF) | base_polarity
                    for bit in range(8):
                        hit = (value >> bit) & 1
                        if base < 0 or column_known == np.uint64(0):
                            early += hit
                        elif base + bit < 2048:  # rows past the field are past any sensor
                            t[n] = start | (base + bit)
                            n += np.uint64(hit)
                    if base >= 0:
                        base += 8
                elif code > np.uint64(5):
                    unknown += 1
        counts[UNKNOWN_WORD] += unknown
        counts[BEFORE_SYNC] += early
        state[DROPPED] += early

        outside = np.int64(0)
        t_new, x_new, y_new, p_new = t[:n], x[:n], y[:n], p[:n]
        for k in range(t_new.size):
            packed = t_new[k]
            column = (packed >> 12) & 2047
            row = packed & 2047
            t_new[k] = time_base_ns + (packed >> 23) * 1000
            x_new[k] = column
            y_new[k] = row
            p_new[k] = (packed >> 11) & 1
            outside |= (width - 1 - column) | (height - 1 - row)
        if outside < 0:
            kept = np.uint64(0)
            for k in range(t_new.size):
                inside = np.int64(x[k]) < width and np.int64(y[k]) < height
                t[kept], x[kept], y[kept], p[kept] = t[k], x[k], y[k], p[k]
                kept += np.uint64(inside)
            n = kept
        state[EVENTS] = np.int64(n)
        state[POSITION] = words.size
    _order(t, t.size - 1, tolerance_ns, state, counts, breaks)


@kernel
def decode_cdr(
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
    """Decode `event_array_cdr` to columns (arguments: `layout`); the time base is not used."""
    if state[POSITION] == 0:
        halves = octets[: octets.size // 2 * 2].view(np.uint16)
        quarters = octets[: octets.size // 4 * 4].view(np.uint32)
        n = np.uint64(0)
        records = np.uint64((octets.size + 3) // 16)
        for k in range(records):
            # the padding before the seconds is missing in record 0 only
            half = np.uint64(8) * k - np.uint64(k > np.uint64(0))
            stamp = np.uint64(4) * k + np.uint64(1)
            column = np.int64(halves[half])
            row = np.int64(halves[half + np.uint64(1)])
            seconds = np.int64(np.int32(quarters[stamp]))
            nanoseconds = np.int64(quarters[stamp + np.uint64(1)])
            polarity = np.int64(octets[np.uint64(16) * k + np.uint64(12)])
            t[n] = seconds * SECOND_NS + nanoseconds
            x[n] = column
            y[n] = row
            p[n] = polarity
            invalid = np.int64(nanoseconds >= SECOND_NS) | np.int64(polarity > 1)
            invalid |= np.int64(seconds < 0)
            counts[INVALID] += invalid
            state[DROPPED] += invalid
            inside = np.int64(column < width) & np.int64(row < height)
            n += np.uint64(inside & (1 - invalid))
        state[EVENTS] = np.int64(n)
        state[POSITION] = np.int64(records)
    _order(t, t.size - 1, tolerance_ns, state, counts, breaks)


@kernel
def decode_ros1(
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
    """Decode `event_array_ros1` to columns (arguments: `layout`); the time base is not used."""
    if state[POSITION] == 0:
        n = np.uint64(0)
        records = np.uint64(octets.size // 13)
        for k in range(records):
            at = np.uint64(13) * k
            column = np.int64(octets[at]) | np.int64(octets[at + np.uint64(1)]) << 8
            row = np.int64(octets[at + np.uint64(2)]) | np.int64(octets[at + np.uint64(3)]) << 8
            seconds = np.int64(0)
            nanoseconds = np.int64(0)
            for byte in range(4):
                low = at + np.uint64(4 + byte)
                seconds |= np.int64(octets[low]) << (8 * byte)
                nanoseconds |= np.int64(octets[low + np.uint64(4)]) << (8 * byte)
            polarity = np.int64(octets[at + np.uint64(12)])
            t[n] = seconds * SECOND_NS + nanoseconds
            x[n] = column
            y[n] = row
            p[n] = polarity
            invalid = np.int64(nanoseconds >= SECOND_NS) | np.int64(polarity > 1)
            invalid |= np.int64(seconds >= SIGNED_S)
            counts[INVALID] += invalid
            state[DROPPED] += invalid
            inside = np.int64(column < width) & np.int64(row < height)
            n += np.uint64(inside & (1 - invalid))
        state[EVENTS] = np.int64(n)
        state[POSITION] = np.int64(records)
    _order(t, t.size - 1, tolerance_ns, state, counts, breaks)
