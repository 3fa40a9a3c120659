"""Depth and radiance of rendered worlds against geometry worked out by hand or ray by ray."""

from __future__ import annotations

import numpy as np
import pytest

from dae_ros.simulation import texture
from dae_ros.simulation.camera import Camera
from dae_ros.simulation.render import Renderer
from dae_ros.simulation.scene import Scene, corridor, rectangle, room
from dae_ros.simulation.trajectory import Trajectory, corridor_trajectory, room_trajectory
from test.reference.ray_cast import cast

UP = np.array([0.0, 0.0, 1.0])
CAMERA = Camera.davis346_like(40, 56)
WORLDS = {"room": (room, room_trajectory), "corridor": (corridor, corridor_trajectory)}


@pytest.fixture(scope="module", params=list(WORLDS))
def world(request: pytest.FixtureRequest) -> tuple[Scene, Trajectory]:
    scene, trajectory = WORLDS[request.param]
    return scene(3), trajectory(3)


def wall(distance: float, normal: tuple[float, float, float] = (-1.0, 0.0, 0.0)) -> Scene:
    """A wall of 40 x 40 m whose centre is ahead of the origin."""
    return Scene.build(
        [
            rectangle(
                np.array([distance, 0.0, 0.0]),
                np.array(normal),
                -UP,
                40.0,
                40.0,
                "bricks",
                1.0,
            )
        ],
        0,
    )


def test_depth_of_a_wall_is_its_distance() -> None:
    """A wall at right angles to the optical axis has one depth, not one range."""
    renderer = Renderer(wall(2.5), CAMERA)
    renderer.look(Trajectory.still((0.0, 0.0, 0.0)).pose(0))
    np.testing.assert_array_equal(renderer.depth(), np.full((40, 56), 2.5, np.float32))


def test_depth_of_a_slanted_wall_follows_its_plane() -> None:
    """Depth of a turned wall equals (n . p) / (n . ray) of its plane at every pixel."""
    turn = np.deg2rad(35.0)
    normal = (-np.cos(turn), np.sin(turn), 0.0)
    renderer = Renderer(wall(3.0, normal), CAMERA)
    renderer.look(Trajectory.still((0.0, 0.0, 0.0)).pose(0))
    right = (np.arange(56) - CAMERA.cx) / CAMERA.fx
    # The ray of a column is (1, -right, .) in the world; n . (3, 0, 0) = -3 cos.
    expected = 3.0 * np.cos(turn) / (np.cos(turn) + np.sin(turn) * right)
    np.testing.assert_allclose(renderer.depth(), np.broadcast_to(expected, (40, 56)), rtol=1e-6)


def test_a_rectangle_hides_what_is_behind_it_and_nothing_more() -> None:
    """The nearer of two walls covers exactly the pixels whose rays meet it."""
    front = rectangle(
        np.array([2.0, 0.0, 0.0]), -np.array([1.0, 0.0, 0.0]), -UP, 0.5, 0.3, "crate", 0.0
    )
    back = rectangle(
        np.array([4.0, 0.0, 0.0]), -np.array([1.0, 0.0, 0.0]), -UP, 40.0, 40.0, "plaster", 1.0
    )
    renderer = Renderer(Scene.build([back, front], 0), CAMERA)
    renderer.look(Trajectory.still((0.0, 0.0, 0.0)).pose(0))
    column = np.abs(np.arange(56) - CAMERA.cx) * 2.0 / CAMERA.fx <= 0.25
    row = np.abs(np.arange(40) - CAMERA.cy) * 2.0 / CAMERA.fy <= 0.15
    expected = np.where(row[:, None] & column[None, :], 2.0, 4.0).astype(np.float32)
    np.testing.assert_array_equal(renderer.depth(), expected)


def test_nothing_has_no_depth_and_no_radiance() -> None:
    """A ray that meets nothing is NaN deep and black; the back of a wall is nothing."""
    renderer = Renderer(wall(2.0, (1.0, 0.0, 0.0)), CAMERA)
    renderer.look(Trajectory.still((0.0, 0.0, 0.0)).pose(0))
    assert np.isnan(renderer.depth()).all()
    np.testing.assert_array_equal(renderer.radiance(), np.zeros((40, 56), np.float32))


def test_depth_equals_ray_casting(world: tuple[Scene, Trajectory]) -> None:
    """In the real worlds every pixel has the depth that solving ray by ray gives."""
    scene, trajectory = world
    camera = Camera.davis346_like(9, 12)
    renderer = Renderer(scene, camera)
    for time_s in (0, 7):
        pose = trajectory.pose(time_s * 1_000_000_000)
        renderer.look(pose)
        expected, _ = cast(
            scene.corner,
            scene.right,
            scene.down,
            pose.rotation,
            pose.position,
            camera.fx,
            camera.fy,
            camera.cx,
            camera.cy,
            9,
            12,
        )
        np.testing.assert_allclose(renderer.depth(), expected, rtol=1e-6)


def test_worlds_are_closed_and_the_path_is_clear(world: tuple[Scene, Trajectory]) -> None:
    """All along a minute every ray meets something, at least 0.25 m away."""
    scene, trajectory = world
    renderer = Renderer(scene, CAMERA)
    for time_s in np.arange(0.0, 60.0, 0.5):
        renderer.look(trajectory.pose(int(time_s * 1e9)))
        depth = renderer.depth()
        assert np.isfinite(depth).all()
        assert depth.min() > 0.25


def test_greatest_flow_is_the_motion_of_points(world: tuple[Scene, Trajectory]) -> None:
    """The flow equals how fast points of the scene move in the picture, by differences."""
    scene, trajectory = world
    renderer = Renderer(scene, CAMERA)
    half_ns = 20_000
    for time_ns in (1_000_000_000, 4_000_000_000):
        pose = trajectory.pose(time_ns)
        renderer.look(pose)
        row, column = np.mgrid[0:40:4, 0:56:4]
        ray = np.stack(
            [(column - CAMERA.cx) / CAMERA.fx, (row - CAMERA.cy) / CAMERA.fy, np.ones(row.shape)]
        )
        depth = renderer.depth().astype(np.float64)[::4, ::4]
        points = np.einsum("ij,jhw->ihw", pose.rotation, ray * depth)
        points += pose.position[:, None, None]
        seen = []
        for near in (time_ns - half_ns, time_ns + half_ns):
            other = trajectory.pose(near)
            local = np.einsum("ji,jhw->ihw", other.rotation, points - other.position[:, None, None])
            seen.append(local[:2] / local[2] * np.array([CAMERA.fx, CAMERA.fy])[:, None, None])
        flow = np.hypot(*(seen[1] - seen[0])) / (2e-9 * half_ns)
        assert renderer.greatest_flow(pose) == pytest.approx(flow.max(), rel=1e-4)


def test_radiance_samples_the_texture_where_the_ray_meets_it() -> None:
    """A wall at one texel per pixel shows the texture itself, shifted and shaded."""
    period = texture.SIZE * 2.0 / CAMERA.fx
    scene = Scene.build(
        [
            rectangle(
                np.array([2.0, 0.0, 0.0]),
                np.array([-1.0, 0.0, 0.0]),
                -UP,
                period,
                period,
                "books",
                period,
            )
        ],
        5,
    )
    renderer = Renderer(scene, CAMERA)
    renderer.look(Trajectory.still((0.0, 0.0, 0.0)).pose(0))
    image = texture.draw("books", 5)
    # The optical axis meets the middle of the texture, between texels 255 and 256.
    top, left = texture.SIZE // 2 - 20, texture.SIZE // 2 - 28
    expected = image[top : top + 40, left : left + 56] * scene.shade[0]
    np.testing.assert_allclose(renderer.radiance(), expected, atol=2e-5)


def test_a_far_texture_shows_its_mean() -> None:
    """Far away a texture does not alias: it fades to its mean albedo."""
    scene = wall(3000.0)
    scene = Scene(
        scene.corner * 1.0,
        scene.right * 1000,
        scene.down * 1000,
        scene.texels * 1000,
        scene.offset,
        scene.texture,
        scene.shade,
        scene.pyramids,
    )
    scene.corner[:] = (3000.0, 20000.0, 20000.0)
    renderer = Renderer(scene, CAMERA)
    renderer.look(Trajectory.still((0.0, 0.0, 0.0)).pose(0))
    mean = texture.draw("bricks", 0).mean() * scene.shade[0]
    np.testing.assert_allclose(renderer.radiance(), mean, rtol=0.05)


def test_edges_move_through_pixels() -> None:
    """While a silhouette crosses a pixel its radiance takes values between the two sides."""
    front = rectangle(
        np.array([2.0, 1.0, 0.0]), -np.array([1.0, 0.0, 0.0]), -UP, 2.0, 8.0, "lamp", 0.0
    )
    back = rectangle(
        np.array([4.0, 0.0, 0.0]), -np.array([1.0, 0.0, 0.0]), -UP, 40.0, 40.0, "fabric", 1e5
    )
    renderer = Renderer(Scene.build([back, front], 0), CAMERA)
    values = set()
    for shift in np.linspace(0.0, 2.0 / CAMERA.fx, 17):
        renderer.look(Trajectory.still((0.0, float(shift), 0.0)).pose(0))
        values.add(round(float(renderer.radiance()[20, 28]), 2))
    assert len(values) >= 3


@pytest.mark.parametrize("name", sorted(texture.DRAWERS))
def test_textures_are_periodic_and_band_limited(name: str) -> None:
    """A texture has little energy near its Nyquist frequency and no seam where it repeats."""
    image = texture.draw(name, 1)
    assert image.dtype == np.float32
    assert image.min() >= 0.02
    assert image.max() <= 1.0
    energy = np.abs(np.fft.rfft2(image - image.mean())) ** 2
    rows = np.abs(np.fft.fftfreq(texture.SIZE))[:, None]
    columns = np.fft.rfftfreq(texture.SIZE)[None, :]
    assert energy[np.hypot(rows, columns) > 0.4].sum() < 0.01 * energy.sum()
    steps = np.abs(np.diff(image, axis=0)).mean()
    assert np.abs(image[0] - image[-1]).mean() < max(6 * steps, 0.25)


def test_pyramid_keeps_the_mean() -> None:
    """Every mip level has the mean of the texture; the last is that mean."""
    image = texture.draw("tiles", 2)
    pyramid = texture.pyramid(image)
    assert len(pyramid) == sum((texture.SIZE >> level) ** 2 for level in range(texture.LEVELS))
    assert pyramid[-1] == pytest.approx(image.astype(np.float64).mean(), rel=1e-6)
