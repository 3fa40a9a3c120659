"""Pictures: what colour says about polarity, age, distance and missing values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dae_ros.errors import ConfigurationError
from dae_ros.representation import render
from dae_ros.representation.render import (
    METRES,
    color_range,
    depth_color,
    events_image,
    grey_panel,
    legend,
    side_by_side,
)


def _warmth(picture: np.ndarray) -> np.ndarray:
    return picture[..., 0].astype(int) - picture[..., 2].astype(int)


def test_events_show_polarity_and_age() -> None:
    """ON is warm, OFF is cold, newer events are brighter, no event is the dark ground."""
    tencode = np.zeros((3, 1, 5), np.float32)
    tencode[0, 0, :2] = 1
    tencode[2, 0, 2:4] = 1
    tencode[1, 0] = [1, 0, 1, 0, 0]
    picture = events_image(tencode)
    assert (picture.shape, picture.dtype) == ((1, 5, 3), np.uint8)
    old_on, new_on, old_off, new_off, nothing = picture[0].astype(int)
    assert _warmth(new_on) > _warmth(old_on) > 0 > _warmth(old_off) > _warmth(new_off)
    assert new_on.sum() > old_on.sum() > nothing.sum()
    assert new_off.sum() > old_off.sum() > nothing.sum()


@given(st.lists(st.integers(0, 126 * 259), min_size=1, max_size=50))
def test_codes_look_as_the_planes_they_stand_for(levels: list[int]) -> None:
    """Every pixel of a code, with and without event, has the colour of its planes."""
    code = np.array([[0], [2], [3]]) + np.array([[0], [2], [2]]) * np.array(levels)
    age = np.array([[0], [1], [1]]) * np.float32(levels) / np.float32(126 * 259)
    on, off = (np.broadcast_to(np.eye(3)[row][:, None], age.shape) for row in (2, 1))
    planes = np.stack([on, age, off]).astype(np.float32)
    np.testing.assert_array_equal(events_image(code.astype(np.uint16)), events_image(planes))


def test_near_is_warm_and_missing_is_grey() -> None:
    """Near is red, far is dark blue, values outside take the ends, NaN and infinity are grey."""
    depth = np.array([[0.1, 0.5, 10, 20, 90, np.nan, np.inf, -np.inf]], np.float32)
    picture = depth_color(depth, 0.5, 20.0)
    assert (picture[0, 0] == picture[0, 1]).all()
    assert (picture[0, 3] == picture[0, 4]).all()
    assert _warmth(picture[0, 1]) > 50
    assert _warmth(picture[0, 3]) < 0
    assert (picture[0, 5:] == 110).all()
    assert (depth_color(np.full((2, 2), np.nan, np.float32), 0.5, 20.0) == 110).all()


def test_metres_that_are_twice_as_far_look_as_different_everywhere() -> None:
    """Colours of metres are those of their logarithm; what is not above 0 is as near as can be."""
    metres = np.geomspace(0.5, 8.0, 5, dtype=np.float32)[None]
    shares = np.linspace(0.0, 1.0, 5, dtype=np.float32)[None]
    picture = depth_color(metres, 0.5, 8.0, METRES)
    np.testing.assert_array_equal(picture, depth_color(shares, 0.0, 1.0))
    odd = depth_color(np.array([[0.0, -3.0, 0.1, 99.0, np.nan]], np.float32), 0.5, 8.0, METRES)
    assert (odd[0, :3] == picture[0, 0]).all()
    assert (odd[0, 3] == picture[0, -1]).all() and (odd[0, 4] == 110).all()
    with pytest.raises(ConfigurationError, match="above 0"):
        depth_color(metres, 0.0, 8.0, METRES)


def test_inverse_depth_and_unknown_orientation() -> None:
    """Larger inverse depth is warm; where nobody knows the orientation, another palette is used."""
    values = np.linspace(1, 3, 50, dtype=np.float32)[None]
    near, far = color_range(values, "inverse_depth")
    assert near > far
    inverse = depth_color(values, near, far, "inverse_depth")
    np.testing.assert_array_equal(inverse, depth_color(values[:, ::-1], far, near))
    assert _warmth(inverse[0, -1]) > 50
    unknown = depth_color(values, *color_range(values, "unknown"), "unknown")
    assert (unknown[..., 1] >= unknown[..., 0]).all()  # shades of green: neither warm nor cold
    assert (unknown[..., 1] >= unknown[..., 2]).all()
    assert np.unique(unknown[0], axis=0).shape[0] > 40
    with pytest.raises(ConfigurationError, match="upside_down"):
        depth_color(values, 1, 3, "upside_down")
    with pytest.raises(ConfigurationError, match="differ"):
        depth_color(values, 1, 1)


def test_color_range_is_robust_and_never_empty() -> None:
    """Outliers and missing values do not set the range; constant and empty maps have one too."""
    depth = np.full((10, 100), 5, np.float32)
    depth[:, :50] = 2
    depth[0, :3] = (1e6, np.nan, np.inf)
    assert color_range(depth) == (2.0, 5.0)
    for flat in (np.full((2, 2), 3, np.float32), np.full((2, 2), np.nan, np.float32)):
        near, far = color_range(flat)
        assert near < far
        near, far = color_range(flat, METRES)
        assert 0 < near < far
    depth[:, :40] = -1
    assert color_range(depth, METRES) == (2.0, 5.0)


@pytest.mark.parametrize("height", [48, 260, 720])
@pytest.mark.parametrize("orientation", [METRES, "depth"])
def test_legend_uses_the_colours_of_the_map(height: int, orientation: str) -> None:
    """The bar's ends are the colours of far (top) and near (bottom)."""
    picture = legend(height, 0.5, 20.0, "m", orientation)
    assert (picture.shape, picture.dtype) == ((height, 84, 3), np.uint8)
    ends = depth_color(np.array([[20.0, 0.5]], np.float32), 0.5, 20.0, orientation)[0]
    np.testing.assert_array_equal(picture[24, 12], ends[0])
    np.testing.assert_array_equal(picture[height - 13, 12], ends[1])
    with pytest.raises(ConfigurationError, match="48 px"):
        legend(47, 0.5, 20.0, "m")


def test_the_legend_counts_in_round_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends, and between them what people count in, where depth_color has that value."""
    written: dict[str, int] = {}
    monkeypatch.setattr(render, "_write", lambda _, text, __, row: written.update({text: row - 4}))
    for height, near, far, numbers in (
        (260, 0.5, 20.0, ["20", "15", "10", "5", "0.5"]),
        (260, 0.5, 6.0, ["6", "4", "2", "0.5"]),
        (260, 0.5, 80.0, ["80", "60", "40", "20", "0.5"]),
        (100, 0.5, 20.0, ["20", "10", "0.5"]),
        (260, 0.5, 10.2, ["10.2", "5", "0.5"]),
        (260, 2.0, 0.1, ["0.1", "0.5", "1", "1.5", "2"]),
        (260, -0.03, 0.04, ["0.04", "0.02", "0", "-0.02", "-0.03"]),
    ):
        written.clear()
        legend(height, near, far, "m", "inverse_depth" if near > far else "depth")
        assert list(written)[1:] == numbers
        rows = np.array([written[number] for number in numbers])
        assert (np.diff(rows) >= 12).all()
        share = (np.array(numbers, float) - far) / (near - far)
        assert np.abs(rows - (24 + share * (height - 37))).max() <= 0.51


def test_the_legend_of_metres_counts_one_two_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends, and of each decade what has room; where depth_color has that value."""
    written: dict[str, int] = {}
    monkeypatch.setattr(render, "_write", lambda _, text, __, row: written.update({text: row - 4}))
    for height, near, far, numbers in (
        (260, 0.5, 20.0, ["20", "10", "5", "2", "1", "0.5"]),
        (260, 2.18, 26.8, ["26.8", "20", "10", "5", "2.18"]),
        (100, 0.5, 20.0, ["20", "5", "2", "0.5"]),
        (60, 0.5, 80.0, ["80", "0.5"]),
        (260, 1.1, 1.3, ["1.3", "1.1"]),
    ):
        written.clear()
        legend(height, near, far, "m", METRES)
        assert list(written)[1:] == numbers, (height, near, far)
        rows = np.array([written[number] for number in numbers])
        assert (np.diff(rows) >= 10).all()
        share = np.log(np.array(numbers, float) / far) / np.log(near / far)
        assert np.abs(rows - (24 + share * (height - 37))).max() <= 0.51


def test_panels_side_by_side() -> None:
    """Panels keep their pixels and are parted by dark columns."""
    left = grey_panel(np.arange(12, dtype=np.uint8).reshape(3, 4))
    right = np.full((3, 2, 3), 200, np.uint8)
    joined = side_by_side([left, right], gap_px=1)
    assert joined.shape == (3, 7, 3)
    np.testing.assert_array_equal(joined[:, :4], left)
    np.testing.assert_array_equal(joined[:, 5:], right)
    np.testing.assert_array_equal(left[..., 0], left[..., 2])
    with pytest.raises(ConfigurationError, match="one height"):
        side_by_side([left, right[:2]])
