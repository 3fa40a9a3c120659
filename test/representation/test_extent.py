"""Windows of which some events were dropped keep the times that they are placed between."""

from __future__ import annotations

import numpy as np
import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.events.packet import Events
from dae_ros.representation.tencode import tencode, tencode_voxel
from dae_ros.representation.voxel_grid import voxel_grid

SIZE = (6, 8)


def part(events: Events, kept: np.ndarray) -> Events:
    return Events(events.t[kept], events.x[kept], events.y[kept], events.p[kept])


@pytest.fixture
def window() -> tuple[Events, tuple[int, int]]:
    """Random events, and when the first and the last are."""
    random = np.random.default_rng(8)
    t = np.sort(random.integers(0, 50_000, 300)) * 1000 + 7_000_000
    x, y = random.integers(0, SIZE[1], 300), random.integers(0, SIZE[0], 300)
    p = random.integers(0, 2, 300).astype(np.uint8)
    return Events(t, x.astype(np.uint16), y.astype(np.uint16), p), (int(t[0]), int(t[-1]))


def test_parts_of_a_grid_add_up(window: tuple[Events, tuple[int, int]]) -> None:
    """Placed between the times of the whole, two parts sum up to its voxel grid."""
    events, extent_ns = window
    kept = np.arange(300) % 3 == 1
    parts = [
        voxel_grid(part(events, mask), *SIZE, 5, extent_ns=extent_ns) for mask in (kept, ~kept)
    ]
    np.testing.assert_allclose(sum(parts), voxel_grid(events, *SIZE, 5), atol=1e-5)
    alone = voxel_grid(part(events, kept), *SIZE, 5)
    assert not np.allclose(alone, parts[0], atol=1e-5)


def test_pixels_keep_their_colour(window: tuple[Events, tuple[int, int]]) -> None:
    """Without the events of some columns the other columns are as before."""
    events, extent_ns = window
    kept = (events.x != 0) & (events.x != 5)
    # The first and the last event are among those that go.
    kept[[0, -1]] = False
    for encode in (tencode, tencode_voxel):
        whole = encode(events, *SIZE)
        image = encode(part(events, kept), *SIZE, extent_ns=extent_ns)
        same = [
            column
            for column in range(SIZE[1])
            if column not in (0, 5, int(events.x[0]), int(events.x[-1]))
        ]
        np.testing.assert_array_equal(image[:, :, same], whole[:, :, same])
        assert not image[:, :, [0, 5]].any()


def test_extents_must_hold_the_events(window: tuple[Events, tuple[int, int]]) -> None:
    """Times inside of the window's own are a mistake, and so are two kinds of bounds."""
    events, (first_ns, last_ns) = window
    for extent_ns in ((first_ns + 1, last_ns), (first_ns, last_ns - 1)):
        with pytest.raises(ConfigurationError, match="outside the extent"):
            tencode(events, *SIZE, extent_ns=extent_ns)
    with pytest.raises(ConfigurationError, match="give one of them"):
        tencode(events, *SIZE, (0, 10**9), extent_ns=(first_ns, last_ns))
    nothing = part(events, np.zeros(300, bool))
    assert not tencode(nothing, *SIZE, extent_ns=(first_ns, last_ns)).any()
