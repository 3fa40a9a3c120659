"""Calibrations: of a recording, or as Kalibr writes them (`camchain-*.yaml`), MVSEC's too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from dae_ros.bags.messages import CameraInfo, read_camera_info
from dae_ros.bags.recording import Recording
from dae_ros.errors import PacketError, RecordingError

# Kalibr's names of distortion models -> those of sensor_msgs.
_MODELS = {"equidistant": "equidistant", "radtan": "plumb_bob"}


def read_kalibr(path: Path, events_topic: str) -> CameraInfo:
    """Read the calibration of the camera that publishes the events.

    Args:
        path: a Kalibr camera chain: `cam0` ... with intrinsics [fu, fv, cu, cv],
            distortion_model, distortion_coeffs, resolution [width, height] and rostopic.
        events_topic: the camera whose `rostopic` lies in the same namespace is taken, `cam0`
            where none does.

    Raises:
        RecordingError: no such file, or not of this form.
    """
    try:
        chain: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
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
        coefficients = tuple(float(value) for value in camera["distortion_coeffs"])
        model = _MODELS[camera["distortion_model"]]
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordingError(
            f"{path} is no readable Kalibr camera chain ({type(error).__name__}: {error}); it "
            f"needs cam0 with intrinsics, distortion_model, distortion_coeffs and resolution",
            path=str(path),
        ) from error
    return CameraInfo(
        height,
        width,
        model,
        coefficients,
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
