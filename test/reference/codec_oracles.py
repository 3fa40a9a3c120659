"""The straight-line decoder of each encoding, and a comparison with the package's."""

from __future__ import annotations

import numpy as np

from dae_ros.events.packet import DecodedPacket
from test.reference.absolute_records import (
    ArrayRecordsCdr,
    ArrayRecordsRos1,
    LibcaerCmpWords,
    LibcaerRecords,
    MonoRecords,
)
from test.reference.decoded import Decoded
from test.reference.evt2_words import Evt2Words, Evt21Words
from test.reference.evt3_words import Evt3Words

ORACLES = {
    "evt3": Evt3Words,
    "evt2": Evt2Words,
    "evt2.1": Evt21Words,
    "mono": MonoRecords,
    "libcaer": LibcaerRecords,
    "libcaer_cmp": LibcaerCmpWords,
    "event_array_cdr": ArrayRecordsCdr,
    "event_array_ros1": ArrayRecordsRos1,
}


def assert_same(packet: DecodedPacket, expected: Decoded) -> None:
    """Compare every column of every segment, triggers and breaks."""
    assert list(packet.breaks_ns) == expected.breaks
    assert list(packet.trigger_cuts) == expected.trigger_cuts
    assert len(packet.segments) == len(expected.segments)
    for events, rows in zip(packet.segments, expected.segments, strict=True):
        table = np.array(rows, np.int64).reshape(-1, 4)
        for name, column in zip("txyp", table.T, strict=True):
            np.testing.assert_array_equal(getattr(events, name), column, err_msg=name)
    table = np.array(expected.triggers, np.int64).reshape(-1, 3)
    for name, column in zip(("t", "edge", "channel"), table.T, strict=True):
        np.testing.assert_array_equal(getattr(packet.triggers, name), column, err_msg=name)
