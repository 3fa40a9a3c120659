"""Writes one sequence of a clip store: window by window, and visible only when it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dae_ros.distillation.clip_codes import code_of_tencode
from dae_ros.distillation.clip_sources import Sample
from dae_ros.distillation.clip_store import FORMAT, NO_FRAME_US, SEQUENCE_FILE, file_digest
from dae_ros.errors import RecordingError, reason_of
from dae_ros.model.durable_files import sync, write_durably

PART_PREFIX = ".part_"


@contextlib.contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Say of a part of a store why it cannot be written, and what is left.

    Raises:
        RecordingError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise RecordingError(
            f"{path} cannot be written: {reason_of(error)}. Make room or choose another --out, and "
            "run again; finished sequences are kept",
            path=str(path),
        ) from error


class SequenceWriter:
    """Appends samples to `.part_NAME` and renames it to NAME on `finish`.

    Args:
        folder: of the sequence; must not exist.
        event_encoder: decides how a window is stored.

    Raises:
        RecordingError: nothing can be written there.
    """

    def __init__(self, folder: Path, event_encoder: str) -> None:
        self._folder = folder
        self._part = part_folder(folder)
        self._grids = event_encoder == "voxel_grid"
        self._arrays: dict[str, _GrowingArray] = {}
        self._size: tuple[int, int] | None = None
        self._count = 0
        shutil.rmtree(self._part, ignore_errors=True)
        with on_disk(self._part):
            self._part.mkdir(parents=True)

    def append(self, sample: Sample) -> None:
        """Add a window.

        Raises:
            RecordingError: another size than before, or no room on the disk.
        """
        size = (sample.image.shape[1], sample.image.shape[2])
        if self._size not in (None, size):
            raise RecordingError(
                f"the windows of {self._folder.name} change from {self._size} to {size} px; "
                "a sequence has one size",
                path=str(self._folder),
            )
        self._size = size
        image = sample.image
        rows: dict[str, NDArray[Any]] = {
            "windows": image.astype(np.float16) if self._grids else code_of_tencode(image)
        }
        if sample.depth is not None:
            rows["depth"] = sample.depth.astype(np.float16)
        if sample.frame is not None:
            rows["frames"] = sample.frame
        offset_us = NO_FRAME_US if sample.frame is None else sample.frame_offset_us
        rows["times"] = np.array([sample.end_ns, offset_us, sample.restarts], np.int64)
        with on_disk(self._part):
            for name, row in rows.items():
                self._write(name, row)
            for name, array in self._arrays.items():
                if name not in rows:
                    array.append(_nothing(array))
            # So that others see how far it is.
            self._arrays["times"].file.flush()
        self._count += 1

    def _write(self, name: str, row: NDArray[Any]) -> None:
        if name not in self._arrays:
            array = self._arrays[name] = _GrowingArray(self._part / f"{name}.npy", row)
            # A sequence may have begun before its first frame.
            for _ in range(self._count):
                array.append(_nothing(array))
        self._arrays[name].append(row)

    def finish(self, source: Mapping[str, Any], notes: Mapping[str, int]) -> int:
        """Make the sequence visible; return its number of windows.

        Args:
            source: what it was made of, JSON types.
            notes: counts of what was left out, by reason.

        Raises:
            RecordingError: there is not a single window.
        """
        if self._count == 0:
            raise RecordingError(
                f"{self._folder.name} has no window (left out: {dict(notes) or 'nothing'}); "
                "take it off the recipe or make it longer",
                path=str(self._folder),
                notes=dict(notes),
            )
        with on_disk(self._part):
            for array in self._arrays.values():
                array.close()
            digests = {name: file_digest(self._part / f"{name}.npy") for name in self._arrays}
            facts = {
                "format": FORMAT,
                "source": source,
                "windows": self._count,
                "left_out": dict(notes),
                "sha256": digests,
            }
            write_durably(self._part / SEQUENCE_FILE, json.dumps(facts, indent=1, sort_keys=True))
            self._part.replace(self._folder)
            sync(self._folder.parent)
        return self._count

    def __enter__(self) -> SequenceWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what was not finished."""
        for array in self._arrays.values():
            # What could not be written is removed with the rest.
            with contextlib.suppress(OSError):
                array.file.close()
        shutil.rmtree(self._part, ignore_errors=True)


def part_folder(folder: Path) -> Path:
    """Return where a sequence grows until it is whole."""
    return folder.with_name(PART_PREFIX + folder.name)


class _GrowingArray:
    """A .npy file whose first axis grows; numpy leaves room in the header for that."""

    def __init__(self, path: Path, row: NDArray[Any]) -> None:
        self.file: BinaryIO = path.open("wb")
        self.shape = row.shape
        self.dtype = row.dtype
        self._count = 0
        self._write_header()
        self._header_bytes = self.file.tell()

    def append(self, row: NDArray[Any]) -> None:
        if row.shape != self.shape or row.dtype != self.dtype:
            raise RecordingError(
                f"an image is {row.dtype}{list(row.shape)} after {self.dtype}{list(self.shape)}; "
                "a sequence has one size",
            )
        self.file.write(np.ascontiguousarray(row).data)
        self._count += 1

    def close(self) -> None:
        self.file.seek(0)
        self._write_header()
        if self.file.tell() != self._header_bytes:
            raise RecordingError(f"{self.file.name}: this numpy leaves no room in its header")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()

    def _write_header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self._count, *self.shape),
        }
        np.lib.format.write_array_header_1_0(self.file, header)


def _nothing(array: _GrowingArray) -> NDArray[Any]:
    fill = np.nan if array.dtype == np.float16 else 0
    return np.full(array.shape, fill, array.dtype)
