"""The event pixel without noise, one pixel and one step at a time, in plain Python."""

from __future__ import annotations

import numpy as np


def step(before, after, memory, on, off, last_us, refractory_us, start_us, end_us):
    """Return (time_us, row, column, polarity) sorted so; moves `memory` and `last_us` in place.

    All arrays are [H, W]; log intensities and thresholds in float32, as the sensor keeps them.
    """
    found = []
    for row in range(before.shape[0]):
        for column in range(before.shape[1]):
            l0, l1 = before[row, column], after[row, column]
            while True:
                if l1 >= memory[row, column] + on[row, column]:
                    polarity, level = 1, memory[row, column] + on[row, column]
                elif l1 <= memory[row, column] - off[row, column]:
                    polarity, level = 0, memory[row, column] - off[row, column]
                else:
                    break
                memory[row, column] = level
                fraction = float((level - l0) / (l1 - l0))
                time = start_us + int((end_us - start_us) * min(max(fraction, 0.0), 1.0))
                time = min(time, end_us - 1)
                if time - last_us[row, column] >= refractory_us:
                    last_us[row, column] = time
                    found.append((time, row, column, polarity))
    return sorted(found, key=lambda event: event[:3])


def test_vector():
    """One pixel that climbs from 0 to 0.5 in 100 us with a step of 0.2: events at 40 and 80 us."""
    shape = np.zeros((1, 1), np.float32)
    memory = shape.copy()
    last = np.full((1, 1), -1000)
    found = step(
        shape,
        shape + np.float32(0.5),
        memory,
        shape + np.float32(0.2),
        shape + np.float32(0.2),
        last,
        1,
        0,
        100,
    )
    return found, float(memory[0, 0])
