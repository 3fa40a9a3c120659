"""HDF5 files with the compression filters that data sets use, opened on request only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.damage import DAMAGE
from dae_ros.errors import ConfigurationError, RecordingError

MAGIC = b"\x89HDF\r\n\x1a\n"


def open_hdf5(path: Path) -> Any:
    """Open an HDF5 file for reading, as an `h5py.File`.

    Raises:
        ConfigurationError: h5py or hdf5plugin is not installed.
        RecordingError: missing, no HDF5, or cut.
    """
    try:
        import h5py
        import hdf5plugin  # noqa: F401  (its import registers Blosc with the HDF5 library)
    except ImportError as error:
        raise ConfigurationError(
            "reading HDF5 data sets needs the packages h5py and hdf5plugin: install the extra "
            "`datasets` (pip install '.[datasets]' in this package's folder)",
            package=error.name,
        ) from error
    try:
        return h5py.File(path, "r")
    except DAMAGE as error:
        raise RecordingError(
            f"{path} is no readable HDF5 file ({error}); download it again", path=str(path)
        ) from error


def has_array(file: Any, name: str) -> bool:
    """Return whether the file has something of that name.

    Raises:
        RecordingError: the file is damaged there.
    """
    with _readable(file, name):
        return name in file


def require_array(file: Any, name: str, shape: tuple[int | None, ...]) -> Any:
    """Return a dataset of the file, unread.

    Args:
        file: from `open_hdf5`.
        name: path inside the file.
        shape: expected, None where any length will do.

    Raises:
        RecordingError: it is not there, of another shape, or no numbers; or the file is damaged
            there.
    """
    with _readable(file, name):
        return _require_array(file, name, shape)


@contextlib.contextmanager
def _readable(file: Any, name: str) -> Iterator[None]:
    """Say of a file where it is damaged."""
    try:
        yield
    except DAMAGE as error:
        raise RecordingError(
            f"{file.filename} is damaged in {name} ({error}); download it again",
            path=file.filename,
            dataset=name,
        ) from error


def _require_array(file: Any, name: str, shape: tuple[int | None, ...]) -> Any:
    found = file.get(name)
    if found is None or not hasattr(found, "shape"):
        names: list[str] = []
        file.visit(names.append)
        raise RecordingError(
            f"{file.filename} has no dataset {name}; it has {', '.join(names) or 'nothing'}",
            path=file.filename,
            dataset=name,
        )
    fits = len(found.shape) == len(shape) and all(
        want is None or want == have for want, have in zip(shape, found.shape, strict=True)
    )
    if not fits:
        wanted = tuple("N" if want is None else want for want in shape)
        raise RecordingError(
            f"{name} in {file.filename} has the shape {found.shape}, expected {wanted}",
            path=file.filename,
            dataset=name,
            shape=found.shape,
        )
    if found.dtype.kind not in "biuf":
        raise RecordingError(
            f"{name} in {file.filename} holds {found.dtype}, expected numbers; the file is damaged "
            "or of another layout",
            path=file.filename,
            dataset=name,
        )
    return found


def read_number(dataset: Any) -> int:
    """Read a dataset of a single whole number.

    Raises:
        RecordingError: it is none, or the file is damaged there.
    """
    with _readable(dataset.file, dataset.name):
        if dataset.dtype.kind not in "iu":
            raise TypeError(f"it holds {dataset.dtype}, expected a whole number")
        return int(dataset[()])


def read_rows(dataset: Any, start: int, stop: int) -> NDArray[Any]:
    """Read rows of a dataset.

    Raises:
        RecordingError: the file is damaged or cut there.
    """
    try:
        return np.asarray(dataset[start:stop])
    except DAMAGE as error:
        raise RecordingError(
            f"{dataset.file.filename} is damaged in {dataset.name}, between rows {start} and "
            f"{stop} ({error}); download it again",
            path=dataset.file.filename,
            dataset=dataset.name,
            row=start,
        ) from error


def first_row_at(dataset: Any, column: int | None, time: float, count: int) -> int:
    """Return the first of `count` sorted rows whose time is not before `time`, by bisection.

    Args:
        dataset: times as rows, or as one column of rows.
        column: of the times, None for rows that are the times.
        time: in the unit of the dataset.
        count: rows to search.

    Raises:
        RecordingError: the file is damaged or cut.
    """
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        row = read_rows(dataset, middle, middle + 1)[0]
        if float(row if column is None else row[column]) < time:
            low = middle + 1
        else:
            high = middle
    return low
