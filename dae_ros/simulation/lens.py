"""A lens with distortion: where in a pinhole picture each of its pixels looks.

Model: plumb_bob (Brown 1971, as in sensor_msgs/CameraInfo). With r^2 = x^2 + y^2 of the
undistorted x = X / Z, y = Y / Z, the distorted point is
x (1 + k1 r^2 + k2 r^4 + k3 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2), and likewise for y.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError
from dae_ros.events.compilation import kernel
from dae_ros.simulation.camera import Camera

FloatArray = NDArray[np.float64]
_MOST_ITERATIONS = 100
_TOLERANCE = 1e-10


class Lens:
    """Resamples what a pinhole camera sees into what a camera with distortion sees.

    Args:
        camera: with distortion.

    Attributes:
        pinhole: a camera of the same focal length that covers the whole field of view.
        column, row: float64[H, W], where in the picture of `pinhole` each pixel looks.
        magnification: the most that it stretches, anywhere in the picture and in any direction,
            what `pinhole` shows; at least 1, which it is at the principal point.

    Raises:
        ConfigurationError: the distortion folds the picture over itself.
    """

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        y, x = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float64)
        x, y = undistort(
            (x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, camera.distortion
        )
        column, row = x * camera.fx + camera.cx, y * camera.fy + camera.cy
        # One pixel more on each side than the bilinear samples need.
        left, top = int(np.floor(column.min())) - 1, int(np.floor(row.min())) - 1
        self.column, self.row = column - left, row - top
        self.pinhole = Camera(
            int(np.ceil(self.row.max())) + 2, int(np.ceil(self.column.max())) + 2,
            camera.fx, camera.fy, camera.cx - left, camera.cy - top,
        )  # fmt: skip
        stretch = magnification(x, y, camera.distortion, camera.fx / camera.fy)
        # The principal point may lie between pixels.
        self.magnification = max(1.0, float(stretch.max()))

    def radiance(self, pinhole: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32[H, W]: the picture of `pinhole` resampled bilinearly."""
        result = np.empty((self._camera.height, self._camera.width), np.float32)
        _resample(pinhole, self.column, self.row, result)
        return result


def distort(
    x: FloatArray, y: FloatArray, distortion: tuple[float, ...]
) -> tuple[FloatArray, FloatArray]:
    """Return the distorted (x, y) of normalised image coordinates."""
    k1, k2, p1, p2, k3 = distortion
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return (
        x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x),
        y * radial + 2.0 * p2 * x * y + p1 * (r2 + 2.0 * y * y),
    )


def magnification(
    x: FloatArray, y: FloatArray, distortion: tuple[float, ...], aspect: float = 1.0
) -> FloatArray:
    """Return by how much `distort` stretches the picture around (x, y), where it does most.

    The largest singular value of the Jacobian in pixels.

    Args:
        x, y: normalised image coordinates without distortion.
        distortion: see `Camera`.
        aspect: fx / fy.
    """
    k1, k2, p1, p2, k3 = distortion
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = 2.0 * (k1 + r2 * (2.0 * k2 + r2 * 3.0 * k3))
    xx = radial + x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x
    yy = radial + y * y * slope + 2.0 * p2 * x + 6.0 * p1 * y
    cross = x * y * slope + 2.0 * p1 * x + 2.0 * p2 * y
    xy, yx = cross * aspect, cross / aspect
    return np.asarray(0.5 * (np.hypot(xx + yy, xy - yx) + np.hypot(xx - yy, xy + yx)))


def undistort(
    x: FloatArray, y: FloatArray, distortion: tuple[float, ...]
) -> tuple[FloatArray, FloatArray]:
    """Return the (x, y) that `distort` takes to the given ones, by Newton's method.

    Raises:
        ConfigurationError: no such point, or the picture is folded there.
    """
    step = 1e-6
    u, v = x.copy(), y.copy()
    for _ in range(_MOST_ITERATIONS):
        du, dv = distort(u, v, distortion)
        a, c = (
            (f - g) / step for f, g in zip(distort(u + step, v, distortion), (du, dv), strict=True)
        )
        b, d = (
            (f - g) / step for f, g in zip(distort(u, v + step, distortion), (du, dv), strict=True)
        )
        determinant = a * d - b * c
        error_x, error_y = x - du, y - dv
        if not (determinant > 0.0).all():
            break
        if max(np.abs(error_x).max(), np.abs(error_y).max()) < _TOLERANCE:
            return u, v
        u = u + (d * error_x - b * error_y) / determinant
        v = v + (a * error_y - c * error_x) / determinant
    raise ConfigurationError(
        "The distortion folds the picture over itself within the field of view; choose weaker "
        "coefficients or a narrower field of view.",
        distortion=distortion,
    )


@kernel
def _resample(
    picture: NDArray[np.float32],
    column: FloatArray,
    row: FloatArray,
    result: NDArray[np.float32],
) -> None:
    for y in range(result.shape[0]):
        for x in range(result.shape[1]):
            c = int(column[y, x])
            r = int(row[y, x])
            dc = np.float32(column[y, x] - c)
            dr = np.float32(row[y, x] - r)
            upper = picture[r, c] + dc * (picture[r, c + 1] - picture[r, c])
            lower = picture[r + 1, c] + dc * (picture[r + 1, c + 1] - picture[r + 1, c])
            result[y, x] = upper + dr * (lower - upper)
