"""The byte per pixel of a clip from the 16 bits of a window."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dae_ros.distillation.clip_codes import code_of_tencode
from test.reference.packed_tencode import packed

# Ages in the middle between two of the 126 levels, and the float32 beside them.
near_middles = st.builds(
    lambda level, away: float(
        np.clip(
            (np.float32((2 * level + 1) / 252).view(np.int32) + np.int32(away)).view(np.float32),
            0,
            1,
        )
    ),
    st.integers(0, 125),
    st.integers(-40, 40),
)


def planes(ages: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return float32[3, 3, N]: every age ON, every age OFF, and nothing."""
    image = np.zeros((3, 3, ages.size), np.float32)
    image[0, 0] = image[2, 1] = 1
    image[1, :2] = ages
    return image


def test_eight_bits_of_sixteen_by_hand() -> None:
    """No event, both polarities at their ends, and both sides of the first middle, 129.5."""
    code = [0, 2, 3, 2 * (126 * 259 + 1), 2 * (126 * 259 + 1) + 1, 2 * 130, 2 * 131, 2 * 131 + 1]
    assert code_of_tencode(np.array([code], np.uint16)).tolist() == [[0, 1, 2, 253, 254, 1, 3, 4]]


@given(st.lists(st.one_of(near_middles, st.floats(0, 1, width=32)), min_size=1, max_size=64))
@settings(max_examples=300, deadline=None)
def test_codes_of_planes_and_of_sixteen_bits_are_equal(ages: list[float]) -> None:
    """Any age, rounded at once or by way of 16 bits, gives the same byte."""
    image = planes(np.array(ages, np.float32))
    np.testing.assert_array_equal(code_of_tencode(packed(image)), code_of_tencode(image))


def test_ages_near_the_middle_of_two_levels_round_the_same_way() -> None:
    """All float32 within 1000 of every middle; two of them are exactly there, 1/4 and 3/4."""
    middles = ((2 * np.arange(126) + 1) / 252).astype(np.float32).view(np.int32)
    ages = (middles[:, None] + np.arange(-1000, 1001, dtype=np.int32)).view(np.float32).ravel()
    image = planes(ages)
    np.testing.assert_array_equal(code_of_tencode(packed(image)), code_of_tencode(image))
    quarters = planes(np.array([0.25, 0.75], np.float32))  # levels 31.5 and 94.5, to the even ones
    assert code_of_tencode(packed(quarters)).tolist() == [[66, 190], [65, 189], [0, 0]]
