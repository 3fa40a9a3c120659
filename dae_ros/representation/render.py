"""Pictures for people: event previews, depth in colour with a legend, panels side by side.

All pictures are uint8[H, W, 3] in RGB order. Values outside a colour range get the colour of its
end; pixels without a value are neutral grey.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError
from dae_ros.representation.event_image import EventImage, is_code, planes_of
from dae_ros.representation.tencode_code import unpack_tencode

FloatImage: TypeAlias = NDArray[np.float32]
Picture: TypeAlias = NDArray[np.uint8]

# Depth in metres has colours of its own: by its logarithm.
METRES: Final = "metres"
ORIENTATIONS: Final = (METRES, "depth", "inverse_depth", "unknown")

_GREY: Final = 110
_BACKGROUND: Final = np.array([24, 24, 28], np.float32)
_ON: Final = np.array([255, 140, 60], np.float32)
_OFF: Final = np.array([70, 150, 255], np.float32)
# The oldest events keep this share of their colour, so that they still show.
_OLDEST_STRENGTH: Final = 0.3
_LEGEND_WIDTH_PX: Final = 84
_TITLE_ROWS: Final = 20
_TICK_ROWS: Final = 13  # of a number, with what parts it from the next one
_TEXT: Final = (235, 235, 235)


def events_image(tencode: EventImage) -> Picture:
    """Show a Tencode: ON orange, OFF blue, newer events brighter, on a dark ground.

    Args:
        tencode: float32[3, H, W] within 0..1, or its code uint16[H, W].

    Returns:
        uint8[H, W, 3].
    """
    if is_code(tencode):
        picture: Picture = np.take(_colors_of_codes(), tencode, axis=0)
        return picture
    return _picture_of_planes(planes_of(tencode))


@functools.cache
def _colors_of_codes() -> Picture:
    """Return the colour of every 16-bit number, uint8[65536, 3]."""
    codes = np.arange(2**16, dtype=np.uint16)
    colors: Picture = _picture_of_planes(unpack_tencode(codes[None]))[0]
    return colors


def _picture_of_planes(tencode: FloatImage) -> Picture:
    on, age, off = tencode
    strength = (1.0 - (1.0 - _OLDEST_STRENGTH) * age)[..., None]
    picture = np.broadcast_to(_BACKGROUND, (*age.shape, 3)).copy()
    for mask, colour in ((on > 0, _ON), (off > 0, _OFF)):
        picture[mask] += (strength * (colour - _BACKGROUND))[mask]
    shown: Picture = np.rint(picture).astype(np.uint8)
    return shown


def depth_color(depth: FloatImage, near: float, far: float, orientation: str = "depth") -> Picture:
    """Colour a depth map, near warm and far cold.

    Args:
        depth: float32[H, W]; not finite: grey.
        near, far: the values that get the warm and the cold end. For inverse depth `near` is the
            larger number.
        orientation: `METRES`, of which equal ratios look equally different, in a room as in a
            street; `depth` up to scale and shift and `inverse_depth`, both linear; or `unknown`,
            which uses shades of green instead of warm and cold, since nobody knows which end is
            near.

    Returns:
        uint8[H, W, 3].

    Raises:
        ConfigurationError: an unknown orientation, near equal to far, or metres not above 0.
    """
    _require(near, far, orientation)
    valid = np.isfinite(depth)
    low, high = sorted((near, far))
    within = np.clip(np.where(valid, depth, np.float32(far)), np.float32(low), np.float32(high))
    picture = _palette(_position(within, near, far, orientation), orientation)
    picture[~valid] = _GREY
    return picture


def color_range(depth: FloatImage, orientation: str = "depth") -> tuple[float, float]:
    """Return (near, far) values that show a map of unknown scale: its 2nd and 98th percentile.

    Args:
        depth: float32[H, W]; values that are not finite are left out, and metres not above 0.
        orientation: as `depth_color`; `unknown` counts as `depth`.

    Returns:
        (near, far), never equal; (0, 1), or (1, 10) of metres, where there is no value.
    """
    metres = orientation == METRES
    values = depth[np.isfinite(depth) & (depth > 0)] if metres else depth[np.isfinite(depth)]
    low, high = (1.0, 10.0) if metres else (0.0, 1.0)
    if values.size:
        low, high = (float(q) for q in np.percentile(values, (2, 98)))
    if high <= low:
        high = low + max(1.0, abs(low)) * 1e-3
    return (high, low) if orientation == "inverse_depth" else (low, high)


def legend(height: int, near: float, far: float, label: str, orientation: str = "depth") -> Picture:
    """Draw the colour bar that belongs to `depth_color`, near at the bottom.

    Args:
        height: of the picture in px, at least 48.
        near, far, orientation: as `depth_color`.
        label: what the numbers are, for example `m` or `relative`.

    Returns:
        uint8[height, 84, 3].

    Raises:
        ConfigurationError: as `depth_color`, or a height below 48.
    """
    _require(near, far, orientation)
    if height < 48:
        raise ConfigurationError("A legend needs at least 48 px of height.", height=height)
    picture = np.full((height, _LEGEND_WIDTH_PX, 3), _BACKGROUND.astype(np.uint8))
    top, bottom = 24, height - 12
    position = np.linspace(0.0, 1.0, bottom - top, dtype=np.float32)
    picture[top:bottom, 8:22] = _palette(position[:, None], orientation)
    _write(picture, label, 6, 15)
    length_px = bottom - 1 - top
    values = _log_ticks if orientation == METRES else _ticks
    for value in values(near, far, length_px):
        at = _position(np.array(value, np.float32), near, far, orientation)
        row = round(top + float(at) * length_px)
        picture[row, 22:27] = _TEXT
        _write(picture, f"{value:.3g}", 30, row + 4)
    return picture


def _ticks(near: float, far: float, length_px: int) -> list[float]:
    """Return both ends, and between them round numbers that leave room for each other's text."""
    span = abs(near - far)
    least = span / (4 if length_px >= 120 else 2)
    decade = 10.0 ** math.floor(math.log10(least))
    step = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= least * 0.999)
    low, high = min(near, far), max(near, far)
    margin = _TICK_ROWS * span / length_px
    multiples = range(math.ceil((low + margin) / step), math.floor((high - margin) / step) + 1)
    return sorted([low, *(multiple * step for multiple in multiples), high], reverse=far > near)


def _log_ticks(near: float, far: float, length_px: int) -> list[float]:
    """Return both ends, and between them 1, 2 and 5 of each decade, as far as there is room."""
    low, high = min(near, far), max(near, far)
    apart = math.log(high / low) * _TICK_ROWS / length_px
    found = [low, high]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factor in (1, 5, 2):
        for value in (factor * 10.0**decade for decade in decades):
            if low < value < high and all(abs(math.log(value / x)) >= apart for x in found):
                found.append(value)
    return sorted(found, reverse=far > near)


def side_by_side(panels: Sequence[Picture], gap_px: int = 4) -> Picture:
    """Join pictures of one height from left to right.

    Args:
        panels: each uint8[H, *, 3]; at least one.
        gap_px: dark columns in between.

    Returns:
        uint8[H, W, 3].

    Raises:
        ConfigurationError: no panel, or different heights.
    """
    if not panels or len({panel.shape[0] for panel in panels}) != 1:
        raise ConfigurationError(
            "Panels must be at least one and of one height.",
            heights=[panel.shape[0] for panel in panels],
        )
    ground = _BACKGROUND.astype(np.uint8)
    gap = np.full((panels[0].shape[0], gap_px, 3), ground)
    joined = [piece for panel in panels for piece in (panel, gap)][:-1]
    return np.concatenate(joined, axis=1)


def titled(panel: Picture, title: str) -> Picture:
    """Put a line of text above a panel, uint8[H, W, 3]; it becomes 20 px higher."""
    strip = np.full((_TITLE_ROWS, panel.shape[1], 3), 24, np.uint8)
    _write(strip, title, 4, 14)
    return np.concatenate([strip, panel])


def grey_panel(image: NDArray[np.uint8]) -> Picture:
    """Show a grey camera frame, uint8[H, W], as uint8[H, W, 3]."""
    return np.repeat(image[..., None], 3, axis=2)


def _position(
    values: NDArray[np.float32], near: float, far: float, orientation: str
) -> NDArray[np.floating]:
    """Return where values lie between far, 0, and near, 1; the same shape."""
    share: NDArray[np.floating] = (values - far) / (near - far)
    if orientation == METRES:
        share = np.log(values / np.float32(far)) / math.log(near / far)
    position: NDArray[np.floating] = np.clip(share, 0.0, 1.0)
    return position


def _palette(position: NDArray[np.floating], orientation: str) -> Picture:
    """Colour 0 (far) to 1 (near); uint8[..., 3] for [..., W] positions."""
    colours = cv2.COLORMAP_DEEPGREEN if orientation == "unknown" else cv2.COLORMAP_TURBO
    levels = np.rint(np.atleast_2d(position) * 255.0).astype(np.uint8)
    picture: Picture = cv2.applyColorMap(levels, colours)[..., ::-1]
    return np.ascontiguousarray(picture)


def _write(picture: Picture, text: str, left: int, baseline: int) -> None:
    cv2.putText(
        picture, text, (left, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.38, _TEXT, 1, cv2.LINE_AA
    )


def _require(near: float, far: float, orientation: str) -> None:
    if orientation not in ORIENTATIONS:
        raise ConfigurationError(
            f"Orientation {orientation!r} is not one of {', '.join(ORIENTATIONS)}.",
            orientation=orientation,
        )
    if near == far:
        raise ConfigurationError("A colour range needs two ends that differ.", near=near, far=far)
    if orientation == METRES and min(near, far) <= 0:
        raise ConfigurationError("Colours of metres begin above 0.", near=near, far=far)
