"""Pictures of single windows: events | frame | ground truth | prediction | error."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.video import ContactSheet
from dae_ros.errors import RecordingError
from dae_ros.evaluation.scoring import ScoredMaps
from dae_ros.representation.event_image import EventImage, size_of
from dae_ros.representation.render import (
    METRES,
    FloatImage,
    Picture,
    color_range,
    depth_color,
    events_image,
    grey_panel,
    legend,
    side_by_side,
    titled,
)
from dae_ros.runtime.preview import fit, panel_rows

# The error, |d - p| / d, at which the colour is brightest.
WORST_ABS_REL: Final = 0.5
_UNKNOWN: Final = 110
_LEGEND_WIDTH_PX: Final = 70
_TEXT: Final = (235, 235, 235)


class StripSheet:
    """Up to eight windows of a sequence, evenly spread, one below the other."""

    def __init__(self) -> None:
        self._sheet = ContactSheet(columns=1, most=8, widest_px=2000)

    def add(
        self, label: str, image: EventImage, frame: NDArray[np.uint8] | None, maps: ScoredMaps
    ) -> None:
        """Take the next window.

        Args:
            label: which one it is, ASCII.
            image: Tencode, uint16[H, W] or float32[3, H, W] in 0..1.
            frame: uint8[H', W'], the newest camera frame; None shows an empty panel.
            maps: of the same H, W.
        """
        self._sheet.add(strip(label, image, frame, maps))

    def save(self, path: Path) -> None:
        """Write the PNG; nothing where nothing was added.

        Raises:
            RecordingError: the file cannot be written.
        """
        self._sheet.save(path)


def strip(
    label: str, image: EventImage, frame: NDArray[np.uint8] | None, maps: ScoredMaps
) -> Picture:
    """Return one window as a row of panels, uint8[H', W', 3]; see `StripSheet.add`.

    Truth and prediction share one range of colours, that of the truth.
    """
    rows = panel_rows(size_of(image)[0])
    truth = np.where(maps.target > 0, maps.target, np.nan).astype(np.float32)
    near, far = color_range(truth, METRES)
    events = fit(events_image(image), rows)
    width = events.shape[1]
    grey = np.zeros((rows, width, 3), np.uint8)
    if frame is not None:
        resized = cv2.resize(frame, (width, rows), interpolation=cv2.INTER_AREA)
        grey = grey_panel(np.asarray(resized, np.uint8))
    prediction = np.asarray(maps.prediction, np.float32)
    error = relative_error(maps)
    counted = error[np.isfinite(error)]
    abs_rel = f"{float(counted.mean()):.3f}" if counted.size else "no pixel"
    return side_by_side(
        [
            titled(events, label),
            titled(grey, "frame" if frame is not None else "no frame"),
            titled(fit(depth_color(truth, near, far, METRES), rows), "ground truth"),
            titled(fit(depth_color(prediction, near, far, METRES), rows), "prediction"),
            titled(legend(rows, near, far, "m", METRES), ""),
            titled(fit(error_color(error), rows), f"error, Abs Rel {abs_rel}"),
            titled(error_legend(rows), ""),
        ]
    )


def relative_error(maps: ScoredMaps) -> FloatImage:
    """Return |d - p| / d, float32[H, W], NaN where no pixel counts."""
    error = np.full(maps.target.shape, np.nan, np.float32)
    target = maps.target[maps.counted]
    error[maps.counted] = np.abs(target - maps.prediction[maps.counted]) / target
    return error


def error_color(error: FloatImage) -> Picture:
    """Colour relative errors: 0 black, `WORST_ABS_REL` and more bright; NaN grey.

    Args:
        error: float32[H, W].

    Returns:
        uint8[H, W, 3], RGB.
    """
    share = np.clip(np.nan_to_num(error) / WORST_ABS_REL, 0.0, 1.0)
    levels = np.rint(share * 255).astype(np.uint8)
    picture = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1].copy()
    picture[~np.isfinite(error)] = _UNKNOWN
    return np.asarray(picture, np.uint8)


def error_legend(height: int) -> Picture:
    """Draw the bar that belongs to `error_color`, uint8[height, 70, 3]."""
    picture = np.full((height, _LEGEND_WIDTH_PX, 3), 24, np.uint8)
    top, bottom = 24, height - 12
    values = np.linspace(WORST_ABS_REL, 0.0, bottom - top, dtype=np.float32)[:, None]
    picture[top:bottom, 8:22] = error_color(np.repeat(values, 14, axis=1))
    for share in (0.0, 0.5, 1.0):
        row = round(bottom - 1 - share * (bottom - 1 - top))
        sign = ">=" if share == 1.0 else ""
        place = (26, row + 4)
        text = f"{sign}{share * WORST_ABS_REL:g}"
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, _TEXT, 1, cv2.LINE_AA)
    return picture


def error_map_picture(mean_error: FloatImage) -> Picture:
    """Show the mean Abs Rel of each pixel with its legend."""
    rows = panel_rows(mean_error.shape[0])
    shown = fit(error_color(mean_error), rows)
    return titled(side_by_side([shown, error_legend(rows)]), "mean Abs Rel of each pixel")


def write_png(path: Path, picture: Picture) -> None:
    """Write uint8[H, W, 3] RGB.

    Raises:
        RecordingError: the file cannot be written.
    """
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        # OpenCV does not say why, and leaves what fitted.
        path.unlink(missing_ok=True)
        raise RecordingError(
            f"{path} cannot be written; is the disk full?",
            path=str(path),
        )
