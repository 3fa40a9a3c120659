"""What the depth node says of its own accord: that depth has begun, and how fast it comes."""

from __future__ import annotations

from dae_ros.nodes.depth_outputs import TOPICS
from dae_ros.runtime.depth_frame import DepthFrame

PERIOD_S = 30.0


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
