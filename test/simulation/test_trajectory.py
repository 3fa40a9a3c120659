"""Paths: smooth, with the twist that their positions have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dae_ros.simulation.trajectory import Trajectory, corridor_trajectory, room_trajectory

STEP_NS = 100_000


@pytest.mark.parametrize("make", [room_trajectory, corridor_trajectory])
def test_twist_is_the_derivative_of_the_pose(make: Callable[[int], Trajectory]) -> None:
    """Linear and angular velocity equal central differences of position and rotation."""
    trajectory = make(7)
    for time_ns in (0, 1_234_567_000, 60_000_000_000):
        pose = trajectory.pose(time_ns)
        early, late = trajectory.pose(time_ns - STEP_NS), trajectory.pose(time_ns + STEP_NS)
        seconds = 2e-9 * STEP_NS
        linear = pose.rotation.T @ (late.position - early.position) / seconds
        np.testing.assert_allclose(pose.linear, linear, atol=1e-5)
        turn = pose.rotation.T @ (late.rotation - early.rotation) / seconds
        np.testing.assert_allclose(pose.angular, [turn[2, 1], turn[0, 2], turn[1, 0]], atol=1e-5)
        np.testing.assert_allclose(pose.rotation.T @ pose.rotation, np.eye(3), atol=1e-12)


def test_optical_axes_of_a_level_camera() -> None:
    """Level and unturned it looks along x, its columns run to -y (right), its rows to -z (down)."""
    rotation = Trajectory.still((0.0, 0.0, 0.0)).pose(0).rotation
    np.testing.assert_array_equal(rotation[:, 2], [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(rotation[:, 0], [0.0, -1.0, 0.0])
    np.testing.assert_array_equal(rotation[:, 1], [0.0, 0.0, -1.0])


def test_seeds_give_different_paths() -> None:
    """A seed always gives its own path, and another seed another one."""
    pose = room_trajectory(1).pose(5_000_000_000)
    np.testing.assert_array_equal(pose.position, room_trajectory(1).pose(5_000_000_000).position)
    assert np.abs(pose.position - room_trajectory(2).pose(5_000_000_000).position).max() > 0.01
