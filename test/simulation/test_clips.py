"""Clips for training: the windows, depths and frames that the live stream has."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import Events
from dae_ros.parameters import SimulatorParameters
from dae_ros.representation.tencode import tencode
from dae_ros.simulation.clips import clip_windows
from dae_ros.simulation.simulation import SENSOR_START_NS, START_NS, DepthTruth, Simulation
from dae_ros.simulation.worlds import create_world

PARAMETERS = SimulatorParameters(height=48, width=64, duration_s=0.3)
MS = 1_000_000
WORLD = create_world(PARAMETERS)


@pytest.mark.parametrize("window_s", [0.05, 0.025, 0.15])
def test_windows_are_those_of_the_stream(window_s: float) -> None:
    """Events, Tencode, depth and frame of every window equal those cut from the live stream."""
    windows = list(clip_windows(PARAMETERS, WORLD, window_s))
    length_ns = round(window_s * 1e9)
    assert [w.end_ns for w in windows] == [
        length_ns * (k + 1) for k in range(300 * MS // length_ns)
    ]
    # Depth at the ends of windows; when it is asked for decides when the world is rendered.
    live = dataclasses.replace(PARAMETERS, depth_hz=1e9 / length_ns)
    items = list(Simulation(live, WORLD).items())
    everything = Events.concatenate([item for item in items if isinstance(item, Events)])
    t = everything.t - SENSOR_START_NS
    frames = {f.stamp_ns - START_NS: f for f in items if isinstance(f, Frame)}
    truths = {d.stamp_ns - START_NS: d for d in items if isinstance(d, DepthTruth)}
    total = 0
    for window in windows:
        first, last = np.searchsorted(t, [window.end_ns - length_ns, window.end_ns])
        expected = everything.slice(first, last)
        total += len(window.events)
        np.testing.assert_array_equal(window.events.t, t[first:last])
        for name in ("x", "y", "p"):
            np.testing.assert_array_equal(getattr(window.events, name), getattr(expected, name))
        np.testing.assert_array_equal(window.image, tencode(expected, 48, 64))
        np.testing.assert_array_equal(window.depth, truths[window.end_ns].depth)
        assert (window.frame is None) == (window.end_ns not in frames)
        if window.frame is not None:
            np.testing.assert_array_equal(window.frame.image, frames[window.end_ns].image)
    assert total == len(everything) > 500
    assert any(window.frame is not None for window in windows)


def test_a_window_without_events_is_black() -> None:
    """A quiet sensor that stands still still yields every window, with depth and frame."""
    parameters = SimulatorParameters(
        height=48,
        width=64,
        duration_s=1.0,
        noise_hz=0.0,
        leak_hz=0.0,
        hot_pixels=0.0,
        bandwidth_hz=0.0,
        stop_every_s=4.0,
        stop_s=1.0,
        speed=0.1,
    )
    world = create_world(parameters)
    # From 2.2 s on it stands.
    standing = type(world)(world.scene, _Later(world.trajectory, 2_200_000_000), world.camera)
    windows = list(clip_windows(parameters, standing))
    assert len(windows) == 20
    assert all(len(window.events) == 0 and not window.image.any() for window in windows)
    assert all(np.isfinite(window.depth).all() for window in windows)
    assert sum(window.frame is not None for window in windows) == 19


class _Later:
    """A path that begins later on another."""

    def __init__(self, path: object, offset_ns: int) -> None:
        self._path, self._offset_ns = path, offset_ns

    def pose(self, time_ns: int) -> object:
        return self._path.pose(time_ns + self._offset_ns)


def test_a_window_of_half_a_millisecond_is_refused() -> None:
    """Windows are whole milliseconds."""
    with pytest.raises(ConfigurationError, match="whole number of milliseconds"):
        next(clip_windows(PARAMETERS, WORLD, 0.0505))
