"""The real worlds: exact depth of what stands and moves, clear paths, true flow."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.camera import Camera, Pose
from dae_ros.simulation.render import Renderer
from dae_ros.simulation.scene import Scene
from dae_ros.simulation.worlds import SceneWorld, create_trajectory, create_world
from test.reference.ray_cast import cast

CASES = [
    ("room", "walk"), ("corridor", "walk"), ("street", "car"), ("street", "walk"),
    ("street", "drone"), ("warehouse", "walk"), ("warehouse", "drone"),
]  # fmt: skip
SMALL = Camera.from_field_of_view(9, 12, 75.1)


@functools.cache
def usual_world(scene: str) -> SceneWorld:
    return create_world(SimulatorParameters(scene=scene, seed=3, height=40, width=56))


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def world(request: pytest.FixtureRequest) -> SceneWorld:
    scene, motion = request.param
    usual = usual_world(scene)
    path = create_trajectory(SimulatorParameters(scene=scene, motion=motion, seed=3))
    return SceneWorld(usual.scene, path, usual.camera)


def placed(scene: Scene, time_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return corners and edges of all rectangles in the world at a time."""
    corner, right, down = (v.copy() for v in (scene.corner, scene.right, scene.down))
    for index, body in enumerate(scene.body):
        if body > 0:
            pose = scene.bodies[body - 1].pose(time_s)
            corner[index] = pose.rotation @ corner[index] + pose.position
            right[index] = pose.rotation @ right[index]
            down[index] = pose.rotation @ down[index]
    return corner, right, down


def ray_cast(scene: Scene, pose: Pose, time_s: float) -> tuple[np.ndarray, np.ndarray]:
    return cast(
        *placed(scene, time_s),
        pose.rotation,
        pose.position,
        SMALL.fx,
        SMALL.fy,
        SMALL.cx,
        SMALL.cy,
        SMALL.height,
        SMALL.width,
    )


def test_depth_equals_ray_casting(world: SceneWorld) -> None:
    """Every pixel has the depth that solving ray by ray gives, of moving things too."""
    renderer = Renderer(world.scene, SMALL)
    for time_s in (0.0, 7.3):
        pose = world.trajectory.pose(round(time_s * 1e9))
        renderer.look(pose, time_s)
        expected, nearest = ray_cast(world.scene, pose, time_s)
        expected = np.where(world.scene.sky[nearest], np.nan, expected)
        np.testing.assert_allclose(renderer.depth(), expected, rtol=1e-6)


def test_worlds_are_closed_and_the_path_is_clear(world: SceneWorld) -> None:
    """All along a minute every ray meets something, and nothing comes nearer than 0.25 m."""
    renderer = Renderer(world.scene, world.camera)
    nearest = np.inf
    for time_s in np.arange(0.0, 60.0, 0.7):
        renderer.look(world.trajectory.pose(round(time_s * 1e9)), time_s)
        depth = renderer.depth()
        assert (renderer.faces >= 0).all()
        np.testing.assert_array_equal(np.isnan(depth), world.scene.sky[renderer.faces])
        assert np.isfinite(depth).mean() > 0.5
        nearest = min(nearest, np.nanmin(depth))
    assert nearest > 0.25


def test_greatest_flow_is_the_motion_of_points(world: SceneWorld) -> None:
    """The flow equals how fast points of the world, moving ones too, move in the picture."""
    scene, trajectory = world.scene, world.trajectory
    renderer = Renderer(scene, SMALL)
    half_s = 2e-5
    row, column = np.mgrid[0:9:4, 0:12:4]
    ray = np.stack(
        [(column - SMALL.cx) / SMALL.fx, (row - SMALL.cy) / SMALL.fy, np.ones(row.shape)]
    ).reshape(3, -1)
    for time_s in (1.0, 4.0):
        pose = trajectory.pose(round(time_s * 1e9))
        renderer.look(pose, time_s)
        depth, nearest = (v[::4, ::4].ravel() for v in ray_cast(scene, pose, time_s))
        points = pose.rotation @ (ray * depth) + pose.position[:, None]
        greatest = 0.0
        for point, index in zip(points.T, nearest, strict=True):
            seen = []
            for near_s in (time_s - half_s, time_s + half_s):
                moved = point
                if scene.body[index] > 0:
                    motion = scene.bodies[scene.body[index] - 1]
                    now, then = motion.pose(time_s), motion.pose(near_s)
                    moved = then.rotation @ now.rotation.T @ (point - now.position) + then.position
                camera = trajectory.pose(round(near_s * 1e9))
                x, y, z = camera.rotation.T @ (moved - camera.position)
                seen.append(np.array([SMALL.fx * x / z, SMALL.fy * y / z]))
            greatest = max(greatest, np.linalg.norm(seen[1] - seen[0]) / (2 * half_s))
        assert renderer.greatest_flow() == pytest.approx(greatest, rel=1e-3)


@pytest.mark.parametrize(("scene", "motion"), [("street", "car"), ("warehouse", "walk")])
def test_moving_things_come_into_sight(scene: str, motion: str) -> None:
    """Within half a minute a camera sees at least two bodies move."""
    usual = usual_world(scene)
    path = create_trajectory(SimulatorParameters(scene=scene, motion=motion, seed=5))
    world = SceneWorld(usual.scene, path, usual.camera)
    renderer = Renderer(world.scene, world.camera)
    seen = set()
    for time_s in np.arange(0.0, 30.0, 0.5):
        renderer.look(world.trajectory.pose(round(time_s * 1e9)), time_s)
        seen |= set(world.scene.body[renderer.faces].ravel().tolist())
    assert len(seen - {0}) >= 2
