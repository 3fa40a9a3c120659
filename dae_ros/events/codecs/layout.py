"""The layout that all decoder kernels share: carried state, counters and the order rule.

Every kernel has the same arguments, but for where the events go:

    decode(octets, time_base_ns, width, height, tolerance_ns, state, counts,
           *events, trigger_t, trigger_edge, trigger_channel, breaks)

`events` are the columns t, x, y and p, or for a packing codec the one array of rows that
`dae_ros.events.packed` lays out, whose times count from `state[ORIGIN]`.

`count(octets)` returns how many events and triggers the payload holds at most: exactly as many
as `decode` then stores or drops, so that `decode` can take the rest as out of bounds.

`octets` is the read-only payload, `state` int64[STATE_SIZE] lives as long as the decoder, `counts`
int64[len(REASONS)] is added to, the columns have room for what `count` returned plus one row
(kernels store first and advance afterwards), and `breaks` int64[BREAK_CAPACITY, 3] receives
(index of the first event after the break, how far time ran back in ns, index of the first trigger
after the break). A kernel returns when the payload is used up (`state[DONE]` is 1), `breaks` is
full, or times have left what rows can hold, to be called again (with another origin then).
"""

from __future__ import annotations

# state: the first seven belong to one payload, the others to the stream
POSITION = 0  # words (or records) of this payload that are done
EVENTS = 1  # rows written
TRIGGERS = 2  # trigger rows written
BREAKS = 3  # breaks written since the caller last emptied them
DROPPED = 4  # events dropped for a reason other than their place
ORDERED = 5  # rows to which the order rule has been applied, where that is a pass of its own
DONE = 6  # 1 when the payload is used up
NOW = 7  # newest time in ns: events are never older than this inside a segment
NOW_KNOWN = 8  # 0 until the first time of the stream
OWN = 9  # from here on each codec's own
ORIGIN = 16  # us, what the times of packed rows count from
STATE_SIZE = 17
PAYLOAD_STATE = 7

# counts
OUT_OF_BOUNDS = 0
BEFORE_SYNC = 1
NOT_CD = 2
INVALID = 3
UNKNOWN_WORD = 4
SKIPPED_WORD = 5
TRIGGER_BEFORE_SYNC = 6
TIME_RAISED = 7
TIME_BREAKS = 8
WRAPS = 9
TRAILING_BYTES = 10
REASONS = (
    "out_of_bounds",
    "before_sync",
    "not_cd",
    "invalid",
    "unknown_word",
    "skipped_word",
    "trigger_before_sync",
    "time_raised",
    "time_breaks",
    "wraps",
    "trailing_bytes",
)

# what kernels that put events on pixels return where they leave a packet to `decode`
NOT_PUT = -1

TOLERANCE_NS = 10_000_000  # time may run back this far and counts as disorder, not as a break
BREAK_CAPACITY = 256
