"""A scan of cut SQLite storage files; whole files go through the rosbags library."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

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
    page_size = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    return path.stat().st_size < pages * (65536 if page_size == 1 else page_size)


def scan_sqlite3(path: Path) -> Iterator[Salvaged]:
    """Read the messages in the order in which they were written, as far as they are there.

    The time index is not used: its pages may lie behind the cut while the messages do not.

    Raises:
        Cut: where the readable part ends.
    """
    count = 0
    # Immutable: no lock and no journal beside a file that may lie on a read-only disk.
    uri = f"{path.resolve().as_uri()}?immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        try:
            topics = {
                number: (name, kind)
                for number, name, kind in database.execute("SELECT id, name, type FROM topics")
            }
            rows = database.execute(
                "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id")
            for number, time_ns, data in rows:
                topic, kind = topics[number]
                yield Salvaged(topic, kind, UNDEFINED, time_ns, data)
                count += 1
        except (sqlite3.Error, KeyError) as error:
            raise Cut(
                f"the database ends at byte {path.stat().st_size}, after {count} messages "
                f"({error})") from error
    if is_truncated(path):
        raise Cut(f"the database ends at byte {path.stat().st_size}, before its last pages")
