"""Depth and radiance of rendered worlds against geometry worked out by hand or ray by ray."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.simulation import texture
from dae_ros.simulation.camera import Camera
from dae_ros.simulation.lens import Lens, distort, magnification, undistort
from dae_ros.simulation.light import Lamp, Light
from dae_ros.simulation.render import Renderer
from dae_ros.simulation.scene import Scene, rectangle
from dae_ros.simulation.trajectory import Sway

UP = np.array([0.0, 0.0, 1.0])
CAMERA = Camera.from_field_of_view(40, 56, 75.1)
# Walls that look along -x have the sun behind them and get what comes from everywhere.
SHADE = 0.55


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
    renderer.look(Sway.still((0.0, 0.0, 0.0)).pose(0))
    np.testing.assert_array_equal(renderer.depth(), np.full((40, 56), 2.5, np.float32))


def test_depth_of_a_slanted_wall_follows_its_plane() -> None:
    """Depth of a turned wall equals (n . p) / (n . ray) of its plane at every pixel."""
    turn = np.deg2rad(35.0)
    normal = (-np.cos(turn), np.sin(turn), 0.0)
    renderer = Renderer(wall(3.0, normal), CAMERA)
    renderer.look(Sway.still((0.0, 0.0, 0.0)).pose(0))
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
    renderer.look(Sway.still((0.0, 0.0, 0.0)).pose(0))
    column = np.abs(np.arange(56) - CAMERA.cx) * 2.0 / CAMERA.fx <= 0.25
    row = np.abs(np.arange(40) - CAMERA.cy) * 2.0 / CAMERA.fy <= 0.15
    expected = np.where(row[:, None] & column[None, :], 2.0, 4.0).astype(np.float32)
    np.testing.assert_array_equal(renderer.depth(), expected)


def test_nothing_has_no_depth_and_no_radiance() -> None:
    """A ray that meets nothing is NaN deep and black; the back of a wall is nothing."""
    renderer = Renderer(wall(2.0, (1.0, 0.0, 0.0)), CAMERA)
    renderer.look(Sway.still((0.0, 0.0, 0.0)).pose(0))
    assert np.isnan(renderer.depth()).all()
    np.testing.assert_array_equal(renderer.radiance(), np.zeros((40, 56), np.float32))


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
    renderer.look(Sway.still((0.0, 0.0, 0.0)).pose(0))
    image = texture.draw("books", 5)
    # The optical axis meets the middle of the texture, between texels 255 and 256.
    top, left = texture.SIZE // 2 - 20, texture.SIZE // 2 - 28
    expected = image[top : top + 40, left : left + 56] * SHADE
    np.testing.assert_allclose(renderer.radiance(), expected, atol=2e-5)


def test_a_far_texture_shows_its_mean() -> None:
    """Far away a texture does not alias: it fades to its mean albedo."""
    scene = wall(3000.0)
    scene = dataclasses.replace(
        scene,
        corner=scene.corner * 1.0,
        right=scene.right * 1000,
        down=scene.down * 1000,
        texels=scene.texels * 1000,
    )
    scene.corner[:] = (3000.0, 20000.0, 20000.0)
    renderer = Renderer(scene, CAMERA)
    renderer.look(Sway.still((0.0, 0.0, 0.0)).pose(0))
    mean = texture.draw("bricks", 0).mean() * SHADE
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
        renderer.look(Sway.still((0.0, float(shift), 0.0)).pose(0))
        values.add(round(float(renderer.radiance()[20, 28]), 2))
    assert len(values) >= 3


def radiance_of(light: Light, position: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """What a camera sees of a wall 4 m ahead of the origin."""
    scene = dataclasses.replace(wall(4.0), light=light)
    renderer = Renderer(scene, CAMERA)
    renderer.look(Sway.still(position).pose(0))
    return renderer.radiance()


def test_fog_takes_contrast_by_the_depth_and_adds_its_own_light() -> None:
    """At half the visibility a seventh of the contrast is left (0.02 to the power of a half)."""
    clear = radiance_of(Light())
    foggy = radiance_of(Light.at("day", [], 10.0, visibility_m=8.0))
    left = np.sqrt(0.02)
    np.testing.assert_allclose(foggy, 0.6 * (1 - left) + left * clear, rtol=1e-3)


def test_a_headlight_falls_with_the_square_of_the_distance() -> None:
    """What it adds at 4 m over what it adds at 2 m is (1 + 4) / (1 + 16)."""
    added = []
    for x in (0.0, 2.0):
        dark = radiance_of(Light(), (x, 0.0, 0.0))
        added.append((radiance_of(Light(headlight=3.0), (x, 0.0, 0.0)) / dark - 1.0).mean())
        assert added[-1] == pytest.approx(3.0 / (1 + (4.0 - x) ** 2) / SHADE, rel=1e-5)
    assert added[0] / added[1] == pytest.approx(5.0 / 17.0, rel=1e-5)


def test_lamps_light_their_place_on_the_floor_plan() -> None:
    """By night the wall is brightest abreast of the lamp, as bright as its pool says."""
    lamp = Lamp(4.0, 1.5, 1.0)
    lit = radiance_of(Light.at("night", [lamp], 8.0, torch=0.0))
    dark = radiance_of(Light.at("night", [], 8.0, torch=0.0))
    added = (lit / dark - 1.0)[20]
    y = -4.0 * (np.arange(56) - CAMERA.cx) / CAMERA.fx
    level = 0.02 * 0.9  # a tenth of it is direct and comes from behind the wall
    np.testing.assert_allclose(added, 0.22 / (1 + (y - 1.5) ** 2) ** 2 / level, rtol=0.02)
    assert (
        radiance_of(Light.at("day", [lamp], 8.0, torch=0.0))
        == radiance_of(Light.at("day", [], 8.0, torch=0.0))
    ).all()


def test_what_glows_flickers_and_what_it_lights_does_not() -> None:
    """A lamp follows a sine of 100 Hz; a wall beside it does not change."""
    lamp = rectangle(
        np.array([2.0, 0.5, 0.0]), np.array([-1.0, 0.0, 0.0]), -UP, 1.0, 3.0, "lamp", 1e5
    )
    back = rectangle(
        np.array([4.0, 0.0, 0.0]), np.array([-1.0, 0.0, 0.0]), -UP, 40.0, 40.0, "paint", 1e5
    )
    renderer = Renderer(Scene.build([lamp, back], 0, Light(flicker=0.5)), CAMERA)
    pose = Sway.still((0.0, 0.0, 0.0)).pose(0)
    seen = []
    for time_s in (0.0, 0.0025, 0.005, 0.0075):
        renderer.look(pose, time_s)
        seen.append(renderer.radiance())
    ratios = [picture[20, 20] / seen[0][20, 20] for picture in seen]
    np.testing.assert_allclose(ratios, [1.0, 1.5, 1.0, 0.5], atol=1e-6)
    assert all(picture[20, 50] == seen[0][20, 50] for picture in seen)


LENS = Camera.from_field_of_view(40, 56, 80.0, (-0.25, 0.06, 0.01, -0.02, 0.004))


def test_undistortion_inverts_the_model() -> None:
    """A distorted point, worked out by hand, is undistorted to where it came from."""
    x, y = np.array([0.5]), np.array([-0.2])
    # r^2 = 0.29; radial = 1 - 0.0725 + 0.005046 + 0.000097556 = 0.932643556
    found = distort(x, y, LENS.distortion)
    assert found[0][0] == pytest.approx(0.5 * 0.932643556 + 2 * 0.01 * -0.1 - 0.02 * (0.29 + 0.5))
    assert found[1][0] == pytest.approx(
        -0.2 * 0.932643556 + 2 * -0.02 * -0.1 + 0.01 * (0.29 + 0.08)
    )
    back = undistort(*found, LENS.distortion)
    np.testing.assert_allclose(back, ([0.5], [-0.2]), atol=1e-9)


def test_a_lens_sees_the_exact_depth_of_its_own_rays() -> None:
    """On a slanted wall every pixel has the depth at which its undistorted ray meets it."""
    turn = np.deg2rad(35.0)
    renderer = Renderer(wall(3.0, (-np.cos(turn), np.sin(turn), 0.0)), LENS)
    renderer.look(Sway.still((0.0, 0.0, 0.0)).pose(0))
    row, column = np.mgrid[0:40, 0:56]
    right, _ = undistort((column - LENS.cx) / LENS.fx, (row - LENS.cy) / LENS.fy, LENS.distortion)
    expected = 3.0 * np.cos(turn) / (np.cos(turn) + np.sin(turn) * right)
    np.testing.assert_allclose(renderer.depth(), expected, rtol=1e-6)


def test_a_lens_sees_the_nearer_of_two_things() -> None:
    """Of a panel before a wall every ray through a pixel's centre has the exact depth."""
    ahead = np.array([-1.0, 0.0, 0.0])
    back = rectangle(np.array([4.0, 0.0, 0.0]), ahead, -UP, 40.0, 40.0, "plaster", 1.0)
    front = rectangle(np.array([2.0, 0.0, 0.0]), ahead, -UP, 1.1, 0.7, "crate", 0.0)
    row, column = np.mgrid[0:40, 0:56]
    x, y = undistort((column - LENS.cx) / LENS.fx, (row - LENS.cy) / LENS.fy, LENS.distortion)
    expected = np.where((np.abs(x) * 2.0 <= 0.55) & (np.abs(y) * 2.0 <= 0.35), 2.0, 4.0)
    for order in ([back, front], [front, back]):
        renderer = Renderer(Scene.build(order, 0), LENS)
        renderer.look(Sway.still((0.0, 0.0, 0.0)).pose(0))
        np.testing.assert_allclose(renderer.depth(), expected, rtol=1e-6)


def test_a_lens_shows_what_a_pinhole_sees_there() -> None:
    """A smooth picture resampled by the lens is that picture at the undistorted places."""
    lens = Lens(LENS)
    y, x = np.mgrid[0 : lens.pinhole.height, 0 : lens.pinhole.width]
    picture = (0.3 + 0.002 * x + 0.003 * y).astype(np.float32)
    expected = 0.3 + 0.002 * lens.column + 0.003 * lens.row
    np.testing.assert_allclose(lens.radiance(picture), expected, atol=1e-6)


def test_magnification_is_the_largest_stretch() -> None:
    """It is the largest singular value of a numeric Jacobian; a barrel lens stretches nowhere."""
    random = np.random.default_rng(2)
    distortion, aspect, step = (0.2, -0.03, 0.02, -0.01, 0.01), 1.3, 1e-6
    x, y = random.uniform(-0.8, 0.8, (2, 50))
    found = magnification(x, y, distortion, aspect)
    for u, v, value in zip(x, y, found, strict=True):
        ends = [
            np.array(distort(np.array(u + du), np.array(v + dv), distortion))
            for du, dv in ((step, 0), (-step, 0), (0, step), (0, -step))
        ]
        jacobian = np.stack([ends[0] - ends[1], ends[2] - ends[3]], axis=1) / (2 * step)
        pixels = np.diag([aspect, 1.0]) @ jacobian @ np.diag([1.0 / aspect, 1.0])
        assert value == pytest.approx(np.linalg.svd(pixels)[1][0], rel=1e-6)
    barrel = Camera.from_field_of_view(40, 56, 60.0, (-0.25, 0.1, 0.0, 0.0, 0.0))
    assert Lens(barrel).magnification == 1.0


def test_a_lens_that_folds_the_picture_is_refused() -> None:
    """Barrel distortion so strong that two rays meet one pixel ends with a sentence."""
    with pytest.raises(ConfigurationError, match="folds the picture over itself"):
        Lens(Camera.from_field_of_view(40, 56, 110.0, (-0.5, 0.0, 0.0, 0.0, 0.0)))


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
