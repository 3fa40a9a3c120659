"""How fast edges move over the sensor, from the events alone: what blurs a frame.

Where an edge has just passed, the times of the first events of neighbouring pixels lie on a plane,
t = a x + b y + c, whose slope is one over the edge's speed along its normal (Benosman et al.,
"Event-Based Visual Flow", 2014). One plane says little; the quantile of a few hundred is steady.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.compilation import kernel
from dae_ros.events.packet import Events

# Planes per estimate: the cost is bounded, whatever the event rate.
MOST_PLANES = 2000
FEWEST_PLANES = 30
# Events of a pixel and polarity that follow sooner belong to the passage of the same edge.
SAME_EDGE_NS = 10_000_000
# A frame is as blurred as its faster edges.
QUANTILE = 0.75
_RADIUS = 2
_FEWEST_POINTS = 8


def image_speed_px_s(events: Events, height: int, width: int) -> float:
    """Return the speed that a quarter of the edges exceeds, along their normals, in px/s.

    Args:
        events: of a few tens of milliseconds.
        height, width: of the sensor in px.

    Returns:
        NaN where fewer than `FEWEST_PLANES` places say anything, as with a camera at rest.
    """
    if len(events) == 0:
        return math.nan
    speeds = np.empty(MOST_PLANES, np.float64)
    stride = max(1, len(events) // MOST_PLANES)
    count = _fit_planes(events.t, events.x, events.y, events.p, height, width, stride, speeds)
    if count < FEWEST_PLANES:
        return math.nan
    return float(np.quantile(speeds[:count], QUANTILE))


@kernel
def _fit_planes(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    height: int,
    width: int,
    stride: int,
    speeds: NDArray[np.float64],
) -> int:
    """Fit a plane behind every `stride`-th event; return how many speeds were written."""
    first = np.full((2, height, width), -1, np.int64)  # first event of the last edge, since t[0]
    last = np.full((2, height, width), -1, np.int64)
    count = 0
    since = 0
    for k in range(t.size):
        row, column, polarity = np.int64(y[k]), np.int64(x[k]), np.int64(p[k] != 0)
        now = t[k] - t[0]
        before = last[polarity, row, column]
        last[polarity, row, column] = now
        since += 1
        if before >= 0 and now - before < SAME_EDGE_NS:
            continue
        first[polarity, row, column] = now
        if since < stride or count == speeds.size:
            continue
        inside = _RADIUS <= row < height - _RADIUS and _RADIUS <= column < width - _RADIUS
        if not inside:
            continue
        # Least squares around this event, in ms and px.
        n = 0
        sx = sy = st = sxx = sxy = syy = sxt = syt = stt = 0.0
        for dy in range(-_RADIUS, _RADIUS + 1):
            for dx in range(-_RADIUS, _RADIUS + 1):
                time = first[polarity, row + dy, column + dx]
                if time >= 0:
                    age = (time - now) * 1e-6
                    n += 1
                    sx += dx
                    sy += dy
                    st += age
                    sxx += dx * dx
                    sxy += dx * dy
                    syy += dy * dy
                    sxt += dx * age
                    syt += dy * age
                    stt += age * age
        if n < _FEWEST_POINTS:
            continue
        cxx, cxy, cyy = sxx - sx * sx / n, sxy - sx * sy / n, syy - sy * sy / n
        cxt, cyt, ctt = sxt - sx * st / n, syt - sy * st / n, stt - st * st / n
        determinant = cxx * cyy - cxy * cxy
        if determinant < 1.0 or ctt <= 0.0:
            continue
        a = (cyy * cxt - cxy * cyt) / determinant
        b = (cxx * cyt - cxy * cxt) / determinant
        explained = (a * cxt + b * cyt) / ctt
        slope = math.sqrt(a * a + b * b)
        # What no plane explains is several edges, or noise.
        if explained > 0.8 and slope > 0.0:
            speeds[count] = 1000.0 / slope
            count += 1
            since = 0
    return count
