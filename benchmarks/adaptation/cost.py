"""What learning costs: core seconds of every piece of work, as a run makes them.

From these follows when a learner on a core of its own would have been done with what a run did at
a simulated second (`on_own_core`), while depth has the other core.
"""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from dae_ros.distillation.online.loop import OnlineDistiller
from dae_ros.distillation.online.reports import LoopReport
from dae_ros.events.packet import EventPacket

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass
class Cost:
    """Core seconds of the process by what they went to.

    Attributes:
        seconds: `clips` (pairing and frame gate), `labelled`, `learned`, `judged`.
    """

    seconds: Counter[str] = field(default_factory=Counter)

    @property
    def learning_s(self) -> float:
        """Core seconds of everything that a learner does."""
        return float(sum(self.seconds.values()))

    def of(
        self, name: str, function: Callable[_Arguments, _Result],
        *arguments: _Arguments.args, **keywords: _Arguments.kwargs,
    ) -> _Result:  # fmt: skip
        """Call a function and add what it took."""
        begun = time.process_time()
        result = function(*arguments, **keywords)
        self.seconds[name] += time.process_time() - begun
        return result

    def to_json(self) -> dict[str, float]:
        """Return plain values."""
        return {name: round(value, 2) for name, value in sorted(self.seconds.items())}


def on_own_core(work: Sequence[tuple[float, float]], duty: float = 1.0) -> Callable[[float], float]:
    """Return when a learner with a core of its own is done, for every second of a drive.

    It cannot work on what it has not seen, and works on it in order: a second's work begins when
    that second is over and the work before it is done.

    Args:
        work: second of the drive and core seconds of learning until then, both ascending.
        duty: share of its core that the learner may take.

    Returns:
        Function from a second of the drive to the wall-clock second at which what the run did then
        is done; as late as the last of `work` beyond it.
    """
    seconds, ends = [], []
    end_s = before_s = 0.0
    for second, cost_s in work:
        end_s = max(end_s, second) + (cost_s - before_s) / duty
        before_s = cost_s
        seconds.append(second)
        ends.append(end_s)

    def end_of(second: float) -> float:
        return ends[min(bisect.bisect_left(seconds, second), len(ends) - 1)]

    return end_of


class TimedDistiller(OnlineDistiller):
    """The loop, and what its pieces of work cost.

    Attributes:
        cost: so far, of this object. Other threads of the process count as well: there are none.
    """

    @property
    def cost(self) -> Cost:
        """See the class."""
        # Made when first asked for: the arguments of the loop are its own business.
        found: Cost = self.__dict__.setdefault("_cost", Cost())
        return found

    def feed(self, packet: EventPacket) -> None:
        """See `OnlineDistiller.feed`."""
        self.cost.of("clips", super().feed, packet)

    def take_in(self, now_ns: int) -> bool:
        """See `OnlineDistiller.take_in`."""
        return self.cost.of("clips", super().take_in, now_ns)

    def work(
        self, now_ns: int, *, ros_ns: int | None = None, learn: bool = True
    ) -> LoopReport | None:
        """See `OnlineDistiller.work`."""
        begun = time.process_time()
        report = super().work(now_ns, ros_ns=ros_ns, learn=learn)
        name = "clips" if report is None else report.action
        self.cost.seconds[name] += time.process_time() - begun
        return report
