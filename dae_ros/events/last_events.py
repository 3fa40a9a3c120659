"""The last event of each pixel: where a decoder may put events at once, instead of making rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class LastEvents:
    """What one packet may be put on; events that are put there are made again if asked for.

    Attributes:
        height, width: of the sensor in px.
        entries: uint32[height * width] in row order, `(t - base) << 1 | p` in us; 0: no event.
        base_us: what times count from.
        before_us: a packet with an event at or after this is not put there.
        put: events that were put there; all of a packet's or none.
        spoiled: whether entries may be of a packet that was dropped.
    """

    height: int
    width: int
    entries: NDArray[np.uint32]
    base_us: int
    before_us: int
    put: int = 0
    spoiled: bool = False
