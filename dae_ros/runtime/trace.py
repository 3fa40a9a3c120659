"""Stages of windows as a trace to look at: Chrome's trace event format, for ui.perfetto.dev.

Format: "Trace Event Format" (Google, 2016), complete events ("X") and thread names ("M"). Whoever
steps is one thread of the trace; windows that wait overlap, so they have as many threads of their
own as ever wait at once, and slices of one thread always nest.
"""

from __future__ import annotations

import heapq
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.paths import whole_file
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.stage_times import STAGES

# Arguments of a window's slices, in the order of a row, before its times.
FACTS = ("index", "window_end_ns", "stamp_ns", "event_count", "state_age", "weight_version")
WORKER, WAITING = "depth_worker", "waiting"
# So many windows are written in one go: some tenths of a millisecond with the interpreter's lock.
WINDOWS_AT_ONCE = 8


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What was recorded.

    Attributes:
        rows: int64[N, 12], oldest first: `FACTS`, the five times of `StageTimes`, and when the
            window was published.
        dropped: windows before these that did not fit.
        began: when recording began, UTC, ISO 8601.
        digest: sha256 of the weights of the newest window, empty without one.
    """

    rows: NDArray[np.int64]
    dropped: int
    began: str
    digest: str


class TraceRecorder:
    """Keeps the newest windows; one thread adds, another one may look.

    Args:
        capacity: how many windows are kept; 96 bytes each.

    Attributes:
        began: when it was made, UTC, ISO 8601.
    """

    def __init__(self, capacity: int) -> None:
        self._rows = np.zeros((capacity, len(FACTS) + len(STAGES) + 1), np.int64)
        self._count = 0
        self._digest = ""
        self._lock = threading.Lock()
        self.began = datetime.now(timezone.utc).isoformat(timespec="milliseconds")

    def add(self, frame: DepthFrame, published_ns: int) -> None:
        """Record a window that was published at `published_ns`."""
        times = frame.times
        with self._lock:
            self._rows[self._count % len(self._rows)] = (
                frame.index,
                frame.end_ns,
                frame.stamp_ns,
                frame.event_count,
                frame.state_age,
                frame.weight_version,
                times.arrival_ns,
                times.decoded_ns,
                times.closed_ns,
                times.begun_ns,
                times.done_ns,
                published_ns,
            )
            self._count += 1
            self._digest = frame.digest

    def trace(self) -> Trace:
        """Return a copy of what is recorded."""
        with self._lock:
            rows = self._rows[: self._count]
            dropped = self._count - len(rows)
            turns = -(self._count % len(rows)) if dropped else 0
            return Trace(np.roll(rows, turns, axis=0), dropped, self.began, self._digest)


def write_trace(trace: Trace, path: Path, *, rest: Callable[[], None]) -> None:
    """Write a trace as JSON, whole or not at all.

    Args:
        trace: what was recorded.
        path: of the file; its folder is made.
        rest: called now and then, so that another thread gets its turn.

    Raises:
        OSError: it cannot be written; nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    told: dict[str, object] = {
        "began": trace.began,
        "clock": "monotonic (CLOCK_MONOTONIC on Linux)",
        "sha256": trace.digest,
        "windows": len(trace.rows),
        "windows_dropped": trace.dropped,
    }
    if trace.dropped:
        told["note"] = f"{trace.dropped} earlier windows did not fit and are missing"
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(told)}, ')
        file.write('"traceEvents": [\n')
        separator = ""
        for number, events in enumerate(_windows(trace.rows)):
            file.write(separator + ",\n".join(map(json.dumps, events)))
            separator = ",\n"
            if number % WINDOWS_AT_ONCE == 0:
                rest()
        file.write("\n]}\n")


def _windows(rows: NDArray[np.int64]) -> Iterator[list[dict[str, Any]]]:
    """Yield the events of the worker's name, then those of each window."""
    yield [_name("process_name", 0, "depth_node"), _name("thread_name", 0, WORKER)]
    # When each thread of waiting windows is free again.
    free: list[tuple[int, int]] = []
    for row in rows.tolist():
        facts = dict(zip(FACTS, row, strict=False))
        # Whole microseconds, so that slices nest in whatever arithmetic reads them.
        times_us = [time_ns // 1000 for time_ns in row[len(FACTS) :]]
        arrival_us, _, closed_us = times_us[:3]
        events = []
        if free and free[0][0] <= arrival_us:
            _, lane = heapq.heappop(free)
        else:
            lane = len(free) + 1
            events.append(_name("thread_name", lane, f"{WAITING} {lane}"))
        heapq.heappush(free, (closed_us, lane))
        events.append(_slice(WAITING, lane, arrival_us, closed_us, facts))
        events.append(_slice("window", 0, closed_us, times_us[-1], facts))
        for number, stage in enumerate(STAGES):
            thread = lane if number < 2 else 0
            events.append(_slice(stage, thread, times_us[number], times_us[number + 1], facts))
        yield events


def _slice(
    name: str, thread: int, begin_us: int, end_us: int, facts: Mapping[str, int]
) -> dict[str, Any]:
    return {
        "name": name,
        "cat": "window",
        "ph": "X",
        "pid": os.getpid(),
        "tid": thread,
        "ts": begin_us,
        "dur": end_us - begin_us,
        "args": facts,
    }


def _name(kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": os.getpid(), "tid": thread, "args": {"name": name}}
