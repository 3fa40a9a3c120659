"""Sequences of labelled windows, from any recording or data set: for training and evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from dae_ros.bags.datasets.voxel_folder import VoxelFolder, is_voxel_folder
from dae_ros.bags.labelled_recording import Ends, LabelledRecording
from dae_ros.bags.labelled_window import LabelledWindow
from dae_ros.bags.recording import open_recording
from dae_ros.errors import ConfigurationError, RecordingError

PUBLISHED_WINDOW_NS = 50_000_000


class LabelledSequence(Protocol):
    """What training and evaluation iterate over; each iteration begins anew.

    Attributes:
        name: for messages and tables.
        skipped: labels of the last iteration that gave no window, by reason; and by those of
            `BESIDE_LABELS` messages beside them that were passed over.
        fraction: how far the present iteration is, 0 to 1; None where that is not known.
    """

    name: str
    skipped: Counter[str]
    fraction: float | None

    def __iter__(self) -> Iterator[LabelledWindow]:
        """Yield the windows in order of time.

        Raises:
            RecordingError: a cut or damaged file; everything readable has been yielded by then.
        """

    def __enter__(self) -> LabelledSequence:
        """Return the sequence."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""


def open_labelled(
    path: Path | str | Sequence[Path | str],
    *,
    window_ns: int = PUBLISHED_WINDOW_NS,
    ends: Ends = "depth",
    events: str | None = None,
    label: str | None = None,
    size: tuple[int, int] | None = None,
    image_stamp: str = "mid",
    exposure_s: float = 0.0,
) -> LabelledSequence:
    """Open what has events and labels: any recording, or a folder of voxel grids.

    Args:
        path: see `open_recording`; or a folder as E2Depth prepared MVSEC.
        window_ns: length of a window; whole microseconds.
        ends: at `depth` images or at camera `frame`s.
        events: events topic; None takes the one that has labels beside it.
        label: topic of depth images or of frames; None takes that beside the events.
        size: (height, width) of the sensor in px, where the recording does not tell.
        image_stamp, exposure_s: what stamps of frames mark, and the exposure of those that do not
            tell; see `middle_of_exposure`.

    Raises:
        ConfigurationError: a window that is none, or options that a voxel folder cannot have.
        RecordingError: not readable, or without events or labels; the text lists what there is.
    """
    if window_ns <= 0 or window_ns % 1000:
        raise ConfigurationError(
            f"A window of {window_ns} ns has no length in whole microseconds.", window_ns=window_ns
        )
    if isinstance(path, (str, Path)) and is_voxel_folder(Path(path)):
        given = events or label or image_stamp != "mid"
        if ends != "depth" or window_ns != PUBLISHED_WINDOW_NS or given:
            raise ConfigurationError(
                f"{path} has ready voxel grids of 50 ms that end at depth images; it knows no "
                f"other windows, no topics and no stamps of frames",
                path=str(path),
            )
        return LabelledVoxels(VoxelFolder(Path(path)))
    recording = open_recording(path, size)
    try:
        return LabelledRecording(
            recording, window_ns, ends, events, label,
            image_stamp=image_stamp, exposure_s=exposure_s,
        )  # fmt: skip
    except RecordingError:
        recording.close()
        raise


class LabelledVoxels:
    """The windows of a folder of voxel grids; see `LabelledSequence`."""

    def __init__(self, folder: VoxelFolder) -> None:
        self.name = str(folder.path)
        self.skipped: Counter[str] = Counter()
        self.fraction: float | None = None
        self._folder = folder

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._folder)

    def __iter__(self) -> Iterator[LabelledWindow]:
        """See `LabelledSequence`."""
        for index, (grid, depth, frame) in enumerate(self._folder):
            end_ns = int(self._folder.grid_stamps_ns[index])
            stamp_ns = int(self._folder.depth_stamps_ns[index])
            self.fraction = (index + 1) / len(self)
            yield LabelledWindow(
                start_ns=end_ns - PUBLISHED_WINDOW_NS,
                end_ns=end_ns,
                stamp_ns=stamp_ns,
                height=depth.shape[0],
                width=depth.shape[1],
                events=None,
                voxels=grid,
                depth=depth,
                frame=frame,
                restarts=index == 0,
            )

    def __enter__(self) -> LabelledVoxels:
        """Return the sequence."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do nothing: files are open only while they are read."""
