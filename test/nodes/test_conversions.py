"""Values to the wire, read back by rclpy: layout, order of rows, calibration under resizing."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo as CameraInfoMessage
from sensor_msgs.msg import Image

from dae_ros.bags.messages import CameraInfo, write_camera_info, write_image
from dae_ros.errors import ConfigurationError
from dae_ros.nodes.conversions import ns_to_stamp
from dae_ros.runtime.output_camera import output_camera


@pytest.mark.parametrize(
    ("pixels", "encoding", "step"),
    [
        (np.arange(12, dtype=np.float32).reshape(3, 4), "32FC1", 16),
        (np.arange(12, dtype=np.uint8).reshape(3, 4), "mono8", 4),
        (np.arange(36, dtype=np.uint8).reshape(3, 4, 3), "rgb8", 12),
    ],
)
def test_an_image_survives_the_wire(pixels, encoding, step):
    """A message holds the pixels row by row, also of a view that is not contiguous."""
    message = write_image(pixels[:, ::-1], 1_500_000_000, "camera")
    back = deserialize_message(message, Image)
    assert not back.is_bigendian
    assert (back.height, back.width, back.encoding, back.step) == (3, 4, encoding, step)
    assert (back.header.stamp.sec, back.header.stamp.nanosec) == (1, 500_000_000)
    assert back.header.frame_id == "camera"
    values = np.frombuffer(back.data, pixels.dtype).reshape(pixels.shape)
    np.testing.assert_array_equal(values, pixels[:, ::-1])


def test_a_negative_time_keeps_its_nanoseconds_positive():
    """Stamps before the epoch follow the convention of builtin_interfaces/Time."""
    stamp = ns_to_stamp(-1)
    assert (stamp.sec, stamp.nanosec) == (-1, 999_999_999)


def test_a_time_that_no_stamp_holds_is_refused():
    """The message's setter would wrap it to a time before the epoch."""
    with pytest.raises(ConfigurationError, match="beyond January 2038"):
        ns_to_stamp(2**31 * 10**9)


def test_a_calibration_is_scaled_to_the_map_that_it_accompanies():
    """Half the size halves focal lengths and moves the centre by the half-pixel rule."""
    camera = CameraInfo(
        48,
        64,
        "plumb_bob",
        (0.1, 0.2, 0.0, 0.0, 0.0),
        (50.0, 0.0, 31.5, 0.0, 52.0, 23.5, 0.0, 0.0, 1.0),
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        (50.0, 0.0, 31.5, 0.0, 0.0, 52.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0),
    )
    half = output_camera(camera, 24, 32)
    assert (half.height, half.width, half.distortion_model, half.d) == (
        24,
        32,
        "plumb_bob",
        camera.d,
    )
    np.testing.assert_allclose(half.k, (25.0, 0, 15.5, 0, 26.0, 11.5, 0, 0, 1))
    np.testing.assert_allclose(half.p, (25.0, 0, 15.5, 0, 0, 26.0, 11.5, 0, 0, 0, 1, 0))
    assert output_camera(camera, 48, 64) is camera
    # 0 x 0 is the message's default: what drivers send that know no calibration.
    for unknown in (None, CameraInfo(0, 0), CameraInfo(0, 64), CameraInfo(48, 0)):
        assert output_camera(unknown, 48, 64) == CameraInfo(48, 64)
    message = deserialize_message(write_camera_info(half, 7, "camera"), CameraInfoMessage)
    assert (message.header.stamp.nanosec, message.header.frame_id) == (7, "camera")
    assert (message.height, message.width, message.distortion_model) == (24, 32, "plumb_bob")
    for name in "dkrp":
        np.testing.assert_array_equal(getattr(message, name), getattr(half, name))
