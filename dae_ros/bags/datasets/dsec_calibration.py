"""DSEC's `cam_to_cam.yaml`: the left event camera (cam0), rectified (camRect0), and its Q.

Intrinsics are [fx, fy, cx, cy]; `disparity_to_depth.cams_03` is OpenCV's Q of the two rectified
event cameras, whose focal length is |Q[2][3]| and whose baseline is |1 / Q[3][2]|.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dae_ros.bags.messages import CameraInfo
from dae_ros.errors import RecordingError

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class DsecCalibration:
    """Attributes.

    Attributes:
        raw: the left event camera as it is, with its distortion and its rectification.
        rectified: the pinhole camera that the rectification makes of it.
        depth_times_disparity: focal length times baseline, m px.
    """

    raw: CameraInfo
    rectified: CameraInfo
    depth_times_disparity: float


def read_calibration(path: Path, height: int, width: int) -> DsecCalibration:
    """Read the file.

    Args:
        path: `calibration/cam_to_cam.yaml`.
        height, width: of the event camera, px.

    Raises:
        RecordingError: not readable, of another form, or no stereo pair.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        intrinsics = content["intrinsics"]
        fx, fy, cx, cy = (float(value) for value in intrinsics["cam0"]["camera_matrix"])
        distortion = tuple(float(value) for value in intrinsics["cam0"]["distortion_coeffs"])
        rect = [float(value) for value in intrinsics["camRect0"]["camera_matrix"]]
        rotation = tuple(float(value) for row in content["extrinsics"]["R_rect0"] for value in row)
        q = content["disparity_to_depth"]["cams_03"]
        focal_px, per_baseline = abs(float(q[2][3])), abs(float(q[3][2]))
        scale = focal_px / per_baseline
        rect_fx, rect_fy, rect_cx, rect_cy = rect
    except (
        OSError, yaml.YAMLError, KeyError, IndexError, TypeError, ValueError, ZeroDivisionError,
    ) as error:  # fmt: skip
        raise RecordingError(
            f"{path} is no readable calibration of DSEC ({type(error).__name__}: {error}); it "
            f"needs intrinsics of cam0 and camRect0, R_rect0 and disparity_to_depth of cams_03",
            path=str(path),
        ) from error
    p = (rect_fx, 0.0, rect_cx, 0.0, 0.0, rect_fy, rect_cy, 0.0, 0.0, 0.0, 1.0, 0.0)
    k = (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)
    rect_k = (rect_fx, 0.0, rect_cx, 0.0, rect_fy, rect_cy, 0.0, 0.0, 1.0)
    # sensor_msgs wants five coefficients of plumb_bob; the file has four, the fifth is zero.
    raw = CameraInfo(height, width, "plumb_bob", (*distortion, 0.0)[:5], k, rotation, p)
    rectified = CameraInfo(height, width, "plumb_bob", (0.0,) * 5, rect_k, _IDENTITY, p)
    return DsecCalibration(raw, rectified, scale)
