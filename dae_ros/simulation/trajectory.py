"""Smooth, endless, bounded camera motion in six degrees of freedom: sums of sinusoids.

The world is x forward, y left, z up, in m. The camera's body looks along its x axis; its
attitude is yaw about z, then pitch about y, then roll about x (REP 103).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dae_ros.simulation.camera import Pose

# Columns are the optical axes (right, down, forward) in body coordinates (forward, left, up).
BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
X, Y, Z, YAW, PITCH, ROLL = range(6)


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Each coordinate q is centre + sum over k of amplitude[q, k] sin(2 pi frequency t + phase).

    Attributes:
        centre: float64[6], x, y, z in m and yaw, pitch, roll in rad.
        amplitude: float64[6, K], in m and rad.
        frequency_hz: float64[6, K].
        phase: float64[6, K], rad.
    """

    centre: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    frequency_hz: NDArray[np.float64]
    phase: NDArray[np.float64]

    @staticmethod
    def still(position: tuple[float, float, float], yaw: float = 0.0) -> Trajectory:
        """Return a camera that does not move."""
        nothing = np.zeros((6, 1))
        return Trajectory(np.array([*position, yaw, 0.0, 0.0]), nothing, nothing, nothing)

    def coordinates(self, time_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return x, y, z, yaw, pitch, roll and their rates at a time, each float64[6]."""
        omega = 2.0 * np.pi * self.frequency_hz
        angle = omega * time_s + self.phase
        value = self.centre + (self.amplitude * np.sin(angle)).sum(axis=1)
        rate = (self.amplitude * omega * np.cos(angle)).sum(axis=1)
        return value, rate

    def pose(self, time_ns: int) -> Pose:
        """Return where the optical frame is at a time since the start, with its twist."""
        value, rate = self.coordinates(time_ns * 1e-9)
        world_from_body = _rotation(value[YAW], value[PITCH], value[ROLL])
        rotation = world_from_body @ BODY_FROM_OPTICAL
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
            rotation,
            value[:YAW].copy(),
            rotation.T @ rate[:YAW],
            BODY_FROM_OPTICAL.T @ body_rate,
        )


def _rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
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


def _seeded(
    centre: list[float],
    amplitude: list[list[float]],
    frequency_hz: list[list[float]],
    seed: int,
    first_phase: list[float],
) -> Trajectory:
    """Vary frequencies by 10 % and all phases but those given, so that seeds differ in path."""
    generator = np.random.default_rng([seed, 2])
    frequency = np.array(frequency_hz)
    frequency = frequency * generator.uniform(0.9, 1.1, frequency.shape)
    phase = generator.uniform(0.0, 2.0 * np.pi, frequency.shape)
    known = np.isfinite(first_phase)
    phase[known, 0] = np.asarray(first_phase)[known]
    return Trajectory(np.array(centre), np.array(amplitude), frequency, phase)


def room_trajectory(seed: int) -> Trajectory:
    """Return a walk about the middle of the room that looks around, with a hand's shake."""
    free = float("nan")
    return _seeded(
        [0.0, 0.0, 1.35, 0.0, 0.05, 0.0],
        [[1.1, 0.12], [0.8, 0.1], [0.12, 0.02], [1.1, 0.08], [0.08, 0.015], [0.04, 0.01]],
        [[0.06, 0.21], [0.07, 0.25], [0.13, 0.8], [0.035, 0.27], [0.12, 0.7], [0.1, 0.6]],
        seed,
        [free] * 6,
    )


def corridor_trajectory(seed: int) -> Trajectory:
    """Return a walk along the corridor and back, always looking ahead, with steps and sway."""
    free = float("nan")
    return _seeded(
        [0.0, 0.0, 1.45, 0.0, 0.02, 0.0],
        [[13.0, 0.1], [0.25, 0.03], [0.03, 0.015], [0.16, 0.03], [0.03, 0.006], [0.02, 0.006]],
        [[0.012, 0.2], [0.13, 0.8], [0.3, 1.7], [0.09, 0.4], [0.15, 1.6], [0.15, 0.8]],
        # It begins two thirds into the swing, walking forward.
        seed,
        [-0.7, free, free, free, free, free],
    )
