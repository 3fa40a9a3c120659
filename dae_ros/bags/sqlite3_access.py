"""Databases opened for reading alone: nothing beside them is written, made or removed.

Whole, with the messages that are still in a write-ahead log, or cut.
Source of the layouts: https://www.sqlite.org/fileformat.html.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from dae_ros.bags.sqlite3_log import unread_of_log

_FLAGS = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI


def open_database(path: Path) -> apsw.Connection:
    """Open a whole database together with what its write-ahead log holds.

    Raises:
        apsw.Error: it is no database.
    """
    if not _first_byte(log_of(path)):
        # Immutable: no lock and no log beside a file that may lie on a read-only disk.
        return apsw.Connection(f"{path.resolve().as_uri()}?immutable=1", flags=_FLAGS)
    vfs = _ReadOnly()
    database = apsw.Connection(path.resolve().as_uri(), flags=_FLAGS, vfs=vfs.name)
    # The index of the log is then kept in memory instead of in a file beside it.
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    return database


def open_cut_database(path: Path) -> apsw.Connection:
    """Open a database whose end is missing.

    Raises:
        apsw.Error: there is too little of it.
    """
    vfs = _WholePages(page_size_of(path))
    database = apsw.Connection(f"{path.resolve().as_uri()}?immutable=1", flags=_FLAGS, vfs=vfs.name)
    # Otherwise SQLite refuses a file that is shorter than its header says.
    database.execute("PRAGMA writable_schema = ON")
    return database


def is_truncated(path: Path) -> bool:
    """Return whether the file is shorter than its header says.

    Page size at byte 16, size in pages at byte 28, valid where the counters at bytes 24 and 92
    agree (section 1.3).
    """
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or header[24:28] != header[92:96]:
        return len(header) < 100
    pages = int.from_bytes(header[28:32], "big")
    return path.stat().st_size < pages * page_size_of(path)


def page_size_of(path: Path) -> int:
    """Return the size of the pages in bytes."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(18)[16:18], "big")
    return 65536 if size == 1 else max(size, 512)


def log_of(path: Path) -> Path:
    """Return where the write-ahead log of a database would lie."""
    return path.with_name(f"{path.name}-wal")


def unread_beside(path: Path) -> str:
    """Return what lies beside a database and is not read with it, nothing where all is read."""
    journal = path.with_name(f"{path.name}-journal")
    # A journal that was finished is empty, or begins with zeros.
    if _first_byte(journal) not in (b"", b"\0"):
        return (
            f"{journal} is of a transaction that was never finished, so that {path.name} may be "
            f"half changed; copy both files and open the copy with sqlite3, which undoes it"
        )
    log = log_of(path)
    return unread_of_log(log) if _first_byte(log) else ""


def _first_byte(path: Path) -> bytes:
    """Return the first byte of a file, nothing where it is empty or there is none."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(1)


class _ReadOnly(apsw.VFS):
    """No file is opened for writing, made, locked or removed, not even a log."""

    def __init__(self) -> None:
        self.name = "dae_ros_read_only"
        super().__init__(self.name, "unix-none")

    def xOpen(  # noqa: N802 - the name is SQLite's
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        # What has no name is SQLite's own and temporary.
        if name is not None:
            writing = (
                apsw.SQLITE_OPEN_READWRITE
                | apsw.SQLITE_OPEN_CREATE
                | apsw.SQLITE_OPEN_DELETEONCLOSE
            )
            flags[0] = flags[0] & ~writing | apsw.SQLITE_OPEN_READONLY
        return apsw.VFSFile("unix-none", name, flags)

    def xDelete(self, name: str, sync_directory: bool) -> None:  # noqa: N802
        """Remove nothing: a log would be, once it has been read to its end."""


class _WholePages(apsw.VFS):
    """Files end with their last whole page: SQLite would fill up a partial one with zeros."""

    def __init__(self, page_size: int) -> None:
        self.name = f"dae_ros_whole_pages_{page_size}"
        self._page_size = page_size
        super().__init__(self.name, "")

    def xOpen(  # noqa: N802 - the name is SQLite's
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        return _WholePagesFile(name, flags, self._page_size)


class _WholePagesFile(apsw.VFSFile):
    def __init__(
        self, name: str | apsw.URIFilename | None, flags: list[int], page_size: int
    ) -> None:
        super().__init__("", name, flags)
        self._page_size = page_size

    def xFileSize(self) -> int:  # noqa: N802 - the name is SQLite's
        size = super().xFileSize()
        return size - size % self._page_size
