"""The frame pixels: exposure, motion blur, shot and read noise, a full well, auto-exposure."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

# Electrons per second of a pixel that sees white paper by day, which fills it in 2.5 ms.
ELECTRONS_PER_S = 8e6
FULL_WELL_E = 20_000.0
READ_NOISE_E = 20.0
# Auto-exposure wants this mean of the frame, of full scale, and learns of a frame this much later.
TARGET_MEAN = 0.42
LAG_FRAMES = 5
SHORTEST_EXPOSURE_US = 100
# One frame says no more about the exposure than this factor: its mean may be all black or white.
_LARGEST_FACTOR = 4.0


class FrameSensor:
    """Exposes one frame after another; frame k, from 1 on, has its middle at k / rate.

    Args:
        radiance: float32[H, W], what is seen at the start, for the first exposure.
        exposure_us: exposure time, with `auto` the longest.
        frame_hz: rate.
        auto: whether the exposure follows the light.
        seed: of the noise.

    Attributes:
        middle_us: middle of the exposure of the next frame, us since the start.
    """

    def __init__(
        self,
        radiance: NDArray[np.float32],
        exposure_us: int,
        frame_hz: float,
        auto: bool,
        seed: int,
    ) -> None:
        self._longest_us = exposure_us
        self._frame_hz = frame_hz
        self._auto = auto
        self._generator = np.random.default_rng([seed, 5])
        first_us = exposure_us
        if auto:
            mean = float(
                np.minimum(
                    radiance * (exposure_us * 1e-6 * ELECTRONS_PER_S / FULL_WELL_E), 1.0
                ).mean()
            )
            first_us = self._better_us(exposure_us, mean)
        self._planned = deque([first_us] * LAG_FRAMES)
        self._count = 0
        self._advance()

    def _better_us(self, exposure_us: int, mean: float) -> int:
        """Return the exposure that would have given the target mean instead of this one."""
        factor = TARGET_MEAN / max(mean, TARGET_MEAN / _LARGEST_FACTOR)
        factor = max(factor, 1.0 / _LARGEST_FACTOR)
        return int(np.clip(exposure_us * factor, SHORTEST_EXPOSURE_US, self._longest_us))

    def _advance(self) -> None:
        self._count += 1
        self.middle_us = round(self._count * 1e6 / self._frame_hz)
        self._exposure_us = self._planned.popleft()
        self._start_us = self.middle_us - self._exposure_us // 2
        self._end_us = self._start_us + self._exposure_us
        self._sum: NDArray[np.float32] | None = None

    def next_instant_us(self, now_us: int) -> int:
        """Return the next begin or end of an exposure, at which the scene has to be rendered."""
        return self._start_us if now_us < self._start_us else self._end_us

    def add(
        self, before: NDArray[np.float32], after: NDArray[np.float32], now_us: int, step_us: int
    ) -> tuple[int, int, NDArray[np.uint8]] | None:
        """Take in one step; return (middle, exposure, uint8[H, W]) of a frame that it completes."""
        if now_us <= self._start_us:
            return None
        # The radiance runs linearly within a step.
        part = (before + after) * np.float32(0.5e-6 * step_us * ELECTRONS_PER_S)
        self._sum = part if self._sum is None else self._sum + part
        if now_us < self._end_us:
            return None
        image = self._read(self._sum)
        result = self.middle_us, self._exposure_us, image
        planned_us = self._exposure_us
        if self._auto:
            planned_us = self._better_us(self._exposure_us, float(image.mean()) / 255.0)
        self._planned.append(planned_us)
        self._advance()
        return result

    def _read(self, electrons: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the grey picture of what the wells hold.

        Shot noise is taken as normal, which it is from some ten electrons on; the read noise
        hides the rest.
        """
        noise = self._generator.standard_normal(electrons.shape, np.float32)
        deviation = np.sqrt(
            np.minimum(electrons, np.float32(FULL_WELL_E)) + np.float32(READ_NOISE_E**2)
        )
        # Excess charge flows off: a full well has no noise that could be seen.
        level = np.minimum(electrons, np.float32(1.5 * FULL_WELL_E)) + deviation * noise
        grey = level * np.float32(255.0 / FULL_WELL_E) + np.float32(0.5)
        image: NDArray[np.uint8] = np.clip(grey, 0.0, 255.0).astype(np.uint8)
        return image
