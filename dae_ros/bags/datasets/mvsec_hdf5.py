"""MVSEC as HDF5: `<sequence>_data.hdf5` and `<sequence>_gt.hdf5`, which mirror its ROS bags.

`davis/<side>/events` are rows x, y, time in s, polarity -1 or 1; `davis/<side>/<name>` are images
and `<name>_ts` their times in s. The topics are those of the bags. Open both files together, as
with the bags: `open_recording([data, gt])`.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np

from dae_ros.bags.container import RecordedMessage, TopicInfo
from dae_ros.bags.datasets.hdf5 import (
    first_row_at,
    has_array,
    open_hdf5,
    read_rows,
    require_array,
)
from dae_ros.bags.datasets.images import from_stamp, valid_depth
from dae_ros.bags.datasets.messages import (
    CHUNK,
    event_messages,
    events_of,
    image_message,
    in_time_order,
)
from dae_ros.bags.datasets.stamps import Stamps, seconds_to_ns
from dae_ros.bags.message_types import EVENT_PACKET, IMAGE
from dae_ros.errors import RecordingError
from dae_ros.events.packet import Events

# Both cameras are DAVIS 346B; files without frames (the right one outdoors) do not tell the size.
DAVIS346 = (260, 346)
_SIDES = ("left", "right")
_GREY = ("image_raw",)
_DEPTH = ("depth_image_raw", "depth_image_rect")


class MvsecHdf5File:
    """One of the two files of a sequence.

    Args:
        path: the file.
        size: (height, width) in px of the event cameras; None takes that of the frames, and
            where there are none that of the DAVIS 346.

    Raises:
        ConfigurationError: h5py or hdf5plugin is not installed.
        RecordingError: no readable HDF5 file, or of another layout.
    """

    def __init__(self, path: Path, size: tuple[int, int] | None = None) -> None:
        self.path = path
        self.topics: dict[str, TopicInfo] = {}
        self._file = open_hdf5(path)
        self._images: dict[str, tuple[Any, Stamps]] = {}
        self._events: dict[str, Any] = {}
        for side in _SIDES:
            self._find(side)
        if not self.topics:
            raise RecordingError(
                f"{path} is an HDF5 file without MVSEC's datasets (davis/left/events, "
                f"davis/left/depth_image_raw); of DSEC give the folder of the sequence",
                path=str(path),
            )
        grey = [array.shape for topic, (array, _) in self._images.items() if _is_grey(topic)]
        height, width = size or (grey[0][1:] if grey else DAVIS346)
        self._height, self._width = int(height), int(width)
        bounds = [(int(at[0]), int(at[-1])) for _, at in self._images.values() if at.size]
        for topic, events in self._events.items():
            rows = len(events)
            if rows:
                first, last = (self._times(topic, row, row + 1)[0] for row in (0, rows - 1))
                bounds.append((int(first), int(last)))
        self.start_ns = min((first for first, _ in bounds), default=None)
        self.end_ns = max((last for _, last in bounds), default=None)

    def messages(self, topics: Set[str], start_ns: int | None) -> Iterator[RecordedMessage]:
        """See `Container.messages`."""
        sources: list[Iterator[RecordedMessage]] = []
        for topic in self._events:
            if topic in topics:
                chunks = self._chunks(topic, start_ns)
                frame_id = _frame_id(topic)
                sources.append(event_messages(topic, chunks, self._height, self._width, frame_id))
        sources += [self._pictures(topic, start_ns) for topic in self._images if topic in topics]
        return in_time_order(sources, start_ns)

    def close(self) -> None:
        """See `Container.close`."""
        self._file.close()

    def _find(self, side: str) -> None:
        """Take in what the file has of one camera."""
        group = f"davis/{side}"
        if has_array(self._file, f"{group}/events"):
            events = require_array(self._file, f"{group}/events", (None, 4))
            self._events[f"/{group}/events"] = events
            self.topics[f"/{group}/events"] = TopicInfo(EVENT_PACKET, None)
        for name in (*_GREY, *_DEPTH):
            if not has_array(self._file, f"{group}/{name}"):
                continue
            images = require_array(self._file, f"{group}/{name}", (None, None, None))
            times = require_array(self._file, f"{group}/{name}_ts", (len(images),))
            source = f"{self.path}:{group}/{name}_ts"
            stamps = seconds_to_ns(read_rows(times, 0, len(times)), source)
            if (np.diff(stamps) <= 0).any():
                raise RecordingError(
                    f"the times in {source} do not increase; the file is damaged", source=source
                )
            self._images[f"/{group}/{name}"] = (images, stamps)
            self.topics[f"/{group}/{name}"] = TopicInfo(IMAGE, len(images))

    def _times(self, topic: str, start: int, stop: int) -> Stamps:
        rows = read_rows(self._events[topic], start, stop)
        return seconds_to_ns(rows[:, 2], f"{self.path}:{topic[1:]} from row {start}")

    def _chunks(self, topic: str, start_ns: int | None) -> Iterator[Events]:
        """Yield the events from the chunk on that holds the first one wanted."""
        table = self._events[topic]
        first = 0
        if start_ns is not None:
            # Before the stamp by what rounding to microseconds may have added.
            first = first_row_at(table, 2, (start_ns - 1000) / 1e9, len(table))
        newest_ns = -1
        # Chunks begin at the same rows whatever the start, so that packets are the same.
        for row in range(first // CHUNK * CHUNK, len(table), CHUNK):
            rows = read_rows(table, row, min(row + CHUNK, len(table)))
            source = f"{self.path}:{topic[1:]} from row {row}"
            t_ns = seconds_to_ns(rows[:, 2], source)
            events = events_of(
                t_ns, rows[:, 0], rows[:, 1], rows[:, 3], self._height, self._width, source
            )
            if int(t_ns[0]) < newest_ns:
                raise RecordingError(
                    f"time runs back at {source}; the file is damaged", source=source, row=row
                )
            newest_ns = int(t_ns[-1])
            yield events

    def _pictures(self, topic: str, start_ns: int | None) -> Iterator[RecordedMessage]:
        images, stamps = self._images[topic]
        for index, stamp_ns in from_stamp(stamps, start_ns):
            image = read_rows(images, index, index + 1)[0]
            grey = _is_grey(topic)
            picture = image.astype(np.uint8) if grey else valid_depth(image.astype(np.float32))
            yield image_message(topic, picture, stamp_ns, _frame_id(topic))


def _is_grey(topic: str) -> bool:
    return topic.rpartition("/")[2] in _GREY


def _frame_id(topic: str) -> str:
    return topic[1:].rpartition("/")[0].replace("/", "_")
