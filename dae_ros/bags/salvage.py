"""Recordings that were cut: everything before the cut, then where it was.

A recorder that was killed, or a copy that was interrupted, leaves a file without its index. A
`scan` reads such a file from the front, without the index, and raises `Cut` where it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from rosbags.interfaces import MessageDefinition

from dae_ros.bags.compression import plain_message
from dae_ros.bags.container import RecordedMessage, TopicInfo
from dae_ros.bags.reordering import Reordering
from dae_ros.errors import RecordingError


class Salvaged(NamedTuple):
    """One message found by a scan; `time_ns` is its record time."""

    topic: str
    type: str
    definition: MessageDefinition
    time_ns: int
    data: bytes


class Cut(Exception):
    """The readable part of a file ends here; the text says where and why."""


Scan: TypeAlias = Callable[[Path], Iterator[Salvaged]]


class SalvagedFile:
    """A cut file; `messages` yields what is left and then raises `RecordingError`.

    Args:
        path: the file.
        scan: reads its format from the front.
        serialization: of its messages.

    Raises:
        RecordingError: nothing of the file is readable.
    """

    def __init__(self, path: Path, scan: Scan, serialization: Literal["cdr", "ros1"]) -> None:
        self.path = path
        self._scan = scan
        self._serialization: Literal["cdr", "ros1"] = serialization
        self.topics: dict[str, TopicInfo] = {}
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self.damage = self._survey()
        if not self.topics:
            raise RecordingError(f"{path} holds nothing readable: {self.damage}", path=str(path))

    def _survey(self) -> str:
        counts: dict[str, int] = {}
        first: dict[str, Salvaged] = {}
        damage = "its end is missing"
        try:
            for message in self._scan(self.path):
                counts[message.topic] = counts.get(message.topic, 0) + 1
                first.setdefault(message.topic, message)
                if self.start_ns is None or message.time_ns < self.start_ns:
                    self.start_ns = message.time_ns
                if self.end_ns is None or message.time_ns > self.end_ns:
                    self.end_ns = message.time_ns
        except Cut as cut:
            damage = str(cut)
        for topic, message in first.items():
            self.topics[topic] = TopicInfo(message.type, counts[topic], message.definition)
        return damage

    def messages(self, topics: Set[str], start_ns: int | None) -> Iterator[RecordedMessage]:
        """See `Container.messages`; always ends with the error that says where the cut is."""
        cause: Cut | None = None
        order: Reordering[Salvaged] = Reordering(lambda message: message.time_ns)
        try:
            for message in self._scan(self.path):
                if message.topic in topics and (start_ns is None or message.time_ns >= start_ns):
                    yield from map(self._recorded, order.push(message))
        except Cut as cut:
            cause = cut
        yield from map(self._recorded, order.rest())
        total = sum(info.count or 0 for info in self.topics.values())
        raise RecordingError(
            f"{self.path} was cut: {self.damage}. All {total} messages before the cut were read",
            path=str(self.path),
            messages=total,
        ) from cause

    def _recorded(self, message: Salvaged) -> RecordedMessage:
        return RecordedMessage(
            message.topic,
            message.type,
            message.time_ns,
            plain_message(message.data),
            self._serialization,
        )

    def close(self) -> None:
        """See `Container.close`; the file is open only while it is read."""
