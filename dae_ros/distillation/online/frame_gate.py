"""Which camera frames a teacher may see: cheap tests of the image, then its motion blur.

A frame teacher is worst where events are best: in the dark, against the light, in fast motion. What
it says of such a frame is not a label. Start values: `docs/online.md`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dae_ros.distillation.online.observation import Refusal
from dae_ros.events.compilation import kernel
from dae_ros.events.frame import Frame
from dae_ros.parameters.distillation import OnlineParameters

# Sharpness is compared with the median of this many frames, and not before there are a few.
_REMEMBERED = 101
_FEWEST_REMEMBERED = 5


@dataclass(frozen=True, slots=True, eq=False)
class GatedFrame:
    """A frame that a teacher may see.

    Attributes:
        image: uint8[H, W].
        mask: bool[H, W], False around saturated pixels.
        luminance: mean grey level.
        exposure_s: 0 where it is not known.
        sharpness: variance of the Laplacian, grey levels squared.
        sharp: good enough for terms that compare edges.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    luminance: float
    exposure_s: float
    sharpness: float
    sharp: bool


class FrameGate:
    """Judges the frames of one camera, in order.

    Args:
        parameters: validated.
    """

    def __init__(self, parameters: OnlineParameters) -> None:
        self._parameters = parameters
        self._last: NDArray[np.uint8] | None = None
        self._sharpness: deque[float] = deque(maxlen=_REMEMBERED)

    def reset(self) -> None:
        """Forget the frames so far."""
        self._last = None
        self._sharpness.clear()

    def look(self, frame: Frame) -> GatedFrame | Refusal:
        """Judge a frame by its pixels.

        Returns:
            The frame, or a refusal: `repeated` (a frozen camera), `saturated`, `dark`, `bright`,
            `flat`.
        """
        parameters, image = self._parameters, frame.image
        last, self._last = self._last, image
        if last is not None and last.shape == image.shape and np.array_equal(last, image):
            return Refusal("repeated", "the frame equals the one before in every pixel")
        # One histogram answers all of these.
        counts = np.bincount(image.ravel(), minlength=256)
        share = float(counts[0] + counts[255]) / image.size
        mean = float(counts @ np.arange(256)) / image.size
        if share >= parameters.saturated_share:
            return Refusal("saturated", f"{share:.0%} of the pixels are at 0 or 255")
        if mean < parameters.darkest_mean:
            return Refusal("dark", f"the mean grey level is {mean:.0f}")
        if mean > parameters.brightest_mean:
            return Refusal("bright", f"the mean grey level is {mean:.0f}")
        below = np.cumsum(counts) / image.size
        contrast = int(np.searchsorted(below, 0.95)) - int(np.searchsorted(below, 0.05))
        if contrast < parameters.smallest_contrast:
            return Refusal("flat", f"5 % and 95 % of the pixels are {contrast} grey levels apart")
        return GatedFrame(
            image=image,
            mask=_unsaturated(image, parameters.saturated_margin_px),
            luminance=mean,
            exposure_s=frame.exposure_ns / 1e9 or parameters.exposure_s,
            sharpness=_laplacian_variance(image),
            sharp=True,
        )

    def judge_blur(self, frame: GatedFrame, image_speed_px_s: float) -> GatedFrame | Refusal:
        """Judge how far edges moved during the exposure.

        Where the exposure is not known, or nothing says how fast edges move, the frame is compared
        with how sharp frames usually are.

        Args:
            frame: of `look`.
            image_speed_px_s: from events (`image_speed`) or a gyroscope; NaN where unknown.

        Returns:
            The frame, with `sharp`, or the refusal `blurred`.
        """
        parameters = self._parameters
        usual = float(np.median(self._sharpness)) if self._sharpness else 0.0
        enough = len(self._sharpness) >= _FEWEST_REMEMBERED
        self._sharpness.append(frame.sharpness)
        if frame.exposure_s > 0 and not math.isnan(image_speed_px_s):
            blur_px = image_speed_px_s * frame.exposure_s
            if blur_px > parameters.largest_blur_px:
                return Refusal(
                    "blurred",
                    f"edges moved {blur_px:.1f} px during the exposure of "
                    f"{1000 * frame.exposure_s:.1f} ms",
                )
            return replace(frame, sharp=blur_px <= parameters.sharp_blur_px)
        if enough and frame.sharpness < parameters.smallest_sharpness * usual:
            return Refusal(
                "blurred",
                f"its sharpness is {frame.sharpness:.0f}, that of other frames {usual:.0f}",
            )
        return frame


def _laplacian_variance(image: NDArray[np.uint8]) -> float:
    """Return the variance of the four-neighbour Laplacian over the inner pixels."""
    values = image.astype(np.int16)
    inner = 4 * values[1:-1, 1:-1]
    inner = inner - values[:-2, 1:-1] - values[2:, 1:-1] - values[1:-1, :-2] - values[1:-1, 2:]
    return float(inner.var()) if inner.size else 0.0


def _unsaturated(image: NDArray[np.uint8], margin_px: int) -> NDArray[np.bool_]:
    """Return where no pixel within `margin_px` rows and columns is at 0 or 255."""
    mask = np.ones(image.shape, np.bool_)
    _exclude_saturated(image, margin_px, mask)
    return mask


@kernel
def _exclude_saturated(image: NDArray[np.uint8], margin_px: int, mask: NDArray[np.bool_]) -> None:
    height, width = image.shape
    for row in range(height):
        for column in range(width):
            if image[row, column] == 0 or image[row, column] == 255:
                top, left = max(0, row - margin_px), max(0, column - margin_px)
                mask[top : row + margin_px + 1, left : column + margin_px + 1] = False
