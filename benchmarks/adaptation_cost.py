"""What learning costs: core seconds of every piece of work, as a run makes them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
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
