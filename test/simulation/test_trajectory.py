"""Paths: smooth, closed, with stops, and with the twist that their positions have."""

from __future__ import annotations

import numpy as np
import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.motion import Loop, LoopMotion, Stops
from dae_ros.simulation.trajectory import LoopTrajectory, Sway
from dae_ros.simulation.worlds import create_trajectory

STEP_NS = 100_000
PATHS = [
    ("room", "walk"), ("room", "drone"), ("corridor", "walk"), ("street", "car"),
    ("street", "drone"), ("warehouse", "walk"),
    ("yard", "car"),
    ("park", "drone"),
]  # fmt: skip


def path(scene: str, motion: str, seed: int = 7, **changes: object) -> Sway | LoopTrajectory:
    values = {"scene": scene, "motion": motion, "seed": seed, **changes}
    return create_trajectory(SimulatorParameters.from_mapping(values))


@pytest.mark.parametrize(("scene", "motion"), PATHS)
def test_twist_is_the_derivative_of_the_pose(scene: str, motion: str) -> None:
    """Velocities equal central differences of position and rotation, through a stop as well."""
    trajectory = path(scene, motion, stop_every_s=10.0)
    for time_ns in (1, 1_234_567_000, 6_700_000_000, 9_500_000_000, 60_000_000_000):
        pose = trajectory.pose(time_ns)
        early, late = trajectory.pose(time_ns - STEP_NS), trajectory.pose(time_ns + STEP_NS)
        seconds = 2e-9 * STEP_NS
        linear = pose.rotation.T @ (late.position - early.position) / seconds
        np.testing.assert_allclose(pose.linear, linear, atol=1e-5)
        turn = pose.rotation.T @ (late.rotation - early.rotation) / seconds
        np.testing.assert_allclose(pose.angular, [turn[2, 1], turn[0, 2], turn[1, 0]], atol=1e-5)
        np.testing.assert_allclose(pose.rotation.T @ pose.rotation, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("speed_m_s", [3.0, -3.0])
def test_a_body_has_the_twist_of_its_motion(speed_m_s: float) -> None:
    """What follows a loop, either way round, moves and turns as its poses do."""
    motion = LoopMotion(
        Loop(8.0, 4.0, 6.0), 1.0, 2.0, speed_m_s, Stops(10.0, 2.0), bounce_m=0.03, bounce_hz=1.8
    )
    for time_s in (0.4, 2.0, 4.1, 6.9, 8.0, 31.0):
        pose = motion.pose(time_s)
        early, late = motion.pose(time_s - 1e-4), motion.pose(time_s + 1e-4)
        linear = pose.rotation.T @ (late.position - early.position) / 2e-4
        np.testing.assert_allclose(pose.linear, linear, atol=1e-4)
        turn = pose.rotation.T @ (late.rotation - early.rotation) / 2e-4
        np.testing.assert_allclose(pose.angular, [turn[2, 1], turn[0, 2], turn[1, 0]], atol=1e-4)


def test_a_loop_is_closed_and_its_length_is_true() -> None:
    """A loop returns to where it began, once around to the left, over as many m as it says."""
    loop = Loop(8.0, 4.0, 6.0)
    points = np.array([loop.point(s) for s in np.linspace(0.0, loop.length_m, 4001)])
    np.testing.assert_allclose(points[0], points[-1], atol=1e-6)
    assert np.hypot(*np.diff(points, axis=0).T).sum() == pytest.approx(loop.length_m, rel=1e-5)
    assert loop.heading(loop.length_m)[0] == pytest.approx(2.0 * np.pi)
    x, y = points.T
    area = 0.5 * np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])
    assert 0.8 < area / (4.0 * loop.half_x_m * loop.half_y_m) < 1.0
    np.testing.assert_allclose(np.abs(points).max(axis=0), [loop.half_x_m, loop.half_y_m])


def test_corners_are_taken_at_half_speed() -> None:
    """Progress and arc length agree on straights; at the sharpest point one is half as fast."""
    loop = Loop(8.0, 4.0, 6.0)
    assert loop.arc(2.5) == (pytest.approx(2.5), 1.0)
    assert loop.arc(loop.round_m + 2.5)[0] == pytest.approx(loop.length_m + 2.5)
    along, pace = np.array([loop.arc(float(s)) for s in np.linspace(0.0, loop.round_m, 5001)]).T
    assert pace.min() == pytest.approx(0.5, abs=1e-4)
    slope = np.gradient(along, loop.round_m / 5000)
    np.testing.assert_allclose(slope[1:-1], pace[1:-1], atol=1e-4)


def test_stops_stand_still_and_lose_no_time_elsewhere() -> None:
    """The flow of time is 1, eases to exactly 0 for the length of a stop, and is its derivative."""
    stops = Stops(every_s=10.0, length_s=2.0, ramp_s=1.0)
    assert stops.warp(3.0) == (3.0, 1.0)
    assert [stops.warp(t) for t in (7.0, 8.0, 9.0)] == [(6.5, 0.0)] * 3
    assert stops.warp(10.0) == (7.0, 1.0)
    assert stops.warp(20.0)[0] == pytest.approx(14.0)
    times = np.linspace(0.0, 21.0, 2101)
    flowed, flow = np.array([stops.warp(float(t)) for t in times]).T
    np.testing.assert_allclose(np.gradient(flowed, times)[1:-1], flow[1:-1], atol=2e-4)


def test_a_stopped_camera_does_not_move() -> None:
    """During a stop neither position nor attitude changes, sway included."""
    trajectory = path("street", "car", stop_every_s=10.0, stop_s=2.0)
    first, last = trajectory.pose(7_300_000_000), trajectory.pose(9_100_000_000)
    np.testing.assert_array_equal(first.position, last.position)
    np.testing.assert_array_equal(first.rotation, last.rotation)
    np.testing.assert_array_equal(first.linear, np.zeros(3))


def test_optical_axes_of_a_level_camera() -> None:
    """Level and unturned it looks along x, its columns run to -y (right), its rows to -z (down)."""
    rotation = Sway.still((0.0, 0.0, 0.0)).pose(0).rotation
    np.testing.assert_array_equal(rotation[:, 2], [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(rotation[:, 0], [0.0, -1.0, 0.0])
    np.testing.assert_array_equal(rotation[:, 1], [0.0, 0.0, -1.0])


@pytest.mark.parametrize(("scene", "motion"), PATHS)
def test_seeds_give_different_paths(scene: str, motion: str) -> None:
    """A seed always gives its own path, and another seed another one."""
    pose = path(scene, motion, 1).pose(5_000_000_000)
    np.testing.assert_array_equal(
        pose.position, path(scene, motion, 1).pose(5_000_000_000).position
    )
    other = path(scene, motion, 2).pose(5_000_000_000)
    assert np.abs(pose.position - other.position).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scene": "room", "motion": "car"}, "'motion' car does not fit into the room"),
        ({"stop_every_s": 4.0, "stop_s": 2.0}, "'stop_every_s' .* must be at least"),
    ],
)
def test_motions_that_cannot_be_are_refused(changes: dict[str, object], sentence: str) -> None:
    """A car in a room, or stops without time in between, are refused with a sentence."""
    with pytest.raises(ConfigurationError, match=sentence):
        SimulatorParameters.from_mapping(changes)
