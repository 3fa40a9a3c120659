"""The straight-line decoders of test/reference/, pinned to bytes made by hand."""

from __future__ import annotations

from test.reference.absolute_records import (
    ArrayRecordsCdr,
    ArrayRecordsRos1,
    LibcaerCmpWords,
    LibcaerRecords,
    MonoRecords,
)
from test.reference.evt2_words import Evt2Words, Evt21Words
from test.reference.evt3_words import Evt3Words


def test_evt3_by_hand() -> None:
    """Row 441, column 479 OFF, then a vector of columns 3 and 14 ON, one trigger."""
    words = bytes.fromhex("cf86 0062 01a6 0562 b901 df21 0338 0140 0440".replace(" ", ""))
    out = Evt3Words(640, 480).decode(words)
    late = 7_139_845_000
    assert out.segments == [[(late, 479, 441, 0), (late, 3, 441, 1), (late, 17, 441, 1)]]
    assert out.triggers == [(7_139_840_000, 1, 6)]


def test_evt2_by_hand() -> None:
    """TIME_HIGH 2, then CD_ON at low time 3, column 5, row 7; trigger at low time 4."""
    words = bytes.fromhex("02000080" + "0728c010" + "010300a1")
    out = Evt2Words(640, 480).decode(words)
    assert out.segments == [[(131_000, 5, 7, 1)]]
    assert out.triggers == [(132_000, 1, 3)]


def test_evt21_by_hand() -> None:
    """TIME_HIGH 2, then OFF events of columns 32 and 63 in row 1 at low time 1."""
    words = bytes.fromhex("0000000002000080" + "0100008001004100")
    out = Evt21Words(640, 480).decode(words)
    assert out.segments == [[(129_000, 32, 1, 0), (129_000, 63, 1, 0)]]


def test_mono_by_hand() -> None:
    """1000 ns after the base, column 258, row 3, ON."""
    out = MonoRecords(640, 480).decode(bytes.fromhex("e803000002010380"), 7)
    assert out.segments == [[(1007, 258, 3, 1)]]


def test_libcaer_by_hand() -> None:
    """Column 2, row 5, ON, valid, 9 us after the base; the invalid twin is dropped."""
    reference = LibcaerRecords(346, 260)
    words = bytes.fromhex("1700040009000000" + "1600040009000000")
    assert reference.decode(words, 1000).segments == [[(10_000, 2, 5, 1)]]
    assert reference.counts == {"invalid": 1}


def test_libcaer_cmp_by_hand() -> None:
    """TIME_HIGH 1, TIME_LOW 2, column 3, row 4 ON, then a vector of rows 8 and 15 OFF."""
    words = bytes.fromhex("0100 0210 0320 0438 0840 8150".replace(" ", ""))
    at = 1_000 + 4098_000
    assert LibcaerCmpWords(346, 260).decode(words, 1000).segments == [
        [(at, 3, 4, 1), (at, 3, 8, 0), (at, 3, 15, 0)]
    ]


def test_event_arrays_by_hand() -> None:
    """Two records at 1.000000002 s: with CDR padding after y of the second, and packed."""
    first, second = "0100 0200", "0300 0400"
    stamp = "01000000 02000000"
    cdr = bytes.fromhex(f"{first} {stamp} 01 00 {second} 0000 {stamp} 00")
    ros1 = bytes.fromhex(f"{first} {stamp} 01 {second} {stamp} 00")
    rows = [[(1_000_000_002, 1, 2, 1), (1_000_000_002, 3, 4, 0)]]
    assert ArrayRecordsCdr(9, 9).decode(cdr).segments == rows
    assert ArrayRecordsRos1(9, 9).decode(ros1).segments == rows
