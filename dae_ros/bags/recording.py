"""Recordings of any format behind one face: topics, messages in time order, typed values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from dae_ros.bags import aedat4, rosbag1, rosbag2_mcap, rosbag2_sqlite3
from dae_ros.bags.compression import ZSTD_MAGIC
from dae_ros.bags.container import Container, RecordedMessage, TopicInfo
from dae_ros.bags.datasets import hdf5
from dae_ros.bags.datasets.dsec import RAW, RECTIFIED, DsecSequence
from dae_ros.bags.datasets.eventscape import EventScapeSequence
from dae_ros.bags.datasets.layouts import is_sequence_folder, open_sequence_folder
from dae_ros.bags.datasets.mvsec_hdf5 import MvsecHdf5File
from dae_ros.bags.event_arrays import event_array_to_cdr
from dae_ros.bags.merging import merge_messages, merge_topics
from dae_ros.bags.message_definitions import (
    add_type,
    described_types,
    inner_types,
    require_described,
)
from dae_ros.bags.message_types import SERIALIZATION_DAMAGE, create_typestore
from dae_ros.bags.messages import read_frame
from dae_ros.bags.prophesee_raw import PropheseeRawFile, is_raw
from dae_ros.bags.rosbag2 import is_rosbag2_folder, open_folder, open_storage_file
from dae_ros.bags.topics import choose_events_topic, choose_image_topic, require_topic
from dae_ros.errors import RecordingError
from dae_ros.events.cdr import event_types, read_packet, read_ros1_packet, write_packet
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket

# What a file of each format begins with.
_MAGIC: tuple[tuple[bytes, Callable[[Path], Container]], ...] = (
    (rosbag1.MAGIC, rosbag1.open_rosbag1),
    (rosbag2_mcap.MAGIC, open_storage_file),
    (rosbag2_sqlite3.MAGIC, open_storage_file),
    (ZSTD_MAGIC, open_storage_file),
    (aedat4.MAGIC, aedat4.Aedat4File),
)

# Whose files do not hold the size of the sensor, or not always. All others have it in each message.
_WITHOUT_SIZE = (PropheseeRawFile, MvsecHdf5File, DsecSequence, EventScapeSequence)
# How many recordings of a folder are named to somebody who named the folder.
_SHOWN = 8


def open_recording(
    path: Path | str | Sequence[Path | str], size: tuple[int, int] | None = None
) -> Recording:
    """Open a recording, or several as one, merged by record time.

    Args:
        path: a ROS 1 `.bag`, a rosbag2 folder or its `.mcap` or `.db3` file, an `.aedat4` or a
            Prophesee `.raw` file; MVSEC's `.hdf5` files; the folder of a sequence of DSEC or
            EventScape; or several of them. Files are told apart by what they begin with, folders
            by what is in them, not by their names.
        size: (height, width) of the sensor in px, for `.raw` files whose header lacks it or is
            wrong, and for data sets of another size than the published. Others have it in each
            message (`Recording.tells_size`) and do not need it.

    Raises:
        RecordingError: missing, of an unknown format, or nothing in it is readable. A recording
            that was cut opens; reading it ends with the error that says where.
        ConfigurationError: a package is missing that the format needs.
    """
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    containers: list[Container] = []
    for item in paths:
        containers += _open(Path(item), size)
    return Recording(containers, [Path(item) for item in paths])


def _open(path: Path, size: tuple[int, int] | None) -> list[Container]:
    if path.is_dir():
        sequence = open_sequence_folder(path, size)
        if sequence is not None:
            return [sequence]
        if not is_rosbag2_folder(path):
            raise _no_recording(path)
        return open_folder(path)
    try:
        start = _start_of(path)
    except OSError as error:
        raise RecordingError(
            f"there is no readable recording at {path}: {error.strerror}", path=str(path)
        ) from error
    for magic, opener in _MAGIC:
        if start.startswith(magic):
            return [opener(path)]
    if start.startswith(hdf5.MAGIC):
        return [MvsecHdf5File(path, size)]
    if is_raw(start):
        return [PropheseeRawFile(path, size)]
    what = "is empty" if not start else "is of no known format"
    raise RecordingError(
        f"{path} {what}; recordings are ROS 1 .bag, rosbag2 folders or their .mcap and .db3 "
        f"files, .aedat4 and Prophesee .raw",
        path=str(path),
    )


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(32)


def _no_recording(folder: Path) -> RecordingError:
    """Return what is wrong with a folder that is none itself: which recordings are in it."""
    found = [item.name for item in sorted(folder.iterdir()) if _is_recording(item)]
    shown = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" * (len(found) > _SHOWN))
    return RecordingError(
        f"{folder} is no recording"
        + (
            f", but holds recordings: name one of them ({shown})"
            if found
            else ": neither a rosbag2 folder nor a sequence of DSEC or EventScape, and no "
            "recording lies in it"
        ),
        path=str(folder),
        found=found,
    )


def _is_recording(path: Path) -> bool:
    """Whether something looks like a recording from its beginning."""
    try:
        if path.is_dir():
            return is_rosbag2_folder(path) or is_sequence_folder(path)
        start = _start_of(path) if path.is_file() else b""
    except OSError:
        return False
    known = (hdf5.MAGIC, *(magic for magic, _ in _MAGIC))
    # '%' begins files of many kinds.
    return start.startswith(known) or (path.suffix == ".raw" and is_raw(start))


class Recording:
    """One or several containers as one recording; close it, or use it as a context.

    Attributes:
        containers: what is read.
        paths: the files and folders that were opened.
        topics: name -> `TopicInfo`, over all containers.
        start_ns, end_ns: record times of the first and the last message, None where only reading
            would tell (`.aedat4`, `.raw`).
    """

    def __init__(self, containers: Sequence[Container], paths: Sequence[Path]) -> None:
        self.containers = tuple(containers)
        self.paths = tuple(paths)
        self.topics: Mapping[str, TopicInfo] = merge_topics(containers)
        starts = [item.start_ns for item in containers if item.start_ns is not None]
        ends = [item.end_ns for item in containers if item.end_ns is not None]
        self.start_ns = min(starts, default=None)
        self.end_ns = max(ends, default=None)
        self._types = create_typestore()
        self._checked: dict[str, str] = {}

    @property
    def name(self) -> str:
        """The paths, for messages."""
        return " + ".join(str(path) for path in self.paths)

    @property
    def tells_size(self) -> bool:
        """Whether each event message has the size of its sensor, so that none can be given."""
        return not any(isinstance(item, _WITHOUT_SIZE) for item in self.containers)

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int | None = None
    ) -> Iterator[RecordedMessage]:
        """Return messages in the order of their record times.

        Args:
            topics: names to read, None for all.
            start_ns: skip what was recorded before.

        Raises:
            RecordingError: at once for a topic that is not there; from the iterator, after
                everything readable has been yielded, for a file that was cut or is damaged.
        """
        for topic in topics or ():
            require_topic(self.topics, topic)
        chosen = frozenset(self.topics if topics is None else topics)
        return merge_messages(self.containers, chosen, start_ns)

    def to_cdr(self, message: RecordedMessage) -> bytes | memoryview:
        """Return a message in ROS 2 serialization.

        ROS 1 event messages are repacked without looking at the events, others by their types'
        definitions. `header.seq` is dropped, since ROS 2 has none.

        Raises:
            RecordingError: a type that is not known and not described in the recording, or that
                has other fields in ROS 2 than in ROS 1.
            MalformedPacket: a damaged event message.
        """
        if message.serialization == "cdr":
            return message.data
        if message.type in event_types():
            packet = read_ros1_packet(message.type, message.data)
            if packet.encoding == "event_array_ros1":
                return event_array_to_cdr(packet)
            return write_packet(packet)
        problem = self._checked.get(message.type)
        if problem is None:
            problem = self._check_type(message)
            self._checked[message.type] = problem
        if problem:
            raise RecordingError(problem, type=message.type, topic=message.topic)
        try:
            return self._types.ros1_to_cdr(message.data, message.type)
        except SERIALIZATION_DAMAGE as error:
            raise RecordingError(
                f"a message of {message.topic} ({message.type}) is damaged ({error})",
                topic=message.topic,
                type=message.type,
            ) from error

    def read_packet(self, message: RecordedMessage) -> EventPacket:
        """Return an event message as a packet; its payload is a view into the message.

        Raises:
            MalformedPacket: the message contradicts its layout.
        """
        read = read_packet if message.serialization == "cdr" else read_ros1_packet
        return read(message.type, message.data)

    def read_frame(self, message: RecordedMessage) -> Frame:
        """Return an image message as a grey camera frame.

        Raises:
            RecordingError: damaged, or of an encoding without a grey image.
        """
        return read_frame(self.to_cdr(message), message.exposure_ns)

    def event_packets(
        self, topic: str | None = None, start_ns: int | None = None
    ) -> Iterator[EventPacket]:
        """Yield the packets of an events topic, or of the one that `choose_events_topic` takes.

        Raises:
            RecordingError: no such topic; or, at the end, a cut or damaged file.
            MalformedPacket: a damaged message; to go on after it use `messages`.
        """
        topic = choose_events_topic(self.topics, topic)
        for message in self.messages([topic], start_ns):
            yield self.read_packet(message)

    def frames(self, topic: str | None = None, start_ns: int | None = None) -> Iterator[Frame]:
        """Yield the camera frames of an image topic, or of the one beside the events.

        Raises:
            RecordingError: no such topic, or none that could be meant; a damaged message; or, at
                the end, a cut or damaged file.
        """
        if topic is None:
            topic = choose_image_topic(self.topics, choose_events_topic(self.topics, None))
            if topic is None:
                raise RecordingError(
                    f"{self.name} has no camera images that belong to its events",
                    topics=sorted(self.topics),
                )
        for message in self.messages([topic], start_ns):
            yield self.read_frame(message)

    def rectifier(self, topic: str) -> tuple[str, DsecSequence] | None:
        """Return what an events topic is made of where its events were moved, and some dropped.

        Returns:
            The topic of the events as the sensor sent them, and what moves them; None for topics
            that are as they were recorded.
        """
        for item in self.containers:
            if isinstance(item, DsecSequence) and topic == f"{RECTIFIED}/events":
                return f"{RAW}/events", item
        return None

    def first(self, topic: str) -> RecordedMessage | None:
        """Return the first message of a topic, None where it has none."""
        for message in self.messages([topic]):
            return message
        return None

    def record_time_at(self, offset_s: float, topics: Collection[str]) -> int:
        """Return the record time in ns that lies `offset_s` after the beginning.

        The beginning is that of the recording, or, for a format that does not say when it began,
        the first message of `topics`; 0 where there is none.

        Raises:
            RecordingError: nothing of `topics` was recorded from that time on; says how long the
                recording is. A topic that is not there; a cut or damaged file.
        """
        begin_ns = self.start_ns
        if begin_ns is None:
            first = next(self.messages(topics), None)
            begin_ns = 0 if first is None else first.time_ns
        time_ns = begin_ns + round(offset_s * 1e9)
        if time_ns == begin_ns or next(self.messages(topics, time_ns), None) is not None:
            return time_ns
        last_ns = max((item.time_ns for item in self.messages(topics)), default=begin_ns)
        raise RecordingError(
            f"the start at {offset_s:g} s lies past the end: what {self.name} holds of "
            f"{', '.join(topics)} ends after {(last_ns - begin_ns) / 1e9:.3f} s; choose an "
            "earlier start",
            start_s=offset_s,
            length_s=(last_ns - begin_ns) / 1e9,
        )

    def close(self) -> None:
        """Close all containers."""
        for item in self.containers:
            item.close()

    def __enter__(self) -> Recording:
        """Return the recording."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _check_type(self, message: RecordedMessage) -> str:
        """Make a ROS 1 type known; return why its messages cannot be converted, or nothing."""
        definition = self.topics[message.topic].definition
        old = get_typestore(Stores.ROS1_NOETIC)
        try:
            described = described_types(message.type, definition)
            old.fielddefs.update(described)
            require_described(old.fielddefs, message.type)
            add_type(self._types, message.type, described)
        except RecordingError as error:
            return error.message
        if not _same_fields(old, self._types, message.type):
            return (
                f"{message.type} has other fields in ROS 2 than in ROS 1; its messages cannot "
                f"be converted"
            )
        return ""


def _same_fields(old: Typestore, new: Typestore, name: str) -> bool:
    """Return whether a type's messages differ in nothing but alignment and header.seq."""
    if name == "std_msgs/msg/Header":
        return True
    before = [kind for _, kind in old.fielddefs[name][1]]
    if before != [kind for _, kind in new.fielddefs[name][1]]:
        return False
    return all(
        _same_fields(old, new, inner) for inner in inner_types(before) if inner in new.fielddefs
    )
