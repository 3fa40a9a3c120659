"""Errors over depth and image against plain loops, and what the pictures show of them."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.error_statistics import EDGES_M, ErrorOverDepth, ErrorOverImage
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.evaluation.scoring import STANDARD_METRIC, align_frame
from dae_ros.evaluation.strips import StripSheet, error_color, relative_error, strip

BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


def maps_of(seed, height=6, width=8):
    """A frame with holes in truth and prediction, and truth beyond the last edge."""
    random = np.random.default_rng(seed)
    depth = random.uniform(0.2, 85, (height, width)).astype(np.float32)
    prediction = (depth * random.uniform(0.6, 1.5, depth.shape)).astype(np.float32)
    depth[0, 0], depth[1, 1], prediction[2, 2] = np.nan, 0, np.nan
    return align_frame(prediction, depth, STANDARD_METRIC)


def test_errors_by_depth_equal_a_loop_over_pixels() -> None:
    """Pixels, mean Abs Rel and delta 1 of each range, over two frames."""
    found = ErrorOverDepth()
    errors: dict[int, list[float]] = {}
    within: dict[int, list[bool]] = {}
    for maps in (maps_of(1, 40, 50), maps_of(2, 40, 50)):
        found.add(maps)
        for row in range(40):
            for column in range(50):
                if not maps.counted[row, column]:
                    continue
                d, p = float(maps.target[row, column]), float(maps.prediction[row, column])
                k = max(k for k in range(len(EDGES_M)) if EDGES_M[k] <= d)
                errors.setdefault(k, []).append(abs(d - p) / d)
                within.setdefault(k, []).append(max(d / p, p / d) < 1.25)
    bins = found.bins()
    assert [(b.from_m, b.to_m) for b in bins] == list(pairwise(EDGES_M))
    for k, item in enumerate(bins):
        assert item.pixels == len(errors.get(k, []))
        if item.pixels:
            assert item.abs_rel == pytest.approx(sum(errors[k]) / item.pixels, rel=1e-6)
            assert item.delta_1 == pytest.approx(sum(within[k]) / item.pixels)
        else:
            assert math.isnan(item.abs_rel)
    assert sum(item.pixels for item in bins) > 3000


def test_errors_by_pixel_are_means_of_what_counted() -> None:
    """A pixel that one of two frames does not count has the error of the other."""
    found = ErrorOverImage()
    assert found.mean() is None
    first, second = maps_of(1), maps_of(2)
    second.counted[4, 4] = False
    found.add(first)
    found.add(second)
    errors = np.stack([relative_error(first), relative_error(second)]).astype(np.float64)
    mean = found.mean()
    assert mean is not None
    for row in range(6):
        for column in range(8):
            values = [v for v in errors[:, row, column] if not math.isnan(v)]
            expected = sum(values) / len(values) if values else math.nan
            np.testing.assert_allclose(mean[row, column], expected, rtol=1e-6)
    assert math.isnan(mean[2, 2])
    with pytest.raises(ConfigurationError, match="size changes"):
        found.add(maps_of(3, 4, 4))


def test_lines_go_through_their_points_and_stop_at_gaps() -> None:
    """A line at half of the height has its colour there, none where a value is missing."""
    y = [1.0, 1.0, math.nan, 1.0, 1.0, 2.0]
    picture = line_plot({"a": ([0, 1, 2, 3, 4, 5], y)}, Axes("t", "x", "y"))
    assert picture.shape == (440, 800, 3)
    # The axes span columns 72 to 776 and rows 384 (0) to 40 (2.1).
    row = round(384 - 1.0 / 2.1 * 344)

    def column(x):
        return round(72 + x / 5 * 704)

    for x in (0.3, 1.0, 3.5):
        assert tuple(picture[row, column(x)]) == BLUE
    for x in (1.5, 2.0, 2.5):
        assert tuple(picture[row, column(x)]) != BLUE
    assert tuple(picture[round(384 - 2.0 / 2.1 * 344), column(5) - 1]) == BLUE


def test_a_plot_has_0_in_it_and_what_is_below() -> None:
    """All points lie in the frame, equal steps as far apart below 0 as above, and 0 is marked."""
    picture = line_plot({"a": ([0, 1, 2], [-2, 0, 1])}, Axes("t", "x", "y"))
    rows = sorted({int(r) for r, _ in np.argwhere((picture == BLUE).all(-1))})
    assert rows[0] >= 40 and rows[-1] <= 384
    centres = [column_rows(picture, column) for column in (72, 424, 776)]
    assert centres[0] - centres[1] == pytest.approx(2 * (centres[1] - centres[2]), abs=2)
    ink = (picture[:, 200] == (40, 40, 44)).all(-1)
    assert ink[round(centres[1])]


def column_rows(picture, column):
    """The middle of what is blue around a column."""
    near = picture[:, max(column - 2, 0) : column + 3]
    return float(np.argwhere((near == BLUE).all(-1))[:, 0].mean())


def test_equal_factors_are_equally_wide_on_a_logarithmic_axis() -> None:
    """10 lies in the middle between 1 and 100; a second series has its own colour and name."""
    one = ([1, 10, 100], [0.0, 1.0, 0.0])
    two = ([1, 10, 100], [0.2, 0.2, 0.2])
    axes = Axes("t", "x", "y", logarithmic_x=True)
    picture = line_plot({"one": one, "two": two}, axes)
    middle = round((72 + 564) / 2)
    assert tuple(picture[round(384 - 1.0 / 1.05 * 344), middle]) == BLUE
    assert tuple(picture[round(384 - 0.2 / 1.05 * 344), 200]) == ORANGE
    with pytest.raises(ConfigurationError, match="x > 0"):
        line_plot({"a": ([0, 1], [1, 1])}, axes)
    with pytest.raises(ConfigurationError, match="as many x as y"):
        line_plot({"a": ([1], [1, 1])}, axes)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_nothing_to_draw_is_an_empty_plot(logarithmic: bool) -> None:
    """Without a finite point there are axes and no line."""
    picture = line_plot({"a": ([1.0], [math.nan])}, Axes("t", "x", "y", logarithmic))
    assert not (picture == BLUE).all(axis=-1).any()


def test_error_colours_are_black_for_none_and_grey_for_unknown() -> None:
    """0 is black, 0.5 and more are one bright colour, NaN is grey."""
    colours = error_color(np.array([[0.0, 0.5, 9.0, np.nan]], np.float32))[0]
    assert colours[0].max() < 10
    assert tuple(colours[1]) == tuple(colours[2])
    assert colours[1].min() > 100
    assert tuple(colours[3]) == (110, 110, 110)


def test_a_sheet_holds_eight_windows_of_a_long_sequence(tmp_path) -> None:
    """Rows are evenly spread strips of one size, with and without a frame; RGB stays RGB."""
    maps = maps_of(4, 26, 34)
    image = np.zeros((3, 26, 34), np.float32)
    image[0, :, 3] = 1
    frame = np.full((26, 34), 200, np.uint8)
    one = strip("events 0 s", image, frame, maps)
    assert one.shape == strip("events 0 s", image, None, maps).shape
    # Sensors are enlarged by whole pixels to at least 192 rows; titles take 20.
    assert one.shape[0] == 26 * 8 + 20
    assert tuple(one[100, 3 * 8 + 4]) == (255, 140, 60)
    sheet = StripSheet()
    for _ in range(20):
        sheet.add("events", image, frame, maps)
    sheet.save(tmp_path / "sheet.png")
    read = cv2.imread(str(tmp_path / "sheet.png"))
    assert read.shape[0] == 5 * (one.shape[0] + 8) + 8
    assert tuple(read[8 + 100, 8 + 3 * 8 + 4, ::-1]) == (255, 140, 60)
