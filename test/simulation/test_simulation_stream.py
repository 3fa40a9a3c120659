"""The whole simulated camera: order, rates, encodings, repeatability."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.events.codecs import create_decoder
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket, Events
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.render import Renderer
from dae_ros.simulation.scene import Scene, room
from dae_ros.simulation.simulation import (
    FRAME_GAIN,
    FRAME_ID,
    SENSOR_START_NS,
    START_NS,
    DepthTruth,
    Simulation,
)
from dae_ros.simulation.trajectory import Trajectory, room_trajectory

HEIGHT, WIDTH = 48, 64
ROOT = Path(__file__).resolve().parents[2]
ENCODINGS = ("evt3", "libcaer", "libcaer_cmp", "mono", "dvs_msgs")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return room(0)


def simulate(scene: Scene, path: Trajectory | None = None, **changes: object) -> Simulation:
    values = {"height": HEIGHT, "width": WIDTH, "duration_s": 0.3, **changes}
    parameters = SimulatorParameters.from_mapping(values)
    return Simulation(parameters, (scene, room_trajectory(0) if path is None else path))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_packets_decode_to_the_events(scene: Scene, encoding: str) -> None:
    """What a decoder makes of the packets equals, column for column, the unencoded events."""
    simulation = simulate(scene, encoding=encoding)
    packets = [item for item in simulation.run() if isinstance(item, EventPacket)]
    decoder = create_decoder(packets[0].encoding, WIDTH, HEIGHT)
    for packet, expected in zip(packets, simulation.events(), strict=True):
        decoded = decoder.decode(packet.payload, packet.time_base_ns)
        for name in ("t", "x", "y", "p"):
            np.testing.assert_array_equal(getattr(decoded, name), getattr(expected, name))
        start_ns = SENSOR_START_NS if encoding == "evt3" else START_NS
        assert packet.stamp_ns - START_NS == expected.t[0] - start_ns
        assert (packet.height, packet.width, packet.frame_id) == (HEIGHT, WIDTH, FRAME_ID)
    if encoding != "dvs_msgs":
        assert [packet.seq for packet in packets] == list(range(len(packets)))


def test_stamps_rise_and_rates_hold(scene: Scene) -> None:
    """Items come in the order of their stamps; frames, depths and packets at their rates."""
    items = list(simulate(scene, frame_hz=25.0, depth_hz=30.0, duration_s=0.4).run())
    stamps = [item.stamp_ns - START_NS for item in items]
    assert stamps == sorted(stamps)
    frames = [item for item in items if isinstance(item, Frame)]
    truths = [item for item in items if isinstance(item, DepthTruth)]
    packets = [item for item in items if isinstance(item, EventPacket)]
    # The frame at 400 ms would be exposed until 405 ms.
    assert [frame.stamp_ns - START_NS for frame in frames] == [40_000_000 * k for k in range(1, 10)]
    assert [frame.exposure_ns for frame in frames] == [10_000_000] * 9
    assert [truth.stamp_ns - START_NS for truth in truths] == [
        round(k * 1e6 / 30.0) * 1000 for k in range(13)
    ]
    assert 20 < len(packets) <= 80


def test_events_are_sorted_and_inside_the_sensor(scene: Scene) -> None:
    """Over packets, too, event time never falls, and no event lies outside."""
    # So much noise that some event falls on the very border of two packets.
    packets = list(simulate(scene, noise_hz=100.0).events())
    for packet in packets:
        assert packet.t[-1] // 5_000_000 == packet.t[0] // 5_000_000
    events = Events.concatenate(packets)
    assert (events.t % 5_000_000 == 0).any()
    assert (np.diff(events.t) >= 0).all()
    assert events.x.max() < WIDTH
    assert events.y.max() < HEIGHT
    assert set(np.unique(events.p)) == {0, 1}


def test_depth_is_that_of_the_pose_at_its_stamp(scene: Scene) -> None:
    """Each depth truth equals a rendering from where the path is at that stamp."""
    simulation = simulate(scene, depth_hz=10.0)
    renderer = Renderer(scene, simulation.camera)
    truths = [item for item in simulation.run() if isinstance(item, DepthTruth)]
    assert len(truths) == 4
    for truth in truths:
        renderer.look(room_trajectory(0).pose(truth.stamp_ns - START_NS))
        np.testing.assert_array_equal(truth.depth, renderer.depth())


def test_a_still_camera_sees_only_noise(scene: Scene) -> None:
    """Without motion all events are noise; frames repeat."""
    still = Trajectory.still((0.0, 0.0, 1.3), 0.4)
    events = Events.concatenate(list(simulate(scene, still, duration_s=1.0, noise_hz=2.0).events()))
    expected = 2.0 * HEIGHT * WIDTH
    assert abs(len(events) - expected) < 6 * np.sqrt(expected)
    quiet = list(simulate(scene, still, noise_hz=0.0).run())
    assert not any(isinstance(item, EventPacket) for item in quiet)
    frames = [item.image for item in quiet if isinstance(item, Frame)]
    assert len(frames) == 5
    for image in frames[1:]:
        np.testing.assert_array_equal(image, frames[0])


def test_a_still_frame_shows_the_radiance(scene: Scene) -> None:
    """A frame is the radiance times the gain, cut at a full well, with or without exposure."""
    still = Trajectory.still((0.0, 0.0, 1.3), 0.4)
    renderer = Renderer(scene, simulate(scene).camera)
    renderer.look(still.pose(0))
    expected = np.minimum(renderer.radiance() * FRAME_GAIN, 255.0)
    for exposure_s in (0.0, 0.02):
        items = simulate(scene, still, exposure_s=exposure_s, duration_s=0.1).run()
        frame = next(item for item in items if isinstance(item, Frame))
        assert np.abs(frame.image - expected).max() <= 1.0


def digest_of_seed(seed: int) -> str:
    """Return a digest of everything that a small room yields."""
    digest = hashlib.sha256()
    parameters = SimulatorParameters(height=HEIGHT, width=WIDTH, duration_s=0.1, seed=seed)
    for item in Simulation(parameters).run():
        for name in ("payload", "image", "depth"):
            digest.update(np.asarray(memoryview(getattr(item, name, b""))).tobytes())
        digest.update(str(item.stamp_ns).encode())
    return digest.hexdigest()


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    """A process with other thread settings gives the same bytes; another seed gives others."""
    program = f"import runpy; print(runpy.run_path({str(Path(__file__))!r})['digest_of_seed'](1))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NUMBA_NUM_THREADS": "2",
            "OMP_NUM_THREADS": "2",
        },
    )
    assert done.stdout.split() == [digest_of_seed(1)]
    assert done.stdout.split() != [digest_of_seed(2)]


def test_without_a_duration_it_goes_on(scene: Scene) -> None:
    """duration_s 0 gives as many items as one takes; every run begins anew."""
    simulation = simulate(scene, duration_s=0.0)
    stamps = [item.stamp_ns for item in itertools.islice(simulation.run(), 100)]
    assert len(stamps) == 100
    assert stamps == [item.stamp_ns for item in itertools.islice(simulation.run(), 100)]


def test_parameters_that_contradict_each_other_are_refused() -> None:
    """An exposure longer than the distance of frames is refused, and so is half a microsecond."""
    with pytest.raises(ConfigurationError, match=r"'exposure_s' .* must be shorter"):
        Simulation(SimulatorParameters(exposure_s=0.05, frame_hz=20.0))
    with pytest.raises(ConfigurationError, match="'packet_s' must be a whole number"):
        Simulation(SimulatorParameters(packet_s=0.0012345678))
