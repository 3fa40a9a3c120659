"""A scan of cut SQLite storage files; whole files go through the rosbags library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import apsw

from dae_ros.bags.container import UNDEFINED
from dae_ros.bags.salvage import Cut, Salvaged

MAGIC = b"SQLite format 3\x00"


def is_truncated(path: Path) -> bool:
    """Return whether the file is shorter than its header says.

    Source: https://www.sqlite.org/fileformat.html, section 1.3 (page size at byte 16, size in
    pages at byte 28, valid where the counters at bytes 24 and 92 agree).
    """
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or header[24:28] != header[92:96]:
        return len(header) < 100
    pages = int.from_bytes(header[28:32], "big")
    return path.stat().st_size < pages * _page_size(path)


def scan_sqlite3(path: Path) -> Iterator[Salvaged]:
    """Read the messages in the order in which they were written, as far as they are there.

    The time index is not used: its pages may lie behind the cut while the messages do not.

    Raises:
        Cut: where the readable part ends.
    """
    count = 0
    try:
        with closing(_open(path)) as database:
            topics = {
                number: (name, kind)
                for number, name, kind in cast(
                    "Iterator[tuple[int, str, str]]",
                    database.execute("SELECT id, name, type FROM topics"),
                )
            }
            rows = cast(
                "Iterator[tuple[int, int, bytes]]",
                database.execute(
                    "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"
                ),
            )
            for number, time_ns, data in rows:
                topic, kind = topics[number]
                yield Salvaged(topic, kind, UNDEFINED, time_ns, data)
                count += 1
    except (apsw.Error, KeyError) as error:
        raise Cut(
            f"the database ends at byte {path.stat().st_size}, after {count} messages ({error})"
        ) from error
    if is_truncated(path):
        raise Cut(f"the database ends at byte {path.stat().st_size}, before its last pages")


def _open(path: Path) -> apsw.Connection:
    """Open a cut database for reading what is left of it."""
    vfs = _WholePages(_page_size(path))
    # Immutable: no lock and no journal beside a file that may lie on a read-only disk.
    database = apsw.Connection(
        f"{path.resolve().as_uri()}?immutable=1",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        vfs=vfs.name,
    )
    # Otherwise SQLite refuses a file that is shorter than its header says.
    database.execute("PRAGMA writable_schema = ON")
    return database


def _page_size(path: Path) -> int:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(18)[16:18], "big")
    return 65536 if size == 1 else max(size, 512)


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
