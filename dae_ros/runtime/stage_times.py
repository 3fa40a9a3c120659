"""When each stage of a window was done, and quantiles over the latest windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

# What passes between two times of `StageTimes`, in order, up to the delivery of the result.
STAGES = ("decode", "close", "encode", "infer", "publish")
TOTAL = "total"
# Quantiles are over this many latest windows: nearly two minutes at 20 Hz.
LATENCY_WINDOWS = 2048
# Packets of one hop and of a step that is late: four seconds of packets of 1 ms.
PACKETS = 4096


@dataclass(frozen=True, slots=True)
class StageTimes:
    """When what became of one window was done; monotonic time in ns (`time.perf_counter_ns`).

    Attributes:
        arrival_ns: the packet, or the camera frame, that closed the window came.
        decoded_ns: it was decoded; between the two it waited for the worker as well.
        closed_ns: the worker took the window up; until then it had steps or packets in hand.
        begun_ns: the window was encoded and the network began.
        done_ns: the network's result was there.
    """

    arrival_ns: int
    decoded_ns: int
    closed_ns: int
    begun_ns: int
    done_ns: int


class Arrivals:
    """Which packet closed a window: what the latest packets reached, and when they came.

    Of fixed size: where more packets come between two windows, the oldest are forgotten, and a
    window that one of them closed counts from the oldest that is left.
    """

    def __init__(self) -> None:
        self._entries = [(0, 0, 0)] * PACKETS
        self._begin = self._end = 0

    def add(self, reached_ns: int, arrival_ns: int, decoded_ns: int) -> None:
        """Note that windows which end up to `reached_ns` may close; it never falls.

        Args:
            reached_ns: in event time.
            arrival_ns, decoded_ns: of what reached it, in monotonic time.
        """
        self._entries[self._end % PACKETS] = (reached_ns, arrival_ns, decoded_ns)
        self._end += 1
        self._begin = max(self._begin, self._end - PACKETS)

    def closed(self, end_ns: int) -> tuple[int, int]:
        """Return (arrival_ns, decoded_ns) of what closed the window that ends at `end_ns`.

        What did not reach it is forgotten: windows close in order. Without anything that reached
        it (the end of a recording closes windows, too) it is the newest; at least one was added.
        """
        while self._begin < self._end - 1 and self._entries[self._begin % PACKETS][0] < end_ns:
            self._begin += 1
        _, arrival_ns, decoded_ns = self._entries[self._begin % PACKETS]
        return arrival_ns, decoded_ns

    def clear(self) -> None:
        """Forget everything: event time begins anew."""
        self._begin = self._end


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median, 95 % and 99 % quantile and maximum of a duration, in ms."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class StageLatencies:
    """Times of the latest windows, in one array of fixed size; of the thread that steps."""

    def __init__(self) -> None:
        self._times_ns = np.zeros((LATENCY_WINDOWS, len(STAGES) + 1), np.int64)
        self._count = 0

    def add(self, times: StageTimes, delivered_ns: int) -> None:
        """Take the times of a window, whose result was delivered at `delivered_ns`."""
        self._times_ns[self._count % LATENCY_WINDOWS] = (
            times.arrival_ns,
            times.decoded_ns,
            times.closed_ns,
            times.begun_ns,
            times.done_ns,
            delivered_ns,
        )
        self._count += 1

    def quantiles(self) -> Mapping[str, Quantiles]:
        """Return those of every stage, and of `total`; empty before the first window."""
        times_ns = self._times_ns[: self._count]
        if not len(times_ns):
            return {}
        durations_ns = np.column_stack(
            [np.diff(times_ns, axis=1), times_ns[:, -1] - times_ns[:, 0]]
        )
        found = np.quantile(durations_ns, (0.5, 0.95, 0.99, 1.0), axis=0) / 1e6
        return {
            name: Quantiles(*(float(value) for value in column))
            for name, column in zip((*STAGES, TOTAL), found.T, strict=True)
        }

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return `quantiles` as what JSON holds: stage -> `p50_ms` ... `max_ms`."""
        return {name: asdict(value) for name, value in self.quantiles().items()}
