"""A change of weights on a one-line network, with a clock that only stands still or is set."""

from __future__ import annotations

from typing import Any

import numpy as np

from dae_ros.runtime.canary import SwapRules
from dae_ros.runtime.estimator import FloatImage
from dae_ros.runtime.weight_stages import Verdict
from dae_ros.runtime.weight_swap import WeightSwap
from test.reference.reloadable_estimator import ReloadableEstimator as Network

REPLAY, CANARY = 16, 40
MS = 1_000_000
# Gain and decay; all but the first must not come to stay.
NEAR = {"gain": 1.1, "decay": 0.45}


def images(count: int) -> list[FloatImage]:
    """Return event images that change slowly, as a scene does."""
    rng = np.random.default_rng(1)
    scene = rng.random((3, 24, 32), dtype=np.float32)
    return [
        (0.9 * scene + 0.1 * rng.random((3, 24, 32), dtype=np.float32)).astype(np.float32)
        for _ in range(count)
    ]


class Run:
    """A swap on the one-line network, with a clock that only stands still or is set."""

    def __init__(self, *, eager: bool = True, background: bool = False, **rules: Any) -> None:
        self.verdicts: list[Verdict] = []
        self.now_ns = 0
        self.first = Network()
        self.swap = WeightSwap(
            self.first,
            SwapRules(**{"replay_windows": REPLAY, "canary_windows": CANARY, **rules}),
            judged=self.verdicts.append,
            eager=eager,
            background=background,
            clock_ns=lambda: self.now_ns,
        )
        self.outputs: list[FloatImage] = []
        self.versions: list[int] = []

    def step(self, *windows: FloatImage) -> None:
        """Step windows and note what came out, and of which version."""
        for window in windows:
            self.outputs.append(self.swap.estimate(window))
            self.versions.append(self.swap.weight_version)

    @property
    def said(self) -> list[tuple[int, str, str]]:
        """Version, outcome and code of all verdicts."""
        return [(v.version, v.outcome, v.code) for v in self.verdicts]


def replayed(windows: list[FloatImage], **numbers: float) -> list[FloatImage]:
    """Return what a fresh network makes of windows."""
    network = Network(**numbers)
    return [network.estimate(window) for window in windows]


def live(**rules: float) -> Run:
    """Return a run in which only `work` steps anything but live windows."""
    return Run(eager=False, **rules)
