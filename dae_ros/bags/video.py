"""Previews as H.264 in MP4, which every browser plays, and as a contact sheet."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import RecordingError, reason_of

_TIME_BASE = Fraction(1, 1000)
# More pictures per second than this are left out: no screen shows them.
_SHORTEST_PICTURE_NS = 16_000_000
_BACKGROUND = 32
# The AVX-512 code of x264 lets memory outside the picture decide now and then, so that the same
# pictures give two different files (seen with PyAV 18.1; never with narrower instructions).
_X264 = "asm=sse4.2" if platform.machine() == "x86_64" else ""


class VideoWriter:
    """An MP4 file of pictures at their own times; the same pictures give the same bytes.

    Args:
        path: the file; it grows as `<name>.partial` and gets its name when it is closed.
        height, width: of the pictures in px; odd sizes are padded by one, which H.264 with
            quarter-size colour needs.

    Raises:
        RecordingError: the file cannot be written, or this build of PyAV has no H.264 encoder.
    """

    def __init__(self, path: Path, height: int, width: int) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._height, self._width = height, width
        # Even sizes: yuv420p has one colour sample for 2x2 px.
        self._canvas = np.zeros((height + height % 2, width + width % 2, 3), np.uint8)
        self._first_ns: int | None = None
        self._last_ns = 0
        try:
            self._partial.touch()
            self._container = av.open(
                str(self._partial),
                "w",
                format="mp4",
                # The index in front, so that it plays while it loads; no version texts.
                options={"movflags": "+faststart", "fflags": "+bitexact"},
            )
            self._stream = self._container.add_stream("libx264", rate=25)
        except (OSError, ValueError, av.FFmpegError) as error:
            raise RecordingError(f"{path} cannot be written: {error}", path=str(path)) from error
        self._stream.height, self._stream.width = self._canvas.shape[:2]
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = _TIME_BASE
        self._stream.codec_context.time_base = _TIME_BASE
        # One thread: how x264 splits a picture between threads shows in its bytes.
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.options = {
            "crf": "20",
            "preset": "veryfast",
            "flags": "+bitexact",
            "x264-params": _X264,
        }

    def write(self, picture: NDArray[np.uint8], time_ns: int) -> None:
        """Append a picture.

        Args:
            picture: uint8[H, W, 3], RGB.
            time_ns: on any clock; the first picture is at 0. A picture less than 16 ms after
                the last one is left out, and so is one that is not later.

        Raises:
            RecordingError: the disk is full.
        """
        if self._first_ns is None:
            self._first_ns = time_ns
        elif time_ns - self._last_ns < _SHORTEST_PICTURE_NS:
            return
        self._last_ns = time_ns
        self._canvas[: self._height, : self._width] = picture
        # By OpenCV (BT.601, limited range), which does not depend on how rows are aligned.
        planes = np.asarray(cv2.cvtColor(self._canvas, cv2.COLOR_RGB2YUV_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.time_base = _TIME_BASE
        frame.pts = round((time_ns - self._first_ns) / 1_000_000)
        with self._on_disk():
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file and give it its name; without pictures there will be none.

        Raises:
            RecordingError: the disk is full; the file keeps its `.partial`.
        """
        with self._on_disk():
            if self._first_ns is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
            if self._first_ns is None:
                self._partial.unlink()
            else:
                self._partial.rename(self.path)

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            reason = reason_of(error) if isinstance(error, OSError) else str(error)
            raise RecordingError(
                f"{self.path} cannot be written: {reason}", path=str(self.path)
            ) from error

    def __enter__(self) -> VideoWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close: what was written before an error is kept whole."""
        self.close()


class ContactSheet:
    """Pictures evenly spread over a sequence of unknown length.

    Every k-th picture is kept; whenever too many are, every other one goes and k doubles.

    Args:
        columns: of the sheet.
        most: pictures to keep, even.
        widest_px: wider pictures are reduced to it, with the words in them.
    """

    def __init__(self, columns: int = 2, most: int = 12, widest_px: int = 1200) -> None:
        self.columns, self.most, self._widest_px = columns, most, widest_px
        self._pictures: list[NDArray[np.uint8]] = []
        self._every = 1
        self._seen = 0

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Take the next picture, uint8[H, W, 3] RGB, all of one size."""
        if self._seen % self._every == 0:
            if len(self._pictures) == self.most:
                del self._pictures[1::2]
                self._every *= 2
            if self._seen % self._every == 0:
                self._pictures.append(_reduced(picture, self._widest_px))
        self._seen += 1

    def save(self, path: Path) -> None:
        """Write the sheet as a PNG; nothing where no picture was added.

        Raises:
            RecordingError: the file cannot be written.
        """
        if not self._pictures:
            return
        height, width = self._pictures[0].shape[:2]
        rows = -(-len(self._pictures) // self.columns)
        gap = 8
        sheet = np.full(
            (rows * (height + gap) + gap, self.columns * (width + gap) + gap, 3),
            _BACKGROUND,
            np.uint8,
        )
        for index, picture in enumerate(self._pictures):
            row, column = divmod(index, self.columns)
            top, left = gap + row * (height + gap), gap + column * (width + gap)
            sheet[top : top + height, left : left + width] = picture
        if not cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
            raise RecordingError(f"{path} cannot be written; is the disk full?", path=str(path))


def _reduced(picture: NDArray[np.uint8], widest_px: int) -> NDArray[np.uint8]:
    """Return a picture that is no wider than a tile of the sheet."""
    height, width = picture.shape[:2]
    if width <= widest_px:
        return picture
    size = (widest_px, round(height * widest_px / width))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
