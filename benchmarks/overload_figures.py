"""Figures of `bench_overload`: a run of calm, flood and calm again, and what was promised of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.latency_figures import HOP_NS, missing_windows, quantiles
from benchmarks.live.camera import CameraLog
from benchmarks.live.stand import Window, counts_of, sensor_to_topic_ns

# Blocks of the camera's plan.
CALM, FLOOD, AFTER = 0, 1, 2
# After the flood latency is as before where it is at most so many times that.
AS_BEFORE = 2.0
# A merged window reaches as far back as the ring does (`ring_s`, 3 s), in whole hops.
AS_LONG_AS_THE_RING_NS = 3_000_000_000 - 2 * HOP_NS


@dataclass(frozen=True)
class Promise:
    """What docs/nodes.md says of a policy, and whether it held.

    Attributes:
        line: the sentence there.
        value: a number that is 0, or at most `bound`, where it holds; None where it was not seen.
        bound: of it.
    """

    line: str
    value: float | None
    bound: float = 0.0

    @property
    def held(self) -> bool:
        """Whether it held; what was not seen did not."""
        return self.value is not None and self.value <= self.bound

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "held": self.held}


def figures(
    policy: str,
    windows: Sequence[Window],
    log: CameraLog,
    events: Mapping[str, str],
    counted: Mapping[str, str],
) -> dict[str, Any]:
    """Return what one run shows.

    Args:
        policy: `overload` of the node.
        windows: received, those of the opening too.
        log: of the camera.
        events, counted: the statuses `events` and `windows` of `/diagnostics` after the end.
    """
    ends = np.array([window.end_ns for window in windows], np.int64)
    blocks = log.block[log.closing(ends)]
    late_ns = sensor_to_topic_ns(list(windows), log)
    flood = log.block == FLOOD
    reached_ns = log.newest_ns[flood]
    due = int(reached_ns[-1] // HOP_NS - (reached_ns[0] - 1) // HOP_NS) if flood.any() else 0
    published = int((blocks == FLOOD).sum())
    drops = counts_of(events, "drop.")
    resets = counts_of(counted, "reset.")
    found: dict[str, Any] = {
        "achieved_mevs": round(_rate_mevs(log, flood), 3),
        "windows_due": due,
        "windows_published": published,
        "windows_dropped": due - published,
        "calm": _quantiles(late_ns[blocks == CALM]),
        "flood": _quantiles(late_ns[blocks == FLOOD]),
        "after": _quantiles(late_ns[blocks == AFTER]),
        "recovery_s": recovery_s(late_ns, blocks, windows, log),
        "packets_sent": len(log.sent_ns),
        "packets_received": int(events["messages"]),
        "inbox_dropped": int(events["inbox_dropped"]),
        "camera_held_back_s": round(log.waited_s, 3),
        "skipped": int(counted["skipped"]),
        "drops": drops,
        "gaps": counts_of(events, "gap."),
        "resets": resets,
    }
    found["promises"] = [
        promise.to_dict() for promise in promises(policy, windows, late_ns[blocks == FLOOD], found)
    ]
    return found


def recovery_s(
    late_ns: NDArray[np.int64],
    blocks: NDArray[np.int64],
    windows: Sequence[Window],
    log: CameraLog,
) -> float | None:
    """Return how long after the flood latency is as before, and stays so; None where it never is.

    As before is `AS_BEFORE` times the 99 % quantile of the calm, or a hop where that is more.
    """
    calm, after = late_ns[blocks == CALM], np.flatnonzero(blocks == AFTER)
    if not len(calm) or not len(after):
        return None
    limit_ns = max(AS_BEFORE * float(np.quantile(calm, 0.99)), float(HOP_NS))
    slow = np.flatnonzero(late_ns[after] > limit_ns)
    first = 0 if not len(slow) else int(slow[-1]) + 1
    if first == len(after):
        return None
    begin_ns = int(log.sent_ns[int(np.argmax(log.block == AFTER))])
    return round(max(0, windows[after[first]].received_ns - begin_ns) / 1e9, 3)


def promises(
    policy: str, windows: Sequence[Window], flood_ns: NDArray[np.int64], found: Mapping[str, Any]
) -> list[Promise]:
    """Return what docs/nodes.md promises of a policy, with what was seen.

    Args:
        policy: `latest`, `merge` or `queue`.
        windows: received.
        flood_ns: latencies in the flood, in order.
        found: the other figures of the run.
    """
    missing, recovered = missing_windows(windows), found["recovery_s"]
    result = [
        Promise("latency is as before when the flood is over", 0 if recovered is not None else None)
    ]
    if policy == "queue":
        lost = found["packets_sent"] - found["packets_received"]
        return [
            *result,
            Promise("queue steps every one", missing),
            Promise("a reliable publisher is held back instead of messages being lost",
                    lost + found["inbox_dropped"]),
        ]  # fmt: skip
    half = len(flood_ns) // 2
    growth_ms = (
        float(np.median(flood_ns[half:]) - np.median(flood_ns[:half])) / 1e6 if half else None
    )
    result.append(
        Promise("latency does not grow while the flood lasts, ms", growth_ms, HOP_NS / 1e6)
    )
    # What never reached the node, or what a reset threw away, cannot be in its windows.
    if found["resets"].get("gap"):
        return result
    if policy == "merge":
        uncovered_ns = sum(
            max(0, after.start_ns - before.end_ns)
            for before, after in pairwise(windows)
            if after.end_ns - after.start_ns < AS_LONG_AS_THE_RING_NS
        )
        return [
            *result,
            Promise(
                "merge steps one longer window over all of them, ms left out", uncovered_ns / 1e6
            ),
        ]
    # Windows that closed before the first image were left out as well.
    left_out = missing + windows[0].index
    counted = found["skipped"] + found["drops"].get("window_evicted", 0)
    longer = sum(window.end_ns - window.start_ns != HOP_NS for window in windows)
    return [
        *result,
        Promise("windows: skipped counts what was left out", abs(left_out - counted)),
        Promise("latest steps the newest closed window alone, windows of another length", longer),
    ]


def _rate_mevs(log: CameraLog, chosen: NDArray[np.bool_]) -> float:
    sent_ns = log.sent_ns[chosen]
    if len(sent_ns) < 2:
        return 0.0
    return float(log.events[chosen][1:].sum()) / float(sent_ns[-1] - sent_ns[0]) * 1e3


def _quantiles(durations_ns: NDArray[np.int64]) -> dict[str, float] | None:
    return quantiles(durations_ns) if len(durations_ns) else None
