"""Attention in moved windows, cell by cell: who sees whom, written from the definition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())


def windows(side: int, window: int, shift: int) -> list[list[int]]:
    """Return the cells along one axis of each window, in order, the padded ones included.

    The axis is filled up to a multiple of the window; windows begin at `shift`, and the last
    one goes on from the beginning.
    """
    full = -(-side // window) * window
    return [[(shift + start + k) % full for k in range(window)] for start in range(0, full, window)]


def attend(query: Array, key: Array, value: Array, bias: Array, window: int, shift: int) -> Array:
    """Return what each cell gathers, (rows, columns, C), one head.

    Args:
        query, key, value: (rows, columns, C); cells that were filled in are the `key` and
            `value` of zeros, given as (full rows, full columns, C).
        bias: (2 window - 1, 2 window - 1), by row and column offset from key to query.
    """
    rows, columns, channels = query.shape
    out = np.zeros_like(query)
    for down in windows(rows, window, shift):
        for right in windows(columns, window, shift):
            for i, row in enumerate(down):
                for j, column in enumerate(right):
                    if row >= rows or column >= columns:
                        continue
                    logits, values = [], []
                    for k, other_row in enumerate(down):
                        for m, other_column in enumerate(right):
                            # Cells that came around the border are apart from the others.
                            wrapped = (other_row < down[0], other_column < right[0])
                            here = (row < down[0], column < right[0])
                            logit = query[row, column] @ key[other_row, other_column]
                            logit = logit / np.sqrt(channels)
                            logit += bias[i - k + window - 1, j - m + window - 1]
                            logits.append(logit - (100.0 if wrapped != here else 0.0))
                            values.append(value[other_row, other_column])
                    out[row, column] = softmax(np.array(logits)) @ np.array(values)
    return out
