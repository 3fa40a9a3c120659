"""Synthetic event streams with the statistics of a real sensor, at a wanted event rate.

A random texture with a 1/f spectrum moves up in front of the pixels; each pixel fires when its
log intensity has changed by the contrast threshold, as in ESIM (Rebecq et al., 2018). A row
arbiter then reads one row at a time: all pixels of the row that wait share its time. The faster
the texture moves the more wait, so that rows fill and vector words appear, as in real sensors.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dae_ros.events.packet import Events

CONTRAST = 0.25
TEXTURE = 0.25  # standard deviation of the smooth part of the log intensity
NOISE = 0.05  # share of events at random pixels and times
ROW_READ_NS = 60
SETTLE_NS = 1500  # a row is read this long after its first pixel asked, so that neighbours join


def texture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return log intensity with a 1/f amplitude spectrum and some sharp rectangles."""
    fy = np.fft.fftfreq(height)[:, None]
    fx = np.fft.rfftfreq(width)[None, :]
    amplitude = 1.0 / np.maximum(np.hypot(fy, fx), 1.0 / width)
    phase = np.exp(2j * np.pi * rng.random(amplitude.shape))
    image: NDArray[np.float64] = np.fft.irfft2(amplitude * phase, s=(height, width))
    image = (image - image.mean()) / image.std() * TEXTURE
    for _ in range(30):
        y, x = int(rng.integers(0, height - 8)), int(rng.integers(0, width - 8))
        h, w = int(rng.integers(8, height // 3)), int(rng.integers(8, width // 6))
        image[y : y + h, x : x + w] += rng.uniform(-1.2, 1.2)
    return image


@njit(cache=True)
def _crossings(
    image: NDArray[np.float64],
    height: int,
    width: int,
    steps: int,
    shift_px: float,
    step_ns: int,
    contrast: float,
    limit: int,
) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint8]]:
    """Move the texture step by step and interpolate the instants of threshold crossings."""
    t = np.empty(limit, np.int64)
    x = np.empty(limit, np.uint16)
    y = np.empty(limit, np.uint16)
    p = np.empty(limit, np.uint8)
    reference = image[:height].copy()
    before = reference.copy()
    n = 0
    span = image.shape[0] - height - 2
    for step in range(1, steps + 1):
        offset = (step * shift_px) % span
        whole = int(offset)
        part = offset - whole
        for row in range(height):
            for column in range(width):
                above = image[row + whole, column]
                value = above + (image[row + whole + 1, column] - above) * part
                old = before[row, column]
                change = value - old
                while value - reference[row, column] >= contrast and n < limit:
                    reference[row, column] += contrast
                    where = (reference[row, column] - old) / change if change != 0 else 1.0
                    t[n] = int((step - 1 + min(max(where, 0.0), 1.0)) * step_ns)
                    x[n], y[n], p[n] = column, row, 1
                    n += 1
                while value - reference[row, column] <= -contrast and n < limit:
                    reference[row, column] -= contrast
                    where = (reference[row, column] - old) / change if change != 0 else 1.0
                    t[n] = int((step - 1 + min(max(where, 0.0), 1.0)) * step_ns)
                    x[n], y[n], p[n] = column, row, 0
                    n += 1
                before[row, column] = value
        if n == limit:
            break
    return t[:n], x[:n], y[:n], p[:n]


@njit(cache=True)
def _arbitrate(
    t: NDArray[np.int64], y: NDArray[np.uint16], height: int, row_read_ns: int, settle_ns: int
) -> NDArray[np.int64]:
    """Return when the row arbiter reads each request (requests sorted by time)."""
    read = np.empty(t.size, np.int64)
    head = np.full(height, -1, np.int64)
    tail = np.full(height, -1, np.int64)
    following = np.full(t.size, -1, np.int64)
    queue = np.empty(t.size + 1, np.int64)  # rows in the order of their first request
    asked = np.empty(t.size + 1, np.int64)
    first = 0
    last = 0
    now = 0
    i = 0
    while i < t.size or first < last:
        if first == last or (i < t.size and t[i] <= max(now, asked[first] + settle_ns)):
            row = y[i]
            if head[row] < 0:
                head[row] = i
                queue[last] = row
                asked[last] = t[i]
                last += 1
            else:
                following[tail[row]] = i
            tail[row] = i
            i += 1
            continue
        now = max(now, asked[first] + settle_ns) + row_read_ns
        row = queue[first]
        first += 1
        k = head[row]
        while k >= 0:
            read[k] = now
            k = following[k]
        head[row] = -1
    return read


def moving_texture(height: int, width: int, rate_mevs: float, events: int, seed: int = 1) -> Events:
    """Return about `events` events at about `rate_mevs` million events per second.

    Args:
        height, width: sensor size in px.
        rate_mevs: mean event rate in Mev/s of the sensor's time.
        events: how many.
        seed: of texture and noise.

    Returns:
        Events sorted by read-out time (whole us in ns), row by row with ascending columns.
    """
    rng = np.random.default_rng(seed)
    image = texture(height * 2, width, rng)
    step_px = 0.5
    limit = int(events * (1 - NOISE))
    t, x, y, p = _crossings(image, height, width, 100_000, step_px, 1_000_000, CONTRAST, limit)
    duration_ns = events / rate_mevs * 1000
    t = (t * (duration_ns / max(int(t.max()), 1))).astype(np.int64)
    noise = events - limit
    t = np.concatenate([t, rng.integers(0, int(duration_ns), noise)])
    x = np.concatenate([x, rng.integers(0, width, noise).astype(np.uint16)])
    y = np.concatenate([y, rng.integers(0, height, noise).astype(np.uint16)])
    p = np.concatenate([p, rng.integers(0, 2, noise).astype(np.uint8)])
    order = np.argsort(t, kind="stable")
    t, x, y, p = t[order], x[order], y[order], p[order]
    read = _arbitrate(t, y, height, ROW_READ_NS, SETTLE_NS)
    order = np.lexsort((x, p, y, read))
    read = read[order] // 1000 * 1000
    return Events(read, x[order], y[order], p[order])
