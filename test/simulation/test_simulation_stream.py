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
from dae_ros.simulation.aps import ELECTRONS_PER_S, FULL_WELL_E
from dae_ros.simulation.presets import PRESETS, preset
from dae_ros.simulation.render import Renderer
from dae_ros.simulation.simulation import (
    FRAME_ID,
    SENSOR_START_NS,
    START_NS,
    DepthTruth,
    Simulation,
)
from dae_ros.simulation.trajectory import Sway
from dae_ros.simulation.worlds import SceneWorld, create_world

HEIGHT, WIDTH = 48, 64
ROOT = Path(__file__).resolve().parents[2]
ENCODINGS = ("evt3", "libcaer", "libcaer_cmp", "mono", "dvs_msgs")


# A sensor without a mind of its own.
QUIET = {"noise_hz": 0.0, "leak_hz": 0.0, "hot_pixels": 0.0}


@pytest.fixture(scope="module")
def room() -> SceneWorld:
    return create_world(SimulatorParameters(height=HEIGHT, width=WIDTH))


def simulate(room: SceneWorld, path: Sway | None = None, **changes: object) -> Simulation:
    values = {"height": HEIGHT, "width": WIDTH, "duration_s": 0.3, **changes}
    parameters = SimulatorParameters.from_mapping(values)
    world = room if path is None else SceneWorld(room.scene, path, room.camera)
    return Simulation(parameters, world)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_packets_decode_to_the_events(room: SceneWorld, encoding: str) -> None:
    """What a decoder makes of the packets equals, column for column, the unencoded events."""
    simulation = simulate(room, encoding=encoding)
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


def test_stamps_rise_and_rates_hold(room: SceneWorld) -> None:
    """Items come in the order of their stamps; frames, depths and packets at their rates."""
    items = list(
        simulate(room, frame_hz=25.0, depth_hz=30.0, duration_s=0.4, auto_exposure=False).run()
    )
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


def test_events_are_sorted_and_inside_the_sensor(room: SceneWorld) -> None:
    """Over packets, too, event time never falls, and no event lies outside."""
    # So much noise that some event falls on the very border of two packets.
    packets = list(simulate(room, noise_hz=100.0).events())
    for packet in packets:
        assert packet.t[-1] // 5_000_000 == packet.t[0] // 5_000_000
    events = Events.concatenate(packets)
    assert (events.t % 5_000_000 == 0).any()
    assert (np.diff(events.t) >= 0).all()
    assert events.x.max() < WIDTH
    assert events.y.max() < HEIGHT
    assert set(np.unique(events.p)) == {0, 1}


def test_depth_is_that_of_the_pose_at_its_stamp(room: SceneWorld) -> None:
    """Each depth truth equals a rendering from where the path is at that stamp."""
    simulation = simulate(room, depth_hz=10.0)
    renderer = Renderer(room.scene, simulation.camera)
    truths = [item for item in simulation.run() if isinstance(item, DepthTruth)]
    assert len(truths) == 4
    for truth in truths:
        renderer.look(room.trajectory.pose(truth.stamp_ns - START_NS))
        np.testing.assert_array_equal(truth.depth, renderer.depth())


def test_a_still_camera_sees_only_noise(room: SceneWorld) -> None:
    """A still camera sees as much noise as the light asks for; a quiet sensor is mute."""
    still = Sway.still((0.0, 0.0, 1.3), 0.4)
    noisy = simulate(
        room, still, duration_s=1.0, threshold_spread=0.0, **{**QUIET, "noise_hz": 4.0}
    )
    events = Events.concatenate(list(noisy.events()))
    view = SceneWorld(room.scene, still, room.camera).view()
    view.look(0)
    expected = float((4.0 * (1.0 - 0.75 * np.minimum(view.radiance(), 1.0))).sum())
    assert abs(len(events) - expected) < 6 * np.sqrt(expected)
    quiet = list(simulate(room, still, **QUIET).run())
    assert not any(isinstance(item, EventPacket) for item in quiet)
    assert sum(isinstance(item, Frame) for item in quiet) == 5


def test_a_still_frame_shows_the_radiance(room: SceneWorld) -> None:
    """A frame is the radiance times exposure and sensitivity, cut at a full well, with noise."""
    still = Sway.still((0.0, 0.0, 1.3), 0.4)
    view = SceneWorld(room.scene, still, room.camera).view()
    view.look(0)
    for exposure_s in (0.001, 0.004):
        items = simulate(
            room, still, exposure_s=exposure_s, duration_s=0.1, auto_exposure=False
        ).run()
        frame = next(item for item in items if isinstance(item, Frame))
        gain = exposure_s * ELECTRONS_PER_S * 255.0 / FULL_WELL_E
        expected = np.minimum(view.radiance() * gain, 255.0)
        error = frame.image - expected
        assert abs(error.mean()) < 0.5
        assert np.abs(error).max() < 8.0


def digest_of_seed(name: str, seed: int) -> str:
    """Return a digest of everything that a small run of a preset yields."""
    digest = hashlib.sha256()
    parameters = preset(name, height=HEIGHT, width=WIDTH, duration_s=0.06, seed=seed)
    for item in Simulation(parameters).run():
        for name in ("payload", "image", "depth"):
            digest.update(np.asarray(memoryview(getattr(item, name, b""))).tobytes())
        digest.update(str(item.stamp_ns).encode())
    return digest.hexdigest()


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    """A process with other thread settings gives the same bytes; another seed gives others."""
    names = ("domain_b", "domain_c")
    program = (
        f"import runpy; f = runpy.run_path({str(Path(__file__))!r})['digest_of_seed']; "
        f"print(*[f(name, 1) for name in {names!r}])"
    )
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
    assert done.stdout.split() == [digest_of_seed(name, 1) for name in names]
    assert digest_of_seed("domain_b", 2) != done.stdout.split()[0]


def test_every_preset_is_allowed_and_no_other_name() -> None:
    """All presets make valid parameters, with changes; an unknown one is refused by name."""
    for name in PRESETS:
        assert preset(name, seed=5).seed == 5
    with pytest.raises(ConfigurationError, match="no preset 'moon'; choose one of room,"):
        preset("moon")


def test_without_a_duration_it_goes_on(room: SceneWorld) -> None:
    """duration_s 0 gives as many items as one takes; every run begins anew."""
    simulation = simulate(room, duration_s=0.0)
    stamps = [item.stamp_ns for item in itertools.islice(simulation.run(), 100)]
    assert len(stamps) == 100
    assert stamps == [item.stamp_ns for item in itertools.islice(simulation.run(), 100)]


def test_parameters_that_contradict_each_other_are_refused() -> None:
    """An exposure longer than the distance of frames is refused, and so is half a microsecond."""
    with pytest.raises(ConfigurationError, match=r"'exposure_s' .* must be shorter"):
        Simulation(SimulatorParameters(exposure_s=0.05, frame_hz=20.0))
    with pytest.raises(ConfigurationError, match="'packet_s' must be a whole number"):
        Simulation(SimulatorParameters(packet_s=0.0012345678))
