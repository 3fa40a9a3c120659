"""Tencode in 16 bits: what comes back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dae_ros.events.packet import Events
from dae_ros.representation.tencode import tencode
from dae_ros.representation.tencode_code import LARGEST_ERROR, pack_tencode, unpack_tencode
from test.reference.packed_tencode import packed

Pixel = tuple[float, float, float]
ages = st.floats(0.0, 1.0, width=32)
pixels = st.one_of(
    st.just((0.0, 0.0, 0.0)),
    ages.map(lambda age: (1.0, age, 0.0)),
    ages.map(lambda age: (0.0, age, 1.0)),
)


def image_of(rows: list[list[Pixel]]) -> NDArray[np.float32]:
    """Return float32[3, H, W] of rows of pixels."""
    return np.moveaxis(np.array(rows, np.float32), 2, 0)


def test_codes_by_hand() -> None:
    """Nothing, the newest and the oldest of both polarities, and the middle."""
    image = image_of([[(0, 0, 0), (1, 0, 0), (0, 0, 1)], [(1, 1, 0), (0, 1, 1), (0, 0.5, 1)]])
    expected = [[0x0000, 0x0003, 0x0002], [0xFEF7, 0xFEF6, 2 * (16317 + 1)]]
    assert packed(image).tolist() == expected
    back = unpack_tencode(np.array(expected, np.uint16))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, image)


@settings(deadline=None)
@given(st.lists(st.lists(pixels, min_size=4, max_size=4), min_size=1, max_size=5))
def test_images_come_back(rows: list[list[Pixel]]) -> None:
    """Events, polarities and blackness exactly, ages nearly; packing again changes nothing."""
    image = image_of(rows)
    back = unpack_tencode(packed(image))
    np.testing.assert_array_equal(back[[0, 2]], image[[0, 2]])
    assert np.abs(back[1].astype(np.float64) - image[1]).max() <= LARGEST_ERROR
    np.testing.assert_array_equal(packed(back), packed(image))


def test_half_a_level_is_the_largest_error() -> None:
    """Half of one in 126 * 259 levels, as far as float32 goes, and the middle of two is so far."""
    assert pytest.approx(0.5 / (126 * 259), abs=3e-7) == LARGEST_ERROR
    middle = image_of([[(1, (level + 0.5) / (126 * 259), 0) for level in range(126 * 259)]])
    errors = np.abs(unpack_tencode(packed(middle))[1].astype(np.float64) - middle[1])
    assert 0.49 / (126 * 259) < errors.min() <= errors.max() <= LARGEST_ERROR


@settings(deadline=None)
@given(st.lists(st.integers(0, 126 * 259), min_size=6, max_size=6), st.booleans())
def test_codes_come_back(levels: list[int], on: bool) -> None:
    """Every level of both polarities is packed to what it was unpacked from, in given memory."""
    code = np.array([[0, *(2 * (level + 1) + on for level in levels)]], np.uint16)
    image = np.full((3, 1, 7), np.nan, np.float32)
    assert unpack_tencode(code, image) is image
    np.testing.assert_array_equal(image[1, 0, 1:], np.float32(levels) / np.float32(126 * 259))
    np.testing.assert_array_equal(packed(image), code)
    np.testing.assert_array_equal(unpack_tencode(code[:, ::2]), image[:, :, ::2])


def test_encoded_events_are_packed() -> None:
    """What `tencode` makes of events is Tencode, in memory of any order."""
    rng = np.random.default_rng(2)
    count = 500
    events = Events(
        np.sort(rng.integers(0, 50_000_000, count)),
        rng.integers(0, 40, count).astype(np.uint16),
        rng.integers(0, 30, count).astype(np.uint16),
        rng.integers(0, 2, count).astype(np.uint8),
    )
    image = tencode(events, 30, 40)
    strided = np.ascontiguousarray(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    code = packed(image)
    np.testing.assert_array_equal(packed(strided), code)
    assert np.abs(unpack_tencode(code) - image).max() <= LARGEST_ERROR


@pytest.mark.parametrize(
    "pixel",
    [
        (1.0, 0.5, 1.0),
        (0.0, 0.5, 0.0),
        (0.5, 0.5, 0.0),
        (1.0, 1.0001, 0.0),
        (0.0, -1e-6, 1.0),
        (1.0, float("nan"), 0.0),
        (float("nan"), 0.5, 0.0),
        (0.0, 0.5, float("inf")),
    ],
)
def test_other_images_are_refused(pixel: Pixel) -> None:
    """One pixel that no Tencode has, the last of the image, is enough."""
    image = image_of([[(1, 0.5, 0), pixel]])
    assert not pack_tencode(image, np.zeros((1, 2), np.uint16))
