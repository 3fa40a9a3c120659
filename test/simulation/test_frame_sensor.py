"""Frame pixels: what a frame shows, when it was exposed, and how the exposure follows the light."""

from __future__ import annotations

import numpy as np
import pytest

from dae_ros.simulation.aps import (
    ELECTRONS_PER_S,
    FULL_WELL_E,
    LAG_FRAMES,
    READ_NOISE_E,
    TARGET_MEAN,
    FrameSensor,
)

SHAPE = (60, 80)


def expose(sensor: FrameSensor, radiance: np.ndarray, count: int, step_us: int = 1000) -> list:
    """Return `count` frames of a picture that stands still."""
    frames = []
    now_us = 0
    while len(frames) < count:
        end_us = min(now_us + step_us, sensor.next_instant_us(now_us))
        found = sensor.add(radiance, radiance, end_us, end_us - now_us)
        now_us = end_us
        if found is not None:
            frames.append(found)
    return frames


def test_a_frame_has_the_level_and_the_noise_of_its_charge() -> None:
    """Mean and deviation of a flat frame are those of its electrons, shot and read noise."""
    exposure_us, radiance = 2000, 0.4
    flat = np.full(SHAPE, radiance, np.float32)
    _, _, image = expose(FrameSensor(flat, exposure_us, 20.0, False, 1), flat, 1)[0]
    electrons = radiance * exposure_us * 1e-6 * ELECTRONS_PER_S
    grey = 255.0 / FULL_WELL_E
    assert image.mean() == pytest.approx(electrons * grey, abs=0.1)
    # The grid of whole grey values adds a variance of 1/12.
    expected = np.hypot(np.sqrt(electrons + READ_NOISE_E**2) * grey, np.sqrt(1 / 12))
    assert image.astype(float).std() == pytest.approx(expected, rel=0.05)


def test_a_full_well_is_white() -> None:
    """Four times what fills the well is 255 everywhere, without noise."""
    bright = np.full(SHAPE, 4.0 * FULL_WELL_E / ELECTRONS_PER_S / 0.01, np.float32)
    _, _, image = expose(FrameSensor(bright, 10_000, 20.0, False, 1), bright, 1)[0]
    assert (image == 255).all()


def test_motion_blurs_over_the_exposure() -> None:
    """A bright column that is seen for half of the exposure is half as bright."""
    sensor = FrameSensor(np.zeros(SHAPE, np.float32), 4000, 20.0, False, 1)
    on = np.full(SHAPE, 0.3, np.float32)
    off = np.zeros(SHAPE, np.float32)
    assert sensor.add(off, off, 48_000, 48_000) is None
    assert sensor.add(on, on, 50_000, 2000) is None
    result = sensor.add(off, off, 52_000, 2000)
    assert result is not None
    middle_us, exposure_us, image = result
    assert (middle_us, exposure_us) == (50_000, 4000)
    expected = 0.3 * 2000e-6 * ELECTRONS_PER_S * 255.0 / FULL_WELL_E
    assert image.mean() == pytest.approx(expected, abs=0.2)


def test_auto_exposure_finds_its_target_and_follows_late() -> None:
    """Frames settle at the target; after the light changes, the next frames are still wrong."""
    dim, bright = np.full(SHAPE, 0.2, np.float32), np.full(SHAPE, 1.6, np.float32)
    sensor = FrameSensor(dim, 20_000, 20.0, True, 1)
    before = expose(sensor, dim, 6)
    assert before[-1][2].mean() / 255 == pytest.approx(TARGET_MEAN, abs=0.02)
    now_us = before[-1][0] + before[-1][1]
    frames = []
    while len(frames) < 4 * LAG_FRAMES:
        end_us = sensor.next_instant_us(now_us)
        found = sensor.add(bright, bright, end_us, end_us - now_us)
        now_us = end_us
        if found is not None:
            frames.append(found)
    means = [image.mean() / 255 for _, _, image in frames]
    assert all(mean > 0.99 for mean in means[:LAG_FRAMES])
    assert means[-1] == pytest.approx(TARGET_MEAN, abs=0.02)
    for index, (middle_us, _, _) in enumerate(frames):
        assert middle_us == (7 + index) * 50_000
