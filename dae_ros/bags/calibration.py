"""Calibrations: of a recording, or from a file.

Files are those that the two calibrators of event cameras' users write: Kalibr (`camchain-*.yaml`,
MVSEC's too) and ROS' camera_calibration (`camera_info` as YAML, what camera drivers load).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from dae_ros.bags.messages import CameraInfo, read_camera_info
from dae_ros.bags.recording import Recording
from dae_ros.errors import PacketError, RecordingError
from dae_ros.paths import named_path

# Kalibr's names of distortion models -> those of sensor_msgs.
_MODELS = {"equidistant": "equidistant", "radtan": "plumb_bob"}


def read_calibration(path: Path, events_topic: str) -> CameraInfo:
    """Read the calibration of the camera that publishes the events.

    Args:
        path: a Kalibr camera chain: `cam0` ... with intrinsics [fu, fv, cu, cv],
            distortion_model, distortion_coeffs, resolution [width, height] and rostopic; or the
            one camera of camera_calibration: image_width, image_height, distortion_model, and
            `data` of camera_matrix, distortion_coefficients, rectification_matrix and
            projection_matrix.
        events_topic: of a chain, the camera whose `rostopic` lies in the same namespace is taken,
            `cam0` where none does.

    Raises:
        RecordingError: no such file, or of neither form.
    """
    try:
        content: Any = yaml.safe_load(named_path(str(path)).read_text(encoding="utf-8"))
        if "camera_matrix" in content:
            return _of_camera_calibration(content)
        return _of_kalibr(content, events_topic)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordingError(
            f"{path} is no readable calibration ({type(error).__name__}: {error}): neither a "
            "Kalibr camera chain (cam0 with intrinsics, distortion_model, distortion_coeffs and "
            "resolution) nor a file of camera_calibration (image_width, image_height, "
            "distortion_model, camera_matrix, distortion_coefficients, rectification_matrix, "
            "projection_matrix)",
            path=str(path),
        ) from error


def _of_camera_calibration(camera: Mapping[str, Any]) -> CameraInfo:
    def matrix(name: str, size: int | None) -> tuple[float, ...]:
        values = tuple(float(value) for value in camera[name]["data"])
        if size is not None and len(values) != size:
            raise ValueError(f"{name} has {len(values)} numbers, not {size}")
        return values

    return CameraInfo(
        int(camera["image_height"]),
        int(camera["image_width"]),
        str(camera["distortion_model"]),
        matrix("distortion_coefficients", None),
        k=matrix("camera_matrix", 9),
        r=matrix("rectification_matrix", 9),
        p=matrix("projection_matrix", 12),
    )


def _of_kalibr(chain: Mapping[str, Any], events_topic: str) -> CameraInfo:
    cameras = {name: camera for name, camera in chain.items() if name.startswith("cam")}
    namespace = events_topic.rpartition("/")[0]
    camera = next(
        (
            item
            for item in cameras.values()
            if namespace and str(item.get("rostopic", "")).rpartition("/")[0] == namespace
        ),
        cameras["cam0"],
    )
    fu, fv, cu, cv = (float(value) for value in camera["intrinsics"])
    width, height = (int(value) for value in camera["resolution"])
    return CameraInfo(
        height,
        width,
        _MODELS[camera["distortion_model"]],
        tuple(float(value) for value in camera["distortion_coeffs"]),
        k=(fu, 0.0, cu, 0.0, fv, cv, 0.0, 0.0, 1.0),
        r=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        p=(fu, 0.0, cu, 0.0, 0.0, fv, cv, 0.0, 0.0, 0.0, 1.0, 0.0),
    )


def recorded_calibration(
    recording: Recording, topic: str, note: Callable[[str], None]
) -> CameraInfo | None:
    """Return the first camera_info of a topic that can be read, None where there is none.

    Args:
        recording: opened.
        topic: of sensor_msgs/CameraInfo.
        note: called with a sentence about each damaged one before it.
    """
    for message in recording.messages([topic]):
        try:
            return read_camera_info(recording.to_cdr(message))
        except (RecordingError, PacketError) as error:
            note(f"{topic}: {error}")
    return None
