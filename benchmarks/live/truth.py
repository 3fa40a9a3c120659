"""Depth nodes against the simulator's true depth, window by window, while they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.evaluation.scoring import STANDARD, STANDARD_METRIC
from dae_ros.evaluation.sequence_scorer import TableChoice
from dae_ros.evaluation.truth_comparison import ComparedFrame, Prediction, TruthComparison

ERRORS = ("aligned", "metric")
# Neighbouring windows hang together, so that stretches of them are drawn.
STRETCH, RESAMPLES = 20, 2000


class Against:
    """One depth topic compared with true depth.

    Attributes:
        errors: stamp of the truth in ns -> Abs Rel `aligned` and `metric`.
        offsets: stamp of the truth -> by how much the depth image's stamp differs, ns.
    """

    def __init__(self, name: str) -> None:
        self._tables = {
            error: TruthComparison(name, [TableChoice("all", scoring)])
            for error, scoring in zip(ERRORS, (STANDARD, STANDARD_METRIC), strict=True)
        }
        self.errors: dict[int, dict[str, float]] = {}
        self.offsets: dict[int, int] = {}

    def add_truth(self, stamp_ns: int, depth: NDArray[np.float32]) -> None:
        """Take true depth, float32[H, W] in m."""
        for error, table in self._tables.items():
            self._note(error, table.add_truth(stamp_ns, depth))

    def add_depth(self, stamp_ns: int, depth: NDArray[np.float32]) -> None:
        """Take a depth image, float32[H, W] in m."""
        for error, table in self._tables.items():
            self._note(error, table.add_prediction(stamp_ns, Prediction(depth)))

    def end(self) -> None:
        """Compare what is left."""
        for error, table in self._tables.items():
            self._note(error, table.flush())

    def _note(self, error: str, frames: Sequence[ComparedFrame]) -> None:
        for frame in frames:
            self.errors.setdefault(frame.stamp_ns, {})[error] = frame.score.metrics["abs_rel"]
            self.offsets[frame.stamp_ns] = frame.offset_ns


@dataclass(frozen=True)
class Pair:
    """The same window of both depth nodes.

    Attributes:
        at_s: since the first.
        version: of the weights of the one that follows the learner.
        live, frozen: Abs Rel `aligned` and `metric` of it, and of the one that never changes.
    """

    at_s: float
    version: int
    live: Mapping[str, float]
    frozen: Mapping[str, float]


def pairs_of(live: Against, frozen: Against, versions: Mapping[int, int]) -> list[Pair]:
    """Return the windows that both have been compared on, in order.

    Args:
        live, frozen: of the two nodes, with the same truth.
        versions: stamp of a depth image of the first in ns -> version that made it.
    """
    stamps = np.array(sorted(versions), np.int64)
    found: list[Pair] = []
    first_ns: int | None = None
    for stamp_ns in sorted(live.errors.keys() & frozen.errors.keys()):
        if not stamps.size:
            break
        first_ns = stamp_ns if first_ns is None else first_ns
        nearest = int(stamps[np.abs(stamps - stamp_ns).argmin()])
        if abs(nearest - stamp_ns) != abs(live.offsets[stamp_ns]):
            continue  # its status was lost: nobody knows whose depth it is
        found.append(
            Pair(
                (stamp_ns - first_ns) / 1e9,
                versions[nearest],
                live.errors[stamp_ns],
                frozen.errors[stamp_ns],
            )
        )
    return found


def compare(pairs: Sequence[Pair], error: str) -> dict[str, Any]:
    """Return both means over the same windows, their ratio and the interval that holds it.

    Args:
        pairs: of some windows.
        error: one of `ERRORS`.

    Returns:
        `windows`, `live`, `frozen`, `ratio`, `low`, `high` (95 %, over stretches of `STRETCH`
        windows); None for what nothing can be said about.
    """
    values = np.array([(pair.live[error], pair.frozen[error]) for pair in pairs]).reshape(-1, 2)
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return {"windows": 0, **dict.fromkeys(("live", "frozen", "ratio", "low", "high"))}
    live, frozen = (float(mean) for mean in values.mean(axis=0))
    stretches = values[: len(values) // STRETCH * STRETCH].reshape(-1, STRETCH, 2).mean(axis=1)
    low = high = None
    if len(stretches) >= 2:
        random = np.random.default_rng(0)
        drawn = stretches[random.integers(0, len(stretches), (RESAMPLES, len(stretches)))]
        sums = drawn.sum(axis=1)
        ends = np.quantile(sums[:, 0] / sums[:, 1], (0.025, 0.975))
        low, high = (round(float(end), 4) for end in ends)
    return {
        "windows": len(values),
        "live": round(live, 4),
        "frozen": round(frozen, 4),
        "ratio": round(live / frozen, 4),
        "low": low,
        "high": high,
    }
