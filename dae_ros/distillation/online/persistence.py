"""The learner and its clips on disk: whole at every instant, whatever kills the process.

```
FOLDER/
  lock                  held by the one process that learns here
  state.bin             sha256, then weights, average, moments, counters, which clips are held
  state.previous.bin    the one before it
  clips_000001.rec      records of `records.py`, appended one after the other
```

A record that a kill cut is dropped when the folder is opened again, one whose bits changed is
skipped, the others survive. Files whose clips are mostly given up are rewritten by `save`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import logging
import os
import pickle
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.records import (
    ClipKey,
    Kind,
    pack_record,
    unpack_record,
    whole_records,
)
from dae_ros.errors import DistillationError
from dae_ros.model.durable_files import sync

LOGGER = logging.getLogger(__name__)
LOCK_FILE, STATE_FILE, PREVIOUS_FILE = "lock", "state.bin", "state.previous.bin"
# The number grows with every change of what a state holds.
FORMAT, STATE_MAGIC = b"DAEONL", b"DAEONL04"
SEGMENT_BYTES = 64_000_000


@dataclass(frozen=True)
class _Place:
    segment: int
    offset: int
    size: int


class OnlineStore:
    """A folder that one learning process owns.

    Args:
        folder: made if it is not there.
        segment_bytes: a file of clips is closed beyond this.

    Attributes:
        damaged: stretches of files that were no whole record when the folder was opened.
        losses: `state_damaged`, states that `load` found and that were not whole.

    Raises:
        DistillationError: another process learns in this folder, or it cannot be written.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._places: dict[ClipKey, _Place] = {}
        self._live: set[ClipKey] = set()  # of the state that was saved or loaded last
        self._unwritten: dict[ClipKey, LabelledClip] = {}  # that the disk had no room for
        self._file: io.FileIO | None = None
        self._end = 0  # of the whole records of the last file, as it was found
        self.damaged = 0
        self.losses: Counter[str] = Counter()
        self._state_is_whole = False  # that of STATE_FILE, as it was read or written last
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / LOCK_FILE).open("wb")
        except OSError as error:
            raise DistillationError(
                f"{folder} cannot be written ({error}); name a folder that can", path=str(folder)
            ) from error
        try:
            # Given back by the kernel when the process ends, however it ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise DistillationError(
                f"another process learns in {folder}; stop it, or name another folder",
                path=str(folder),
            ) from error
        try:
            segments = self._segments()
            self._segment = segments[-1] if segments else 1
            for segment in segments:
                self._scan(segment)
        except OSError as error:
            self._lock.close()
            raise DistillationError(
                f"clips in {folder} cannot be read ({error}); mend that, or name another folder",
                path=str(folder),
            ) from error

    def __enter__(self) -> OnlineStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and let others learn here."""
        if self._file is not None:
            self._file.close()
        self._lock.close()

    def keys(self, kind: Kind) -> tuple[int, ...]:
        """Return the keys of the clips of a kind that can be read, ascending."""
        return tuple(sorted(key for name, key in self._places if name == kind))

    def append(self, kind: Kind, key: int, clip: LabelledClip) -> None:
        """Write a clip behind the others; the next `save` makes it durable.

        Raises:
            DistillationError: it cannot be written, and `save` tries it again; what was written
                before is whole.
        """
        self._unwritten[kind, key] = clip
        self._write((kind, key), pack_record((kind, key), clip))
        del self._unwritten[kind, key]

    def read(self, kind: Kind, key: int) -> LabelledClip:
        """Return a clip.

        Raises:
            DistillationError: there is none, or its file changed since the folder was opened.
        """
        place = self._places.get((kind, key))
        try:
            clip = None if place is None else unpack_record(self._record(place))
            cause = None
        except OSError as error:
            clip, cause = None, error
        if clip is None:
            raise DistillationError(
                f"{self._folder} holds no whole {kind} {key}; go on without it", kind=kind, key=key
            ) from cause
        return clip

    def clips(self, kind: Kind) -> dict[int, LabelledClip]:
        """Return every clip of a kind by key."""
        return {key: self.read(kind, key) for key in self.keys(kind)}

    def save(self, state: Mapping[str, Any], live: Iterable[ClipKey]) -> None:
        """Replace the saved state, atomically and durably, and keep the one before it.

        That is the state which was loaded or saved last: a file that is not whole never takes the
        place of one that is.

        Args:
            state: tensors and plain values.
            live: the clips that it refers to. Others are given up, unless the state before this
                one refers to them.

        Raises:
            DistillationError: it cannot be written; the state saved before is whole. Or it is
                written, and clips that it refers to are not, or those that nobody needs cannot be
                given up; the next call tries again.
        """
        now = set(live)
        missing = self._write_again(now)
        buffer = io.BytesIO()
        torch.save({"state": dict(state), "live": sorted(now)}, buffer)
        payload = buffer.getbuffer()
        path = self._folder / STATE_FILE
        temporary = self._folder / f".{STATE_FILE}.tmp"
        try:
            if self._file is not None:
                os.fsync(self._file.fileno())
            with temporary.open("wb") as file:
                file.write(STATE_MAGIC + hashlib.sha256(payload).digest())
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            if self._state_is_whole and path.exists():
                # A kill after this leaves the previous state, which is whole.
                path.replace(self._folder / PREVIOUS_FILE)
            temporary.replace(path)
            self._state_is_whole = True
            sync(self._folder)
        except OSError as error:
            with contextlib.suppress(OSError):  # a disk that has become read-only keeps it
                temporary.unlink(missing_ok=True)
            raise DistillationError(
                f"{path} cannot be written ({error}); the state saved before is whole. Make room; "
                "learning goes on meanwhile",
                path=str(path),
            ) from error
        needed, self._live = now | self._live, now
        try:
            self._give_up(needed)
        except OSError as error:
            raise DistillationError(
                f"clips in {self._folder} cannot be given up ({error}), so that more and more disk "
                "is taken; see who else uses the folder. All that was saved is whole",
                path=str(self._folder),
            ) from error
        if missing is not None:
            raise missing

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that is whole; None where there is none.

        What is not whole is told in the log and counted (`losses`).

        Raises:
            DistillationError: it was written by another version, or cannot be read.
        """
        self._state_is_whole = False
        for name in (STATE_FILE, PREVIOUS_FILE):
            path = self._folder / name
            content = _read_state(path)
            if content is None and path.exists():
                self.losses["state_damaged"] += 1
                LOGGER.warning(
                    "%s is damaged and is left out; what was saved before it is looked for", path
                )
            if content is not None:
                self._state_is_whole = name == STATE_FILE
                self._live = {(kind, key) for kind, key in content["live"]}
                state: dict[str, Any] = content["state"]
                return state
        return None

    def _segments(self) -> list[int]:
        return sorted(int(path.stem[6:]) for path in self._folder.glob("clips_*.rec"))

    def _path(self, segment: int) -> Path:
        return self._folder / f"clips_{segment:06d}.rec"

    def _scan(self, segment: int) -> None:
        """Find the records of a file, and where those of the last file end."""
        path = self._path(segment)
        end, length = 0, path.stat().st_size
        for offset, size, key in whole_records(path):
            self.damaged += offset > end
            end = offset + size
            # A key that was written twice counts as it was last.
            self._places[key] = _Place(segment, offset, size)
        self.damaged += end < length
        if segment == self._segment:
            self._end = end

    def _write_again(self, live: set[ClipKey]) -> DistillationError | None:
        """Write what there was no room for and is still live; return why that is not possible."""
        self._unwritten = {key: clip for key, clip in self._unwritten.items() if key in live}
        try:
            for (kind, key), clip in list(self._unwritten.items()):
                self.append(kind, key, clip)
        except DistillationError as error:
            return error
        return None

    def _write(self, key: ClipKey, record: bytes) -> None:
        try:
            file = self._open()
            offset = file.seek(0, os.SEEK_END)
            try:
                rest = memoryview(record)
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(offset)  # frees what a full disk needs
                raise
        except OSError as error:
            raise DistillationError(
                f"a clip cannot be written to {self._folder} ({error}); those before it are "
                "whole. Make room; learning goes on meanwhile",
                path=str(self._folder),
            ) from error
        self._places[key] = _Place(self._segment, offset, len(record))

    def _open(self) -> io.FileIO:
        """Return the file to append to. Unbuffered: a failed write must not come back later.

        What is no record at its end is cut off now, and not when it is found: it may be whole to
        another version, whose state `load` refuses.
        """
        if self._file is not None and self._file.tell() >= self._segment_bytes:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            self._segment, self._end = self._segment + 1, 0
        if self._file is None:
            self._file = io.FileIO(self._path(self._segment), "ab")
            self._file.truncate(self._end)
        return self._file

    def _record(self, place: _Place) -> bytes:
        with self._path(place.segment).open("rb") as file:
            file.seek(place.offset)
            return file.read(place.size)

    def _give_up(self, live: set[ClipKey]) -> None:
        """Remove files of which less than half is live, after their live records were copied."""
        for key in self._places.keys() - live:
            del self._places[key]
        for segment in self._segments():
            path = self._path(segment)
            kept = {key: place for key, place in self._places.items() if place.segment == segment}
            size = sum(place.size for place in kept.values())
            if segment == self._segment or 2 * size >= path.stat().st_size:
                continue
            for key, place in kept.items():
                self._write(key, self._record(place))
            if self._file is not None:
                os.fsync(self._file.fileno())
            path.unlink()


def _read_state(path: Path) -> dict[str, Any] | None:
    """Return what `save` wrote; None where it is missing or not whole."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DistillationError(
            f"{path} cannot be read ({error}); mend that, or name another folder", path=str(path)
        ) from error
    begin = len(STATE_MAGIC)
    magic, digest, payload = data[:begin], data[begin : begin + 32], data[begin + 32 :]
    if not magic.startswith(FORMAT) or hashlib.sha256(payload).digest() != digest:
        return None
    # From here on its bits are those that were written: what does not fit is no damage.
    if magic != STATE_MAGIC:
        raise _of_another_version(path, f"format {magic!r}, not {STATE_MAGIC!r}")
    try:
        # Without the device that it was saved from as well.
        content: dict[str, Any] = torch.load(
            io.BytesIO(payload), map_location="cpu", weights_only=True
        )
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise _of_another_version(path, str(error)[:100]) from error
    return content


def _of_another_version(path: Path, why: str) -> DistillationError:
    return DistillationError(
        f"{path} was written by another version of dae_ros ({why}); move the folder away to begin "
        "anew",
        path=str(path),
    )
