"""The real worlds: exact depth of what stands and moves, clear paths, true flow."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import zlib

import numpy as np
import pytest

from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.camera import Camera, Pose
from dae_ros.simulation.indoors import corridor, room, warehouse
from dae_ros.simulation.lens import distort, undistort
from dae_ros.simulation.park import park
from dae_ros.simulation.pattern import SIZE
from dae_ros.simulation.render import Renderer
from dae_ros.simulation.scene import Builder, Scene, rectangle
from dae_ros.simulation.simulation import Simulation
from dae_ros.simulation.street import street
from dae_ros.simulation.trajectory import Sway
from dae_ros.simulation.worlds import SceneWorld, create_trajectory, create_world
from dae_ros.simulation.yard import yard
from test.reference.ray_cast import cast

CASES = [
    ("room", "walk"), ("corridor", "walk"), ("street", "car"), ("street", "walk"),
    ("street", "drone"), ("warehouse", "walk"), ("warehouse", "drone"),
    ("yard", "walk"), ("yard", "car"), ("yard", "drone"),
    ("park", "walk"), ("park", "car"), ("park", "drone"),
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


def test_worlds_are_closed_and_the_path_is_clear(
    world: SceneWorld, request: pytest.FixtureRequest
) -> None:
    """All along a minute every ray meets something, and nothing comes nearer than 0.25 m."""
    scene = request.node.callspec.params["world"][0]
    renderer = Renderer(world.scene, world.camera)
    nearest = np.inf
    for time_s in np.arange(0.0, 60.0, 0.7):
        renderer.look(world.trajectory.pose(round(time_s * 1e9)), time_s)
        depth = renderer.depth()
        assert (renderer.faces >= 0).all()
        np.testing.assert_array_equal(np.isnan(depth), world.scene.sky[renderer.faces])
        # Under the open sky of a yard or a park a drone sees less than elsewhere.
        assert np.isfinite(depth).mean() > (0.4 if scene in ("yard", "park") else 0.5)
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


@pytest.mark.parametrize(
    ("scene", "motion"),
    [("street", "car"), ("warehouse", "walk"), ("yard", "drone"), ("park", "walk")],
)
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


@pytest.mark.parametrize(
    ("scene", "faces", "materials", "next_draw", "mean_corner_m"),
    [
        ("room", 131, 656553444, 0.40530784212393256, 1.7564529938912987),
        ("corridor", 344, 1630557165, 0.1812849232124385, 4.848306082312625),
        ("street", 1317, 3868304682, 0.6423681953185341, 16.648136748314123),
        ("warehouse", 669, 523001854, 0.35040380689380857, 5.683094768205042),
        ("yard", 2657, 1936352208, 0.38464423623101673, 12.839536758022023),
        ("park", 2876, 3475544918, 0.7794337497536566, 12.268676673501593),
    ],
)
def test_a_seed_stays_the_world_that_it_was(
    scene: str, faces: int, materials: int, next_draw: float, mean_corner_m: float
) -> None:
    """Seed 3 draws as often and builds the same as when weights were trained and scored on it."""
    builder = Builder(3)
    if scene == "street":
        street(builder, None)
    else:
        build = {"room": room, "corridor": corridor, "warehouse": warehouse, "yard": yard,
                 "park": park}  # fmt: skip
        build[scene](builder)
    assert len(builder.rectangles) == faces
    names = " ".join(item.material for item in builder.rectangles)
    assert zlib.crc32(names.encode()) == materials
    assert float(builder.generator.random()) == next_draw
    corners = np.array([item.corner for item in builder.rectangles])
    assert np.abs(corners).mean() == pytest.approx(mean_corner_m, rel=1e-12)


def test_clouds_run_on_around_the_yard() -> None:
    """Its four walls of sky meet in one picture: where one ends its neighbour's texture begins."""
    scene = usual_world("yard").scene
    walls = [i for i in np.flatnonzero(scene.sky) if scene.down[i][2] < 0.0]
    starts = {tuple(scene.corner[i]): scene.offset[i, 0] for i in walls}
    assert len(starts) == 4
    for i in walls:
        end = tuple(scene.corner[i] + scene.right[i])
        gap = (scene.offset[i, 0] + scene.texels[i, 0] - starts[end]) % SIZE
        assert min(gap, SIZE - gap) < 1e-6


def test_a_moving_body_makes_the_flow_of_a_still_camera() -> None:
    """A wall that turns and slides past makes the flow that its points have, by differences."""
    panel = rectangle(
        np.array([0.0, 0.0, 0.0]),
        np.array([-1.0, 0.0, 0.0]),
        np.array([0.0, 0.0, -1.0]),
        6.0,
        6.0,
        "bricks",
        1.0,
        body=1,
    )
    motion = _Slide()
    renderer = Renderer(Scene.build([panel], 0, bodies=[motion]), SMALL)
    camera = Sway.still((0.0, 0.0, 0.0)).pose(0)
    renderer.look(camera, 1.0)
    now, later = motion.pose(1.0), motion.pose(1.0 + 1e-6)
    greatest = 0.0
    for row in range(0, 9, 4):
        for column in range(0, 12, 4):
            ray = np.array([(column - SMALL.cx) / SMALL.fx, (row - SMALL.cy) / SMALL.fy, 1.0])
            point = camera.rotation @ ray * renderer.depth()[row, column].astype(float)
            moved = later.rotation @ now.rotation.T @ (point - now.position) + later.position
            x, y, z = camera.rotation.T @ moved
            there = np.array([SMALL.fx * x / z + SMALL.cx, SMALL.fy * y / z + SMALL.cy])
            greatest = max(greatest, np.linalg.norm(there - [column, row]) / 1e-6)
    assert renderer.greatest_flow() == pytest.approx(greatest, rel=1e-3)


class _Slide:
    """A body 4 m ahead that moves aside at 2 m/s and turns at 1 rad/s."""

    def pose(self, time_s: float) -> Pose:
        turn = time_s - 1.0
        c, s = np.cos(turn), np.sin(turn)
        rotation = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        return Pose(
            rotation,
            np.array([4.0, 2.0 * turn, 0.0]),
            rotation.T @ np.array([0.0, 2.0, 0.0]),
            np.array([0.0, 0.0, 1.0]),
        )


def test_between_two_renderings_nothing_moves_further_than_half_a_pixel() -> None:
    """Flow times step is at most 0.5 px all along, and steps are no shorter than they have to."""
    street = usual_world("street")
    world = _Watched(dataclasses.replace(street, camera=Camera.from_field_of_view(130, 173, 75.1)))
    parameters = SimulatorParameters(height=130, width=173, duration_s=0.06)
    for _ in Simulation(parameters, world).items():
        pass
    times, flows = np.array(world.looks).T
    moved = np.diff(times) * 1e-6 * flows[:-1]
    assert 0.4 < moved.max() <= 0.5 + 1e-6
    assert np.median(moved) > 0.3
    assert flows.max() * 0.005 > 0.6  # so that the longest step alone would not do


def test_through_a_lens_nothing_moves_further_either() -> None:
    """Points of the world, seen through a pincushion lens, move at most 0.5 px between pictures."""
    lens = Camera.from_field_of_view(130, 173, 75.1, (0.3, 0.0, 0.0, 0.0, 0.0))
    path = create_trajectory(SimulatorParameters(scene="room", motion="drone", speed=3.0, seed=3))
    still = usual_world("room").scene
    world = _Watched(SceneWorld(still, path, lens))
    parameters = SimulatorParameters(height=130, width=173, duration_s=0.1)
    for _ in Simulation(parameters, world).items():
        pass
    row, column = np.mgrid[0:130, 0:173].astype(float)
    x, y = undistort(
        (column - lens.cx) / lens.fx, (row - lens.cy) / lens.fy, lens.distortion
    )  # fmt: skip
    view = world.view()
    times = [time_us for time_us, _ in world.looks]
    greatest = []
    for now_us, then_us in itertools.pairwise(times):
        view.look(now_us)
        depth, now = view.depth().ravel().astype(float), view.pose()
        view.look(then_us)
        then = view.pose()
        points = now.rotation @ (np.stack([x.ravel(), y.ravel(), np.ones(x.size)]) * depth)
        seen = then.rotation.T @ (points + (now.position - then.position)[:, None])
        u, v = distort(seen[0] / seen[2], seen[1] / seen[2], lens.distortion)
        moved = np.hypot(
            u * lens.fx + lens.cx - column.ravel(), v * lens.fy + lens.cy - row.ravel()
        )
        greatest.append(np.nanmax(moved))
    assert not still.bodies
    assert 0.3 < max(greatest) <= 0.5 + 1e-3, max(greatest)


class _Watched:
    """A world that notes when it is looked at, and how fast things then move."""

    def __init__(self, world: SceneWorld) -> None:
        self._world = world
        self.camera, self.longest_step_us, self.end_us = world.camera, world.longest_step_us, None
        self.looks: list[tuple[int, float]] = []

    def view(self) -> object:
        view, looks = self._world.view(), self.looks

        class Watching:
            radiance, depth, greatest_flow = view.radiance, view.depth, view.greatest_flow
            pose = view.pose

            def look(self, time_us: int) -> None:
                view.look(time_us)
                looks.append((time_us, view.greatest_flow()))

        return Watching()
