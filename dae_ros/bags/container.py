"""What every container of a recording offers, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Qos

UNDEFINED = MessageDefinition(MessageDefinitionFormat.NONE, "")


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """What is known of a topic before its messages are read.

    Attributes:
        type: `package/msg/Name`.
        count: messages in the recording, None where only reading it would tell.
        definition: the type's definition as the recording carries it.
        qos: offered profiles, empty where the recording has none.
    """

    type: str
    count: int | None
    definition: MessageDefinition = UNDEFINED
    qos: tuple[Qos, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """One serialized message.

    Attributes:
        topic: recorded name.
        type: `package/msg/Name`.
        time_ns: when it was recorded, in ns since the epoch or since the camera's start.
        data: the message, serialized.
        serialization: `cdr` (ROS 2) or `ros1`.
        exposure_ns: of a camera frame, where the container knows it; 0 otherwise.
    """

    topic: str
    type: str
    time_ns: int
    data: bytes | memoryview
    serialization: Literal["cdr", "ros1"] = "cdr"
    exposure_ns: int = 0


class Container(Protocol):
    """One file, or one folder that is read as one."""

    @property
    def path(self) -> Path:
        """The file or folder."""

    @property
    def topics(self) -> Mapping[str, TopicInfo]:
        """Name -> what is known of the topic."""

    @property
    def start_ns(self) -> int | None:
        """Record time of the first message, None where only reading would tell."""

    @property
    def end_ns(self) -> int | None:
        """Record time of the last message, None where only reading would tell."""

    def messages(self, topics: Set[str], start_ns: int | None) -> Iterator[RecordedMessage]:
        """Yield the messages of some topics in the order of their record times.

        Args:
            topics: names to read.
            start_ns: skip what was recorded before, None for nothing.

        Raises:
            RecordingError: the file is damaged; everything readable has been yielded by then.
        """

    def close(self) -> None:
        """Let go of the file."""
