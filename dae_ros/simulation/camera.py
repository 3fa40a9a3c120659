"""The pinhole camera of the simulator, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A DAVIS346 with a common lens: 18.5 um pixels, about 4.2 mm focal length.
DAVIS346_FOCAL_PX = 225.0
DAVIS346_WIDTH = 346


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera without distortion, in the optical convention: x right, y down, z forward.

    The centre of pixel (column x, row y) lies at (x, y); a point (X, Y, Z) in m is seen at
    (fx X / Z + cx, fy Y / Z + cy).

    Attributes:
        height, width: image size in px.
        fx, fy: focal lengths in px.
        cx, cy: principal point in px.
    """

    height: int
    width: int
    fx: float
    fy: float
    cx: float
    cy: float

    @staticmethod
    def davis346_like(height: int, width: int) -> Camera:
        """Return a camera with the horizontal field of view of a DAVIS346 (75 degrees)."""
        focal = DAVIS346_FOCAL_PX * width / DAVIS346_WIDTH
        return Camera(height, width, focal, focal, (width - 1) / 2, (height - 1) / 2)

    def matrix(self) -> NDArray[np.float64]:
        """Return K, float64[3, 3], in px."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """Where the optical frame is in the world, and how it moves.

    Attributes:
        rotation: float64[3, 3], turns optical into world coordinates.
        position: float64[3], the optical centre in the world, m.
        linear: float64[3], velocity of the optical centre in optical coordinates, m/s.
        angular: float64[3], angular velocity in optical coordinates, rad/s.
    """

    rotation: NDArray[np.float64]
    position: NDArray[np.float64]
    linear: NDArray[np.float64]
    angular: NDArray[np.float64]
