"""What depth says about announced versions, and what is announced because of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from dae_ros.distillation.online.loop import OnlineDistiller
from dae_ros.distillation.online.observation import Refusal
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.weight_stages import Verdict

# How often a version is announced again that depth could not read, and what could not be written
# of depth's last answer is tried again.
ANNOUNCE_AGAIN_NS = 30 * 10**9


class DepthAnswers:
    """Follows the answers of the depth node.

    Args:
        announce: called with every version that depth should have because of an answer.
        clock_ns: monotonic time.

    Attributes:
        last: answer; None before the first.
    """

    def __init__(
        self, announce: Callable[[Announcement], None], clock_ns: Callable[[], int]
    ) -> None:
        self.last: Verdict | None = None
        self._announce = announce
        self._clock_ns = clock_ns
        # The version that depth cannot take, as it is announced again, and what depth says.
        self._not_taken: tuple[Announcement, Refusal] | None = None
        self._again_ns = clock_ns()

    @property
    def newest_version(self) -> int:
        """The highest number that depth has had, as far as it has said."""
        return 0 if self.last is None else self.last.newest_version

    def take(self, verdict: Verdict, distiller: OnlineDistiller | None) -> None:
        """Take an answer, and follow it where learning has begun."""
        self.last = verdict
        if distiller is None:
            return
        distiller.number_above(verdict.newest_version)
        live = distiller.announcement
        if verdict.code == "start" or verdict.live_sha256 == live.sha256:
            self._not_taken = None
        if self._follow(distiller, verdict) or verdict.outcome in ("swapped", "kept"):
            return
        way_back = dataclasses.replace(live, rollback=True)
        if verdict.sha256 != live.sha256:
            if verdict.outcome == "rolled_back" and verdict.live_sha256 != live.sha256:
                # Of another folder, or withdrawn; what was on its way was dropped with it.
                self._announce(live)
        elif verdict.code == "downgraded":
            self._announce(way_back)  # depth has had higher numbers, from another folder
        elif verdict.code != "superseded" and not (verdict.harmful and verdict.live_version == 0):
            # Where the original is not wanted, what depth began with is as good.
            detail = f"depth cannot take version {verdict.version} [{verdict.code}]"
            refusal = Refusal("not_taken", f"{detail}: {verdict.reason}")
            self._not_taken = way_back if verdict.harmful else live, refusal
            self._again_ns = self._clock_ns() + ANNOUNCE_AGAIN_NS

    def look(self, distiller: OnlineDistiller, now_ns: int) -> None:
        """Try again what the last answer asks for, and announce again what depth could not read."""
        if now_ns < self._again_ns:
            return
        self._again_ns = now_ns + ANNOUNCE_AGAIN_NS
        written = self.last is not None and self._follow(distiller, self.last)
        if self._not_taken and not written and self.refusal(distiller):
            self._announce(self._not_taken[0])

    def refusal(self, distiller: OnlineDistiller) -> Refusal | None:
        """Return what depth says against the announced version, if it cannot take it."""
        told = self._not_taken
        return told[1] if told and told[0].sha256 == distiller.announcement.sha256 else None

    def _follow(self, distiller: OnlineDistiller, verdict: Verdict) -> bool:
        """Announce what follows from a verdict; return whether something does."""
        if (announcement := distiller.answered(verdict)) is not None:
            self._announce(announcement)
        return announcement is not None
