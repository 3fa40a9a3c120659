"""Compares what two sets of weights make of the same windows.

New weights are judged beside the old ones on the same windows, never against a memory of another
scene: a camera that turns a corner changes the median of any depth map.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import InferenceError, NonFiniteState
from dae_ros.runtime.estimator import FloatImage

# Every fourth row and column tell a map's median and spread well enough, in 0.1 ms.
_STRIDE = 4
# Fewer windows prove nothing.
LEAST_PAIRS = 8
LEAST_TIMED_PAIRS = 16
# Scale and spread are those of the latest windows: a drift must not hide behind its beginning.
RECENT_PAIRS = 16
# Jitter that counts as none.
_QUIET = 1e-3


@dataclass(frozen=True, slots=True)
class SwapRules:
    """How weights are changed, and when the change is taken back.

    Attributes:
        replay_windows: how many past windows rebuild the state.
        canary_windows: how long new weights are watched.
        scale_step: largest |log| of the new median depth over the old one.
        flicker: largest jitter, relative to the old weights'.
        spread: smallest standard deviation over the image, relative to the old weights'.
        latency: largest 95 % quantile of the step's duration, relative to the old weights'.
    """

    replay_windows: int = 48
    canary_windows: int = 40
    scale_step: float = 0.2
    flicker: float = 1.5
    spread: float = 0.3
    latency: float = 2.0

    def of_a_change(self, *, confirmed: bool) -> SwapRules:
        """Return the rules for weights that are announced; see `Announcement.confirmed`.

        Those that are confirmed must give numbers, and in time.
        """
        if not confirmed:
            return self
        return dataclasses.replace(self, scale_step=math.inf, flicker=math.inf, spread=0.0)


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What one output was like.

    Attributes:
        median, spread: over the image, the spread as standard deviation.
        jitter: mean |p[t] - 2 p[t-1] + p[t-2]| over the mean absolute deviation from the median,
            as online learning measures it; None for the first two. What
            moves evenly counts nothing, and neither scale nor contrast of depth counts: weights
            that see more of a scene that passes by change more from window to window, rightly.
        duration_ns: of the step.
    """

    median: float
    spread: float
    jitter: float | None
    duration_ns: int


class Observer:
    """Looks at the outputs of one set of weights, window by window."""

    def __init__(self) -> None:
        self._before: list[NDArray[np.float64]] = []

    def forget(self) -> None:
        """The next output follows none."""
        self._before = []

    def observe(self, prediction: FloatImage, duration_ns: int) -> StepFacts:
        """Return what an output float32[H, W] is like."""
        seen = prediction[::_STRIDE, ::_STRIDE].astype(np.float64)
        before = [last for last in self._before if last.shape == seen.shape]
        self._before = [*before[-1:], seen]
        median, jitter = float(np.median(seen)), None
        if len(before) == 2:
            trembling = float(np.abs(seen - 2.0 * before[1] + before[0]).mean())
            deviation = float(np.abs(seen - median).mean())
            jitter = trembling / deviation if deviation > 0.0 else 0.0
        return StepFacts(median, float(seen.std()), jitter, duration_ns)


@dataclass(frozen=True, slots=True)
class Breach:
    """Why new weights must not stay.

    Attributes:
        code: `scale_step`, `flicker`, `dead_output`, `slow`, `not_finite`, `failed`, `requested`.
        reason: a sentence with the numbers.
    """

    code: str
    reason: str


def failure(error: InferenceError) -> Breach:
    """Return what a failed step means."""
    code = "not_finite" if isinstance(error, NonFiniteState) else "failed"
    return Breach(code, f"a step failed: {error.message}")


@dataclass(slots=True)
class Comparison:
    """New weights beside old ones over a number of windows."""

    rules: SwapRules
    pairs: list[tuple[StepFacts, StepFacts]] = field(default_factory=list)

    def add(self, new: StepFacts, old: StepFacts) -> None:
        """Take what both made of one window."""
        self.pairs.append((new, old))

    def numbers(self) -> dict[str, float]:
        """Return what is compared: `pairs`, `log_scale`, `spread`, `flicker`, `latency`.

        Only what there are enough windows for.
        """
        found: dict[str, float] = {"pairs": len(self.pairs)}
        if len(self.pairs) >= LEAST_PAIRS:
            recent = self.pairs[-RECENT_PAIRS:]
            found["log_scale"] = float(np.median([_log_ratio(n, o) for n, o in recent]))
            found["spread"] = float(
                np.median([n.spread / o.spread if o.spread else math.inf for n, o in recent])
            )
            jitters = [
                (n.jitter, o.jitter)
                for n, o in self.pairs
                if n.jitter is not None and o.jitter is not None
            ]
            if len(jitters) >= LEAST_PAIRS - 2:
                new, old = (sum(column) for column in zip(*jitters, strict=True))
                found["flicker"] = new / (old + _QUIET * len(jitters))
        if len(self.pairs) >= LEAST_TIMED_PAIRS:
            durations = np.array([(n.duration_ns, o.duration_ns) for n, o in self.pairs])
            # Weights that are slow (denormal numbers) are slow at every step. A median that stays
            # says that a high quantile is the machine's.
            new_ns, old_ns = np.quantile(durations, (0.5, 0.95), axis=0).T
            found["latency"] = float((new_ns / np.maximum(old_ns, 1.0)).min())
        return found

    def breach(self) -> Breach | None:
        """Return the first limit that is broken, None where all hold so far."""
        numbers, rules = self.numbers(), self.rules
        over = f"over {len(self.pairs)} windows"
        if abs(numbers.get("log_scale", 0.0)) > rules.scale_step:
            return Breach(
                "scale_step",
                f"the median depth changes by {numbers['log_scale']:+.3f} in log {over}, and "
                f"{rules.scale_step:g} is allowed",
            )
        if numbers.get("spread", math.inf) < rules.spread:
            return Breach(
                "dead_output",
                f"the spread over the image is {numbers['spread']:.3f} of what it was {over}, and "
                f"{rules.spread:g} is the least",
            )
        if numbers.get("flicker", 0.0) > rules.flicker:
            return Breach(
                "flicker",
                f"depth trembles {numbers['flicker']:.2f} times as much from window to window "
                f"{over}, and {rules.flicker:g} times is allowed",
            )
        if numbers.get("latency", 0.0) > rules.latency:
            return Breach(
                "slow",
                f"a step takes {numbers['latency']:.2f} times as long {over}, and "
                f"{rules.latency:g} times is allowed",
            )
        return None


def _log_ratio(new: StepFacts, old: StepFacts) -> float:
    if new.median == old.median:
        return 0.0
    if new.median * old.median <= 0.0:
        return math.inf
    return math.log(new.median / old.median)
