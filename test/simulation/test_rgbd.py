"""Events from RGB-D frames: what lies between two frames, against the world that was filmed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dae_ros.errors import ConfigurationError, RecordingError
from dae_ros.events.packet import Events
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.camera import Camera
from dae_ros.simulation.rgbd import RgbdSequence
from dae_ros.simulation.simulation import Simulation
from dae_ros.simulation.warp import warp
from dae_ros.simulation.worlds import SceneWorld, create_world
from test.reference import rgbd_folder

HEIGHT, WIDTH = 96, 128
HZ = 30.0
COUNT = 5
PARAMETERS = SimulatorParameters(
    height=HEIGHT,
    width=WIDTH,
    seed=2,
    noise_hz=0.0,
    leak_hz=0.0,
    hot_pixels=0.0,
    bandwidth_hz=0.0,
    threshold_spread=0.0,
    duration_s=(COUNT - 1) / 40.0,
)


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[SceneWorld, Path]:
    """A room, and a film of it with a patch of unknown depth."""
    world = create_world(PARAMETERS)
    view = world.view()
    frames = []
    for number in range(COUNT):
        view.look(round(number * 1e6 / HZ))
        depth = view.depth().copy()
        depth[10:20, 30:50] = np.nan
        pose = view.pose()
        frames.append((view.radiance(), depth, pose.rotation, pose.position))
    folder = tmp_path_factory.mktemp("film") / "seq-01"
    rgbd_folder.write(folder, frames, world.camera.matrix(), folder.parent)
    return world, folder


def test_a_frame_is_itself(filmed: tuple[SceneWorld, Path]) -> None:
    """At the time of a frame its own pose, depth and colour are seen, to a mm and a grey level."""
    world, folder = filmed
    sequence = RgbdSequence(folder, HZ)
    view, truth = sequence.view(), world.view()
    time_us = round(2e6 / HZ)
    view.look(time_us)
    truth.look(time_us)
    np.testing.assert_allclose(view.pose().position, truth.pose().position, atol=1e-5)
    np.testing.assert_allclose(view.pose().rotation, truth.pose().rotation, atol=1e-5)
    depth = view.depth()
    assert np.isnan(depth[11:19, 31:49]).all()
    assert np.isnan(depth).mean() < 0.04
    known = np.isfinite(depth)
    assert (np.abs(depth - truth.depth())[known] < 2e-3).mean() > 0.97
    assert (np.abs(view.radiance() - truth.radiance()) < 0.01).mean() > 0.97


def test_between_frames_depth_and_radiance_are_those_of_the_world(
    filmed: tuple[SceneWorld, Path],
) -> None:
    """Half way between two frames depth is within 1 % and radiance within 0.02 nearly anywhere."""
    world, folder = filmed
    view, truth = RgbdSequence(folder, HZ).view(), world.view()
    for time_us in (16_667, 60_000, 110_000):
        view.look(time_us)
        truth.look(time_us)
        np.testing.assert_allclose(view.pose().position, truth.pose().position, atol=2e-4)
        np.testing.assert_allclose(view.pose().linear, truth.pose().linear, atol=0.05)
        error = np.abs(view.depth() / truth.depth() - 1.0)
        known = np.isfinite(error)
        assert known.mean() > 0.9
        assert (error[known] < 0.01).mean() > 0.95
        assert (np.abs(view.radiance() - truth.radiance()) < 0.02).mean() > 0.95
        assert view.greatest_flow() == pytest.approx(truth.greatest_flow(), rel=0.1)


def test_its_events_are_those_of_the_world(filmed: tuple[SceneWorld, Path]) -> None:
    """As many events as in the world that was filmed, within a fifth, and in the same places."""
    world, folder = filmed
    counts = []
    for source in (world, RgbdSequence(folder, HZ)):
        events = Events.concatenate(list(Simulation(PARAMETERS, source).events()))
        signs = np.zeros((HEIGHT, WIDTH))
        np.add.at(signs, (events.y, events.x), np.where(events.p == 1, 1.0, -1.0))
        counts.append((len(events), cv2.GaussianBlur(signs, (0, 0), 1.5)))
    (expected, there), (found, here) = counts
    assert expected > 2000
    assert found == pytest.approx(expected, rel=0.2)
    assert np.corrcoef(there.ravel(), here.ravel())[0, 1] > 0.8


def test_it_ends_with_its_last_frame_and_can_be_smaller(filmed: tuple[SceneWorld, Path]) -> None:
    """A film of 4 / 30 s gives no more; at half the size the camera's matrix is halved."""
    world, folder = filmed
    sequence = RgbdSequence(folder, HZ, (HEIGHT // 2, WIDTH // 2))
    assert sequence.end_us == 133_333
    assert sequence.camera.fx == pytest.approx(world.camera.fx / 2)
    assert sequence.camera.cx + 0.5 == pytest.approx((world.camera.cx + 0.5) / 2)
    parameters = SimulatorParameters(height=HEIGHT // 2, width=WIDTH // 2)
    last_ns = list(Simulation(parameters, sequence).items())[-1]
    assert getattr(last_ns, "stamp_ns", 0) <= 1_700_000_000_133_333_000


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("frame-000001.pose.txt", "-inf -inf -inf -inf\n" * 4, "is no rigid motion"),
        ("frame-000001.pose.txt", "1 0 0\n", "not 4 x 4"),
        ("frame-000001.depth.png", "", "expected a 16-bit picture of 128x96 px in mm"),
        ("../camera-intrinsics.txt", "fx fy", "cannot be read"),
        ("../camera-intrinsics.txt", "0 0 1\n0 50 1\n0 0 1\n", "fx and fy must be above 0"),
        ("frame-x.color.png", "", "has no number"),
        ("frame-000001.color.jpg", "", "give each frame one picture"),
    ],
)
def test_damaged_folders_name_the_file(
    filmed: tuple[SceneWorld, Path], tmp_path: Path, name: str, content: str, sentence: str
) -> None:
    """A pose that is none, depth of another kind, a text without numbers: refused by name."""
    _, folder = filmed
    copy = tmp_path / "scene" / "seq-01"
    copy.mkdir(parents=True)
    for path in (*folder.iterdir(), *folder.parent.glob("*.txt")):
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "camera-intrinsics.txt").rename(copy.parent / "camera-intrinsics.txt")
    (copy / name).write_text(content)
    with pytest.raises(RecordingError, match=sentence) as caught:
        RgbdSequence(copy, HZ).view().look(20_000)
    assert Path(name).name.partition(".")[0] in str(caught.value)


def test_frames_that_are_missing_leave_their_time(
    filmed: tuple[SceneWorld, Path], tmp_path: Path
) -> None:
    """Without frame 1, and counted from 7 on, frame 2 is where it was, at the time it was."""
    world, _ = filmed
    left, frames = (0, 2, 3, 4), []
    truth = world.view()
    for number in left:
        truth.look(round(number * 1e6 / HZ))
        pose = truth.pose()
        frames.append((truth.radiance(), truth.depth(), pose.rotation, pose.position))
    folder = tmp_path / "film"
    rgbd_folder.write(folder, frames, world.camera.matrix(), numbers=[7 + n for n in left])
    sequence = RgbdSequence(folder, HZ)
    assert sequence.end_us == 133_333
    view = sequence.view()
    for time_us in (66_667, 83_333):
        view.look(time_us)
        truth.look(time_us)
        np.testing.assert_allclose(view.pose().position, truth.pose().position, atol=2e-4)
    # Within the pause it moves at the pace of the world, not at twice that.
    view.look(33_333)
    truth.look(33_333)
    pace, true_pace = (np.linalg.norm(one.pose().linear) for one in (view, truth))
    assert pace == pytest.approx(true_pace, rel=0.2)


@pytest.mark.parametrize("frame_hz", [0.0, float("nan"), float("inf")])
def test_a_rate_is_positive_and_finite(filmed: tuple[SceneWorld, Path], frame_hz: float) -> None:
    """Others are refused with the number."""
    with pytest.raises(ConfigurationError, match=f"not {frame_hz}"):
        RgbdSequence(filmed[1], frame_hz)


def test_a_warp_tears_at_jumps_and_keeps_the_nearest() -> None:
    """A square 1 m before a wall at 2 m, seen from 0.2 m to the right: it moves twice as far as
    the wall, hides what it moves over and uncovers what it leaves.
    """
    camera = Camera(32, 48, 40.0, 40.0, 23.5, 15.5)
    depth = np.full((32, 48), 2.0, np.float32)
    depth[8:24, 16:32] = 1.0
    radiance = np.where(depth == 1.0, 0.8, 0.2).astype(np.float32)
    known = np.ones((32, 48), np.bool_)
    motion = np.eye(4)
    motion[0, 3] = -0.2  # a point is 0.2 m further left as seen from there
    found, inverse, sure = warp(radiance, 1.0 / depth, known, motion, camera)
    # The wall moves by 4 px, the square by 8 px to columns 8 to 23.
    rows = slice(8, 24)
    np.testing.assert_allclose(1.0 / inverse[rows, 8:24], 1.0, rtol=1e-6)
    np.testing.assert_allclose(found[rows, 8:24], 0.8, rtol=1e-6)
    # Behind the square began at column 32; that edge is now at 28: what lies between is new.
    assert (inverse[rows, 24:28] == 0.0).all()
    assert not sure[rows, 24:28].any()
    np.testing.assert_allclose(1.0 / inverse[rows, 28:44], 2.0, rtol=1e-6)
    np.testing.assert_allclose(1.0 / inverse[:7, :44], 2.0, rtol=1e-6)
    assert (inverse[:, 45:] == 0.0).all()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """Without frames there is no sequence."""
    with pytest.raises(RecordingError, match="a sequence needs two at least"):
        RgbdSequence(tmp_path, HZ)
