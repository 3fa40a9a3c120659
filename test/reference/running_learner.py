"""Live learning with a clock of its own, and everything that it announced."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from dae_ros.distillation.online.live import (
    LiveDistillation,
)
from dae_ros.distillation.online.reports import LoopReport
from dae_ros.distillation.online.verdict import Verdict as GuardVerdict
from dae_ros.events.frame import Frame
from dae_ros.parameters import DistillationNodeParameters
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.weight_stages import Outcome, Verdict
from test.reference.scrolling_wall import MS
from test.reference.wall_deployment import items

SEEN = items(1, 1000)
SECOND = 1_000_000_000


class Running:
    """Live learning with a clock of its own, and everything that it announced."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.now_ns = 0
        self.step_ns = 20 * MS  # what every look at the clock takes
        self.announced: list[Announcement] = []
        self.interrupted = False
        self.live = LiveDistillation(
            DistillationNodeParameters.from_mapping(values),
            announce=self.announced.append,
            interrupted=lambda: self.interrupted,
            clock_ns=self._clock,
        )
        self.live.begin()

    def _clock(self) -> int:
        self.now_ns += self.step_ns
        return self.now_ns

    def see(self, offset_ns: int = 0, *, frames: bool = True) -> list[LoopReport]:
        """Hand over all that the camera saw, moved in time, and turn; return what was done."""
        reports = []
        for item in SEEN:
            moved_ns = item.stamp_ns + offset_ns
            if not isinstance(item, Frame):
                time_base_ns = item.time_base_ns + offset_ns
                self.live.feed(
                    dataclasses.replace(item, stamp_ns=moved_ns, time_base_ns=time_base_ns)
                )
            elif frames:
                self.live.add_frame(dataclasses.replace(item, stamp_ns=moved_ns))
            reports += self.turns(1)
        return reports

    def turns(self, count: int) -> list[LoopReport]:
        """Turn so often; return what was done."""
        return [report for _ in range(count) if (report := self.live.turn()) is not None]

    def until_published(self) -> None:
        """See the same again and again, until a version follows the original."""
        first = self.announced[-1].version
        for again in range(10):
            self.see(11 * again * SECOND)  # so far apart are pinned anchors
            if self.announced[-1].version > first:
                return
        raise AssertionError(self.live.status())

    def publish(self) -> Announcement:
        """Publish what was learned, whatever that is."""
        distiller = self.live._distiller
        assert distiller is not None
        made = distiller._publish(distiller._learner.candidate(), GuardVerdict((), {}))
        assert made is not None
        self.announced.append(made)
        return made

    def depth_says(self, outcome: Outcome, code: str, live_version: int = 1) -> None:
        """Let depth answer the last announcement."""
        last = self.announced[-1]
        live = last.sha256 if outcome in ("swapped", "kept") else "0" * 64
        self.live.depth_answered(
            Verdict(last.version, last.sha256, outcome, code, "so", live_version, live)
        )


Make = Callable[..., Running]
