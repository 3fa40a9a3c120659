"""Event images as planes and as codes: one size, one set of pixels."""

from __future__ import annotations

import numpy as np

from dae_ros.representation.event_image import (
    is_code,
    pixels_with_events,
    planes_of,
    size_of,
)

# No event, the newest ON, the oldest OFF.
CODE = np.array([[0, 3, 2 * (126 * 259 + 1)]], np.uint16)
PLANES = np.array([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], np.float32)


def test_a_code_and_its_planes_are_one_image() -> None:
    """Size, pixels with events and planes are equal; only the dtype says which is which."""
    assert is_code(CODE)
    assert not is_code(PLANES)
    for image in (CODE, PLANES):
        assert size_of(image) == (1, 3)
        np.testing.assert_array_equal(planes_of(image), PLANES)
        np.testing.assert_array_equal(pixels_with_events(image), [[False, True, True]])


def test_planes_of_other_encoders_have_their_size() -> None:
    """Voxel grids of any number of bins, rows before columns."""
    assert size_of(np.zeros((5, 4, 7), np.float32)) == (4, 7)
    assert size_of(np.zeros((4, 7), np.uint16)) == (4, 7)


def test_planes_are_written_where_they_are_wanted() -> None:
    """Those of a code into given memory; planes are not copied."""
    memory = np.full((3, 1, 3), np.nan, np.float32)
    assert planes_of(CODE, memory) is memory
    np.testing.assert_array_equal(memory, PLANES)
    assert planes_of(PLANES, memory) is PLANES
