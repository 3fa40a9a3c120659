"""EventScape: the folder of one sequence from CARLA, with frames and depth of every pixel.

    events/data/*.npz, timestamps.txt     arrays x, y, t (us), p; one file per stamp
    rgb/data/*.png, timestamps.txt        colour frames
    depth/data/*.npy, timestamps.txt      depth in metres

`timestamps.txt` has lines `index seconds`. A file of events holds those up to its stamp.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np

from dae_ros.bags.container import RecordedMessage, TopicInfo
from dae_ros.bags.damage import DAMAGE
from dae_ros.bags.datasets.images import from_stamp, numbered_files, read_depth_npy, read_grey
from dae_ros.bags.datasets.messages import (
    event_messages,
    events_of,
    image_message,
    in_time_order,
    until_damage,
)
from dae_ros.bags.datasets.stamps import Stamps, microseconds_to_ns, read_indexed_seconds
from dae_ros.bags.message_types import EVENT_PACKET, IMAGE
from dae_ros.errors import RecordingError
from dae_ros.events.packet import Events

NAMESPACE = "/carla"
FRAME_ID = "carla"
SIZE = (256, 512)
EVENTS = Path("events", "data")
# Further than this from its stamp a file of events has its times in another unit.
FURTHEST_NS = 1_000_000_000
_FOLDERS = {
    f"{NAMESPACE}/events": (EVENTS, ".npz", EVENT_PACKET),
    f"{NAMESPACE}/image_raw": (Path("rgb", "data"), ".png", IMAGE),
    f"{NAMESPACE}/depth_truth": (Path("depth", "data"), ".npy", IMAGE),
}


class EventScapeSequence:
    """One sequence, such as `Town01/sequence_12`; folders that were not unpacked are left out.

    Raises:
        RecordingError: no events, or files and stamps that do not belong together.
    """

    def __init__(self, path: Path, size: tuple[int, int] | None = None) -> None:
        self.path = path
        self._height, self._width = size or SIZE
        self.topics: dict[str, TopicInfo] = {}
        self._files: dict[str, tuple[list[Path], Stamps]] = {}
        for topic, (folder, suffix, kind) in _FOLDERS.items():
            if (path / folder).is_dir():
                stamps = read_indexed_seconds(path / folder / "timestamps.txt")
                files = numbered_files(path / folder, suffix, len(stamps))
                self._files[topic] = (files, stamps)
                self.topics[topic] = TopicInfo(kind, None if kind == EVENT_PACKET else len(files))
        starts = [int(stamps[0]) for _, stamps in self._files.values()]
        first = next(self.messages({f"{NAMESPACE}/events"}, None), None)
        starts += [] if first is None else [first.time_ns]
        self.start_ns: int | None = min(starts)
        self.end_ns: int | None = max(int(stamps[-1]) for _, stamps in self._files.values())

    def messages(self, topics: Set[str], start_ns: int | None) -> Iterator[RecordedMessage]:
        """See `Container.messages`."""
        sources: list[Iterator[RecordedMessage]] = []
        for topic in self._files:
            if topic not in topics:
                continue
            if self.topics[topic].type == EVENT_PACKET:
                chunks = _in_order(self._chunks(topic, start_ns))
                sources.append(event_messages(topic, chunks, self._height, self._width, FRAME_ID))
            else:
                sources.append(self._pictures(topic, start_ns))
        return in_time_order(sources, start_ns)

    def close(self) -> None:
        """See `Container.close`; files are open only while they are read."""

    def _chunks(self, topic: str, start_ns: int | None) -> Iterator[Events]:
        files, stamps = self._files[topic]
        # Not all files are sorted, so a file may end a little after its stamp.
        earliest_ns = None if start_ns is None else start_ns - FURTHEST_NS
        for index, stamp_ns in from_stamp(stamps, earliest_ns):
            events = read_events(files[index], self._height, self._width)
            if len(events) == 0:
                continue
            away_ns = max(abs(int(t) - stamp_ns) for t in (events.t[0], events.t[-1]))
            if away_ns > FURTHEST_NS:
                raise RecordingError(
                    f"the events of {files[index]} lie {away_ns / 1e9:.3f} s from their time "
                    f"stamp; EventScape has them in microseconds on the clock of the stamps",
                    path=str(files[index]),
                )
            yield events

    def _pictures(self, topic: str, start_ns: int | None) -> Iterator[RecordedMessage]:
        files, stamps = self._files[topic]
        for index, stamp_ns in from_stamp(stamps, start_ns):
            grey = topic.endswith("image_raw")
            picture = read_grey(files[index]) if grey else read_depth_npy(files[index])
            if picture.shape != (self._height, self._width):
                raise RecordingError(
                    f"{files[index]} has {picture.shape[1]}x{picture.shape[0]} px, the events "
                    f"{self._width}x{self._height}",
                    path=str(files[index]),
                )
            yield image_message(topic, picture, stamp_ns, FRAME_ID)


def _in_order(files: Iterator[Events]) -> Iterator[Events]:
    """Sort a sequence whose files may reach into each other, from one to the next.

    Args:
        files: each sorted, and not empty.
    """
    held = Events.empty()
    damage: list[RecordingError] = []
    for events in until_damage(files, damage):
        cut = int(np.searchsorted(held.t, events.t[0], side="right"))
        if cut > 0:
            yield held.slice(0, cut)
        if cut == len(held):
            held = events
            continue
        both = Events.concatenate([held.slice(cut, len(held)), events])
        order = np.argsort(both.t, kind="stable")
        held = Events(both.t[order], both.x[order], both.y[order], both.p[order])
    if len(held) > 0:
        yield held
    if damage:
        raise damage[0]


def read_events(path: Path, height: int, width: int) -> Events:
    """Read the events of one file, sorted by time: the files are not everywhere.

    Raises:
        RecordingError: missing, damaged, or of another layout.
    """
    try:
        # numpy leaves a file open that it has opened itself and finds damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            x, y, t, p = (arrays[name] for name in ("x", "y", "t", "p"))
    except DAMAGE as error:
        raise RecordingError(
            f"{path} holds no readable arrays x, y, t and p ({error}); download it again",
            path=str(path),
        ) from error
    if t.ndim != 1 or any(array.shape != t.shape for array in (x, y, p)):
        raise RecordingError(
            f"the arrays x, y, t and p of {path} are not of one length", path=str(path)
        )
    order = np.argsort(t, kind="stable")
    t_ns = microseconds_to_ns(t[order], str(path))
    return events_of(t_ns, x[order], y[order], p[order], height, width, str(path))
