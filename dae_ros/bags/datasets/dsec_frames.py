"""DSEC's colour frames on the pixels of the rectified event camera, as if all were far away.

The two cameras stand beside each other and look almost the same way. What is at infinity goes from
one image into the other by a homography; with the rotations of `cam_to_cam.yaml`

    K_camRect1 R_rect1 R_10 R_rect0^T K_camRect0^-1

takes a pixel of the rectified event camera to one of the rectified frame camera (left, both). This
is what the authors of DSEC advise (github.com/uzh-rpg/DSEC, issue 25), and `images/left/ev_inf` is
their name for the result. What is near is off by its parallax, `FramesToEvents.parallax_px_m`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from dae_ros.errors import RecordingError, reason_of

CALIBRATION = Path("calibration", "cam_to_cam.yaml")
FRAMES, WARPED = Path("images", "left", "rectified"), Path("images", "left", "ev_inf")


@dataclass(frozen=True, eq=False)
class FramesToEvents:
    """How frames come onto the events' pixels.

    Attributes:
        homography: float64[3, 3], from pixels of the rectified event camera to those of frames.
        height, width: of the event camera, px.
        frame_height, frame_width: of the frames, px.
        parallax_px_m: a point at Z metres is off by at most about this over Z px.
    """

    homography: NDArray[np.float64]
    height: int
    width: int
    frame_height: int
    frame_width: int
    parallax_px_m: float

    def warp(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a frame on the events' pixels, by bicubic sampling; black where it sees nothing.

        Args:
            frame: uint8[frame_height, frame_width] or with colours behind.
        """
        warped = cv2.warpPerspective(
            frame,
            self.homography,
            (self.width, self.height),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        )
        return np.asarray(warped, np.uint8)


def read_frames_to_events(path: Path) -> FramesToEvents:
    """Read it from a calibration.

    Args:
        path: `calibration/cam_to_cam.yaml`.

    Raises:
        RecordingError: not readable, or without the left cameras.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        intrinsics, extrinsics = content["intrinsics"], content["extrinsics"]
        width, height = (int(side) for side in intrinsics["cam0"]["resolution"])
        frame_width, frame_height = (int(side) for side in intrinsics["cam1"]["resolution"])
        k_events, k_frames = (
            _matrix(intrinsics[name]["camera_matrix"]) for name in ("camRect0", "camRect1")
        )
        rect_events, rect_frames = (
            np.asarray(extrinsics[name], np.float64).reshape(3, 3)
            for name in ("R_rect0", "R_rect1")
        )
        to_frames = np.asarray(extrinsics["T_10"], np.float64).reshape(4, 4)
        rotation = rect_frames @ to_frames[:3, :3] @ rect_events.T
        homography = k_frames @ rotation @ np.linalg.inv(k_events)
    except (
        OSError, yaml.YAMLError, KeyError, TypeError, ValueError, np.linalg.LinAlgError,
    ) as error:  # fmt: skip
        raise RecordingError(
            f"{path} does not say how the left frame camera stands to the left event camera "
            f"({type(error).__name__}: {error}); it needs resolutions of cam0 and cam1, camera "
            f"matrices of camRect0 and camRect1, T_10, R_rect0 and R_rect1",
            path=str(path),
        ) from error
    parallax_px_m = float(k_events[0, 0] * np.linalg.norm(to_frames[:3, 3]))
    return FramesToEvents(homography, height, width, frame_height, frame_width, parallax_px_m)


def sequences_with_frames(folder: Path) -> list[Path]:
    """Return the sequences with frames that a folder is or holds, directly or below `train`.

    Raises:
        RecordingError: there is none.
    """
    places = [folder, *sorted(folder.glob("*")), *sorted((folder / "train").glob("*"))]
    found = [path for path in places if (path / FRAMES).is_dir()]
    if not found:
        raise RecordingError(
            f"{folder} neither is nor holds a sequence of DSEC with {FRAMES}; unpack "
            f"images_rectified_left of the sequence there",
            path=str(folder),
        )
    return found


def warp_frames(sequence: Path) -> Iterator[float]:
    """Write the frames of a sequence onto the events' pixels, below `images/left/ev_inf`.

    The folder appears when it is whole; a part that was left by a kill is made anew.

    Yields:
        How far it is, 0 to 1, after each frame; at once 1 where the folder is there.

    Raises:
        RecordingError: calibration or a frame cannot be read or is of another size, or there is no
            room.
    """
    target = sequence / WARPED
    if target.is_dir():
        yield 1.0
        return
    warping = read_frames_to_events(sequence / CALIBRATION)
    files = sorted((sequence / FRAMES).glob("*.png"))
    if not files:
        raise RecordingError(f"{sequence / FRAMES} is empty; unpack it again", path=str(sequence))
    partial = target.with_name(f"{target.name}.partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        for index, file in enumerate(files):
            (partial / file.name).write_bytes(_warped_png(file, warping))
            # The last one is told when the folder is whole.
            if index + 1 < len(files):
                yield (index + 1) / len(files)
        partial.rename(target)
    except OSError as error:
        raise RecordingError(
            f"{target} cannot be written: {reason_of(error)}. Make room or the folder writable and "
            "run again",
            path=str(target),
        ) from error
    yield 1.0


def _warped_png(file: Path, warping: FramesToEvents) -> bytes:
    frame: Any = cv2.imread(str(file), cv2.IMREAD_COLOR)
    size = (warping.frame_height, warping.frame_width)
    if frame is None or frame.shape[:2] != size:
        found = "missing or damaged" if frame is None else f"{frame.shape[1]}x{frame.shape[0]} px"
        raise RecordingError(
            f"the frame {file} is {found}, and the calibration is for {size[1]}x{size[0]} px; "
            "unpack it again",
            path=str(file),
        )
    return bytes(cv2.imencode(".png", warping.warp(frame))[1])


def _matrix(values: Any) -> NDArray[np.float64]:
    fx, fy, cx, cy = (float(value) for value in values)
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
