"""Pictures of a run for people: events | camera frame | depth | ground truth, with their legend.

The same writer serves the bag runner, which has `DepthFrame`s, and recordings of a live node's
topics.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.message_types import IMAGE
from dae_ros.bags.messages import read_depth, read_picture, stamp_of
from dae_ros.bags.recording import Recording
from dae_ros.bags.video import ContactSheet, VideoWriter
from dae_ros.errors import RecordingError
from dae_ros.events.frame import Frame
from dae_ros.parameters import DepthParameters
from dae_ros.representation.render import (
    METRES,
    Picture,
    color_range,
    depth_color,
    events_image,
    grey_panel,
    legend,
    side_by_side,
    titled,
)
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.estimator import FloatImage

# Small sensors are enlarged and large ones reduced to between so many rows.
_FEWEST_ROWS, _MOST_ROWS = 192, 480
# Share of the newest map in the colour range of relative depth: calm, and there within a second.
_RANGE_SHARE = 0.1
# Where depth uses a smaller share of the colours, everything has nearly the same one.
_FEW_COLORS = 0.4
_SHOWN_MAPS = 500

Value = TypeVar("Value")


class PreviewWriter:
    """Writes `preview.mp4` and `contact_sheet.png` into a folder; use it as a context.

    Args:
        folder: of the two files.
        parameters: for the colour range of metric depth.
        with_frames: whether there is a panel for camera frames.
        with_truth: whether there is one for ground truth, beside the depth; metric depth and
            ground truth share one legend.
    """

    def __init__(
        self,
        folder: Path,
        parameters: DepthParameters,
        *,
        with_frames: bool,
        with_truth: bool = False,
    ) -> None:
        self._folder = folder
        self._metric_range = (parameters.color_near_m, parameters.color_far_m)
        self._with_frames = with_frames
        self._with_truth = with_truth
        self._relative_range: tuple[float, float] | None = None
        self._untrained = parameters.weights.startswith("untrained:")
        self._frame: NDArray[np.uint8] | None = None
        self._truth: FloatImage | None = None
        self._first_ns: int | None = None
        self._video: VideoWriter | None = None
        self._size = (0, 0)  # of the pictures, (height, width) in px
        # Nearly all of the newest metric maps, near and far.
        self._shown_m: deque[tuple[float, float]] = deque(maxlen=_SHOWN_MAPS)
        self._sheet = ContactSheet()

    @property
    def better_range_m(self) -> tuple[float, float] | None:
        """Colours (near, far) in metres that show more, where depth uses few of those it has."""
        if not self._shown_m:
            return None
        near, far = (float(value) for value in np.median(np.array(self._shown_m), axis=0))
        used = math.log(far / near) / math.log(self._metric_range[1] / self._metric_range[0])
        return (0.8 * near, 1.25 * far) if used < _FEW_COLORS else None

    def add_frame(self, frame: Frame) -> None:
        """Show this camera frame from now on."""
        self._frame = frame.image

    def add_truth(self, depth: FloatImage) -> None:
        """Show this ground truth (float32[H, W], metres, NaN unknown) from now on."""
        self._truth = depth

    def add_window(self, frame: DepthFrame) -> None:
        """Append one window's result."""
        self.add(
            frame.stamp_ns,
            events_image(frame.image),
            frame.depth,
            kind=frame.kind,
            orientation=frame.orientation,
        )

    def add(
        self, time_ns: int, events: Picture, depth: FloatImage, *, kind: str, orientation: str
    ) -> None:
        """Append a picture.

        Args:
            time_ns: stamp, for the pace of the video.
            events: uint8[H, W, 3].
            depth: float32[H, W], NaN invalid.
            kind: `metric` or `relative`.
            orientation: `depth`, `inverse_depth` or `unknown`, of a relative map.
        """
        if kind == "metric":
            orientation = METRES
            (near, far), label, title = self._metric_range, "m", "depth"
            seen = depth[::4, ::4][depth[::4, ::4] > 0]
            if seen.size:
                low, high = np.quantile(seen, (0.05, 0.95))
                self._shown_m.append((float(low), float(high)))
        else:
            near, far = self._follow(color_range(depth, orientation))
            label = "relative"
            title = {"depth": "relative depth", "inverse_depth": "relative inverse depth"}.get(
                orientation, "network output, unknown scale and direction"
            )
        if self._untrained:
            title = "UNTRAINED network: no meaning"
        if self._first_ns is None:
            self._first_ns = time_ns
        rows = panel_rows(depth.shape[0])
        panels = [titled(fit(events, rows), f"events {(time_ns - self._first_ns) / 1e9:.2f} s")]
        if self._with_frames:
            panels.append(self._frame_panel(panels[0].shape[1], rows))
        bar = titled(legend(rows, near, far, label, orientation), "")
        panels.append(titled(fit(depth_color(depth, near, far, orientation), rows), title))
        if self._with_truth:
            if kind != "metric":
                panels.append(bar)
                bar = titled(legend(rows, *self._metric_range, "m", METRES), "")
            panels.append(self._truth_panel(depth.shape, rows))
        panels.append(bar)
        picture = side_by_side(panels)
        if self._video is None:
            self._size = (picture.shape[0], picture.shape[1])
            self._video = VideoWriter(self._folder / "preview.mp4", *self._size)
        # A camera may change its resolution, a video may not.
        picture = letterboxed(picture, *self._size)
        self._video.write(picture, time_ns)
        self._sheet.add(picture)

    def _frame_panel(self, width: int, rows: int) -> Picture:
        """Show the frame in the size of the events panel, or an empty panel before the first."""
        if self._frame is None:
            return titled(np.zeros((rows, width, 3), np.uint8), "frame")
        shown = cv2.resize(self._frame, (width, rows), interpolation=cv2.INTER_AREA)
        return titled(grey_panel(np.asarray(shown, np.uint8)), "frame")

    def _truth_panel(self, shape: tuple[int, ...], rows: int) -> Picture:
        """Show ground truth in the colours of metric depth, empty before the first."""
        truth = np.full(shape, np.nan, np.float32) if self._truth is None else self._truth
        return titled(fit(depth_color(truth, *self._metric_range, METRES), rows), "ground truth")

    def _follow(self, found: tuple[float, float]) -> tuple[float, float]:
        """Let the colour range follow slowly, so that the video does not flicker."""
        if self._relative_range is not None:
            old = self._relative_range
            found = (
                old[0] + _RANGE_SHARE * (found[0] - old[0]),
                old[1] + _RANGE_SHARE * (found[1] - old[1]),
            )
        self._relative_range = found
        return found

    def close(self) -> None:
        """Finish both files; without a picture there are none."""
        if self._video is not None:
            self._video.close()
            self._video = None
            self._sheet.save(self._folder / "contact_sheet.png")

    def __enter__(self) -> PreviewWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish: what was added before an error is kept."""
        self.close()


def preview_topics(
    recording: Recording, folder: Path, parameters: DepthParameters, truth: str | None = None
) -> tuple[int, dict[str, int]]:
    """Write the previews of a recording of a depth node's topics.

    A picture that is damaged or of an unknown encoding is counted, and the next one follows.

    Args:
        recording: with `.../events/image` (rgb8), `.../depth/image` or `.../depth/relative`
            (32FC1), and camera frames on `.../image_raw` where there were some.
        folder: of `preview.mp4` and `contact_sheet.png`.
        parameters: of the node; its `orientation` says what relative depth grows with.
        truth: topic of ground truth to show; None for none.

    Returns:
        The number of depth images shown; error code -> pictures that could not be read.

    Raises:
        RecordingError: the recording lacks events/image or depth.
    """
    metric, relative = (_ending(recording, f"/depth/{name}") for name in ("image", "relative"))
    events, frames = _ending(recording, "/events/image"), _ending(recording, "/image_raw")
    depth = metric or relative
    if events is None or depth is None:
        raise RecordingError(
            f"a preview needs the topics events/image and depth/image or depth/relative; the "
            f"recording has {', '.join(recording.topics) or 'no topics'}"
        )
    orientation = parameters.orientation
    if orientation == "checkpoint":
        orientation = "unknown"
    waiting: dict[int, Picture] = {}
    shown = 0
    unreadable: Counter[str] = Counter()
    topics = [topic for topic in (events, depth, frames, truth) if topic is not None]
    # The two images of a window share their stamp; which one was recorded first is not known.
    maps: dict[int, FloatImage] = {}
    # Depth may be recorded long after the frames that its events belong to: stamps decide.
    seen: dict[int, Frame] = {}
    truths: dict[int, FloatImage] = {}
    with PreviewWriter(
        folder, parameters, with_frames=frames is not None, with_truth=truth is not None
    ) as writer:
        for message in recording.messages(topics):
            try:
                cdr = recording.to_cdr(message)
                stamp_ns = stamp_of(cdr)
                if message.topic == frames:
                    seen[stamp_ns] = recording.read_frame(message)
                elif message.topic == truth:
                    truths[stamp_ns] = read_depth(cdr).depth
                elif message.topic == events:
                    waiting[stamp_ns] = read_picture(cdr)
                else:
                    maps[stamp_ns] = read_depth(cdr).depth
            except RecordingError as error:
                unreadable[error.code] += 1
                continue
            if message.topic not in (frames, truth) and stamp_ns in waiting and stamp_ns in maps:
                frame, exact = _take_until(seen, stamp_ns), _take_until(truths, stamp_ns)
                if frame is not None:
                    writer.add_frame(frame)
                if exact is not None:
                    writer.add_truth(exact)
                writer.add(
                    stamp_ns,
                    waiting.pop(stamp_ns),
                    maps.pop(stamp_ns),
                    kind="metric" if metric else "relative",
                    orientation=orientation,
                )
                shown += 1
                # Older halves belong to images that were never recorded.
                for halves in (waiting, maps):
                    for old in [stamp for stamp in halves if stamp < stamp_ns]:
                        del halves[old]
    return shown, dict(unreadable)


def _take_until(images: dict[int, Value], stamp_ns: int) -> Value | None:
    """Remove what is not after a stamp, and return the newest of it, if there is any."""
    past = sorted(stamp for stamp in images if stamp <= stamp_ns)
    taken = [images.pop(stamp) for stamp in past]
    return taken[-1] if taken else None


def _ending(recording: Recording, suffix: str) -> str | None:
    """Return the first image topic with this ending that has messages."""
    return next(
        (
            name
            for name, info in recording.topics.items()
            if name.endswith(suffix) and info.type == IMAGE and info.count
        ),
        None,
    )


def panel_rows(height: int) -> int:
    """Return the rows in px with which a sensor of `height` rows is shown."""
    if height < _FEWEST_ROWS:
        return height * -(-_FEWEST_ROWS // height)
    return min(height, _MOST_ROWS)


def fit(picture: Picture, rows: int) -> Picture:
    """Scale to so many rows: whole pixels when enlarging, means when reducing."""
    height, width = picture.shape[:2]
    if height == rows:
        return picture
    how = cv2.INTER_NEAREST if rows > height else cv2.INTER_AREA
    size = (round(width * rows / height), rows)
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)


def letterboxed(picture: Picture, height: int, width: int) -> Picture:
    """Scale to the largest size that fits into `height` x `width` px, black around it."""
    if picture.shape[:2] == (height, width):
        return picture
    scale = min(height / picture.shape[0], width / picture.shape[1])
    rows, columns = (max(1, int(side * scale)) for side in picture.shape[:2])
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    canvas[top : top + rows, left : left + columns] = cv2.resize(
        picture, (columns, rows), interpolation=cv2.INTER_AREA
    )
    return canvas
