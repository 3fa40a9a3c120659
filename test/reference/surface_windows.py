"""Random events, windows of all history, and their code: what the surface is compared with."""

from __future__ import annotations

import numpy as np

from dae_ros.events.packet import Events
from dae_ros.representation.surface import Encoded
from dae_ros.representation.tencode import tencode
from dae_ros.representation.tencode_code import LARGEST_ERROR
from test.reference.packed_tencode import packed

HEIGHT, WIDTH = 5, 7
US, MS, S = 1_000, 1_000_000, 1_000_000_000


def random_events(rng: np.random.Generator, start_ns: int, end_ns: int, count: int) -> Events:
    return Events(
        np.sort(rng.integers(start_ns, end_ns, count)),
        rng.integers(0, WIDTH, count).astype(np.uint16),
        rng.integers(0, HEIGHT, count).astype(np.uint16),
        rng.integers(0, 2, count).astype(np.uint8),
    )


def filtered(history: list[Events], start_ns: int, end_ns: int) -> Events:
    everything = Events.concatenate(history)
    inside = (everything.t >= start_ns) & (everything.t < end_ns)
    return Events(
        everything.t[inside], everything.x[inside], everything.y[inside], everything.p[inside]
    )


def assert_code_of(encoded: Encoded, events: Events) -> None:
    """Compare with `tencode` of the events: the code bit for bit, the planes within its error."""
    image = tencode(events, HEIGHT, WIDTH)
    np.testing.assert_array_equal(encoded.code, packed(image))
    np.testing.assert_array_equal(encoded.image[::2], image[::2])
    assert np.abs(encoded.image[1].astype(np.float64) - image[1]).max() <= LARGEST_ERROR
