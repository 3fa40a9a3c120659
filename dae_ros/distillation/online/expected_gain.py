"""Whether learning on is worth the work, from what the last verdicts measured.

After Ekya (arXiv 2012.10557): work goes where it gains most per second, and here only where it
gains anything. Adapting or holding (Adapt-or-Hold, ACCV 2020) needs both signs: that no label
surprises does not mean that nothing can be gained, since in a new place every label is equally bad.
"""

from __future__ import annotations

import math

from dae_ros.distillation.online.observation import Refusal
from dae_ros.distillation.online.verdict import Verdict
from dae_ros.parameters.distillation import OnlineParameters

# Verdicts since the last publication that a judgement needs.
FEWEST_VERDICTS = 3


class ExpectedGain:
    """Relates gains to work since the last publication.

    Args:
        parameters: smallest_gain_rate, retry_s.

    Attributes:
        rate_per_s: gain of the last verdict per second of work; NaN before there is one.
    """

    def __init__(self, parameters: OnlineParameters) -> None:
        self._parameters = parameters
        self._held_since_ns: int | None = None
        self._forget()

    def worked(self, duration_ns: int) -> None:
        """Add time spent on learning and judging."""
        self._work_s += duration_ns * 1e-9

    def judged(self, verdict: Verdict) -> None:
        """Take a verdict; a publication begins a new account."""
        if verdict.accepted:
            self._forget()
        elif "gain" in verdict.numbers and self._work_s > 0:
            self._verdicts += 1
            self.rate_per_s = verdict.numbers["gain"] / self._work_s

    def update(self, now_ns: int, *, surprised: bool) -> Refusal | None:
        """Return the refusal `small_gain` while learning should hold.

        Args:
            now_ns: any clock that only grows.
            surprised: of `LabelStride`; a surprise ends the hold, as `retry_s` does.
        """
        if self._held_since_ns is not None:
            held_s = (now_ns - self._held_since_ns) * 1e-9
            if not surprised and held_s < self._parameters.retry_s:
                return self._refusal()
            self._held_since_ns = None
            self._forget()
            return None
        small = (
            self._verdicts >= FEWEST_VERDICTS
            and not self.rate_per_s >= self._parameters.smallest_gain_rate
        )
        if surprised or not small:
            return None
        self._held_since_ns = now_ns
        return self._refusal()

    def _refusal(self) -> Refusal:
        return Refusal(
            "small_gain",
            f"the error falls by {self.rate_per_s:.2e} of itself per second of work, and "
            f"{self._parameters.smallest_gain_rate:g} is the least; no label surprises",
        )

    def _forget(self) -> None:
        self._verdicts = 0
        self._work_s = 0.0
        self.rate_per_s = math.nan
