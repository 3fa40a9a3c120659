"""Whether a gradient may move the weights, and whether the raw copy has gone astray."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

# Norms that the running median looks back on, and how many it needs to mean something.
NORMS, JUDGED_NORMS = 101, 10
# Accepted losses looked back on; the last of them against those before.
LOSSES, RECENT_LOSSES = 200, 20
DIVERGED = 3.0
# So many steps in a row that were refused for what the raw copy gave are no accident.
REFUSED_IN_A_ROW = 20


class StepJudge:
    """Compares gradients and losses with what was usual.

    Args:
        largest_norm_ratio: of a gradient's norm to the running median.
    """

    def __init__(self, largest_norm_ratio: float) -> None:
        self._ratio = largest_norm_ratio
        self._norms: deque[float] = deque(maxlen=NORMS)
        self._losses: deque[float] = deque(maxlen=LOSSES)
        self._refused_in_a_row = 0

    def gradient(self, norm: float) -> str:
        """Return `accepted`, `not_finite` or `gradient_jump` for a gradient's norm."""
        if not math.isfinite(norm):
            return "not_finite"
        usual = statistics.median(self._norms) if len(self._norms) >= JUDGED_NORMS else math.inf
        # Refused ones count as well: after a change of scene larger norms become usual.
        self._norms.append(norm)
        return "gradient_jump" if norm > self._ratio * usual else "accepted"

    def diverges(self, reason: str, loss: float) -> bool:
        """Take note of a step; return whether the raw copy should be given up.

        Args:
            reason: of the step. One without a label says nothing about the weights; one whose every
                label contradicts them does.
            loss: of an accepted step.
        """
        if reason == "accepted":
            self._refused_in_a_row = 0
            self._losses.append(loss)
        elif reason != "no_label":
            self._refused_in_a_row += 1
        if self._refused_in_a_row >= REFUSED_IN_A_ROW:
            return True
        losses = list(self._losses)
        before, recent = losses[:-RECENT_LOSSES], losses[-RECENT_LOSSES:]
        if len(before) < RECENT_LOSSES:
            return False
        return statistics.fmean(recent) > DIVERGED * statistics.median(before)

    def forget_losses(self) -> None:
        """Begin anew with other weights; what norms are usual stays."""
        self._losses.clear()
        self._refused_in_a_row = 0

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {
            "norms": list(self._norms),
            "losses": list(self._losses),
            "refused_in_a_row": self._refused_in_a_row,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._norms = deque(state["norms"], maxlen=NORMS)
        self._losses = deque(state["losses"], maxlen=LOSSES)
        self._refused_in_a_row = state["refused_in_a_row"]
