"""rosbag2 databases as a recorder that was killed leaves them, by Python's own sqlite3."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

from dae_ros.events.cdr import write_packet
from dae_ros.events.packet import EventPacket

START_NS = 1_700_000_000_000_000_000
STEP_NS = 10_000_000
TYPE = "event_camera_msgs/msg/EventPacket"


def message(number: int) -> bytes:
    """The message with this number: 3000 bytes that tell it from the others."""
    payload = bytes([number]) * 3000
    return write_packet(EventPacket("mono", 4, 4, payload, 0, number, number))


def write_database(
    path: Path, journal_mode: str, commits: list[list[int]], checkpoint: int
) -> None:
    """Copy a database with its logs while the recorder runs.

    Args:
        path: the database; `-wal` or `-journal` lies beside it.
        journal_mode: wal or delete.
        commits: numbers of the messages of each transaction; the last one is not committed where
            the mode is delete.
        checkpoint: so many transactions are moved from the log into the database.
    """
    live = path.with_name("recording") / path.name
    live.parent.mkdir()
    with contextlib.closing(sqlite3.connect(live, isolation_level=None)) as database:
        database.execute(f"PRAGMA journal_mode = {journal_mode}")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        # So small that a transaction reaches the file before it is committed.
        database.execute("PRAGMA cache_size = 2")
        # The tables of the first years: without QoS and definitions.
        database.execute(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
            "serialization_format TEXT NOT NULL)"
        )
        database.execute(
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, "
            "timestamp INTEGER NOT NULL, data BLOB NOT NULL)"
        )
        database.execute("CREATE INDEX timestamp_idx ON messages (timestamp ASC)")
        database.execute("INSERT INTO topics VALUES (1, '/events', ?, 'cdr')", (TYPE,))
        for index, numbers in enumerate(commits):
            if index == checkpoint:
                # The log is begun anew; its end keeps what was in it before.
                database.execute("PRAGMA wal_checkpoint(RESTART)")
            database.execute("BEGIN")
            for number in numbers:
                row = (START_NS + number * STEP_NS, message(number))
                database.execute("INSERT INTO messages VALUES (NULL, 1, ?, ?)", row)
            if journal_mode == "delete" and index == len(commits) - 1:
                break
            database.execute("COMMIT")
        for file in live.parent.glob(f"{path.name}*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, path.parent)
        if database.in_transaction:
            database.execute("ROLLBACK")
    shutil.rmtree(live.parent)
