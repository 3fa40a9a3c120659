"""Whether the events of a window can be learned from: neither too few, nor a flash, nor broken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dae_ros.distillation.online.observation import Refusal
from dae_ros.events.compilation import kernel
from dae_ros.events.packet import Events
from dae_ros.parameters.distillation import OnlineParameters

FLASH_NS = 5_000_000
HOT_HZ = 1000.0
# Below this many events a ratio is chance.
_FEWEST_EVENTS = 200


def active_share(code: NDArray[np.uint8]) -> float:
    """Return the share of pixels with events in a window, coded as `clip_codes` does."""
    return float(np.count_nonzero(code)) / code.size


def refuse_flash(
    parameters: OnlineParameters, events: Events, code: NDArray[np.uint8]
) -> Refusal | None:
    """Look for what no motion does: one polarity alone, or all pixels at once.

    Args:
        parameters: validated.
        events: of one window.
        code: uint8[H, W], the window as `clip_codes` codes it.

    Returns:
        The refusal `flash`, or None.
    """
    if len(events) < _FEWEST_EVENTS:
        return None
    on = int(np.count_nonzero(events.p))
    off = len(events) - on
    if on < parameters.smallest_on_ratio * off or on > parameters.largest_on_ratio * off:
        return Refusal("flash", f"{on} ON and {off} OFF events in one window")
    # No part of the window can have more active pixels than the whole, which is already known.
    if active_share(code) <= parameters.flash_share:
        return None
    share = _most_active(events.t, events.x, events.y, code.shape[1], code.size) / code.size
    if share > parameters.flash_share:
        return Refusal("flash", f"{share:.0%} of the pixels have events within 5 ms")
    return None


def refuse_hot_pixels(
    parameters: OnlineParameters, events: Events, height: int, width: int, window_ns: int
) -> Refusal | None:
    """Look for a sensor whose events come mostly from few pixels that never stop.

    Args:
        parameters: validated.
        events: of one window.
        height, width: of the sensor in px.
        window_ns: length of the window.

    Returns:
        The refusal `hot_pixels`, or None.
    """
    if len(events) < _FEWEST_EVENTS:
        return None
    pixels = events.y.astype(np.int64) * width + events.x
    counts = np.bincount(pixels, minlength=height * width)
    hot = counts > HOT_HZ * window_ns / 1e9
    share = float(counts[hot].sum()) / len(events)
    if share > parameters.hot_share:
        return Refusal(
            "hot_pixels",
            f"{share:.0%} of the events come from {int(hot.sum())} pixels above {HOT_HZ:.0f} Hz",
        )
    return None


@kernel
def _most_active(
    t: NDArray[np.int64], x: NDArray[np.uint16], y: NDArray[np.uint16], width: int, size: int
) -> int:
    """Return the largest number of pixels with events within `FLASH_NS`, on a grid of half that.

    A pixel counts for the two halves after its event; so every stretch of `FLASH_NS` that begins
    on the grid is seen.
    """
    half = FLASH_NS // 2
    seen = np.full(size, -2, np.int64)  # the last half in which the pixel had an event
    most = current = previous = 0
    index = np.int64(0)
    for k in range(t.size):
        at = (t[k] - t[0]) // half
        if at != index:
            previous = current if at == index + 1 else 0
            current = 0
            index = at
        pixel = np.int64(y[k]) * width + np.int64(x[k])
        if seen[pixel] != index:
            if seen[pixel] == index - 1:
                previous -= 1  # counted now, not twice
            seen[pixel] = index
            current += 1
            most = max(most, current + previous)
    return most
