"""Event representations against the arrays that the published code produced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dae_ros.events.packet import Events
from dae_ros.representation.tencode import tencode, tencode_from_voxel_grid, tencode_voxel
from dae_ros.representation.voxel_grid import voxel_grid, voxel_grid_of_points

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "event_representations.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as archive:
        return dict(archive)


def _events(golden: dict[str, np.ndarray], name: str) -> Events:
    return Events(
        golden[f"{name}_t_us"].astype(np.int64) * 1000,
        golden[f"{name}_x"].astype(np.uint16),
        golden[f"{name}_y"].astype(np.uint16),
        golden[f"{name}_p"].astype(np.uint8),
    )


@pytest.mark.parametrize("name", ["A", "B"])
def test_tencode(golden: dict[str, np.ndarray], name: str) -> None:
    """R and B equal the published bits, G within 1e-6."""
    expected = golden[f"{name}_tencode"]
    image = tencode(_events(golden, name), *golden[f"{name}_hw"].tolist())
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[0], expected[0])
    np.testing.assert_allclose(image[1], expected[1], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(image[2], expected[2])


def test_tencode_from_voxels(golden: dict[str, np.ndarray]) -> None:
    """The MVSEC protocol equals the published bits, from the stored grid and from raw events."""
    expected = golden["A_tencode_from_voxel5"]
    np.testing.assert_array_equal(tencode_from_voxel_grid(golden["A_voxel5_e2depth"]), expected)
    np.testing.assert_array_equal(tencode_voxel(_events(golden, "A"), 48, 64), expected)


def test_tencode_from_sparse_voxels(golden: dict[str, np.ndarray]) -> None:
    """Where the published image is not its white ground, a sparse grid gives the same colours."""
    image = tencode_from_voxel_grid(golden["A_voxel5_sparse"])
    occupied = (golden["A_voxel5_sparse"] != 0).any(axis=0)
    white = golden["A_tencode_white_from_voxel5_sparse"]
    np.testing.assert_array_equal(image[:, occupied], white[:, occupied])
    assert not image[:, ~occupied].any()


def test_voxel_grid_of_pixels(golden: dict[str, np.ndarray]) -> None:
    """Whole-pixel grids, plain and normalised, equal the published ones within 1e-5."""
    events = _events(golden, "A")
    np.testing.assert_allclose(
        voxel_grid(events, 48, 64, 5), golden["A_voxelgrid5"], rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        voxel_grid(events, 48, 64, 5, normalise=True),
        golden["A_voxelgrid5_norm"],
        rtol=0,
        atol=1e-5,
    )
    # Another public code base, float64 inside: sums of up to 52 differ in their last bits.
    np.testing.assert_allclose(
        voxel_grid(events, 48, 64, 5), golden["A_voxel5_e2depth"], rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize(
    ("key", "bins", "normalise"),
    [("C_voxelgrid5", 5, False), ("C_voxelgrid5_norm", 5, True), ("C_voxelgrid3_norm", 3, True)],
)
def test_voxel_grid_of_points(
    golden: dict[str, np.ndarray], key: str, bins: int, normalise: bool
) -> None:
    """Coordinates between pixels and outside the frame equal the published grid within 1e-5."""
    height, width = golden["C_hw"].tolist()
    grid = voxel_grid_of_points(
        golden["C_x"],
        golden["C_y"],
        golden["C_t_us"].astype(np.int64) * 1000,
        golden["C_p"],
        height,
        width,
        bins,
        normalise,
    )
    np.testing.assert_allclose(grid, golden[key], rtol=0, atol=1e-5)


def test_points_on_whole_pixels_are_pixels(golden: dict[str, np.ndarray]) -> None:
    """Both forms agree where coordinates are whole."""
    events = _events(golden, "A")
    points = voxel_grid_of_points(
        events.x.astype(np.float32), events.y.astype(np.float32), events.t, events.p, 48, 64, 5
    )
    np.testing.assert_allclose(points, voxel_grid(events, 48, 64, 5), rtol=1e-6, atol=2e-5)


def test_degenerate_windows_are_finite(golden: dict[str, np.ndarray]) -> None:
    """Where the published code gives NaN for one event or one instant, G is 1; empty is black."""
    published = golden["D_single_event_tencode_hw4x5_x1_y2_p1"]
    assert np.isnan(published[1, 2, 1])
    one = Events(
        np.array([7_000], np.int64),
        np.array([1], np.uint16),
        np.array([2], np.uint16),
        np.array([1], np.uint8),
    )
    expected = np.zeros((3, 4, 5), np.float32)
    expected[:2, 2, 1] = 1
    np.testing.assert_array_equal(tencode(one, 4, 5), expected)
    np.testing.assert_array_equal(tencode_voxel(one, 4, 5), expected)
    instant = Events(
        np.array([7_000, 7_999], np.int64),
        np.array([1, 3], np.uint16),
        np.array([2, 0], np.uint16),
        np.array([1, 0], np.uint8),
    )
    expected[1:, 0, 3] = 1
    np.testing.assert_array_equal(tencode(instant, 4, 5), expected)
    for encode in (tencode, tencode_voxel):
        assert not encode(Events.empty(), 4, 5).any()
    equal = voxel_grid(one, 4, 5, 5, normalise=True)
    assert np.isfinite(equal).all()
    assert not voxel_grid(Events.empty(), 4, 5, 5, normalise=True).any()
