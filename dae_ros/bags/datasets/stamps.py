"""Times of data sets: seconds and microseconds, in arrays and in text files, to nanoseconds.

Seconds since the epoch in float64 are 0.24 us apart, and the same holds for text that was printed
from them. They are therefore rounded to the whole microsecond, which is what the sensors count.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import RecordingError

Stamps = NDArray[np.int64]
# In nanoseconds int64 ends shortly after it, in the year 2261.
_END_S = 9_200_000_000


def seconds_to_ns(seconds: NDArray[Any], source: str) -> Stamps:
    """Convert float seconds to whole microseconds, in ns.

    Args:
        seconds: float[N].
        source: file and dataset, for the error.

    Raises:
        RecordingError: NaN, infinite, negative or beyond the range of int64 ns.
    """
    values = np.asarray(seconds, np.float64)
    usable = np.isfinite(values) & (values >= 0) & (values < _END_S)
    if not usable.all():
        row = int(np.argmin(usable))
        raise RecordingError(
            f"time {row} of {source} is {values[row]} s, which is no time since the epoch or the "
            f"start; the file is damaged",
            source=source,
            row=row,
        )
    rounded: Stamps = np.rint(values * 1e6).astype(np.int64) * 1000
    return rounded


def microseconds_to_ns(times: NDArray[Any], source: str, offset_us: int = 0) -> Stamps:
    """Convert whole microseconds to ns.

    Args:
        times: [N], of any type.
        source: file and dataset, for the error.
        offset_us: added to each.

    Raises:
        RecordingError: no whole numbers, negative or beyond the range of int64 ns.
    """
    if times.dtype.kind not in "iu":
        raise RecordingError(
            f"the times of {source} are {times.dtype}, not whole microseconds", source=source
        )
    if not 0 <= offset_us < _END_S * 1_000_000:
        raise RecordingError(
            f"the times of {source} count from {offset_us} us, which is no time since the epoch or "
            "the start; the file is damaged",
            source=source,
            offset_us=offset_us,
        )
    usable = (times >= 0) & (times < _END_S * 1_000_000 - offset_us)
    if not usable.all():
        row = int(np.argmin(usable))
        raise RecordingError(
            f"time {row} of {source} is {times[row]} us, which is no time since the epoch or the "
            "start; the file is damaged",
            source=source,
            row=row,
        )
    return (times.astype(np.int64) + offset_us) * 1000


def read_indexed_seconds(path: Path) -> Stamps:
    """Read lines `index seconds`, as in the `timestamps.txt` of E2Depth and EventScape.

    Returns:
        int64[N], ns, strictly increasing.

    Raises:
        RecordingError: missing, another form, or not increasing.
    """
    stamps: list[int] = []
    for number, fields in _lines(path, columns=2):
        try:
            # Exact, whatever the notation: float() would round a second time.
            stamps.append(int((Decimal(fields[1]) * 1_000_000).to_integral_value()) * 1000)
        except (InvalidOperation, ValueError, OverflowError) as error:
            raise _bad_line(path, number, "'index seconds'") from error
    return _increasing(stamps, path)


def read_microseconds(path: Path) -> Stamps:
    """Read one whole number of microseconds per line, as in DSEC's `timestamps.txt`.

    Returns:
        int64[N], ns, strictly increasing.

    Raises:
        RecordingError: missing, another form, or not increasing.
    """
    return _increasing([1000 * first for (first,) in _integers(path, columns=1)], path)


def read_exposures(path: Path) -> NDArray[np.int64]:
    """Read lines `start, end` in microseconds, as in DSEC's `exposure_timestamps.txt`.

    Returns:
        int64[N, 2], ns.

    Raises:
        RecordingError: missing, or another form.
    """
    pairs = [[1000 * start, 1000 * end] for start, end in _integers(path, columns=2)]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _integers(path: Path, columns: int) -> Iterator[list[int]]:
    for number, fields in _lines(path, columns):
        try:
            yield [int(field) for field in fields]
        except ValueError as error:
            raise _bad_line(path, number, f"{columns} whole numbers of microseconds") from error


def _lines(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of the lines that hold something; # begins a comment."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(
            f"the time stamps {path} cannot be read ({error}); without them nothing in the folder "
            f"can be dated",
            path=str(path),
        ) from error
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.partition("#")[0].replace(",", " ").split()
        if fields and len(fields) != columns:
            raise _bad_line(path, number, f"{columns} columns")
        if fields:
            yield number, fields


def _bad_line(path: Path, number: int, wanted: str) -> RecordingError:
    return RecordingError(
        f"line {number} of {path} is not of the form {wanted}; the file is damaged or of another "
        f"layout",
        path=str(path),
        line=number,
    )


def _increasing(stamps: list[int], path: Path) -> Stamps:
    values = np.array(stamps, np.int64)
    if values.size == 0:
        raise RecordingError(f"{path} has no time stamps", path=str(path))
    if values[0] < 0:
        raise RecordingError(f"{path} has a negative time stamp", path=str(path))
    steps = np.diff(values)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 1
        raise RecordingError(
            f"stamp {row} of {path} is not later than the one before it; stamps must increase",
            path=str(path),
            row=row,
        )
    return values
