"""A whole file that the rosbags library reads: a `.bag` or an `.mcap`."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Literal

import apsw
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag1,
    ConnectionExtRosbag2,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag1 import ReaderError as ReaderError1
from rosbags.rosbag2 import ReaderError as ReaderError2
from rosbags.rosbag2.storage_mcap import McapReader

from dae_ros.bags.compression import DECOMPRESSION_ERRORS, plain_message
from dae_ros.bags.container import RecordedMessage, TopicInfo
from dae_ros.bags.reordering import Reordering
from dae_ros.errors import RecordingError

# What the rosbags library lets through for damaged bytes, beside its own errors.
DAMAGE = (
    ReaderError1,
    ReaderError2,
    apsw.Error,
    struct.error,
    AssertionError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    TypeError,
    ValueError,
    *DECOMPRESSION_ERRORS,
)

_NO_LIMIT = QosTime(2147483647, 4294967295)
# A latched ROS 1 topic keeps its last message for late subscribers.
LATCHED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=1,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.TRANSIENT_LOCAL,
    deadline=_NO_LIMIT,
    lifespan=_NO_LIMIT,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=_NO_LIMIT,
    avoid_ros_namespace_conventions=False,
)


def _qos(connection: Connection) -> tuple[Qos, ...]:
    if isinstance(connection.ext, ConnectionExtRosbag2):
        return tuple(connection.ext.offered_qos_profiles)
    if isinstance(connection.ext, ConnectionExtRosbag1) and connection.ext.latching:
        return (LATCHED,)
    return ()


class RosbagsFile:
    """A `.bag` or an `.mcap`.

    Args:
        path: what `reader` reads, for messages.
        reader: of the rosbags library, opened. What a file says of itself is believed, never what
            a metadata.yaml says of it.
        serialization: of its messages.
    """

    def __init__(
        self, path: Path, reader: Reader1 | McapReader, serialization: Literal["cdr", "ros1"]
    ) -> None:
        self.path = path
        self._reader = reader
        self._serialization: Literal["cdr", "ros1"] = serialization
        self.topics: dict[str, TopicInfo] = {}
        for connection in reader.connections:
            known = self.topics.get(connection.topic)
            count = connection.msgcount + (known.count or 0 if known else 0)
            self.topics[connection.topic] = TopicInfo(
                connection.msgtype, count, connection.msgdef, _qos(connection)
            )
        extent = reader.metadata if isinstance(reader, McapReader) else reader
        empty = extent.message_count == 0
        self.start_ns = None if empty else extent.start_time
        # The library's end is one past the last message.
        self.end_ns = None if empty else extent.end_time - 1

    def messages(self, topics: Set[str], start_ns: int | None) -> Iterator[RecordedMessage]:
        """See `Container.messages`."""
        chosen = [item for item in self._reader.connections if item.topic in topics]
        if not chosen:
            return
        delivered = 0
        try:
            for connection, time_ns, data in self._read(chosen, start_ns):
                yield RecordedMessage(
                    connection.topic,
                    connection.msgtype,
                    time_ns,
                    data if self._serialization == "ros1" else plain_message(data),
                    self._serialization,
                )
                delivered += 1
        except DAMAGE as error:
            raise RecordingError(
                f"{self.path} is damaged after {delivered} messages ({error}); what came before "
                f"was read. Copy the recording again, or repair it",
                path=str(self.path),
                messages=delivered,
            ) from error
        # An overwritten record may end a chunk early without a word from the library.
        expected = sum(item.msgcount for item in chosen)
        if start_ns is None and delivered < expected:
            raise RecordingError(
                f"{self.path} is damaged: only {delivered} of {expected} messages could be read. "
                f"Copy the recording again, or repair it",
                path=str(self.path),
                messages=delivered,
            )

    def _read(
        self, chosen: list[Connection], start_ns: int | None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        reader = self._reader
        if not isinstance(reader, McapReader) or reader.chunks:
            yield from reader.messages(chosen, start=start_ns)
            return
        # Without an index, the library gives up at the first message that is out of order.
        order: Reordering[tuple[Connection, int, bytes]] = Reordering(lambda message: message[1])
        try:
            for message in reader.messages_scan(chosen, start_ns):
                yield from order.push(message)
        except DAMAGE:
            yield from order.rest()
            raise
        yield from order.rest()

    def close(self) -> None:
        """See `Container.close`."""
        self._reader.close()
