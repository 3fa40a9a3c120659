"""What a node says of its own accord: that depth has begun or why not, and its pace."""

from __future__ import annotations

import math

from dae_ros.nodes.depth_outputs import TOPICS
from dae_ros.runtime.depth_frame import DepthFrame

PERIOD_S = 30.0
# What is missing may come a little later than the rest.
PATIENCE_S = 5.0


class Patience:
    """Says what stands in the way once, when it has lasted for `PATIENCE_S`."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def wait(self, reason: str | None, now_s: float) -> str | None:
        """Take note of what the user has to know while it lasts; return what is to be said.

        Args:
            reason: what stands in the way now, None where nothing does.
            now_s: wall time, monotonic.
        """
        if reason is None:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s >= PATIENCE_S:
            self._since_s = math.inf  # said once
            return reason
        return None


class RateReport:
    """A sentence for the first result, and one for those of every period after it.

    Args:
        period_s: at least this much wall time lies between two sentences.
    """

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self._period_s = period_s
        self._begin_s: float | None = None
        self._count = self._latency_ns = 0

    def add(self, frame: DepthFrame, now_s: float) -> str | None:
        """Count a published result; return what is to be said now, if anything.

        Args:
            frame: the result.
            now_s: wall time, monotonic.
        """
        topic = TOPICS[frame.kind]
        if self._begin_s is None:
            self._begin_s = now_s
            height, width = frame.depth.shape
            meaning = "metres" if frame.kind == "metric" else "relative depth, not metres"
            return (
                f"first depth image on '{topic}': {meaning}, {width}x{height} px, "
                f"{frame.latency_ns / 1e6:.0f} ms after the packet that closed its window"
            )
        self._count += 1
        self._latency_ns += frame.latency_ns
        elapsed_s = now_s - self._begin_s
        if elapsed_s < self._period_s:
            return None
        sentence = (
            f"'{topic}': {self._count / elapsed_s:.1f} images/s over the last {elapsed_s:.0f} s, "
            f"{self._latency_ns / self._count / 1e6:.0f} ms after the packet on average"
        )
        self._begin_s, self._count, self._latency_ns = now_s, 0, 0
        return sentence
