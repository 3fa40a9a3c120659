"""How much of the machine learning takes: a duty cycle, closed over what depth is like meanwhile.

After g seconds of work come g (1 - d) / d seconds of rest. d is halved where depth gets late, grows
where there is room, and is 0 where depth lost windows. Time comes in as an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from dae_ros.distillation.online.observation import Refusal
from dae_ros.parameters.distillation import OnlineParameters

# d is adjusted no oftener, from latencies since it was decided on last: so many, or fewer where
# depth is too slow to give them within this time. As long without any, and there is no depth.
PERIOD_NS = 1_000_000_000
FEWEST_LATENCIES = 10
PATIENCE_NS = 5_000_000_000
# Without a budget that is set, what depth takes while learning rests may grow by this part. Each
# second in which depth takes longer halves d, each other one adds so little that one in twenty-four
# may be late: then the 95 % quantile of all stays, however long the pieces of work are.
EXCESS, USUAL_GROWTH, SMALLEST = 0.2, 1.03, 1e-18
# Latencies while it rests that are remembered, and how many of them say what is usual. What is
# heard right after work is of windows that came during it.
RESTING, FEWEST_RESTING = 1000, 40
SETTLED_NS = 300_000_000
# Below this part of a budget that is set there is room. A tenth more of d adds less than a tenth to
# the latency, so that growing never leads straight above it.
ROOM = 0.7
GROWTH = 1.1
# Of the largest d: where it begins, also after it was 0, and below which it becomes 0.
BEGINNING, LEAST = 1 / 16, 1 / 64
# Memory must fall to this part of its limit before learning goes on.
RELIEF = 0.9


class DutyCycle:
    """Says when learning may work.

    Args:
        parameters: duty, latency_budget_ms, recovery_s, memory_mb.
        now_ns: any clock that only grows; the same for all calls.

    Attributes:
        parameters: may be replaced by others.
        duty: share of the time that learning may take at present, 0 to `parameters.duty`.
        hold: why it may not work at all: refusal `windows_dropped`, `late` or `memory`; else None.
    """

    def __init__(self, parameters: OnlineParameters, now_ns: int) -> None:
        self.parameters = parameters
        self.duty = BEGINNING * parameters.duty
        self._stopped: Refusal | None = None
        self._stopped_until_ns = now_ns
        self._full: Refusal | None = None
        self._latencies_ms: list[float] = []
        # Of those the ones while learning rested; whether it works, and when it did last.
        self._resting_ms: deque[float] = deque(maxlen=RESTING)
        self._working = False
        self._worked_ns: int | None = None
        self._updated_ns = now_ns
        # When the first and the last of depth's latencies were noticed; None: no depth.
        self._first_ns: int | None = None
        self._last_ns: int | None = None
        self._noticed = 0
        self._dropped = 0
        self._adjusted_ns = now_ns
        # Work that is not rested from yet, ns, as of a time.
        self._owed_ns = 0.0
        self._owed_at_ns = now_ns

    @property
    def hold(self) -> Refusal | None:
        """Why learning may not work at all."""
        return self._stopped or self._full

    @property
    def disturbed(self) -> bool:
        """Whether depth lost windows of which `update` has not heard yet."""
        return self._dropped > 0

    def depth(self, latency_ms: float) -> None:
        """Take the latency of one depth image."""
        self._latencies_ms.append(latency_ms)
        settled = self._worked_ns is None or self._updated_ns - self._worked_ns >= SETTLED_NS
        if settled and not self._working:
            self._resting_ms.append(latency_ms)

    def dropped(self, windows: int) -> None:
        """Take a number of windows that depth lost since the last call."""
        self._dropped += windows

    def memory(self, used_bytes: int) -> bool:
        """Take how much memory the process has, of the machine or of the GPU.

        Returns:
            Whether the hold begins now: what can be given back should be.
        """
        limit = self.parameters.memory_mb * 1_000_000
        begins = used_bytes > limit and self._full is None
        if used_bytes > limit:
            self._full = Refusal(
                "memory",
                f"{used_bytes / 1e6:.0f} MB are taken, and 'memory_mb' is "
                f"{self.parameters.memory_mb}",
            )
        elif used_bytes < RELIEF * limit:
            self._full = None
        return begins

    def works(self) -> None:
        """Take that a piece of work begins."""
        self._working = True

    def worked(self, duration_ns: int, now_ns: int, *, idle: bool = False) -> None:
        """Take a piece of work that ended now; `idle` where there was nothing to do."""
        self._working = False
        if not idle:
            self._worked_ns = now_ns
        self._rest(now_ns - duration_ns)
        self._owed_ns += duration_ns
        self._owed_at_ns = now_ns

    def update(self, now_ns: int) -> None:
        """Adjust d; to be called at least once a second."""
        self._updated_ns = now_ns
        self._rest(now_ns)
        self._notice(now_ns)
        self.duty = min(self.duty, self.parameters.duty)
        if self._dropped:
            self._stop(now_ns, Refusal("windows_dropped", f"depth lost {self._dropped} windows"))
            self._dropped = 0
        elif now_ns - self._adjusted_ns >= PERIOD_NS:
            self._adjust(now_ns)

    def rest_ns(self, now_ns: int) -> int | None:
        """Return after how long work may begin, 0 for now; None where nothing says when."""
        if self.hold is not None or self.duty == 0.0:
            return None
        self._rest(now_ns)
        return round(self._owed_ns * (1.0 - self.duty) / self.duty)

    def _notice(self, now_ns: int) -> None:
        """Note when latencies came, as nearly as the calls of `update` tell."""
        if len(self._latencies_ms) > self._noticed:
            self._noticed = len(self._latencies_ms)
            self._first_ns = now_ns if self._first_ns is None else self._first_ns
            self._last_ns = now_ns
        elif not self._latencies_ms and now_ns - (self._last_ns or now_ns) >= PATIENCE_NS:
            self._last_ns = None

    def _forget(self, now_ns: int) -> None:
        """Begin to gather anew: what is decided on once counts no more."""
        self._latencies_ms.clear()
        self._first_ns, self._noticed = None, 0
        self._adjusted_ns = now_ns

    def _adjust(self, now_ns: int) -> None:
        latencies_ms: list[float] = []
        if self._last_ns is not None:
            few = len(self._latencies_ms) < FEWEST_LATENCIES
            if few and (self._first_ns is None or now_ns - self._first_ns < PATIENCE_NS):
                return
            latencies_ms = list(self._latencies_ms)
        elapsed_s = (now_ns - self._adjusted_ns) / 1e9
        self._forget(now_ns)
        late = latencies_ms and 0 < self.parameters.latency_budget_ms < _p95(latencies_ms)
        if self._stopped is not None and not late:
            if now_ns >= self._stopped_until_ns:
                self._stopped = None
                self.duty = BEGINNING * self.parameters.duty
        elif not latencies_ms:
            self._grow(GROWTH)  # without depth there is nothing to disturb
        elif self.parameters.latency_budget_ms > 0:
            self._keep(self.parameters.latency_budget_ms, _p95(latencies_ms), now_ns)
        elif len(self._resting_ms) >= FEWEST_RESTING:
            limit_ms = (1.0 + EXCESS) * _p95(self._resting_ms)
            late_s = elapsed_s * float(np.mean(np.asarray(latencies_ms) > limit_ms))
            self._grow(0.5**late_s * USUAL_GROWTH ** (elapsed_s - late_s))

    def _keep(self, budget_ms: float, p95_ms: float, now_ns: int) -> None:
        """Keep depth within a budget."""
        if p95_ms < ROOM * budget_ms:
            self._grow(GROWTH)
        elif p95_ms > budget_ms:
            self.duty /= 2.0
            if self.duty < LEAST * self.parameters.duty:
                self._stop(
                    now_ns,
                    Refusal(
                        "late",
                        f"95 % of depth come within {p95_ms:.1f} ms, and {budget_ms:g} ms are "
                        "allowed, however little is learned",
                    ),
                )

    def _grow(self, factor: float) -> None:
        # Never 0, from which nothing grows.
        self.duty = min(max(factor * self.duty, SMALLEST), self.parameters.duty)

    def _stop(self, now_ns: int, refusal: Refusal) -> None:
        self.duty = 0.0
        self._stopped = refusal
        self._stopped_until_ns = now_ns + round(self.parameters.recovery_s * 1e9)
        self._forget(now_ns)

    def _rest(self, now_ns: int) -> None:
        """Count the time until now as rest, at the present d."""
        elapsed_ns = max(now_ns - self._owed_at_ns, 0)
        self._owed_at_ns = max(now_ns, self._owed_at_ns)
        if self.duty >= 1.0:
            self._owed_ns = 0.0
        else:
            earned_ns = elapsed_ns * self.duty / (1.0 - self.duty)
            self._owed_ns = max(self._owed_ns - earned_ns, 0.0)


class StepRate:
    """Steps at a fixed rate, for runs that must be the same every time.

    Args:
        steps_per_s: of the time of a recording.
    """

    def __init__(self, steps_per_s: float) -> None:
        self.period_ns = round(1e9 / steps_per_s)
        self._next_ns: int | None = None

    def due(self, now_ns: int) -> bool:
        """Say whether a step is due; what was not used within a period is gone."""
        if self._next_ns is None:
            self._next_ns = now_ns + self.period_ns
        return now_ns >= self._next_ns

    def used(self, now_ns: int) -> None:
        """Take a step, whether it was one of learning or not."""
        next_ns = now_ns if self._next_ns is None else self._next_ns
        self._next_ns = max(next_ns, now_ns - self.period_ns) + self.period_ns


def _p95(values_ms: Iterable[float]) -> float:
    return float(np.quantile(list(values_ms), 0.95))
