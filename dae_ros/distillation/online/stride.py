"""How often the teacher is asked: seldom where the student was already right.

After JITNet (arXiv 1812.02699): each new label first scores the published weights, before anything
is learned from it, which is an honest error for nothing. Where it is usual, the stride doubles,
where it surprises, it halves.
"""

from __future__ import annotations

import math
import statistics
from collections import deque

from dae_ros.parameters.distillation import OnlineParameters

# Held-out errors that the median looks back on, and how many it needs to mean something.
REMEMBERED, FEWEST_REMEMBERED = 25, 6


class LabelStride:
    """Chooses how many frames lie between two labels.

    Args:
        parameters: shortest_stride, longest_stride, surprise.

    Attributes:
        stride: frames from one label to the next.
        surprised: whether the published weights erred unusually on the last label; True as long
            as nobody knows what is usual.
    """

    def __init__(self, parameters: OnlineParameters) -> None:
        self._parameters = parameters
        self._usual: deque[float] = deque(maxlen=REMEMBERED)
        self.stride = parameters.shortest_stride
        self.surprised = True

    def scored(self, error: float, *, heldout: bool) -> None:
        """Take the error of the published weights on a label that nothing was learned from yet.

        Args:
            error: Abs Rel; what is not finite surprises.
            heldout: whether the clip is kept to judge by, so that nothing will be learned from
                it: such errors are what is usual.
        """
        known = len(self._usual) >= FEWEST_REMEMBERED
        usual = statistics.median(self._usual) if known else -math.inf
        self.surprised = not error < self._parameters.surprise * usual
        if self.surprised:
            self.stride = max(self.stride // 2, self._parameters.shortest_stride)
        else:
            self.stride = min(self.stride * 2, self._parameters.longest_stride)
        if heldout and math.isfinite(error):
            self._usual.append(error)

    def forget(self) -> None:
        """Begin anew: other weights are published, or the camera sees another world."""
        self._usual.clear()
        self.stride = self._parameters.shortest_stride
        self.surprised = True
