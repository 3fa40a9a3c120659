"""Whether frames and events show the same thing at the same time: what no stamp can say.

Events are changes of log intensity. Their sum between two frames is, pixel by pixel, the difference
of the frames' logarithms. If the sum over an interval that is moved by some milliseconds fits
better, the clocks of frames and events differ; if none fits, the pixels do.
"""

from __future__ import annotations

import math
from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from dae_ros.distillation.online.observation import Refusal
from dae_ros.events.compilation import kernel
from dae_ros.events.ring_buffer import EventRing
from dae_ros.parameters.distillation import OnlineParameters

# Offsets that are tried, ns.
OFFSETS_NS = np.arange(-30, 31, 5) * 1_000_000
FARTHEST_NS = int(OFFSETS_NS[-1])
_LONGEST_PAIR_NS = 150_000_000
# Verdicts rest on the mean over these pairs, and not before there are enough.
_PAIRS = 16
_FEWEST_PAIRS = 8
# Pixels that changed, at least, for a pair to say anything.
_FEWEST_PIXELS = 100
# Standard deviation of the change of log intensity below which a pair says nothing: where the
# camera stands still, frames differ by their noise, and events are noise as well.
_SMALLEST_CHANGE = 0.02
# Both are averaged over this many pixels a side: noise of pixels hides what they have in common.
_SMOOTHED_PX = 3
# Below this no offset fits: other pixels, or another camera.
_SMALLEST_CORRELATION = 0.1
# An offset must fit so much better than those that are tolerated.
_MARGIN = 1.05


class FrameAgreement:
    """Compares each pair of frames with the events between them.

    Args:
        parameters: validated.

    Attributes:
        offset_ns: by how much events lie later than frames, judging by what both show; NaN until
            enough pairs have been seen.
        correlation: at that offset.
    """

    def __init__(self, parameters: OnlineParameters) -> None:
        earliest_ns = -round(parameters.sync_tolerance_s * 1e9)
        latest_ns = round(parameters.largest_event_lag_s * 1e9)
        self._tolerated = (earliest_ns <= OFFSETS_NS) & (latest_ns >= OFFSETS_NS)
        self._frames: deque[tuple[int, NDArray[np.uint8], NDArray[np.bool_]]] = deque()
        self._curves: deque[NDArray[np.float64]] = deque(maxlen=_PAIRS)
        self.offset_ns = math.nan
        self.correlation = math.nan

    def reset(self) -> None:
        """Forget the frames, because event time does not continue; what was found out stays."""
        self._frames.clear()

    def add(
        self, ring: EventRing, middle_ns: int, image: NDArray[np.uint8], mask: NDArray[np.bool_]
    ) -> None:
        """Take in a frame and compare those before it, as far as events have come.

        Args:
            ring: holds the events up to `middle_ns` at least.
            middle_ns: middle of exposure, event time, later than that of the frame before.
            image: uint8[H, W].
            mask: bool[H, W], pixels that may be compared.
        """
        self._frames.append((middle_ns, image, mask))
        while len(self._frames) > 2 and self._frames[1][0] + FARTHEST_NS <= middle_ns:
            self._compare(ring)
            self._frames.popleft()
        while len(self._frames) > 32:  # a camera faster than the offsets that are tried
            self._frames.popleft()

    def refusal(self) -> Refusal | None:
        """Return `desynchronised`, `misaligned`, or None; None too while too little is known."""
        if len(self._curves) < _FEWEST_PAIRS:
            return None
        curve = np.mean(self._curves, axis=0)
        best = int(np.argmax(curve))
        self.offset_ns = float(OFFSETS_NS[best])
        self.correlation = float(curve[best])
        if self.correlation < _SMALLEST_CORRELATION:
            return Refusal(
                "misaligned",
                f"frames and events show different things: they correlate by "
                f"{self.correlation:.2f} at best; check that both come from the same pixels",
            )
        tolerated = float(curve[self._tolerated].max())
        if self.correlation > _MARGIN * tolerated:
            return Refusal(
                "desynchronised",
                f"events fit the frames best {self.offset_ns / 1e6:+.0f} ms later (correlation "
                f"{self.correlation:.2f}, {tolerated:.2f} within what is tolerated); check "
                "image_stamp and exposure_s",
            )
        return None

    def _compare(self, ring: EventRing) -> None:
        (first_ns, first, mask), (second_ns, second, also) = self._frames[0], self._frames[1]
        begin_ns, end_ns = first_ns - FARTHEST_NS, second_ns + FARTHEST_NS
        if second_ns - first_ns > _LONGEST_PAIR_NS or not ring.covers(begin_ns):
            return
        events = ring.window(begin_ns, end_ns)
        change = np.log(second.astype(np.float32) + 4.0) - np.log(first.astype(np.float32) + 4.0)
        sums = np.zeros((len(OFFSETS_NS), *first.shape), np.float32)
        _accumulate(events.t, events.x, events.y, events.p, first_ns, second_ns, OFFSETS_NS, sums)
        # Where nothing changed at any offset there is nothing to compare.
        comparable = mask & also
        usable = comparable & (np.abs(sums).max(axis=0) > 0)
        if int(usable.sum()) < _FEWEST_PIXELS:
            return
        smooth = _smoothed(change, comparable)[usable]
        if float(smooth.std()) < _SMALLEST_CHANGE:
            return
        rows = np.stack([_smoothed(one, comparable)[usable] for one in sums])
        self._curves.append(_correlations(rows, smooth))


def _smoothed(values: NDArray[np.float32], comparable: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return means over neighbours; what may not be compared counts as 0."""
    kept = np.where(comparable, values, np.float32(0.0))
    return np.asarray(cv2.blur(kept, (_SMOOTHED_PX, _SMOOTHED_PX)))


def _correlations(rows: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return Pearson's correlation of each row with the values; 0 where one is constant."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    values = values - values.mean()
    spread = np.sqrt((rows**2).sum(axis=1) * (values**2).sum())
    product = (rows * values).sum(axis=1)
    result = np.zeros(len(rows), np.float64)
    np.divide(product, spread, out=result, where=spread > 0)
    return result


@kernel
def _accumulate(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    first_ns: int,
    second_ns: int,
    offsets_ns: NDArray[np.int64],
    sums: NDArray[np.float32],
) -> None:
    """Add +1 or -1 per event to each sum in whose moved interval it lies."""
    for k in range(t.size):
        sign = np.float32(1.0) if p[k] != 0 else np.float32(-1.0)
        for index in range(offsets_ns.size):
            if first_ns + offsets_ns[index] <= t[k] < second_ns + offsets_ns[index]:
                sums[index, y[k], x[k]] += sign
