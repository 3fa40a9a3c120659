"""Pictures of the benchmark of faults: who was away when, and how long depth stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from benchmarks.live.online_stand import DEPTH, LEARNER
from dae_ros.evaluation.plots import Axes, line_plot
from dae_ros.representation.render import Picture

Line: TypeAlias = tuple[list[float], list[float]]
# Heights at which the absences of both stand.
_HEIGHTS = {DEPTH: 1.0, LEARNER: 2.0}
_BINS = 24


def kills_plot(kills: Sequence[Mapping[str, Any]]) -> Picture:
    """Draw the timeline of kills and restarts, the gaps in depth, and their histogram.

    Args:
        kills: `Kill.to_dict` of each; those of a process that was still starting belong to the
            kill after them.

    Returns:
        Three plots, one below the other.
    """
    away = {f"{name} is away": absences(kills, name) for name in _HEIGHTS}
    gaps = {f"{name} was killed": stems(kills, name) for name in _HEIGHTS}
    counts = {f"{name} was killed": histogram(kills, name) for name in _HEIGHTS}
    return np.concatenate(
        [
            line_plot(
                away,
                Axes(f"away, from a kill until it works again: 1 {DEPTH}, 2 {LEARNER}", "s", ""),
            ),
            line_plot(gaps, Axes("longest gap between depth images after a kill", "s", "gap, s")),
            line_plot(counts, Axes("the same gaps, counted", "gap, s", "kills")),
        ]
    )


def absences(kills: Sequence[Mapping[str, Any]], victim: str) -> Line:
    """Return a level line for each stretch without a process: from its first kill until it is back.

    A kill while it starts makes the stretch longer. NaN parts one line from the next.
    """
    x: list[float] = []
    begin_s: float | None = None
    for kill in kills:
        if kill["victim"] != victim:
            continue
        begin_s = kill["at_s"] if begin_s is None else begin_s
        if kill["back_s"] is not None:
            x += [begin_s, kill["at_s"] + kill["back_s"], math.nan]
            begin_s = None
    return x, [math.nan if math.isnan(second) else _HEIGHTS[victim] for second in x]


def stems(kills: Sequence[Mapping[str, Any]], victim: str) -> Line:
    """Return an upright line for each kill, as high as the gap in depth was long."""
    x: list[float] = []
    y: list[float] = []
    for kill in _come_back(kills, victim):
        x += [kill["at_s"], kill["at_s"], math.nan]
        y += [0.0, kill["stopped_s"], math.nan]
    return x, y


def histogram(kills: Sequence[Mapping[str, Any]], victim: str) -> Line:
    """Return the outline of how many gaps were how long; the bins are those of both victims."""
    found = [kill["stopped_s"] for kill in _come_back(kills, victim)]
    every = [kill["stopped_s"] for name in _HEIGHTS for kill in _come_back(kills, name)]
    if not found:
        return [], []
    counts, edges = np.histogram(found, _BINS, (0.0, max(*every, 1e-3)))
    x = np.repeat(edges, 2)
    y = np.concatenate([[0], np.repeat(counts, 2), [0]])
    return x.tolist(), y.astype(float).tolist()


def _come_back(kills: Sequence[Mapping[str, Any]], victim: str) -> list[Mapping[str, Any]]:
    return [kill for kill in kills if kill["victim"] == victim and kill["back_s"] is not None]
