"""Figures of `bench_latency`: stages of windows across three processes, and how steps slow down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.live.camera import CameraLog
from benchmarks.live.stand import Stages, Window
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.representation.render import Picture

HOP_NS = 50_000_000
# From the camera's process to the listener's, each from the end of the one before it.
STAGES = ("transport", "decode", "close", "encode", "infer", "deliver")
QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
RESAMPLES = 2000
# After a change of the rate the first windows still have events of before.
BLOCK_SETTLE_NS = 500_000_000
BINS = 60


def quantiles(durations_ns: NDArray[np.int64]) -> dict[str, float]:
    """Return p50, p95, p99 and maximum in ms of durations in ns."""
    values = np.quantile(durations_ns, list(QUANTILES.values())) / 1e6
    return {name: round(float(value), 3) for name, value in zip(QUANTILES, values, strict=True)}


def durations(
    windows: Sequence[Window], log: CameraLog, stages: Stages
) -> dict[str, NDArray[np.int64]]:
    """Join what camera, node and listener know of the same windows.

    Args:
        windows: received.
        log: of the camera.
        stages: of the node's trace; windows that are not in it are left out.

    Returns:
        int64[N] in ns by name: `STAGES`; `sensor_to_topic`, their sum; `all_but_model`, that
        without `infer`; `in_node`, from the packet's arrival until everything is published,
        without `infer`; `before_model`, from the packet's arrival until the network begins.
        `deliver` is from the network's result to the listener's callback.
    """
    known = [window for window in windows if window.end_ns in stages]
    times = {
        name: np.array([stages[window.end_ns][name] for window in known], np.int64)
        for name in ("arrival", "decode", "close", "encode", "infer", "publish")
    }
    sent_ns = log.sent_ns[log.closing(np.array([window.end_ns for window in known], np.int64))]
    received_ns = np.array([window.received_ns for window in known], np.int64)
    instants = [sent_ns, times["arrival"]]
    instants += [times[name] for name in ("decode", "close", "encode", "infer")]
    instants.append(received_ns)
    found = {
        name: after - before
        for name, before, after in zip(STAGES, instants, instants[1:], strict=False)
    }
    found["sensor_to_topic"] = received_ns - sent_ns
    found["all_but_model"] = found["sensor_to_topic"] - found["infer"]
    found["before_model"] = times["encode"] - times["arrival"]
    found["in_node"] = times["publish"] - times["arrival"] - found["infer"]
    return found


def missing_windows(windows: Sequence[Window]) -> int:
    """Return how many windows between the first and the last did not come."""
    ends = {window.end_ns for window in windows}
    return round((max(ends) - min(ends)) / HOP_NS) + 1 - len(ends) if ends else 0


def steps_by_block(log: CameraLog, stages: Stages) -> dict[int, NDArray[np.int64]]:
    """Return how long the steps of each block of the camera took, in ns, in order.

    The first half second of a block is left out.
    """
    ends = np.array(sorted(stages), np.int64)
    closing = log.closing(ends)
    begins_ns = {int(b): log.sent_ns[np.argmax(log.block == b)] for b in np.unique(log.block)}
    found: dict[int, list[int]] = {block: [] for block in begins_ns}
    for end, index in zip(ends.tolist(), closing.tolist(), strict=True):
        block = int(log.block[index])
        if log.sent_ns[index] - begins_ns[block] >= BLOCK_SETTLE_NS:
            found[block].append(stages[end]["infer"] - stages[end]["encode"])
    return {block: np.array(steps, np.int64) for block, steps in found.items()}


def inflation(pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> dict[str, Any]:
    """Compare steps without and with events, over pairs of neighbouring blocks.

    Args:
        pairs: durations of steps (without, with) of each pair, in any unit.

    Returns:
        The ratio of the medians, and the interval that holds it with 95 % (bootstrap over pairs:
        what else the machine does changes from pair to pair, not from step to step).

    Raises:
        ValueError: a block without steps.
    """
    if not pairs or any(not len(side) for pair in pairs for side in pair):
        raise ValueError("a block without steps cannot be compared; make the blocks longer")

    def ratio(chosen: Sequence[int]) -> float:
        without, with_events = (
            float(np.median(np.concatenate([pairs[i][side] for i in chosen]))) for side in (0, 1)
        )
        return with_events / without

    random = np.random.default_rng(0)
    drawn = random.integers(0, len(pairs), (RESAMPLES, len(pairs)))
    low, high = np.quantile([ratio(chosen) for chosen in drawn.tolist()], (0.025, 0.975))
    return {
        "pairs": len(pairs),
        "steps": sum(len(side) for pair in pairs for side in pair),
        "ratio": round(ratio(range(len(pairs))), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def histogram(found: Mapping[str, NDArray[np.int64]], title: str) -> Picture:
    """Draw how many windows took how long, a line for each name; the slowest 0.5 % are outside."""
    limit_ms = max(float(np.quantile(values, 0.995)) for values in found.values()) / 1e6
    edges = np.linspace(0.0, max(limit_ms, 1e-3), BINS + 1)
    series = {}
    for name, values in found.items():
        counts, _ = np.histogram(values / 1e6, edges)
        share = 100.0 * counts / len(values)
        # Every bin is level: two points.
        series[name] = (list(np.repeat(edges, 2)[1:-1]), list(np.repeat(share, 2)))
    return line_plot(series, Axes(title, "ms", "%"))
