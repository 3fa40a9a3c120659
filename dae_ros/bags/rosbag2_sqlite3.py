"""SQLite storage files of rosbag2: whole ones in order of time, cut ones by a scan."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import closing
from pathlib import Path
from typing import cast

import apsw
from rosbags.interfaces import MessageDefinition
from rosbags.rosbag2.metadata import parse_qos

from dae_ros.bags.compression import plain_message
from dae_ros.bags.container import UNDEFINED, RecordedMessage, TopicInfo
from dae_ros.bags.message_definitions import rosbag2_definition
from dae_ros.bags.salvage import Cut, Salvaged
from dae_ros.bags.sqlite3_access import (
    is_truncated,
    log_of,
    open_cut_database,
    open_database,
    unread_beside,
)
from dae_ros.errors import RecordingError

MAGIC = b"SQLite format 3\x00"
# Two queries, each of which is one look at the index; one of both would read all of it.
_EXTENT = "SELECT (SELECT min(timestamp) FROM messages), (SELECT max(timestamp) FROM messages)"


class Sqlite3File:
    """A `.db3` file with the messages of its write-ahead log.

    Raises:
        apsw.Error, KeyError: it is no rosbag2, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[str, TopicInfo] = {}
        self._numbers: dict[int, tuple[str, str]] = {}
        self._counts: dict[int, int] = {}
        self._database = open_database(path)
        try:
            self._read_topics()
            self._unread = unread_beside(path)
        except BaseException:
            self._database.close()
            raise

    def _read_topics(self) -> None:
        self._counts = dict(
            cast(
                "Iterator[tuple[int, int]]",
                self._database.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"),
            )
        )
        self.start_ns, self.end_ns = cast(
            "tuple[int | None, int | None]",
            self._database.execute(_EXTENT).fetchone(),
        )
        definitions = self._definitions()
        # Bags of the first years have neither QoS nor definitions.
        qos = "offered_qos_profiles" if "offered_qos_profiles" in self._columns("topics") else "''"
        rows = cast(
            "Iterator[tuple[int, str, str, str]]",
            self._database.execute(f"SELECT id, name, type, {qos} FROM topics ORDER BY id"),
        )
        for number, name, kind, profiles in rows:
            known = self.topics.get(name)
            self._numbers[number] = (name, kind)
            self.topics[name] = TopicInfo(
                kind,
                self._counts.get(number, 0) + (known.count or 0 if known else 0),
                definitions.get(kind, UNDEFINED),
                tuple(parse_qos(profiles)),
            )

    def _definitions(self) -> dict[str, MessageDefinition]:
        if not self._columns("message_definitions"):
            return {}
        rows = cast(
            "Iterator[tuple[str, str, str]]",
            self._database.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            ),
        )
        return {kind: rosbag2_definition(encoding, text) for kind, encoding, text in rows}

    def _columns(self, table: str) -> list[str]:
        rows = self._database.execute(f"PRAGMA table_info({table})")
        return [str(row[1]) for row in rows]

    def messages(self, topics: Set[str], start_ns: int | None) -> Iterator[RecordedMessage]:
        """See `Container.messages`."""
        chosen = [number for number, (topic, _) in self._numbers.items() if topic in topics]
        delivered = 0
        try:
            rows = self._database.execute(
                f"SELECT topic_id, timestamp, data FROM messages "
                f"WHERE topic_id IN ({','.join('?' * len(chosen))}) AND timestamp >= ? "
                f"ORDER BY timestamp, id",
                (*chosen, -(2**63) if start_ns is None else start_ns),
            )
            for number, time_ns, data in cast("Iterator[tuple[int, int, bytes]]", rows):
                topic, kind = self._numbers[number]
                yield RecordedMessage(topic, kind, time_ns, plain_message(data))
                delivered += 1
        except apsw.Error as error:
            raise RecordingError(
                f"{self.path} is damaged after {delivered} messages ({error}); what came before "
                f"was read. Copy the recording again, or repair it",
                path=str(self.path),
                messages=delivered,
            ) from error
        expected = sum(self._counts.get(number, 0) for number in chosen)
        if start_ns is None and delivered < expected:
            raise RecordingError(
                f"{self.path} is damaged: only {delivered} of {expected} messages could be read. "
                f"Copy the recording again, or repair it",
                path=str(self.path),
                messages=delivered,
            )
        if self._unread:
            raise RecordingError(
                f"{self._unread}. All else of {self.path} was read",
                path=str(self.path),
                messages=delivered,
            )

    def close(self) -> None:
        """See `Container.close`."""
        self._database.close()


def scan_sqlite3(path: Path) -> Iterator[Salvaged]:
    """Read the messages in the order in which they were written, as far as they are there.

    The time index is not used: its pages may lie behind the cut while the messages do not.

    Raises:
        Cut: where the readable part ends.
    """
    count = 0
    log = log_of(path)
    unread = f"; {log} could not be read with it" if log.is_file() and log.stat().st_size else ""
    try:
        with closing(open_cut_database(path)) as database:
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
            f"the database ends at byte {path.stat().st_size}, after {count} messages "
            f"({error}){unread}"
        ) from error
    if is_truncated(path):
        raise Cut(f"the database ends at byte {path.stat().st_size}, before its last pages{unread}")
