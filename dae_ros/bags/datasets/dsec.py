"""DSEC: the folder of one sequence, left event camera, its disparity and the left frames.

    events/left/events.h5            events/{x,y,p,t} (t in us), ms_to_idx, t_offset (us)
    events/left/rectify_map.h5       rectify_map[y, x] = (x, y) of the rectified pixel
    calibration/cam_to_cam.yaml      intrinsics, disparity_to_depth
    disparity/timestamps.txt, disparity/event/000000.png ...    uint16 / 256 px, 0 unknown
    images/timestamps.txt, images/left/rectified/000000.png ... the colour camera
    images/left/ev_inf/000000.png ...  the same, warped onto the rectified event camera

Disparity belongs to the rectified event camera. Its depth is therefore a topic beside the
rectified events, `/dsec/left_rect`; `/dsec/left` has the events as the sensor sent them.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.container import RecordedMessage, TopicInfo
from dae_ros.bags.datasets.dsec_calibration import DsecCalibration, read_calibration
from dae_ros.bags.datasets.hdf5 import (
    first_row_at,
    has_array,
    open_hdf5,
    read_number,
    read_rows,
    require_array,
)
from dae_ros.bags.datasets.images import from_stamp, numbered_files, read_grey
from dae_ros.bags.datasets.messages import (
    CHUNK,
    camera_info_message,
    event_messages,
    events_of,
    image_message,
    in_time_order,
)
from dae_ros.bags.datasets.stamps import (
    Stamps,
    microseconds_to_ns,
    read_exposures,
    read_microseconds,
)
from dae_ros.bags.message_types import CAMERA_INFO, EVENT_PACKET, IMAGE
from dae_ros.errors import RecordingError
from dae_ros.events.packet import Events

EVENTS_FILE = Path("events", "left", "events.h5")
RAW, RECTIFIED, COLOUR = "/dsec/left", "/dsec/left_rect", "/dsec/frame_left"
SIZE = (480, 640)
_COLUMNS = ("x", "y", "p", "t")


class DsecSequence:
    """One sequence, such as `train/zurich_city_04_a`.

    Args:
        path: the folder.
        size: (height, width) in px of the event camera; None takes that of `rectify_map`, which
            has every pixel, and without one DSEC's 480x640.

    Raises:
        ConfigurationError: h5py or hdf5plugin is not installed.
        RecordingError: a file is missing, damaged or of another layout.
    """

    def __init__(self, path: Path, size: tuple[int, int] | None = None) -> None:
        self.path = path
        self._height, self._width = size or self._size_of_map() or SIZE
        self._file = open_hdf5(path / EVENTS_FILE)
        self._columns = {
            name: require_array(self._file, f"events/{name}", (None,)) for name in _COLUMNS
        }
        self._count = len(self._columns["t"])
        self._offset_us = self._read_offset()
        self._map = self._read_map()
        self._calibration = self._read_calibration()
        self._frames = self._find_frames()
        self._disparity = self._find_disparity()
        self.topics = self._topics()
        times = [self._time_of(row) for row in (0, self._count - 1) if self._count]
        series = [stamps for _, stamps, _ in self._frames.values()]
        series += [self._disparity[1]] if self._disparity else []
        times += [int(stamps[row]) for stamps in series for row in (0, -1)]
        self.start_ns = min(times, default=None)
        self.end_ns = max(times, default=None)

    def messages(self, topics: Set[str], start_ns: int | None) -> Iterator[RecordedMessage]:
        """See `Container.messages`."""
        sources: list[Iterator[RecordedMessage]] = []
        for namespace in (RAW, RECTIFIED):
            topic = f"{namespace}/events"
            if topic in topics:
                chunks = self._chunks(start_ns)
                if namespace == RECTIFIED:
                    chunks = (self.rectified(events) for events in chunks)
                frame_id = namespace[1:].replace("/", "_")
                sources.append(event_messages(topic, chunks, self._height, self._width, frame_id))
            if f"{namespace}/camera_info" in topics:
                sources.append(self._camera_infos(namespace, start_ns))
        for topic, (files, stamps, exposures_ns) in self._frames.items():
            if topic in topics:
                sources.append(_grey_frames(topic, files, stamps, exposures_ns, start_ns))
        if f"{RECTIFIED}/depth_truth" in topics:
            sources.append(self._depths(start_ns))
        return in_time_order(sources, start_ns)

    def close(self) -> None:
        """See `Container.close`."""
        self._file.close()

    def _topics(self) -> dict[str, TopicInfo]:
        topics = {f"{RAW}/events": TopicInfo(EVENT_PACKET, None)}
        if self._map is not None:
            topics[f"{RECTIFIED}/events"] = TopicInfo(EVENT_PACKET, None)
        if self._calibration is not None:
            topics[f"{RAW}/camera_info"] = TopicInfo(CAMERA_INFO, None)
            topics[f"{RECTIFIED}/camera_info"] = TopicInfo(CAMERA_INFO, None)
        for topic, (files, _, _) in self._frames.items():
            topics[topic] = TopicInfo(IMAGE, len(files))
        if self._disparity is not None:
            topics[f"{RECTIFIED}/depth_truth"] = TopicInfo(IMAGE, len(self._disparity[0]))
        return topics

    def _read_offset(self) -> int:
        """Return what is added to event times to be on the clock of the images, us.

        As in the official slicer, files without an offset have none to add.
        """
        if not has_array(self._file, "t_offset"):
            return 0
        return read_number(require_array(self._file, "t_offset", ()))

    def _size_of_map(self) -> tuple[int, int] | None:
        path = self._map_file
        if not path.is_file():
            return None
        with open_hdf5(path) as file:
            height, width, _ = require_array(file, "rectify_map", (None, None, 2)).shape
        return int(height), int(width)

    @property
    def _map_file(self) -> Path:
        return self.path / "events" / "left" / "rectify_map.h5"

    def _read_map(self) -> NDArray[np.float32] | None:
        path = self._map_file
        if not path.is_file():
            return None
        with open_hdf5(path) as file:
            array = require_array(file, "rectify_map", (self._height, self._width, 2))
            return read_rows(array, 0, self._height).astype(np.float32)

    def _read_calibration(self) -> DsecCalibration | None:
        path = self.path / "calibration" / "cam_to_cam.yaml"
        return read_calibration(path, self._height, self._width) if path.is_file() else None

    def _find_frames(self) -> dict[str, tuple[list[Path], Stamps, NDArray[np.int64]]]:
        """Return topic -> files, stamps and exposure times, of what has been unpacked."""
        folder = self.path / "images" / "left"
        found: dict[str, tuple[list[Path], Stamps, NDArray[np.int64]]] = {}
        for name, namespace in (("rectified", COLOUR), ("ev_inf", RECTIFIED)):
            if not (folder / name).is_dir():
                continue
            stamps = read_microseconds(self.path / "images" / "timestamps.txt")
            files = numbered_files(folder / name, ".png", len(stamps))
            exposures_ns = np.zeros(len(stamps), np.int64)
            exposure_file = folder / "exposure_timestamps.txt"
            if exposure_file.is_file():
                bounds = read_exposures(exposure_file)
                if len(bounds) != len(stamps):
                    raise RecordingError(
                        f"{exposure_file} has {len(bounds)} lines for {len(stamps)} images",
                        path=str(exposure_file),
                    )
                exposures_ns = bounds[:, 1] - bounds[:, 0]
            found[f"{namespace}/image_raw"] = (files, stamps, exposures_ns)
        return found

    def _find_disparity(self) -> tuple[list[Path], Stamps] | None:
        """Return files and stamps; test sequences have none."""
        folder = self.path / "disparity"
        if not folder.is_dir():
            return None
        for what, there in (
            ("calibration/cam_to_cam.yaml", self._calibration is not None),
            ("events/left/rectify_map.h5", self._map is not None),
        ):
            if not there:
                raise RecordingError(
                    f"{self.path} has disparity but no {what}, without which it is no depth of "
                    f"the events' pixels; download that file of the sequence too",
                    path=str(self.path / what),
                )
        stamps = read_microseconds(folder / "timestamps.txt")
        files = numbered_files(folder / "event", ".png", len(stamps))
        if files[0].stem != "000000":
            raise RecordingError(
                f"the first file of {folder / 'event'} is {files[0].name}, not 000000.png; the "
                f"time stamps cannot be told apart",
                path=str(files[0]),
            )
        return files, stamps

    def _time_of(self, row: int) -> int:
        times = read_rows(self._columns["t"], row, row + 1)
        return int(microseconds_to_ns(times, self._source(row), self._offset_us)[0])

    def _source(self, row: int) -> str:
        return f"{self.path / EVENTS_FILE} from row {row}"

    def _chunks(self, start_ns: int | None) -> Iterator[Events]:
        """Yield the events as recorded, from the chunk with the first one wanted."""
        first = 0
        if start_ns is not None:
            start_us = (start_ns - 1000 * self._offset_us) / 1000
            first = first_row_at(self._columns["t"], None, start_us, self._count)
        newest_ns = -1
        for row in range(first // CHUNK * CHUNK, self._count, CHUNK):
            stop = min(row + CHUNK, self._count)
            source = self._source(row)
            x, y, p, t = (read_rows(self._columns[name], row, stop) for name in _COLUMNS)
            t_ns = microseconds_to_ns(t, source, self._offset_us)
            events = events_of(t_ns, x, y, p, self._height, self._width, source)
            if int(t_ns[0]) < newest_ns:
                raise RecordingError(
                    f"time runs back at {source}; the file is damaged", source=source, row=row
                )
            newest_ns = int(t_ns[-1])
            yield events

    def points(self, events: Events) -> NDArray[np.float32]:
        """Return where the rectified camera sees events: x and y, float32[2, N] in px.

        Between pixels, and outside of the frame too.

        Raises:
            RecordingError: the sequence has no map.
        """
        if self._map is None:
            raise RecordingError(f"{self.path} has no rectify_map.h5", path=str(self.path))
        return np.ascontiguousarray(self._map[events.y, events.x].T)

    def rectified(self, events: Events) -> Events:
        """Move events to the rectified camera, as published: cut to whole pixels, towards zero.

        What leaves the frame is dropped, judged before the cut.

        Raises:
            RecordingError: the sequence has no map.
        """
        x, y = self.points(events)
        kept = (x >= 0) & (x < self._width) & (y >= 0) & (y < self._height)
        return Events(
            events.t[kept], x[kept].astype(np.uint16), y[kept].astype(np.uint16), events.p[kept]
        )

    def _depths(self, start_ns: int | None) -> Iterator[RecordedMessage]:
        if self._disparity is None or self._calibration is None:
            return
        files, stamps = self._disparity
        for index, stamp_ns in from_stamp(stamps, start_ns):
            disparity_px = read_disparity(files[index], self._height, self._width)
            depth = np.full(disparity_px.shape, np.nan, np.float32)
            known = disparity_px > 0
            depth[known] = np.float32(self._calibration.depth_times_disparity) / disparity_px[known]
            topic = f"{RECTIFIED}/depth_truth"
            yield image_message(topic, depth, stamp_ns, "dsec_left_rect")

    def _camera_infos(self, namespace: str, start_ns: int | None) -> Iterator[RecordedMessage]:
        """Yield one calibration at the beginning, as a latched topic has it."""
        stamp_ns = self.start_ns or 0
        if self._calibration is not None and (start_ns is None or start_ns <= stamp_ns):
            camera = self._calibration.raw if namespace == RAW else self._calibration.rectified
            frame_id = namespace[1:].replace("/", "_")
            yield camera_info_message(f"{namespace}/camera_info", camera, stamp_ns, frame_id)


def read_disparity(path: Path, height: int, width: int) -> NDArray[np.float32]:
    """Read a disparity map: float32[H, W], px, 0 where it is unknown.

    Raises:
        RecordingError: missing, damaged, of another size, or no 16-bit image.
    """
    image: Any = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH)
    if image is None or image.dtype != np.uint16 or image.shape != (height, width):
        found = "missing or damaged" if image is None else f"{image.dtype}{list(image.shape)}"
        raise RecordingError(
            f"the disparity {path} is {found}, expected a 16-bit PNG of {width}x{height} px",
            path=str(path),
        )
    disparity_px: NDArray[np.float32] = image.astype(np.float32) / np.float32(256)
    return disparity_px


def _grey_frames(
    topic: str,
    files: list[Path],
    stamps: Stamps,
    exposures_ns: NDArray[np.int64],
    start_ns: int | None,
) -> Iterator[RecordedMessage]:
    frame_id = topic[1:].rpartition("/")[0].replace("/", "_")
    for index, stamp_ns in from_stamp(stamps, start_ns):
        grey = read_grey(files[index])
        yield image_message(topic, grey, stamp_ns, frame_id, int(exposures_ns[index]))
