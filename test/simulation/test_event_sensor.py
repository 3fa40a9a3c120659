"""Event pixels against their plain Python twin, and what physics says of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dae_ros.events.packet import Events
from dae_ros.simulation.sensor import DARK_RADIANCE, EventSensor
from test.reference import event_pixels

SHAPE = (9, 11)


def make_sensor(radiance: np.ndarray, **changes: float) -> EventSensor:
    settings = {
        "contrast_threshold": 0.2, "off_ratio": 1.0, "threshold_spread": 0.1, "bandwidth_hz": 0.0,
        "refractory_us": 1, "leak_hz": 0.0, "noise_hz": 0.0, "hot_pixels": 0.0,
        "readout_hz": 0.0, "seed": 4, **changes,
    }  # fmt: skip
    return EventSensor(radiance, 1000, **settings)


def log_of(radiance: np.ndarray) -> np.ndarray:
    return np.log(radiance + np.float32(DARK_RADIANCE))


def test_the_twin_gives_the_events_of_a_ramp() -> None:
    """The reference itself: 0 to 0.5 in 100 us at a step of 0.2 crosses at 40 and 80 us."""
    found, memory = event_pixels.test_vector()
    assert found == [(40, 0, 0, 1), (80, 0, 0, 1)]
    assert memory == pytest.approx(0.4)


@pytest.mark.parametrize("refractory_us", [1, 150])
def test_events_equal_the_twin(refractory_us: int) -> None:
    """Random pictures give, event for event, what pixels stepped one by one give."""
    random = np.random.default_rng(8)
    pictures = random.uniform(0.02, 1.0, (6, *SHAPE)).astype(np.float32)
    sensor = make_sensor(pictures[0], refractory_us=refractory_us)
    memory = sensor.memory.copy()
    last = np.full(SHAPE, 1000 - refractory_us)
    time_us = 1000
    total = 0
    for before, after in itertools.pairwise(pictures):
        end_us = time_us + int(random.integers(50, 900))
        expected = event_pixels.step(
            log_of(before),
            log_of(after),
            memory,
            sensor.on_threshold,
            sensor.off_threshold,
            last,
            refractory_us,
            time_us,
            end_us,
        )
        events = sensor.expose(after, end_us)
        found = list(zip(events.t // 1000, events.y, events.x, events.p, strict=True))
        assert found == expected
        np.testing.assert_array_equal(sensor.memory, memory)
        time_us = end_us
        total += len(found)
    assert total > 500


def test_events_and_thresholds_rebuild_the_change() -> None:
    """First memory plus thresholds times polarities is within one threshold of the last picture."""
    random = np.random.default_rng(9)
    sensor = make_sensor(np.full(SHAPE, 0.3, np.float32))
    rebuilt = sensor.memory.astype(np.float64)
    for time_us in range(2000, 9000, 1000):
        picture = random.uniform(0.02, 1.0, SHAPE).astype(np.float32)
        events = sensor.expose(picture, time_us)
        change = np.where(
            events.p == 1,
            sensor.on_threshold[events.y, events.x],
            -sensor.off_threshold[events.y, events.x],
        )
        np.add.at(rebuilt, (events.y, events.x), change)
        error = log_of(picture) - rebuilt
        assert (error < sensor.on_threshold + 1e-5).all()
        assert (error > -sensor.off_threshold - 1e-5).all()


def test_a_brightening_pixel_is_on_and_a_darkening_one_off() -> None:
    """A bright edge that moves right makes ON events ahead and OFF events behind it."""

    def bar(left: int) -> np.ndarray:
        picture = np.full((4, 20), 0.1, np.float32)
        picture[:, left : left + 5] = 0.8
        return picture

    sensor = make_sensor(bar(5))
    events = sensor.expose(bar(7), 3000)
    assert set(events.x[events.p == 1].tolist()) == {10, 11}
    assert set(events.x[events.p == 0].tolist()) == {5, 6}
    per_pixel = np.log(0.81 / 0.11) / 0.2
    assert len(events) / 16 == pytest.approx(per_pixel, rel=0.15)


def test_crossing_times_are_interpolated() -> None:
    """A pixel whose log intensity climbs evenly fires at even distances."""
    first = np.full((1, 1), 0.1, np.float32)
    sensor = make_sensor(first, threshold_spread=0.0)
    target = np.float32((0.1 + DARK_RADIANCE) * np.exp(2.0) - DARK_RADIANCE)
    events = sensor.expose(np.full((1, 1), target), 101_000)
    assert len(events) in (9, 10, 11)
    # One threshold of 0.2 in 2.0 over 100 ms.
    np.testing.assert_allclose(np.diff(events.t), 10_000_000, atol=1001)


def test_events_are_read_out_by_time_row_and_column() -> None:
    """Events are sorted by microsecond, then row, then column, inside the step and the sensor."""
    random = np.random.default_rng(1)
    sensor = make_sensor(np.full((30, 40), 0.5, np.float32))
    events = sensor.expose(random.uniform(0.0, 1.0, (30, 40)).astype(np.float32), 1100)
    key = events.t * 10_000 + events.y.astype(np.int64) * 100 + events.x
    assert (np.diff(key) > 0).all()
    assert events.t.min() >= 1_000_000
    assert events.t.max() < 1_100_000
    assert (events.t % 1000 == 0).all()


def test_a_still_picture_gives_noise_of_the_given_rate_only() -> None:
    """Without change there are Poisson events of both polarities; without noise there is none."""
    picture = np.zeros((100, 100), np.float32)
    sensor = make_sensor(picture, noise_hz=5.0, threshold_spread=0.0)
    parts = [sensor.expose(picture, 1000 + 5000 * k) for k in range(1, 401)]
    events = Events.concatenate(parts)
    # 100 x 100 pixels, 5 Hz, 2 s: 100,000 expected, deviation 316.
    assert abs(len(events) - 100_000) < 1600
    assert abs(int(events.p.sum()) - len(events) / 2) < 800
    assert (np.diff(events.t) >= 0).all()
    per_pixel = np.bincount(events.y.astype(int) * 100 + events.x, minlength=10_000)
    assert per_pixel.var() == pytest.approx(per_pixel.mean(), rel=0.08)
    silent = make_sensor(picture)
    assert sum(len(silent.expose(picture, 1000 + 5000 * k)) for k in range(1, 20)) == 0


def test_the_refractory_period_holds_between_events_of_a_pixel() -> None:
    """No pixel fires twice within the refractory period, noise included."""
    random = np.random.default_rng(2)
    sensor = make_sensor(np.full(SHAPE, 0.3, np.float32), refractory_us=300, noise_hz=200.0)
    parts = [
        sensor.expose(random.uniform(0.0, 1.0, SHAPE).astype(np.float32), 1000 + 700 * k)
        for k in range(1, 60)
    ]
    events = Events.concatenate(parts)
    pixel = events.y.astype(int) * SHAPE[1] + events.x
    for index in range(SHAPE[0] * SHAPE[1]):
        assert (np.diff(events.t[pixel == index]) >= 300_000).all()
    assert len(events) > 2000


def test_time_must_move_on() -> None:
    """A step that does not end later than it begins is refused."""
    picture = np.full(SHAPE, 0.4, np.float32)
    sensor = make_sensor(picture)
    with pytest.raises(ValueError, match="time must move on from 1000 us"):
        sensor.expose(picture, 1000)


def test_a_dark_pixel_is_slower_than_a_bright_one() -> None:
    """After a step the low-pass reaches a level after the time that its cut-off gives."""
    bandwidth_hz, low, high = 200.0, 0.05, 0.5
    # Both pixels see the same change of log intensity, one of them ten times darker.
    first = np.array([[low, low / 10 - 0.9 * DARK_RADIANCE]], np.float32)
    after = np.array([[high, high / 10 - 0.9 * DARK_RADIANCE]], np.float32)
    sensor = make_sensor(first, bandwidth_hz=bandwidth_hz, threshold_spread=0.0)
    memory = sensor.memory.copy()
    log_first, log_after = log_of(first), log_of(after)
    sensor.expose(after, 1001)  # a jump within 1 us
    times = [[], []]
    for end_us in range(1101, 60_001, 100):
        events = sensor.expose(after, end_us)
        for t, x in zip(events.t, events.x, strict=True):
            times[x].append(t / 1e9 - 0.001)
    for pixel in range(2):
        cut_off_hz = bandwidth_hz * (after[0, pixel] + DARK_RADIANCE)
        levels = memory[0, pixel] + 0.2 * np.arange(1, len(times[pixel]) + 1)
        change = log_after[0, pixel] - log_first[0, pixel]
        expected = -np.log(1.0 - (levels - log_first[0, pixel]) / change) / (2 * np.pi * cut_off_hz)
        assert len(times[pixel]) >= 9
        np.testing.assert_allclose(times[pixel], expected, rtol=0.02, atol=5e-5)
    assert np.mean(times[1]) > 9 * np.mean(times[0])


def test_a_leak_makes_on_events_of_its_rate() -> None:
    """Without light or motion the memories sink and every pixel fires ON at the leak's rate."""
    picture = np.full((60, 60), 0.4, np.float32)
    sensor = make_sensor(picture, leak_hz=2.0)
    events = Events.concatenate([sensor.expose(picture, 1000 + 5000 * k) for k in range(1, 1001)])
    assert (events.p == 1).all()
    # The first events come late, as memories begin on both sides of the signal. The logarithm of
    # the rate has a deviation of 0.3, which makes its mean 4.6 % higher.
    settled = (events.t > 2_001_000_000).sum()
    assert settled / 3600 / 3.0 == pytest.approx(2.0 * np.exp(0.045), rel=0.03)


def test_noise_falls_with_the_light() -> None:
    """In full light a pixel has a quarter of the noise of a dark one."""
    picture = np.zeros((100, 100), np.float32)
    picture[:, 50:] = 1.0
    sensor = make_sensor(picture, noise_hz=8.0, threshold_spread=0.0)
    events = Events.concatenate([sensor.expose(picture, 1000 + 5000 * k) for k in range(1, 401)])
    dark, bright = (events.x < 50).sum(), (events.x >= 50).sum()
    assert dark == pytest.approx(8.0 * 2.0 * 5000, rel=0.02)
    assert bright == pytest.approx(2.0 * 2.0 * 5000, rel=0.03)


def test_hot_pixels_fire_by_themselves_and_others_do_not() -> None:
    """The stated share of pixels fires at its own rates, in a picture that stands still."""
    picture = np.full((100, 100), 0.4, np.float32)
    sensor = make_sensor(picture, hot_pixels=0.01)
    events = Events.concatenate([sensor.expose(picture, 1000 + 5000 * k) for k in range(1, 401)])
    counts = np.bincount(events.y.astype(int) * 100 + events.x, minlength=10_000)
    expected = 2.0 * sensor.hot_hz.ravel()
    assert 60 < (expected > 0).sum() < 140
    assert (counts[expected == 0] == 0).all()
    assert (np.abs(counts - expected)[expected > 0] < 5 * np.sqrt(expected[expected > 0])).all()


def test_the_off_threshold_has_its_own_size() -> None:
    """With OFF steps twice as large, a change and its reverse give half as many OFF events."""
    low, high = np.full((40, 40), 0.05, np.float32), np.full((40, 40), 0.8, np.float32)
    sensor = make_sensor(low, off_ratio=2.0)
    on, off = len(sensor.expose(high, 50_000)), len(sensor.expose(low, 100_000))
    assert on / off == pytest.approx(2.0, rel=0.1)
