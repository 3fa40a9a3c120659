"""MVSEC as E2Depth prepared it: a folder of voxel grids of 50 ms with depth and frames.

    events/voxels/event_tensor_0000000000.npy, timestamps.txt   float[5, H, W], not normalised
    depth/data/depth_0000000000.npy, timestamps.txt             float[H, W], m, NaN unknown
    rgb/davis_left_sync or rgb/davis, frame_0000000000.png, timestamps.txt

`timestamps.txt` has lines `index seconds`. Nothing can be learnt of the single events.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.datasets.images import numbered_files, read_depth_npy, read_grey, read_npy
from dae_ros.bags.datasets.stamps import Stamps, read_indexed_seconds
from dae_ros.errors import RecordingError
from dae_ros.events.frame import Frame

_VOXELS = Path("events", "voxels")
_DEPTH = Path("depth", "data")
_FRAMES = (Path("rgb", "davis_left_sync"), Path("rgb", "davis"))
FRAME_ID = "davis_left"


def is_voxel_folder(path: Path) -> bool:
    """Return whether a folder has this layout."""
    return (path / _VOXELS).is_dir()


class VoxelFolder:
    """One sequence, such as `test/mvsec_outdoor_day1`.

    Grids and depth maps are paired as in the published evaluation: by index where there are as
    many of both, otherwise each grid with the depth map whose stamp is closest.

    Attributes:
        path: the folder.
        grid_stamps_ns: int64[N], end of each grid's window.
        depth_stamps_ns: int64[N], of the depth map paired with it.
        largest_offset_ns: furthest that a grid and its depth map lie apart.

    Raises:
        RecordingError: a folder or file is missing, or files and stamps do not belong together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.grid_stamps_ns, self._grids = _series(path / _VOXELS, ".npy")
        depth_stamps, depths = _series(path / _DEPTH, ".npy")
        if len(depth_stamps) == len(self.grid_stamps_ns):
            chosen = np.arange(len(depths))
        else:
            chosen = closest(self.grid_stamps_ns, depth_stamps)
        self.depth_stamps_ns: Stamps = depth_stamps[chosen]
        self._depths = [depths[index] for index in chosen]
        self.largest_offset_ns = int(np.abs(self.depth_stamps_ns - self.grid_stamps_ns).max())
        self._frames = next(
            (_series(path / folder, ".png") for folder in _FRAMES if (path / folder).is_dir()), None
        )

    def __len__(self) -> int:
        """Return the number of grids."""
        return len(self._grids)

    def read(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32], Frame | None]:
        """Read one grid, its depth map and the newest frame that is not later than the map.

        Returns:
            float32[B, H, W] signed; float32[H, W] metres, NaN unknown; None without frames.

        Raises:
            RecordingError: a file is damaged, holds no numbers, or is of another size.
        """
        grid = read_npy(self._grids[index], dimensions=3)
        depth = read_depth_npy(self._depths[index])
        if not np.isfinite(grid).all():
            raise RecordingError(
                f"{self._grids[index]} has voxels that are no numbers; download it again",
                path=str(self._grids[index]),
            )
        if grid.shape[1:] != depth.shape:
            raise RecordingError(
                f"{self._grids[index]} has {grid.shape[2]}x{grid.shape[1]} px and "
                f"{self._depths[index]} {depth.shape[1]}x{depth.shape[0]}",
                path=str(self._grids[index]),
            )
        return grid, depth, self._frame_at(int(self.depth_stamps_ns[index]))

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], Frame | None]]:
        """Yield what `read` returns, in order."""
        return (self.read(index) for index in range(len(self)))

    def _frame_at(self, stamp_ns: int) -> Frame | None:
        if self._frames is None:
            return None
        stamps, files = self._frames
        index = int(np.searchsorted(stamps, stamp_ns, side="right")) - 1
        if index < 0:
            return None
        return Frame(int(stamps[index]), read_grey(files[index]), 0, FRAME_ID)


def closest(wanted: Stamps, available: Stamps) -> NDArray[np.intp]:
    """Return for each wanted stamp the index of the closest available one, the earlier of two.

    Args:
        wanted: int64[N].
        available: int64[M], increasing, M >= 1.
    """
    if len(available) == 1:
        return np.zeros(len(wanted), np.intp)
    right = np.clip(np.searchsorted(available, wanted), 1, len(available) - 1)
    earlier = wanted - available[right - 1] <= available[right] - wanted
    return np.where(earlier, right - 1, right)


def _series(folder: Path, suffix: str) -> tuple[Stamps, list[Path]]:
    stamps = read_indexed_seconds(folder / "timestamps.txt")
    return stamps, numbered_files(folder, suffix, len(stamps))
