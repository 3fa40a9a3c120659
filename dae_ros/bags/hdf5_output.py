"""An HDF5 file to write that survives a full disk: the library itself ends the process then.

HDF5 2.0 (h5py 3.16) ends with a segmentation fault when a file is closed after a write that
failed. So it writes through a file of ours that never fails: the first error is kept, what
comes after stays in memory, and whoever writes asks for the error.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any


class Hdf5Output:
    """One file.

    Args:
        path: replaced.

    Attributes:
        file: the h5py file; ask `check` after what was written.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        self._target = _UnfailingFile(path)
        self.file: Any = h5py.File(self._target, "w")

    def check(self) -> None:
        """Raise what the system said, if it refused anything.

        Raises:
            OSError: a write failed.
        """
        if self._target.error is not None:
            raise self._target.error

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: a write failed, now or before.
        """
        self.file.close()
        self._target.close()
        self.check()


class _UnfailingFile(io.RawIOBase):
    """What h5py needs of a file; from the first error on, writes are kept in memory."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None
        self._kept: list[tuple[int, bytes]] = []
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            ends = [place + len(data) for place, data in self._kept]
            offset += max([self._file.seek(0, io.SEEK_END), *ends])
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < len(view):
            try:
                self._file.seek(self._at + done)
                done += self._file.write(view[done:])
            except OSError as error:
                self.error = error
        if done < len(view):
            self._kept.append((self._at + done, bytes(view[done:])))
        self._at += len(view)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._at)
        found = self._file.read(len(view)) or b""
        view[: len(found)] = found
        for place, data in self._kept:
            first, last = max(place, self._at), min(place + len(data), self._at + len(view))
            if first < last:
                view[first - self._at : last - self._at] = data[first - place : last - place]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        if self.error is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self.error = error
        return size

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()
