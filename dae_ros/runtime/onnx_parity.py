"""Whether a backend computes what PyTorch computes, over recurrent steps on images of events."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from dae_ros.errors import WeightsError
from dae_ros.events.packet import Events
from dae_ros.representation.tencode import tencode, tencode_voxel
from dae_ros.representation.voxel_grid import voxel_grid
from dae_ros.runtime.estimator import DepthEstimator, FloatImage
from dae_ros.runtime.parity_reference import Deviation

STEPS = 10
# Largest root mean square difference where the output's standard deviation is 1.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2}
_WINDOW_NS = 50_000_000
_EDGES = 6


def moving_edges(
    event_encoder: str, channels: int, height: int, width: int, steps: int = STEPS
) -> list[FloatImage]:
    """Return what a network sees of edges that cross the image, the same on every machine.

    Args:
        event_encoder: what the images hold, see `Meaning.event_encoder`.
        channels: of the images.
        height, width: of the sensor in px.
        steps: how many windows of 50 ms.

    Returns:
        float32[channels, height, width] each.
    """
    events = moving_events(height, width, steps)
    return list(images_of(events, event_encoder, channels, height, width))


def images_of(
    windows: Iterable[Events], event_encoder: str, channels: int, height: int, width: int
) -> Iterator[FloatImage]:
    """Yield the images of windows, one by one, as `moving_edges` has them."""
    for events in windows:
        yield _encoded(events, event_encoder, channels, height, width)


def digest_of_events(windows: Iterable[Events]) -> str:
    """Return the sha256 of windows of events: time, column, row and polarity of each."""
    digest = hashlib.sha256()
    for events in windows:
        for column in (events.t, events.x, events.y, events.p):
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def moving_events(height: int, width: int, steps: int = STEPS) -> list[Events]:
    """Return the events behind `moving_edges`, a window of 50 ms for each step."""
    rng = np.random.default_rng(20)
    directions = rng.uniform(0, 2 * math.pi, _EDGES)
    offsets = rng.uniform(0, 1, _EDGES)
    speeds = rng.uniform(0.02, 0.1, _EDGES)
    windows = []
    for step in range(steps):
        # About one event for four pixels, an eighth of them noise.
        count = max(8, height * width // 4)
        t = np.sort(rng.integers(0, _WINDOW_NS // 1000, count)) * 1000 + step * _WINDOW_NS
        edge = rng.integers(0, _EDGES, count)
        along = rng.uniform(-0.7, 0.7, count)
        # Each edge sweeps over the unit square, again and again.
        across = (offsets[edge] + speeds[edge] * t / _WINDOW_NS) % 1.0 - 0.5
        cos, sin = np.cos(directions[edge]), np.sin(directions[edge])
        x, y = across * cos - along * sin, across * sin + along * cos
        noise = rng.random(count) < 0.125
        x[noise], y[noise] = rng.uniform(-0.5, 0.5, (2, int(noise.sum())))
        inside = (np.abs(x) < 0.5) & (np.abs(y) < 0.5)
        windows.append(
            Events(
                t[inside].astype(np.int64),
                ((x[inside] + 0.5) * width).astype(np.uint16),
                ((y[inside] + 0.5) * height).astype(np.uint16),
                (rng.random(int(inside.sum())) < 0.3 + 0.4 * (edge[inside] % 2)).astype(np.uint8),
            )
        )
    return windows


def _encoded(
    events: Events, event_encoder: str, channels: int, height: int, width: int
) -> FloatImage:
    if event_encoder == "voxel_grid":
        return voxel_grid(events, height, width, channels, normalise=True)
    if event_encoder == "tencode_voxel":
        return tencode_voxel(events, height, width)
    image = tencode(events, height, width)
    # A camera frame is bright where nothing happens.
    return image if event_encoder == "tencode" else 0.5 + 0.5 * image[:channels]


def measure_deviation(
    reference: DepthEstimator,
    candidate: DepthEstimator,
    images: Iterable[FloatImage],
    heard: Callable[[FloatImage], None] = lambda _: None,
) -> Deviation:
    """Step both through the images, from a fresh state on.

    Args:
        reference: PyTorch, most often.
        candidate: what is compared with it.
        images: float32[channels, height, width] each.
        heard: is told every prediction of the reference.

    Raises:
        WeightsError: the reference's output is the same everywhere: nothing can be compared.
        InferenceError: one of the two failed.
    """
    reference.reset()
    candidate.reset()
    squares, largest, steps = [0.0], [0.0], 0
    for image in images:
        expected = reference.estimate(image)
        heard(expected)
        difference = candidate.estimate(image).astype(np.float64) - expected
        spread = float(expected.std(dtype=np.float64))
        if spread <= 1e-6 * float(np.abs(expected).max()):
            raise WeightsError(
                f"{reference.name} puts out the same number everywhere ({expected.flat[0]:g}), so "
                "another backend cannot be compared with it; train the weights first",
                weights=reference.name,
            )
        squares.append(math.sqrt(float(np.square(difference).mean())) / spread)
        largest.append(float(np.abs(difference).max()) / spread)
        steps += 1
    # Not Python's `max`, to which NaN is no number at all.
    return Deviation(float(np.max(squares)), float(np.max(largest)), steps)
