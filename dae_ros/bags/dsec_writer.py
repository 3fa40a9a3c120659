"""Write a simulation as a sequence folder in the layout of DSEC.

    events/left/events.h5         events/{x, y, t, p} (t in us), ms_to_idx, t_offset (us)
    events/left/rectify_map.h5    rectify_map[y, x] = (x, y): the identity, there is no distortion
    calibration/cam_to_cam.yaml   intrinsics, extrinsics, disparity_to_depth of the event camera
    disparity/timestamps.txt, disparity/event/%06d.png     uint16 = 256 x disparity in px, 0 none
    images/timestamps.txt, images/left/exposure_timestamps.txt, images/left/ev_inf/%06d.png

Layout: dsec.ifi.uzh.ch/data-format and github.com/uzh-rpg/DSEC, scripts/dataset/sequence.py at
b065a92 and scripts/utils/eventslicer.py at 9ddd029. Disparity is that of a second event camera
`BASELINE_M` to the right. It rounds depth: by 1/512 px, and what is nearer than
focal length x `BASELINE_M` / 256 px has none. Frames are those of the event camera's own pixels,
which DSEC calls `ev_inf`; there is no colour camera and no right camera.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from dae_ros.bags.hdf5_output import Hdf5Output
from dae_ros.bags.replacing import give_name, require_free
from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import Events
from dae_ros.simulation.camera import Camera
from dae_ros.simulation.simulation import START_NS, Item, Simulation

BASELINE_M = 0.6
_START_US = START_NS // 1000
_COLUMNS = (("x", np.uint16), ("y", np.uint16), ("t", np.uint32), ("p", np.uint8))
_CHUNK = 1 << 16


class DsecWriter:
    """One sequence folder of one run; see `SimulationWriter`.

    Args:
        path: the folder.
        simulation: whose items will be written; its events must have absolute times
            (`encoding: dvs_msgs`), its lens no distortion.
        replace: whether a folder of that name may exist.

    Raises:
        ConfigurationError: h5py or hdf5plugin is missing, or the lens distorts.
        RecordingError: the folder exists, or cannot be written.
    """

    def __init__(self, path: Path, simulation: Simulation, *, replace: bool = False) -> None:
        try:
            import h5py  # noqa: F401  (asked for before anything is made)
            import hdf5plugin
        except ImportError as error:
            raise ConfigurationError(
                f"The DSEC layout needs {error.name}; install the extra `datasets`.",
                package=error.name,
            ) from error
        self._camera = simulation.camera
        if self._camera.distortion:
            raise ConfigurationError(
                "Disparity of the DSEC layout belongs to a rectified camera; simulate one without "
                "distortion, or write another format."
            )
        self.path = path
        (self._partial,) = require_free((path,), replace)
        try:
            for folder in ("events/left", "calibration", "disparity/event", "images/left/ev_inf"):
                (self._partial / folder).mkdir(parents=True)
        except OSError as error:
            raise RecordingError(
                f"{path} cannot be written: {error.strerror}", path=str(path)
            ) from error
        self._output = Hdf5Output(self._partial / "events/left/events.h5")
        self._file = self._output.file
        for name, kind in _COLUMNS:
            self._file.create_dataset(
                f"events/{name}",
                (0,),
                kind,
                maxshape=(None,),
                chunks=(_CHUNK,),
                compression=hdf5plugin.Blosc(cname="zstd", clevel=5),
            )
        self._ms_to_idx: list[NDArray[np.int64]] = []
        self._ms = 0
        self._count = 0
        self._disparities: list[int] = []
        self._frames: list[tuple[int, int, int]] = []
        self._write_calibration()
        rectify_map = Hdf5Output(self._partial / "events/left/rectify_map.h5")
        y, x = np.mgrid[0 : self._camera.height, 0 : self._camera.width]
        rectify_map.file["rectify_map"] = np.stack([x, y], axis=-1).astype(np.float32)
        rectify_map.close()

    def write(self, item: Item) -> None:
        """See `SimulationWriter`."""
        if isinstance(item, Events):
            self._write_events(item)
        elif isinstance(item, Frame):
            name = f"{len(self._frames):06d}.png"
            self._write_png(f"images/left/ev_inf/{name}", item.image)
            stamp_us, half_us = item.stamp_ns // 1000, item.exposure_ns // 2000
            start_us = stamp_us - half_us
            self._frames.append((stamp_us, start_us, start_us + item.exposure_ns // 1000))
        else:
            # The published files have even numbers, as there are twice as many images.
            name = f"{2 * len(self._disparities):06d}.png"
            self._write_png(f"disparity/event/{name}", self._disparity(item.depth))
            self._disparities.append(item.stamp_ns // 1000)

    def close(self) -> None:
        """See `SimulationWriter`."""
        self._file["ms_to_idx"] = np.concatenate([np.empty(0, np.int64), *self._ms_to_idx]).astype(
            np.uint64
        )
        self._file["t_offset"] = np.int64(_START_US)
        self._output.close()
        self._write_lines("disparity/timestamps.txt", [f"{us}" for us in self._disparities])
        self._write_lines("images/timestamps.txt", [f"{us}" for us, _, _ in self._frames])
        self._write_lines(
            "images/left/exposure_timestamps.txt",
            [
                "# exposure_start_timestamp_us, exposure_end_timestamp_us",
                *(f"{start}, {end}" for _, start, end in self._frames),
            ],
        )
        if not self._frames:
            shutil.rmtree(self._partial / "images")
        give_name(self._partial, self.path)

    def abandon(self) -> None:
        """See `SimulationWriter`."""
        # What is told is the error that came first.
        with contextlib.suppress(OSError):
            self._output.close()

    def _write_events(self, events: Events) -> None:
        t_us = events.t // 1000 - _START_US
        stop = self._count + len(events)
        for name, kind in _COLUMNS:
            column = t_us if name == "t" else getattr(events, name)
            self._file[f"events/{name}"].resize((stop,))
            self._file[f"events/{name}"][self._count :] = column.astype(kind)
        self._output.check()
        # t[ms_to_idx[ms]] >= 1000 ms and t[ms_to_idx[ms] - 1] < 1000 ms, up to the last event.
        marks = np.arange(self._ms, int(t_us[-1]) // 1000 + 1)
        self._ms_to_idx.append(self._count + np.searchsorted(t_us, marks * 1000))
        self._ms += len(marks)
        self._count = stop

    def _disparity(self, depth: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Return 256 x disparity; 0 where there is no depth, or too little for 16 bits."""
        with np.errstate(invalid="ignore"):
            scaled = np.rint(256.0 * self._camera.fx * BASELINE_M / depth.astype(np.float64))
            return np.where(scaled < 65536, scaled, 0.0).astype(np.uint16)

    def _write_png(self, name: str, image: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
        path = self._partial / name
        if not cv2.imwrite(str(path), image):
            raise RecordingError(f"{path} cannot be written; is the disk full?", path=str(path))

    def _write_lines(self, name: str, lines: list[str]) -> None:
        (self._partial / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def _write_calibration(self) -> None:
        text = yaml.safe_dump(calibration_of(self._camera), sort_keys=False)
        (self._partial / "calibration/cam_to_cam.yaml").write_text(text, encoding="utf-8")


def calibration_of(camera: Camera) -> dict[str, Any]:
    """Return the content of `cam_to_cam.yaml` for a camera without distortion.

    Cameras are numbered as in DSEC: 0 is the left event camera, 3 the right one.
    """
    matrix = [camera.fx, camera.fy, camera.cx, camera.cy]
    identity = np.eye(3).tolist()
    intrinsics: dict[str, Any] = {}
    for number in (0, 3):
        intrinsics[f"cam{number}"] = {
            "camera_matrix": matrix, "camera_model": "pinhole",
            "distortion_coeffs": [0.0] * 4, "distortion_model": "radtan",
            "resolution": [camera.width, camera.height],
        }  # fmt: skip
    for number in (0, 3):
        intrinsics[f"camRect{number}"] = {
            "camera_matrix": matrix,
            "resolution": [camera.width, camera.height],
        }
    to_right = np.eye(4)
    to_right[0, 3] = -BASELINE_M
    q = [
        [1.0, 0.0, 0.0, -camera.cx], [0.0, 1.0, 0.0, -camera.cy], [0.0, 0.0, 0.0, camera.fx],
        [0.0, 0.0, 1.0 / BASELINE_M, 0.0],
    ]  # fmt: skip
    return {
        "intrinsics": intrinsics,
        "extrinsics": {"T_30": to_right.tolist(), "R_rect0": identity, "R_rect3": identity},
        "disparity_to_depth": {"cams_03": q},
    }
