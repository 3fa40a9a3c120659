"""Whether simulated events look like a camera's, within the bounds that real recordings keep.

The bounds on rates are those of hand-held and driving recordings of DAVIS346 cameras.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from dae_ros.events.packet import Events
from dae_ros.simulation.clips import ClipWindow, clip_windows
from dae_ros.simulation.presets import preset
from dae_ros.simulation.sensor import DARK_RADIANCE, EventSensor
from dae_ros.simulation.simulation import Simulation
from dae_ros.simulation.worlds import create_world

HEIGHT, WIDTH = 98, 130
SIZE = {"height": HEIGHT, "width": WIDTH}
DURATION_S = 0.6
NAMES = ("room", "corridor", "street_day", "street_night", "warehouse", "yard", "park")


@pytest.fixture(scope="module", params=NAMES)
def windows(request: pytest.FixtureRequest) -> list[ClipWindow]:
    return list(clip_windows(preset(request.param, seed=11, duration_s=DURATION_S, **SIZE)))


def test_rates_balance_and_share_of_active_pixels(windows: list[ClipWindow]) -> None:
    """Events per pixel, ON to OFF, and active pixels per 50 ms are what real cameras have."""
    events = Events.concatenate([window.events for window in windows])
    per_pixel_hz = len(events) / DURATION_S / (HEIGHT * WIDTH)
    assert 0.5 < per_pixel_hz < 20.0
    on = int(events.p.sum())
    assert 0.8 < on / (len(events) - on) < 1.3
    active = [(window.image[[0, 2]] > 0).any(axis=0).mean() for window in windows]
    assert 0.04 < np.mean(active) < 0.40


def test_events_lie_on_contours(windows: list[ClipWindow]) -> None:
    """Where the frame has its steepest tenth, events are at least half as dense again as in its
    flattest half.
    """
    dense = flat = 0.0
    for window in windows[1:]:
        if window.frame is None:
            continue
        grey = window.frame.image.astype(float)
        smooth = np.array(
            [grey[i : HEIGHT - 4 + i, j : WIDTH - 4 + j] for i in range(5) for j in range(5)]
        ).mean(axis=0)
        slope = np.hypot(*np.gradient(smooth))
        active = (window.image[[0, 2]] > 0).any(axis=0)[2:-2, 2:-2]
        dense += active[slope > np.quantile(slope, 0.9)].mean()
        flat += active[slope < np.quantile(slope, 0.5)].mean()
    assert dense > 1.5 * flat


def test_faster_motion_makes_more_events() -> None:
    """At twice the speed a world makes between 1.5 and 2.5 times as many events."""
    rates = []
    for speed in (0.5, 1.0, 2.0):
        # Equal ways: the same sights at every speed.
        parameters = preset(
            "corridor",
            speed=speed,
            duration_s=0.6 / speed,
            noise_hz=0.0,
            hot_pixels=0.0,
            leak_hz=0.0,
            **SIZE,
        )
        count = sum(len(events) for events in Simulation(parameters).events())
        rates.append(count / parameters.duration_s)
    for slow, fast in itertools.pairwise(rates):
        assert 1.5 < fast / slow < 2.5


def test_pixels_have_a_refractory_period_and_recover() -> None:
    """In fast motion no interval between events of a pixel is shorter than the refractory period,
    and intervals are most frequent within a few of it.
    """
    parameters = preset(
        "domain_d", seed=11, duration_s=0.25, readout_hz=0.0, hot_pixels=0.0, **SIZE
    )
    events = Events.concatenate(list(Simulation(parameters).events()))
    pixel = events.y.astype(np.int64) * WIDTH + events.x
    order = np.argsort(pixel, kind="stable")
    same = np.diff(pixel[order]) == 0
    interval_us = np.diff(events.t[order])[same] // 1000
    refractory_us = round(parameters.refractory_s * 1e6)
    assert interval_us.min() >= refractory_us
    counts, edges = np.histogram(interval_us, bins=np.arange(0, 40_000, 500))
    assert counts[0] == 0
    assert edges[np.argmax(counts)] <= 6 * refractory_us


def test_events_rebuild_the_next_picture() -> None:
    """First log picture plus thresholds times events is within one threshold of the last one."""
    parameters = preset("street_day", seed=4, **SIZE)
    view = create_world(parameters).view()
    view.look(0)
    first = view.radiance()
    sensor = EventSensor(
        first,
        1,
        contrast_threshold=0.2,
        off_ratio=1.1,
        threshold_spread=0.1,
        bandwidth_hz=0.0,
        refractory_us=1,
        leak_hz=0.0,
        noise_hz=0.0,
        hot_pixels=0.0,
        readout_hz=0.0,
        seed=4,
    )
    rebuilt = sensor.memory.astype(np.float64)
    for time_us in range(2000, 60_001, 2000):
        view.look(time_us)
        picture = view.radiance()
        events = sensor.expose(picture, time_us)
        step = np.where(
            events.p == 1,
            sensor.on_threshold[events.y, events.x],
            -sensor.off_threshold[events.y, events.x],
        )
        np.add.at(rebuilt, (events.y, events.x), step)
    error = np.log(picture + np.float32(DARK_RADIANCE)) - rebuilt
    assert (error < sensor.on_threshold + 1e-4).all()
    assert (error > -sensor.off_threshold - 1e-4).all()
    unchanged = np.log(picture + DARK_RADIANCE) - np.log(first + DARK_RADIANCE)
    assert np.abs(unchanged).mean() > 0.1


def test_a_stop_leaves_only_noise() -> None:
    """While the camera stands in the street, what still comes is noise and what moves by itself."""
    parameters = preset("room", stop_every_s=4.0, stop_s=1.0, duration_s=3.0, **SIZE)
    counts = [len(window.events) for window in clip_windows(parameters)]
    # It stands from 2.2 s to 3.2 s; its slow pixels settle within 0.1 s.
    moving, standing = np.mean(counts[5:20]), np.mean(counts[48:])
    noise = HEIGHT * WIDTH * 0.05 * (parameters.noise_hz + parameters.leak_hz)
    hot = HEIGHT * WIDTH * 0.05 * parameters.hot_pixels * 200.0
    assert standing < noise + hot < 0.5 * moving


def test_fog_makes_fewer_events_and_flatter_frames() -> None:
    """Fog takes most events of the far street; its frames lose their contrast."""
    clear = preset("street_day", seed=4, duration_s=0.2, **SIZE)
    foggy = dataclasses.replace(clear, visibility_m=40.0)
    found = [list(clip_windows(parameters)) for parameters in (clear, foggy)]
    counts = [sum(len(window.events) for window in run) for run in found]
    contrasts = [run[2].frame.image.std() / run[2].frame.image.mean() for run in found]
    assert counts[1] < 0.5 * counts[0]
    assert contrasts[1] < 0.75 * contrasts[0]
    np.testing.assert_array_equal(found[0][-1].depth, found[1][-1].depth)
