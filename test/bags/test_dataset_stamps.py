"""Times of data sets: exact conversion, and clear errors."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dae_ros.bags.datasets.stamps import (
    read_exposures,
    read_indexed_seconds,
    read_microseconds,
    seconds_to_ns,
)
from dae_ros.errors import RecordingError

MICROSECONDS = st.integers(0, 1_900_000_000_000_000)


@given(st.lists(MICROSECONDS, max_size=20))
def test_float_seconds_give_back_their_microseconds(values):
    """Every whole microsecond survives being stored as float64 seconds since the epoch."""
    stored = np.array([value / 1e6 for value in values], np.float64)
    assert seconds_to_ns(stored, "here").tolist() == [1000 * value for value in values]


@given(st.lists(MICROSECONDS, min_size=1, max_size=20, unique=True).map(sorted))
def test_printed_seconds_give_back_their_microseconds(tmp_path_factory, values):
    """Text in plain, scientific and repr notation is read to the same whole microsecond."""
    path = tmp_path_factory.mktemp("stamps") / "timestamps.txt"
    for print_seconds in (
        lambda us: str(Decimal(us) / 1_000_000),
        lambda us: f"{us / 1e6:.18e}",
        lambda us: repr(us / 1e6),
    ):
        path.write_text("".join(f"{i} {print_seconds(us)}\n" for i, us in enumerate(values)))
        assert read_indexed_seconds(path).tolist() == [1000 * us for us in values]


def test_hand_made_stamps():
    """1504645177.4245632 s are 1504645177424563 us, and half a microsecond goes to the even."""
    times = seconds_to_ns(np.array([0.0, 1e-6, 2.5e-6, 1504645177.4245632]), "here")
    assert times.tolist() == [0, 1_000, 2_000, 1_504_645_177_424_563_000]


def test_microseconds_and_exposures_are_whole_numbers(tmp_path):
    """DSEC's columns are read as integers, comments and blank lines apart."""
    path = tmp_path / "t.txt"
    path.write_text("# us\n49599300523\n\n49599400524\n")
    assert read_microseconds(path).tolist() == [49_599_300_523_000, 49_599_400_524_000]
    path.write_text("# start, end\n10, 15\n110,130\n")
    assert read_exposures(path).tolist() == [[10_000, 15_000], [110_000, 130_000]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e10])
def test_impossible_seconds_name_their_row(value):
    """NaN, infinity, negative and far times are refused with row and source."""
    with pytest.raises(RecordingError, match="time 1 of here") as error:
        seconds_to_ns(np.array([1.0, value]), "here")
    assert error.value.data == {"source": "here", "row": 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0 1.0\n1\n", "line 2 of .* 2 columns"),
        ("0 one\n", "line 1 of .* 'index seconds'"),
        ("0 nan\n", "line 1 of .* 'index seconds'"),
        ("0 inf\n", "line 1 of .* 'index seconds'"),
        ("0 2.0\n1 2.0000001\n", "stamp 1 of .* is not later"),
        ("0 -2.0\n1 2.0\n", "negative"),
        ("", "no time stamps"),
    ],
)
def test_damaged_stamps_name_their_line(tmp_path, text, problem):
    """Every form of damage in a time stamp file is an error that names file and place."""
    path = tmp_path / "timestamps.txt"
    path.write_text(text)
    with pytest.raises(RecordingError, match=problem):
        read_indexed_seconds(path)


def test_whole_microseconds_only(tmp_path):
    """A fraction where microseconds are expected is another layout."""
    path = tmp_path / "timestamps.txt"
    path.write_text("1.5\n")
    with pytest.raises(RecordingError, match="1 whole numbers of microseconds"):
        read_microseconds(path)
