"""The calibration that goes with a depth image: live and offline follow one rule.

A calibration of the same shape (ratio of sides) is scaled to the depth image; one of another shape
belongs to another camera. Without one the depth image still has its camera_info, all zero, which is
how ROS says 'uncalibrated' (sensor_msgs/CameraInfo: K[0] is 0).
"""

from __future__ import annotations

from dae_ros.bags.messages import CameraInfo
from dae_ros.representation.geometry import scale_camera_matrix, scale_projection_matrix


def fits(camera: CameraInfo, height: int, width: int) -> bool:
    """Whether a calibration can be of the camera that made a map of this size.

    One without a size (0 x 0 is the message's default, and what drivers send uncalibrated) cannot.
    """
    return camera.height > 0 and camera.height * width == camera.width * height


def output_camera(camera: CameraInfo | None, height: int, width: int) -> CameraInfo:
    """Return the calibration of a map of `height` x `width` px; distortion and rotation stay.

    Args:
        camera: None, or one that does not fit: the result is uncalibrated.
        height, width: of the map in px.
    """
    if camera is None or not fits(camera, height, width):
        return CameraInfo(height, width)
    size, wanted = (camera.height, camera.width), (height, width)
    if size == wanted:
        return camera
    return CameraInfo(
        height,
        width,
        camera.distortion_model,
        camera.d,
        tuple(scale_camera_matrix(camera.k, size, wanted)),
        camera.r,
        tuple(scale_projection_matrix(camera.p, size, wanted)),
        camera.frame_id,
    )
