"""Line plots as pictures, drawn with OpenCV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dae_ros.errors import ConfigurationError
from dae_ros.representation.render import Picture

_HEIGHT, _WIDTH = 440, 800
_LEFT, _TOP, _BOTTOM, _PLAIN_RIGHT, _LEGEND_RIGHT = 72, 40, 56, 24, 236
_GROUND, _GRID, _INK = (252, 252, 250), (222, 222, 222), (40, 40, 44)
# Okabe and Ito's colours, which colour-blind readers tell apart.
_COLOURS = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0),
    (120, 120, 120), (160, 60, 60),
)  # fmt: skip
_LONGEST_NAME = 26
_FEW_POINTS = 60


@dataclass(frozen=True, slots=True)
class Axes:
    """What stands at a plot.

    Attributes:
        title, x_label, y_label: ASCII.
        logarithmic_x: whether equal factors of x are equally wide.
    """

    title: str
    x_label: str
    y_label: str
    logarithmic_x: bool = False


def line_plot(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], axes: Axes) -> Picture:
    """Draw lines over common axes; the vertical one has 0 in it.

    Args:
        series: name -> (x, y); points that are not finite interrupt the line.
        axes: texts and scale.

    Returns:
        uint8[440, 800, 3], RGB.

    Raises:
        ConfigurationError: x and y of different lengths, or x <= 0 on a logarithmic axis.
    """
    for name, (x, y) in series.items():
        if len(x) != len(y) or (axes.logarithmic_x and min(x, default=1) <= 0):
            raise ConfigurationError(
                f"The plot of '{name}' needs as many x as y, and x > 0 on a logarithmic axis.",
                name=name,
            )
    points = {name: _finite_points(x, y) for name, (x, y) in series.items()}
    known = [point for line in points.values() for point in line if point is not None]
    x_range = _range([x for x, _ in known])
    if axes.logarithmic_x and not known:
        x_range = (1.0, 10.0)
    heights = [0.0, *(y for _, y in known)]
    y_low, y_high = min(heights) * 1.05, max(heights) * 1.05
    y_range = (y_low, y_high if y_high > y_low else 1.0)
    picture = np.full((_HEIGHT, _WIDTH, 3), _GROUND, np.uint8)
    right = _WIDTH - (_LEGEND_RIGHT if len(series) > 1 else _PLAIN_RIGHT)
    frame = _Frame(x_range, y_range, right, axes.logarithmic_x)
    _draw_axes(picture, frame, axes)
    for index, (name, line) in enumerate(points.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        _draw_line(picture, frame, line, colour)
        if len(series) > 1:
            row = _TOP + 12 + 20 * index
            cv2.line(picture, (right + 14, row - 4), (right + 34, row - 4), colour, 3)
            _write(picture, _ascii(name), right + 42, row)
    return picture


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where values lie in the picture."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    right: int
    logarithmic: bool

    def place(self, x: float, y: float) -> tuple[int, int]:
        low, high = self.x_range
        share = (x - low) / (high - low)
        if self.logarithmic:
            share = math.log(x / low) / math.log(high / low)
        column = _LEFT + share * (self.right - _LEFT)
        y_low, y_high = self.y_range
        row = _HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (_HEIGHT - _BOTTOM - _TOP)
        return round(column), round(row)


def _finite_points(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float] | None]:
    """Return the points, None where one is missing."""
    return [
        (float(a), float(b)) if math.isfinite(a) and math.isfinite(b) else None
        for a, b in zip(x, y, strict=True)
    ]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))


def _draw_axes(picture: Picture, frame: _Frame, axes: Axes) -> None:
    bottom = _HEIGHT - _BOTTOM
    for value in _ticks(*frame.y_range):
        row = frame.place(frame.x_range[0], value)[1]
        # Where there is something below 0, that is no edge: it has to be seen.
        cv2.line(picture, (_LEFT, row), (frame.right, row), _GRID if value else _INK, 1)
        text = f"{value:.3g}"
        _write(picture, text, _LEFT - 8 - 8 * len(text), row + 4)
    low, high = frame.x_range
    for value in _decades(low, high) if frame.logarithmic else _ticks(low, high):
        column = frame.place(value, 0.0)[0]
        cv2.line(picture, (column, _TOP), (column, bottom), _GRID, 1)
        text = f"{value:.4g}"
        _write(picture, text, column - 4 * len(text), bottom + 18)
    cv2.rectangle(picture, (_LEFT, _TOP), (frame.right, bottom), _INK, 1)
    _write(picture, axes.title, _LEFT, 24, 0.5)
    middle = (_LEFT + frame.right) // 2
    _write(picture, axes.x_label, middle - 4 * len(axes.x_label), _HEIGHT - 14)
    _write(picture, axes.y_label, 6, _TOP - 16)


def _draw_line(
    picture: Picture,
    frame: _Frame,
    line: list[tuple[float, float] | None],
    colour: tuple[int, int, int],
) -> None:
    # Few points are marked: between them nothing was measured.
    few = len(line) <= _FEW_POINTS
    previous: tuple[int, int] | None = None
    for point in line:
        place = None if point is None else frame.place(*point)
        if place is not None and previous is not None:
            cv2.line(picture, previous, place, colour, 2 if few else 1, cv2.LINE_AA)
        if place is not None and few:
            cv2.circle(picture, place, 3, colour, -1, cv2.LINE_AA)
        previous = place


def _ticks(low: float, high: float) -> list[float]:
    """Return round values within a range, 3 to 8 of them."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step *= next(factor for factor in (0.2, 0.5, 1.0, 2.0) if (high - low) / (step * factor) <= 8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * k for k in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 of every power of ten within a range."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
    return [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]


def _ascii(name: str) -> str:
    """Shorten a name in its middle: sequences differ at either end."""
    text = name.encode("ascii", "replace").decode("ascii")
    half = _LONGEST_NAME // 2
    return text if len(text) <= _LONGEST_NAME else f"{text[: half - 1]}..{text[1 - half :]}"


def _write(picture: Picture, text: str, left: int, baseline: int, size: float = 0.4) -> None:
    place = (max(left, 2), baseline)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)
