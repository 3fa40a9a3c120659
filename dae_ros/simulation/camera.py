"""The camera of the simulator, and where it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera in the optical convention: x right, y down, z forward.

    The centre of pixel (column x, row y) lies at (x, y). Without distortion a point (X, Y, Z) in
    m is seen at (fx X / Z + cx, fy Y / Z + cy); with it X / Z and Y / Z are distorted first
    (`dae_ros.simulation.lens`).

    Attributes:
        height, width: image size in px.
        fx, fy: focal lengths in px.
        cx, cy: principal point in px.
        distortion: k1, k2, p1, p2, k3 of the plumb_bob model; empty for a pinhole.
    """

    height: int
    width: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    @staticmethod
    def from_field_of_view(
        height: int, width: int, horizontal_deg: float, distortion: tuple[float, ...] = ()
    ) -> Camera:
        """Return a camera with square pixels and its principal point in the middle.

        Args:
            height, width: image size in px.
            horizontal_deg: angle that the width spans without distortion, in degrees.
            distortion: see `Camera`.
        """
        focal = 0.5 * width / math.tan(math.radians(horizontal_deg) / 2.0)
        return Camera(height, width, focal, focal, (width - 1) / 2, (height - 1) / 2, distortion)

    def matrix(self) -> NDArray[np.float64]:
        """Return K, float64[3, 3], in px."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """Where a frame is in the world, and how it moves.

    Attributes:
        rotation: float64[3, 3], turns the frame's coordinates into the world's.
        position: float64[3], its origin in the world, m.
        linear: float64[3], velocity of the origin in the frame's coordinates, m/s.
        angular: float64[3], angular velocity in the frame's coordinates, rad/s.
    """

    rotation: NDArray[np.float64]
    position: NDArray[np.float64]
    linear: NDArray[np.float64]
    angular: NDArray[np.float64]
