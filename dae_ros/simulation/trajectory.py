"""Smooth, endless, bounded camera motion in six degrees of freedom.

The world is x forward, y left, z up, in m. The camera's body looks along its x axis; its
attitude is yaw about z, then pitch about y, then roll about x (REP 103).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dae_ros.simulation.camera import Pose
from dae_ros.simulation.motion import Loop, Stops

# Columns are the optical axes (right, down, forward) in body coordinates (forward, left, up).
BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
X, Y, Z, YAW, PITCH, ROLL = range(6)
Vector = NDArray[np.float64]


class Trajectory(Protocol):
    """How the camera moves."""

    def pose(self, time_ns: int) -> Pose:
        """Return where the optical frame is at a time since the start, with its twist."""


@dataclass(frozen=True, slots=True, eq=False)
class Sway:
    """Each coordinate q is centre + sum over k of amplitude[q, k] sin(2 pi frequency t + phase).

    Attributes:
        centre: float64[6], x, y, z in m and yaw, pitch, roll in rad.
        amplitude: float64[6, K], in m and rad.
        frequency_hz: float64[6, K].
        phase: float64[6, K], rad.
        stops: when it stands still.
    """

    centre: Vector
    amplitude: Vector
    frequency_hz: Vector
    phase: Vector
    stops: Stops = field(default_factory=Stops)

    @staticmethod
    def still(position: tuple[float, float, float], yaw: float = 0.0) -> Sway:
        """Return a camera that does not move."""
        nothing = np.zeros((6, 1))
        return Sway(np.array([*position, yaw, 0.0, 0.0]), nothing, nothing, nothing)

    @staticmethod
    def seeded(
        centre: Sequence[float],
        amplitude: Sequence[Sequence[float]],
        frequency_hz: Sequence[Sequence[float]],
        seed: int,
        stops: Stops,
        speed: float = 1.0,
        first_phase: Sequence[float] = (math.nan,) * 6,
    ) -> Sway:
        """Vary frequencies by 10 % and all phases but those given, so that seeds differ in path.

        Args:
            centre, amplitude, frequency_hz, stops: see `Sway`.
            seed: of frequencies and phases.
            speed: factor on all frequencies.
            first_phase: of the first sinusoid of each coordinate, rad; NaN for a random one.
        """
        generator = np.random.default_rng([seed, 2])
        frequency = np.array(frequency_hz, float)
        frequency = frequency * generator.uniform(0.9, 1.1, frequency.shape) * speed
        phase = generator.uniform(0.0, 2.0 * np.pi, frequency.shape)
        known = np.isfinite(first_phase)
        phase[known, 0] = np.asarray(first_phase)[known]
        return Sway(np.array(centre, float), np.array(amplitude, float), frequency, phase, stops)

    def coordinates(self, time_s: float) -> tuple[Vector, Vector]:
        """Return x, y, z, yaw, pitch, roll and their rates at a time, each float64[6]."""
        flowed_s, flow = self.stops.warp(time_s)
        omega = 2.0 * np.pi * self.frequency_hz
        angle = omega * flowed_s + self.phase
        value = self.centre + (self.amplitude * np.sin(angle)).sum(axis=1)
        rate = (self.amplitude * omega * np.cos(angle)).sum(axis=1) * flow
        return value, rate

    def pose(self, time_ns: int) -> Pose:
        """See `Trajectory`."""
        return _optical_pose(*self.coordinates(time_ns * 1e-9))


@dataclass(frozen=True, slots=True, eq=False)
class LoopTrajectory:
    """A camera that is carried along a loop, looking ahead, and sways about that.

    Attributes:
        loop: the line on the ground.
        start_m: progress at time 0 (`Loop.arc`: it slows down in corners).
        speed_m_s: on the straight.
        sway: x along and y to the left of the line, z above the ground, and the attitude against
            the heading. Its stops are those of the whole motion.
    """

    loop: Loop
    start_m: float
    speed_m_s: float
    sway: Sway

    def coordinates(self, time_s: float) -> tuple[Vector, Vector]:
        """Return x, y, z, yaw, pitch, roll and their rates at a time, each float64[6]."""
        value, rate = self.sway.coordinates(time_s)
        flowed_s, flow = self.sway.stops.warp(time_s)
        along_m, pace = self.loop.arc(self.start_m + self.speed_m_s * flowed_s + value[X])
        along_rate = (self.speed_m_s * flow + rate[X]) * pace
        heading, curvature = self.loop.heading(along_m)
        tangent = np.array([math.cos(heading), math.sin(heading)])
        normal = np.array([-math.sin(heading), math.cos(heading)])
        lane_m, lane_rate = value[Y], rate[Y]
        value[:Z] = self.loop.point(along_m) + lane_m * normal
        rate[:Z] = tangent * along_rate * (1.0 - curvature * lane_m) + normal * lane_rate
        value[YAW] += heading
        rate[YAW] += curvature * along_rate
        return value, rate

    def pose(self, time_ns: int) -> Pose:
        """See `Trajectory`."""
        return _optical_pose(*self.coordinates(time_ns * 1e-9))


def _optical_pose(value: Vector, rate: Vector) -> Pose:
    rotation = _rotation(value[YAW], value[PITCH], value[ROLL]) @ BODY_FROM_OPTICAL
    sin_pitch, cos_pitch = np.sin(value[PITCH]), np.cos(value[PITCH])
    sin_roll, cos_roll = np.sin(value[ROLL]), np.cos(value[ROLL])
    body_rate = np.array(
        [
            rate[ROLL] - rate[YAW] * sin_pitch,
            rate[PITCH] * cos_roll + rate[YAW] * cos_pitch * sin_roll,
            -rate[PITCH] * sin_roll + rate[YAW] * cos_pitch * cos_roll,
        ]
    )
    return Pose(
        rotation, value[:YAW].copy(), rotation.T @ rate[:YAW], BODY_FROM_OPTICAL.T @ body_rate
    )


def _rotation(yaw: float, pitch: float, roll: float) -> Vector:
    cy, sy = np.cos(yaw), np.sin(yaw)
    cp, sp = np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )
