"""Events from a recorded RGB-D sequence with poses: the world is what was filmed.

Layout (7-Scenes, Shotton et al., CVPR 2013, with the intrinsics file of the 3DMatch toolbox):

    camera-intrinsics.txt           3 x 3 matrix in px, here or in the folder above
    frame-000000.color.png (.jpg)   8-bit colour or grey
    frame-000000.depth.png          16-bit, mm, on the colour's pixels; 0 and 65535 unknown
    frame-000000.pose.txt           4 x 4 matrix from the camera to the world, m

A frame's number is its time: frames that are missing, such as those whose pose was not found, leave
a pause over which the camera goes on evenly. The first frame that is there is the beginning.

Between two frames the camera follows their poses smoothly, and both frames are warped to where it
is: their depth makes a mesh, torn at jumps of depth, whose colours fade from one to the other.
What neither of them saw keeps its last radiance, and has no depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.simulation.camera import Camera, Pose
from dae_ros.simulation.warp import warp

FloatImage = NDArray[np.float32]
INTRINSICS = "camera-intrinsics.txt"
_UNKNOWN_MM = (0, 65535)
_GAMMA = 2.2
# Two frames that see depths further apart than this share of it see different things.
_SAME_DEPTH = 0.05
# For the twist, by differences.
_DIFFERENCE_US = 500
_KEPT_FRAMES = 4


@dataclass(frozen=True, slots=True, eq=False)
class RgbdFrame:
    """One frame at the simulated size.

    Attributes:
        radiance: float32[H, W], linear, 0..1.
        inverse_depth: float32[H, W], 1/m, gaps filled from the farther side.
        known: bool[H, W], where depth was recorded.
    """

    radiance: FloatImage
    inverse_depth: FloatImage
    known: NDArray[np.bool_]


class RgbdSequence:
    """A folder of frames as a world (`dae_ros.simulation.worlds.World`).

    Args:
        path: the folder.
        frame_hz: at which rate it was filmed; the layout does not say (7-Scenes: 30).
        size: (height, width) to simulate, px; None takes the frames'.

    Raises:
        RecordingError: a file is missing, damaged or of another layout.
        ConfigurationError: a rate that is not positive and finite.
    """

    def __init__(self, path: Path, frame_hz: float, size: tuple[int, int] | None = None) -> None:
        if not 0.0 < frame_hz < math.inf:
            raise ConfigurationError(
                f"The rate of a sequence must be positive and finite, not {frame_hz}.",
                frame_hz=frame_hz,
            )
        self._colours = sorted(path.glob("frame-*.color.*"))
        if len(self._colours) < 2:
            raise RecordingError(
                f"{path} has {len(self._colours)} files frame-NNNNNN.color.png; a sequence needs "
                "two at least",
                path=str(path),
            )
        self._stems = [item.name.split(".")[0] for item in self._colours]
        self._path = path
        self._times_us = self._read_numbers() * (1e6 / frame_hz)
        self.poses = np.stack([_read_matrix(path / f"{stem}.pose.txt", 4) for stem in self._stems])
        self._check_poses()
        beside = path / INTRINSICS
        matrix = _read_intrinsics(beside if beside.exists() else path.parent / INTRINSICS)
        height, width = self._read_colour(0).shape
        self._size = (height, width) if size is None else size
        down, across = self._size[0] / height, self._size[1] / width
        (fx, _, cx), (_, fy, cy), _ = matrix.tolist()  # plain floats, which YAML can write
        # Pixel centres are whole numbers and images are resized edge to edge.
        self.camera = Camera(
            self._size[0],
            self._size[1],
            fx * across,
            fy * down,
            (cx + 0.5) * across - 0.5,
            (cy + 0.5) * down - 0.5,
        )
        self.frame = lru_cache(maxsize=_KEPT_FRAMES)(self._read_frame)

    longest_step_us = 5000

    @property
    def end_us(self) -> int:
        """See `World`: the time of the last frame."""
        return int(self._times_us[-1])

    def view(self) -> RgbdView:
        """See `World`."""
        return RgbdView(self)

    def between(self, time_us: float) -> tuple[int, float]:
        """Return the frame before a time, and how far it is on the way to the next one, 0..1."""
        times_us = self._times_us
        time_us = min(max(time_us, 0.0), float(times_us[-1]))
        later = int(np.searchsorted(times_us, time_us, side="right"))
        index = min(later - 1, len(times_us) - 2)
        span_us = times_us[index + 1] - times_us[index]
        return index, float((time_us - times_us[index]) / span_us)

    def pose(self, time_us: int) -> Pose:
        """Return where the camera is: cubic between positions, the shortest turn in between."""
        early, late = (self._matrix(time_us + by) for by in (-_DIFFERENCE_US, _DIFFERENCE_US))
        rotation, position = self._matrix(time_us)
        seconds = 2e-6 * _DIFFERENCE_US
        turn = rotation.T @ (late[0] - early[0]) / seconds
        return Pose(
            rotation,
            position,
            rotation.T @ (late[1] - early[1]) / seconds,
            np.array([turn[2, 1], turn[0, 2], turn[1, 0]]),
        )

    def _matrix(self, time_us: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        index, part = self.between(time_us)
        first, second = self.poses[index], self.poses[index + 1]
        p, q = first[:3, 3], second[:3, 3]
        span_us = self._times_us[index + 1] - self._times_us[index]
        leave, arrive = (span_us * self._velocity(index + end) for end in (0, 1))
        u = part
        position = (
            (1 + 2 * u) * (1 - u) ** 2 * p + u * (1 - u) ** 2 * leave
            + u * u * (3 - 2 * u) * q + u * u * (u - 1) * arrive
        )  # fmt: skip
        vector, _ = cv2.Rodrigues(first[:3, :3].T @ second[:3, :3])
        turn, _ = cv2.Rodrigues(np.asarray(vector) * u)
        rotation: NDArray[np.float64] = first[:3, :3] @ np.asarray(turn, np.float64)
        return rotation, position

    def _velocity(self, index: int) -> NDArray[np.float64]:
        """Return how fast the camera passes a frame, m/us: from its neighbours, or the only one."""
        before, after = max(index - 1, 0), min(index + 1, len(self.poses) - 1)
        way: NDArray[np.float64] = self.poses[after][:3, 3] - self.poses[before][:3, 3]
        return way / float(self._times_us[after] - self._times_us[before])

    def _read_numbers(self) -> NDArray[np.float64]:
        """Return the numbers of the frames, from that of the first one on.

        Raises:
            RecordingError: a name without a number, or two of one.
        """
        numbers: list[int] = []
        for item, stem in zip(self._colours, self._stems, strict=True):
            number = stem.removeprefix("frame-")
            if not (number.isascii() and number.isdigit()):
                raise RecordingError(
                    f"{item} has no number; frames are frame-NNNNNN.color.png", path=str(item)
                )
            if numbers and int(number) <= numbers[-1]:
                raise RecordingError(
                    f"{item} is not later than the frame before it; give each frame one picture "
                    "and all numbers equally many digits",
                    path=str(item),
                )
            numbers.append(int(number))
        return np.array(numbers, np.float64) - numbers[0]

    def _check_poses(self) -> None:
        for stem, pose in zip(self._stems, self.poses, strict=True):
            rotation = pose[:3, :3]
            if (
                not np.isfinite(pose).all()
                or np.linalg.det(rotation) < 0.5
                or np.abs(rotation.T @ rotation - np.eye(3)).max() > 1e-2
                or np.abs(pose[3] - [0.0, 0.0, 0.0, 1.0]).max() > 1e-6
            ):
                raise RecordingError(
                    f"{self._path / stem}.pose.txt is no rigid motion; remove the files of frames "
                    "without a pose, and leave the others their numbers",
                    path=str(self._path / stem),
                )

    def _read_colour(self, index: int) -> FloatImage:
        path = self._colours[index]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise RecordingError(f"the frame {path} is no readable picture", path=str(path))
        linear = (np.asarray(image, np.float32) / 255.0) ** _GAMMA
        # Luminance of Rec. 709 from blue, green, red.
        weights = np.array([0.0722, 0.7152, 0.2126], np.float32)
        return np.asarray(linear @ weights, np.float32)

    def _read_frame(self, index: int) -> RgbdFrame:
        radiance = self._read_colour(index)
        path = self._path / f"{self._stems[index]}.depth.png"
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None or image.dtype != np.uint16 or image.shape != radiance.shape:
            found = (
                "missing or unreadable" if image is None else f"{image.dtype}{list(image.shape)}"
            )
            raise RecordingError(
                f"the depth {path} is {found}, expected a 16-bit picture of "
                f"{radiance.shape[1]}x{radiance.shape[0]} px in mm",
                path=str(path),
            )
        depth_mm = np.asarray(image)
        height, width = self._size
        if radiance.shape != self._size:
            how = cv2.INTER_AREA if radiance.shape[0] >= height else cv2.INTER_LINEAR
            radiance = np.asarray(
                cv2.resize(radiance, (width, height), interpolation=how), np.float32
            )
            depth_mm = np.asarray(
                cv2.resize(depth_mm, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            )
        known = ~np.isin(depth_mm, _UNKNOWN_MM)
        inverse = np.zeros(self._size, np.float32)
        inverse[known] = np.float32(1000.0) / depth_mm[known]
        if not known.any():
            raise RecordingError(f"the depth {path} is unknown everywhere", path=str(path))
        return RgbdFrame(radiance, _fill(inverse), known)


class RgbdView:
    """A view of a sequence (`dae_ros.simulation.worlds.View`)."""

    def __init__(self, sequence: RgbdSequence) -> None:
        self._sequence = sequence
        size = (sequence.camera.height, sequence.camera.width)
        self._radiance: FloatImage = sequence.frame(0).radiance.copy()
        self._inverse_depth = np.zeros(size, np.float32)
        self._known = np.zeros(size, np.bool_)
        self._pose: Pose | None = None

    def look(self, time_us: int) -> None:
        """See `View`."""
        sequence = self._sequence
        index, part = sequence.between(time_us)
        pose = self._pose = sequence.pose(time_us)
        target = np.eye(4)
        target[:3, :3], target[:3, 3] = pose.rotation, pose.position
        warped = []
        for source in (index, index + 1):
            frame = sequence.frame(source)
            motion = np.linalg.inv(target) @ sequence.poses[source]
            warped.append(
                warp(frame.radiance, frame.inverse_depth, frame.known, motion, sequence.camera)
            )
        (r0, w0, k0), (r1, w1, k1) = warped
        share = np.full(r0.shape, part, np.float32)
        # Only one of them sees something, or it sees something nearer.
        agree = np.abs(w0 - w1) < _SAME_DEPTH * np.maximum(w0, w1)
        share[(w1 == 0.0) | (~agree & (w0 > w1))] = 0.0
        share[(w0 == 0.0) | (~agree & (w1 > w0))] = 1.0
        seen = (w0 > 0.0) | (w1 > 0.0)
        radiance = r0 + share * (r1 - r0)
        self._radiance = np.where(seen, radiance, self._radiance).astype(np.float32)
        self._inverse_depth = w0 + share * (w1 - w0)
        self._known = np.where(share < 0.5, k0, k1) & seen

    def radiance(self) -> FloatImage:
        """See `View`."""
        return self._radiance

    def depth(self) -> FloatImage:
        """See `View`: NaN where depth was not recorded."""
        depth = np.full(self._known.shape, math.nan, np.float32)
        depth[self._known] = 1.0 / self._inverse_depth[self._known]
        return depth

    def greatest_flow(self) -> float:
        """See `View`."""
        pose, camera = self.pose(), self._sequence.camera
        row, column = np.mgrid[0 : camera.height : 4, 0 : camera.width : 4]
        x, y = (column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy
        w = self._inverse_depth[::4, ::4]
        linear, angular = pose.linear, pose.angular
        u = camera.fx * (
            (x * linear[2] - linear[0]) * w
            + angular[0] * x * y
            - angular[1] * (1.0 + x * x)
            + angular[2] * y
        )
        v = camera.fy * (
            (y * linear[2] - linear[1]) * w
            + angular[0] * (1.0 + y * y)
            - angular[1] * x * y
            - angular[2] * x
        )
        return float(np.hypot(u, v).max())

    def pose(self) -> Pose:
        """See `View`."""
        if self._pose is None:
            raise RuntimeError("look() somewhere before asking for what is seen")
        return self._pose


def _read_matrix(path: Path, size: int) -> NDArray[np.float64]:
    try:
        matrix = np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise RecordingError(
            f"the matrix {path} cannot be read ({error})", path=str(path)
        ) from error
    if matrix.shape != (size, size):
        raise RecordingError(
            f"the matrix {path} is {list(matrix.shape)}, not {size} x {size}", path=str(path)
        )
    return matrix


def _read_intrinsics(path: Path) -> NDArray[np.float64]:
    matrix = _read_matrix(path, 3)
    if not (np.isfinite(matrix).all() and matrix[0, 0] > 0.0 and matrix[1, 1] > 0.0):
        raise RecordingError(
            f"{path} is no matrix of a camera: fx and fy must be above 0", path=str(path)
        )
    return matrix


def _fill(inverse_depth: FloatImage) -> FloatImage:
    """Fill gaps (0) along rows with the farther of their two ends, then along columns."""
    for axis in (1, 0):
        from_before = _carry(inverse_depth, axis)
        from_after = np.flip(_carry(np.flip(inverse_depth, axis), axis), axis)
        farther = np.minimum(from_before, from_after)
        only = np.maximum(from_before, from_after)
        filled = np.where(farther > 0.0, farther, only)
        inverse_depth = np.where(inverse_depth > 0.0, inverse_depth, filled)
    return inverse_depth


def _carry(values: FloatImage, axis: int) -> FloatImage:
    """Replace each 0 by the last value before it along an axis, where there is one."""
    position = np.arange(values.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1))
    last = np.maximum.accumulate(np.where(values > 0.0, position, 0), axis=axis)
    return np.asarray(np.take_along_axis(values, last, axis=axis), np.float32)
