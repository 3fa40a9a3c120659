"""The event pixels: steps of log intensity become events (after ESIM, Rebecq et al., CoRL 2018).

Each pixel remembers the log intensity of its last event. Between two samples the log
intensity runs linearly; each time it is one threshold away from the memory, an event is
made at that time and the memory moves by the threshold. Thresholds differ from pixel to
pixel (v2e, Hu et al., CVPRW 2021), an event within the refractory period after the pixel's
last one is lost, and noise events come as a Poisson process of each pixel's own.
Times lie on a grid of 1 us; events of one microsecond are read out row by row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel
from dae_ros.events.packet import Events

# Added to the radiance before the logarithm: the photoreceptor's dark level.
DARK_RADIANCE = 0.02
# Least threshold as a fraction of the nominal one, against the tail of the normal distribution.
_LEAST_THRESHOLD = 0.2
_NEVER_US = np.int64(2**62)


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
def _expose(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    memory: NDArray[np.float32],
    on_threshold: NDArray[np.float32],
    off_threshold: NDArray[np.float32],
    last_us: NDArray[np.int64],
    noise_us: NDArray[np.int64],
    random: NDArray[np.uint64],
    noise_mean_us: float,
    refractory_us: int,
    start_us: int,
    end_us: int,
    first_row: int,
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
) -> tuple[int, int]:
    """Fill the columns, pixel by pixel, as far as whole rows surely fit; return count, next row."""
    height, width = before.shape
    duration = end_us - start_us
    most_per_row = width * (duration // max(refractory_us, 1) + 2)
    count = 0
    row = first_row
    while row < height and count + most_per_row <= len(t):
        for column in range(width):
            index = row * width + column
            level = memory[row, column]
            target = after[row, column]
            on = on_threshold[row, column]
            off = off_threshold[row, column]
            noise = noise_us[row, column]
            if target < level + on and target > level - off and noise >= end_us:
                continue
            origin = before[row, column]
            change = target - origin
            while True:
                # The next crossing, if there is one before the end of the step.
                crossing = end_us
                polarity = 0
                if target >= level + on:
                    moved = level + on
                    polarity = 1
                elif target <= level - off:
                    moved = level - off
                else:
                    moved = level
                if moved != level:
                    part = (moved - origin) / change
                    crossing = start_us + int(duration * min(max(part, 0.0), 1.0))
                    if crossing >= end_us:
                        crossing = end_us - 1
                if noise < end_us and noise <= crossing:
                    time = noise
                    polarity = 1 if _uniform(random, index) < 0.5 else 0
                    wait = -np.log(_uniform(random, index)) * noise_mean_us
                    noise += max(1, int(wait))
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
            memory[row, column] = level
            noise_us[row, column] = noise
        row += 1
    return count, row


@kernel
def _read_out(
    start_us: int,
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    begin: NDArray[np.int64],
    t_ns: NDArray[np.int64],
    x_out: NDArray[np.uint16],
    y_out: NDArray[np.uint16],
    p_out: NDArray[np.uint8],
) -> None:
    """Sort by microsecond; the order of rows and columns within one is kept (counting sort)."""
    for k in range(len(t)):
        begin[t[k] - start_us + 1] += 1
    for k in range(1, len(begin)):
        begin[k] += begin[k - 1]
    for k in range(len(t)):
        slot = begin[t[k] - start_us]
        begin[t[k] - start_us] = slot + 1
        t_ns[slot] = t[k] * 1000
        x_out[slot] = x[k]
        y_out[slot] = y[k]
        p_out[slot] = p[k]


class EventSensor:
    """All pixels of an event camera.

    Args:
        radiance: float32[H, W] in 0..1, what is seen at the start.
        start_us: time of the start in us.
        contrast_threshold: nominal step of log intensity that makes an event.
        threshold_spread: relative standard deviation of the thresholds over the pixels; ON
            and OFF are drawn apart.
        refractory_us: least time between two events of a pixel, at least 1 us.
        noise_hz: rate of noise events of each pixel, both polarities together.
        seed: of thresholds, memories and noise.

    The memories begin evenly spread between the thresholds about the first log intensity,
    so that an edge does not make all pixels fire in step.
    """

    def __init__(
        self,
        radiance: NDArray[np.float32],
        start_us: int,
        *,
        contrast_threshold: float,
        threshold_spread: float,
        refractory_us: int,
        noise_hz: float,
        seed: int,
    ) -> None:
        generator = np.random.default_rng([seed, 3])
        shape = radiance.shape
        least = _LEAST_THRESHOLD * contrast_threshold

        def thresholds() -> NDArray[np.float32]:
            drawn = generator.normal(1.0, threshold_spread, shape) * contrast_threshold
            return np.maximum(drawn, least).astype(np.float32)

        self.on_threshold = thresholds()
        self.off_threshold = thresholds()
        self._now_us = start_us
        self._refractory_us = refractory_us
        self._log = _log_intensity(radiance)
        position = generator.uniform(0.05, 0.95, shape)
        self._memory = (
            self._log - self.on_threshold + position * (self.on_threshold + self.off_threshold)
        ).astype(np.float32)
        self._last_us = np.full(shape, start_us - refractory_us, np.int64)
        self._random = generator.integers(0, 2**64, shape[0] * shape[1], np.uint64)
        self._noise_mean_us = 1e6 / noise_hz if noise_hz > 0.0 else 0.0
        self._noise_us = np.full(shape, _NEVER_US)
        if noise_hz > 0.0:
            first = generator.exponential(self._noise_mean_us, shape)
            self._noise_us = start_us + 1 + first.astype(np.int64)
        self._allocate(4 * shape[0] * shape[1])

    def _allocate(self, capacity: int) -> None:
        self._t = np.empty(capacity, np.int64)
        self._x = np.empty(capacity, np.uint16)
        self._y = np.empty(capacity, np.uint16)
        self._p = np.empty(capacity, np.uint8)

    @property
    def memory(self) -> NDArray[np.float32]:
        """The log intensity of each pixel's last event, float32[H, W]."""
        return self._memory

    def expose(self, radiance: NDArray[np.float32], end_us: int) -> Events:
        """Let the picture change until a later time and return the events on the way.

        Args:
            radiance: float32[H, W] in 0..1, what is seen at `end_us`.
            end_us: later than the time before.

        Returns:
            Events within [time before, end_us), sorted by time, then row, then column.
        """
        if end_us <= self._now_us:
            raise ValueError(f"time must move on from {self._now_us} us, not to {end_us} us")
        after = _log_intensity(radiance)
        height, width = after.shape
        row_limit = width * ((end_us - self._now_us) // self._refractory_us + 2)
        if len(self._t) < row_limit:
            self._allocate(row_limit)
        parts = []
        row = 0
        while row < height:
            count, row = _expose(
                self._log,
                after,
                self._memory,
                self.on_threshold,
                self.off_threshold,
                self._last_us,
                self._noise_us,
                self._random,
                self._noise_mean_us,
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
        sorted_columns = (np.empty_like(t), np.empty_like(x), np.empty_like(y), np.empty_like(p))
        begin = np.zeros(end_us - self._now_us + 1, np.int64)
        _read_out(self._now_us, t, x, y, p, begin, *sorted_columns)
        self._log = after
        self._now_us = end_us
        return Events(*sorted_columns)


def _log_intensity(radiance: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = np.log(radiance + np.float32(DARK_RADIANCE))
    return result
