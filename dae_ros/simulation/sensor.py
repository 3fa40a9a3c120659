"""The event pixels: steps of log intensity become events (after ESIM, Rebecq et al., CoRL 2018).

Each pixel remembers the log intensity of its last event. Between two samples the log intensity
runs linearly; each time it is one threshold away from the memory, an event is made at that time
and the memory moves by the threshold. What makes it a sensor (v2e, Hu et al., CVPRW 2021):

* thresholds differ from pixel to pixel, ON and OFF apart;
* the photoreceptor is a low-pass of first order whose cut-off is proportional to the light;
* the memory leaks downwards, which makes slow ON events;
* shot noise makes events of both polarities, four times as many in the dark as in full light;
* some pixels fire by themselves;
* an event within the refractory period of the pixel's last is lost while its memory moves on;
* events leave through a row arbiter of finite speed (`dae_ros.simulation.readout`).

Times lie on a grid of 1 us.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel
from dae_ros.events.packet import Events
from dae_ros.simulation.readout import ReadOut

# Added to the radiance before the logarithm: the photoreceptor's dark level.
DARK_RADIANCE = 0.01
# Share of the noise of a dark pixel that is left in full light.
BRIGHT_NOISE = 0.25
# Rates of hot pixels are log-uniform in between, Hz.
HOT_HZ = (20.0, 200.0)
# Relative spread of the leak over the pixels (of its logarithm).
_LEAK_SPREAD = 0.3
# Least threshold as a fraction of the nominal one, against the tail of the normal distribution.
_LEAST_THRESHOLD = 0.2

FloatImage = NDArray[np.float32]


@kernel
def _uniform(state: NDArray[np.uint64], index: int) -> float:
    """Return the next number in (0, 1] of a pixel's own generator (splitmix64, Steele 2014)."""
    state[index] += np.uint64(0x9E3779B97F4A7C15)
    z = state[index]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float((z >> np.uint64(11)) + np.uint64(1)) * 2.0**-53


@kernel
def _receive(
    before: FloatImage,
    after: FloatImage,
    radiance: FloatImage,
    signal: FloatImage,
    bandwidth_hz: float,
    duration_s: float,
) -> None:
    """Low-pass log intensity that runs linearly from before to after; exact for that input."""
    height, width = before.shape
    for row in range(height):
        for column in range(width):
            x0 = before[row, column]
            x1 = after[row, column]
            y0 = signal[row, column]
            if x0 == x1 and y0 == x1:
                continue
            light = min(radiance[row, column] + DARK_RADIANCE, 1.0)
            steps = duration_s * 2.0 * np.pi * bandwidth_hz * light
            slope = (x1 - x0) / steps
            signal[row, column] = x1 - slope + (y0 - x0 + slope) * np.exp(-steps)


@kernel
def _fire(
    before: FloatImage,
    after: FloatImage,
    radiance: FloatImage,
    memory: FloatImage,
    on_threshold: FloatImage,
    off_threshold: FloatImage,
    leak_hz: FloatImage,
    shot_hz: FloatImage,
    hot_hz: FloatImage,
    patience: FloatImage,
    last_us: NDArray[np.int64],
    random: NDArray[np.uint64],
    refractory_us: int,
    start_us: int,
    end_us: int,
    first_row: int,
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
) -> tuple[int, int]:
    """Fill the columns, pixel by pixel, as far as whole rows surely fit; return count, next row.

    `patience` is how many expected noise events each pixel still waits before its next one.
    """
    height, width = before.shape
    duration = end_us - start_us
    duration_s = duration * 1e-6
    most_per_row = width * (duration // max(refractory_us, 1) + 2)
    count = 0
    row = first_row
    while row < height and count + most_per_row <= len(t):
        for column in range(width):
            level = memory[row, column]
            on = on_threshold[row, column]
            off = off_threshold[row, column]
            # Against a memory that stands still, a leak lifts the signal.
            leak = np.float32(leak_hz[row, column] * on * duration_s)
            origin = before[row, column]
            target = after[row, column] + leak
            light = min(radiance[row, column], np.float32(1.0))
            rate = shot_hz[row, column] * (1.0 - (1.0 - BRIGHT_NOISE) * light) + hot_hz[row, column]
            left = patience[row, column]
            if target < level + on and target > level - off and left > rate * duration_s:
                patience[row, column] = left - rate * duration_s
                memory[row, column] = level - leak
                continue
            index = row * width + column
            change = target - origin
            since_s = 0.0
            while True:
                # The next crossing, if there is one before the end of the step.
                crossing = end_us
                polarity = 0
                moved = level
                if target >= level + on:
                    moved = level + on
                    polarity = 1
                elif target <= level - off:
                    moved = level - off
                if moved != level:
                    part = (moved - origin) / change
                    crossing = start_us + int(duration * min(max(part, 0.0), 1.0))
                    if crossing >= end_us:
                        crossing = end_us - 1
                noise = end_us
                if left <= rate * (duration_s - since_s):
                    noise = min(start_us + int((since_s + left / rate) * 1e6), end_us - 1)
                if noise < end_us and noise <= crossing:
                    time = noise
                    polarity = 1 if _uniform(random, index) < 0.5 else 0
                    since_s += left / rate
                    left = np.float32(-np.log(_uniform(random, index)))
                elif moved != level:
                    time = crossing
                    level = moved
                else:
                    break
                if time - last_us[row, column] >= refractory_us:
                    last_us[row, column] = time
                    t[count] = time
                    x[count] = column
                    y[count] = row
                    p[count] = polarity
                    count += 1
            patience[row, column] = left - rate * (duration_s - since_s)
            memory[row, column] = level - leak
        row += 1
    return count, row


class EventSensor:
    """All pixels of an event camera.

    Args:
        radiance: float32[H, W], what is seen at the start; white paper by day has 1.
        start_us: time of the start in us.
        contrast_threshold: nominal step of log intensity that makes an ON event.
        off_ratio: the OFF step relative to it.
        threshold_spread: relative standard deviation of the thresholds over the pixels.
        bandwidth_hz: cut-off of a pixel that sees white paper by day; 0 is without limit.
        refractory_us: least time between two events of a pixel, at least 1 us.
        leak_hz: ON events per pixel by leakage.
        noise_hz: noise events per pixel in the dark, both polarities together.
        hot_pixels: share of pixels that fire by themselves.
        readout_hz: events per second that can leave the sensor; 0 is without limit.
        seed: of everything that is random.

    The memories begin evenly spread between the thresholds about the first log intensity,
    so that an edge does not make all pixels fire in step.
    """

    def __init__(
        self,
        radiance: FloatImage,
        start_us: int,
        *,
        contrast_threshold: float,
        off_ratio: float,
        threshold_spread: float,
        bandwidth_hz: float,
        refractory_us: int,
        leak_hz: float,
        noise_hz: float,
        hot_pixels: float,
        readout_hz: float,
        seed: int,
    ) -> None:
        generator = np.random.default_rng([seed, 3])
        shape = radiance.shape

        def thresholds(nominal: float) -> FloatImage:
            drawn = generator.normal(1.0, threshold_spread, shape) * nominal
            return np.maximum(drawn, _LEAST_THRESHOLD * nominal).astype(np.float32)

        self.on_threshold = thresholds(contrast_threshold)
        self.off_threshold = thresholds(contrast_threshold * off_ratio)
        self._now_us = start_us
        self._refractory_us = refractory_us
        self._bandwidth_hz = bandwidth_hz
        self._log = _log_intensity(radiance)
        self._signal = self._log.copy()
        position = generator.uniform(0.05, 0.95, shape)
        self._memory = (
            self._log - self.on_threshold + position * (self.on_threshold + self.off_threshold)
        ).astype(np.float32)
        self._last_us = np.full(shape, start_us - refractory_us, np.int64)
        self._random = generator.integers(0, 2**64, shape[0] * shape[1], np.uint64)
        spread = np.exp(generator.normal(0.0, _LEAK_SPREAD, shape))
        self._leak_hz = (leak_hz * spread).astype(np.float32)
        # A pixel with a low threshold is noisy as well.
        self._shot_hz = (noise_hz * contrast_threshold / self.on_threshold).astype(np.float32)
        hot = generator.uniform(0.0, 1.0, shape) < hot_pixels
        low, high = np.log(HOT_HZ)
        rates = np.exp(generator.uniform(low, high, shape))
        self._hot_hz = np.where(hot, rates, 0.0).astype(np.float32)
        self._patience = generator.exponential(1.0, shape).astype(np.float32)
        self._readout = ReadOut(shape[0], shape[1], readout_hz, start_us)
        self._allocate(4 * shape[0] * shape[1])

    def _allocate(self, capacity: int) -> None:
        self._t = np.empty(capacity, np.int64)
        self._x = np.empty(capacity, np.uint16)
        self._y = np.empty(capacity, np.uint16)
        self._p = np.empty(capacity, np.uint8)

    @property
    def memory(self) -> FloatImage:
        """The log intensity of each pixel's last event, float32[H, W]."""
        return self._memory

    @property
    def hot_hz(self) -> FloatImage:
        """How often each pixel fires by itself, float32[H, W], Hz."""
        return self._hot_hz

    def expose(self, radiance: FloatImage, end_us: int) -> Events:
        """Let the picture change until a later time and return the events on the way.

        Args:
            radiance: float32[H, W], what is seen at `end_us`.
            end_us: later than the time before.

        Returns:
            Events within [time before, end_us), in the order in which they leave the sensor.
        """
        if end_us <= self._now_us:
            raise ValueError(f"time must move on from {self._now_us} us, not to {end_us} us")
        after = _log_intensity(radiance)
        before = self._signal
        if self._bandwidth_hz > 0.0:
            self._signal = before.copy()
            _receive(
                self._log,
                after,
                radiance,
                self._signal,
                self._bandwidth_hz,
                (end_us - self._now_us) * 1e-6,
            )
        else:
            self._signal = after
        height, width = after.shape
        row_limit = width * ((end_us - self._now_us) // self._refractory_us + 2)
        if len(self._t) < row_limit:
            self._allocate(row_limit)
        parts = []
        row = 0
        while row < height:
            count, row = _fire(
                before,
                self._signal,
                radiance,
                self._memory,
                self.on_threshold,
                self.off_threshold,
                self._leak_hz,
                self._shot_hz,
                self._hot_hz,
                self._patience,
                self._last_us,
                self._random,
                self._refractory_us,
                self._now_us,
                end_us,
                row,
                self._t,
                self._x,
                self._y,
                self._p,
            )
            parts.append(
                (
                    self._t[:count].copy(),
                    self._x[:count].copy(),
                    self._y[:count].copy(),
                    self._p[:count].copy(),
                )
            )
        t, x, y, p = (np.concatenate(column) for column in zip(*parts, strict=True))
        events = self._readout.serve(self._now_us, end_us, t, x, y, p)
        self._log = after
        self._now_us = end_us
        return events


def _log_intensity(radiance: FloatImage) -> FloatImage:
    result: FloatImage = np.log(radiance + np.float32(DARK_RADIANCE))
    return result
