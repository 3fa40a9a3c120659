"""Numbered image and depth files beside their time stamps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.damage import DAMAGE
from dae_ros.errors import RecordingError


def numbered_files(folder: Path, suffix: str, stamps: int) -> list[Path]:
    """Return the files of a folder in the order of their names, one for each stamp.

    Raises:
        RecordingError: the folder is missing, or has more or fewer files than stamps.
    """
    files = sorted(folder.glob(f"*{suffix}"))
    if len(files) != stamps:
        raise RecordingError(
            f"{folder} has {len(files)} files *{suffix}, but there are {stamps} time stamps for "
            f"them; the sequence is incomplete, unpack or download it again",
            path=str(folder),
            files=len(files),
            stamps=stamps,
        )
    return files


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Read a PNG as uint8[H, W] grey; colours are weighted as by OpenCV.

    Raises:
        RecordingError: missing or damaged.
    """
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise RecordingError(
            f"the image {path} is missing or damaged; download it again", path=str(path)
        )
    return np.asarray(image, np.uint8)


def read_depth_npy(path: Path) -> NDArray[np.float32]:
    """Read a depth map in metres from a `.npy` file.

    Returns:
        float32[H, W]; NaN where the file has NaN, infinity, zero or less.

    Raises:
        RecordingError: missing, damaged, or no single map.
    """
    return valid_depth(read_npy(path, dimensions=2))


def read_npy(path: Path, dimensions: int) -> NDArray[np.float32]:
    """Read real numbers from a `.npy` file as float32.

    Raises:
        RecordingError: missing, damaged, of another number of dimensions, or no numbers.
    """
    try:
        with path.open("rb") as file:
            values = np.load(file, allow_pickle=False)
    except DAMAGE as error:
        raise RecordingError(
            f"{path} is missing or damaged ({error}); download it again", path=str(path)
        ) from error
    if (
        not isinstance(values, np.ndarray)
        or values.ndim != dimensions
        or values.dtype.kind not in "fiu"
    ):
        raise RecordingError(
            f"{path} does not hold an array of {dimensions} dimensions of real numbers; it is of "
            f"another layout",
            path=str(path),
        )
    return values.astype(np.float32)


def valid_depth(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return depth in metres with NaN wherever there is none (NaN, infinity, zero or less)."""
    known = np.isfinite(depth) & (depth > 0)
    return np.where(known, depth, np.float32(np.nan)).astype(np.float32)


def from_stamp(stamps: NDArray[np.int64], start_ns: int | None) -> Iterator[tuple[int, int]]:
    """Yield (index, stamp in ns) of the stamps that are not before `start_ns`."""
    first = 0 if start_ns is None else int(np.searchsorted(stamps, start_ns))
    for index in range(first, len(stamps)):
        yield index, int(stamps[index])
