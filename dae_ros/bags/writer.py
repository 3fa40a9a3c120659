"""Write rosbag2 recordings without ROS: whole or not at all, the same bytes every time."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from rosbags.interfaces import Connection, MessageDefinition, Qos
from rosbags.rosbag2 import StoragePlugin, Writer

from dae_ros.bags.message_definitions import add_type, described_types
from dae_ros.bags.message_types import create_typestore
from dae_ros.bags.replacing import give_name, require_free
from dae_ros.errors import DaeError, RecordingError, reason_of

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
# The newest metadata that Humble, Jazzy and Kilted all read.
_METADATA_VERSION: Literal[8] = 8
# What a disk that is full looks like, to either storage.
_DISK_ERRORS = (OSError, sqlite3.Error)


class BagWriter:
    """A rosbag2 folder being written.

    It grows as `<name>.partial` beside its final place and gets its name when it is closed, so
    that a folder of that name is always whole: after a write that failed it never gets it. The
    content depends on nothing but the messages.

    Args:
        path: the folder.
        storage: `mcap` or `sqlite3`.
        replace: whether a folder of that name may exist; it is removed by `close`.

    Raises:
        RecordingError: the folder exists, or cannot be created, or cannot hold a database.
    """

    def __init__(self, path: Path | str, storage: str = "mcap", *, replace: bool = False) -> None:
        self.path = Path(path)
        if storage not in STORAGES:
            raise RecordingError(
                f"there is no storage '{storage}'; choose one of {', '.join(STORAGES)}",
                storage=storage,
            )
        if storage == "sqlite3" and re.search("[?#%]", str(path)):
            # The library gives it to SQLite as an address, which would write somewhere else.
            raise RecordingError(
                f"SQLite writes to no path with ?, # or % in it, as {path}; choose another, or the "
                f"storage mcap",
                path=str(path),
            )
        # The storage file takes the name of its folder, which must therefore be the final one.
        (self._partial,) = require_free((self.path,), replace)
        self._storage = storage
        self._failure: RecordingError | None = None
        self._types = create_typestore()
        self._connections: dict[str, tuple[str, Connection]] = {}
        self._writer: Writer | None = Writer(
            self._partial / self.path.name,
            version=_METADATA_VERSION,
            storage_plugin=STORAGES[storage],
        )
        with self._on_disk():
            self._writer.open()

    def add_topic(
        self,
        topic: str,
        type_name: str,
        definition: MessageDefinition | None = None,
        qos: Sequence[Qos] = (),
    ) -> None:
        """Announce a topic; only needed for types that are not known, and for QoS.

        Args:
            topic: name.
            type_name: `package/msg/Name`.
            definition: of a type that is neither standard nor an event message.
            qos: offered profiles to record; none means reliable, volatile.

        Raises:
            RecordingError: the type is unknown and no usable definition is given, or the topic
                has another type already.
        """
        if self._writer is None:
            raise RecordingError(f"{self.path} is closed", path=str(self.path))
        known = self._connections.get(topic)
        if known is not None:
            if known[0] != type_name:
                raise RecordingError(
                    f"{topic} has the type {known[0]} and cannot also have {type_name}",
                    topic=topic,
                    type=type_name,
                )
            return
        if type_name not in self._types.fielddefs:
            add_type(self._types, type_name, described_types(type_name, definition))
        with self._on_disk():
            connection = self._writer.add_connection(
                topic, type_name, typestore=self._types, offered_qos_profiles=qos
            )
        self._connections[topic] = (type_name, connection)

    def write(self, topic: str, type_name: str, time_ns: int, cdr: bytes | memoryview) -> None:
        """Append a message.

        Args:
            topic: name; announced by its first message.
            type_name: `package/msg/Name`.
            time_ns: record time.
            cdr: the serialized message.

        Raises:
            RecordingError: see `add_topic`; or the disk is full.
        """
        known = self._connections.get(topic)
        if known is None or known[0] != type_name:
            self.add_topic(topic, type_name)
            known = self._connections[topic]
        if self._writer is None:
            raise RecordingError(f"{self.path} is closed", path=str(self.path))
        with self._on_disk():
            self._writer.write(known[1], time_ns, cdr)

    def close(self) -> None:
        """Finish the folder and give it its name; a second call does nothing.

        Raises:
            RecordingError: the disk is full, or was at an earlier write; the folder keeps its
                `.partial`.
        """
        if self._failure is not None and self._writer is not None:
            self.abandon()
            raise self._failure
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with self._on_disk():
            _finish(writer)
            give_name(self._partial / self.path.name, self.path)
            self._partial.rmdir()

    def abandon(self) -> None:
        """Stop after an error: what was written keeps its `.partial`."""
        writer, self._writer = self._writer, None
        if writer is not None:
            # What is told is the error that came first.
            with contextlib.suppress(*_DISK_ERRORS):
                _finish(writer)

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except _DISK_ERRORS as error:
            reason = reason_of(error) if isinstance(error, OSError) else str(error)
            left = (
                f"SQLite took back what it had written; make room, remove {self._partial}"
                if self._storage == "sqlite3"
                else f"What fitted is in {self._partial}; make room, remove it"
            )
            self._failure = RecordingError(
                f"{self.path} cannot be written: {reason}. {left} and run again",
                path=str(self.path),
                partial=str(self._partial),
            )
            raise self._failure from error
        except KeyboardInterrupt:
            # Half a record may be in the file: what comes after it cannot be read.
            self._failure = RecordingError(
                f"the writing of {self.path} was interrupted; remove {self._partial} and run again",
                path=str(self.path),
                partial=str(self._partial),
            )
            raise

    def __enter__(self) -> BagWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, also after Ctrl-C or a failure that is told: what was written before is whole.

        Where the program is at fault, or a write has failed or was interrupted, abandon.
        """
        told = error is None or isinstance(error, (DaeError, KeyboardInterrupt))
        if told and (error is None or self._failure is None):
            self.close()
        else:
            self.abandon()


def _finish(writer: Writer) -> None:
    """Write the end of a storage file, and close it also where that fails."""
    try:
        writer.close()
    except _DISK_ERRORS:
        # What is left in MCAP's buffer does not fit either.
        with contextlib.suppress(*_DISK_ERRORS):
            writer.abort()
        raise
