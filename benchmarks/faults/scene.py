"""What a fault that is made once has at hand, and what comes of it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.camera import Camera
from benchmarks.faults.disk import look
from benchmarks.faults.kills import longest_gap_s
from benchmarks.faults.segments import held_by, remove_orphans
from benchmarks.live.online_stand import DEPTH, LEARNER, Stand

PATIENCE_S = 120.0
SETTLE_S = 3.0


@dataclass(frozen=True)
class Outcome:
    """One fault and what came of it.

    Attributes:
        fault: what was done.
        happened: in words.
        passed: whether that is what has to happen.
        seconds: how long it all took.
    """

    fault: str
    happened: str
    passed: bool
    seconds: float


@dataclass(frozen=True)
class Scene:
    """What a fault has at hand.

    Attributes:
        stand, camera: that run.
        hop_s: seconds from one window to the next.
        segments: shared memory that killed processes held and others held as well.
    """

    stand: Stand
    camera: Camera
    hop_s: float
    segments: set[str]

    @property
    def folder(self) -> Path:
        """Of the versions."""
        return self.stand.deployment.snapshots

    def crash(self, *names: str) -> None:
        """Kill processes at once."""
        for name in names:
            running = self.stand.harness[name]
            os.killpg(running.pid, signal.SIGSTOP)
            self.segments.update(held_by(running.pid))
            os.killpg(running.pid, signal.SIGKILL)
            running.wait(10.0)
        self.segments.difference_update(remove_orphans(self.segments))

    def images_from(self, since_s: float, name: str = DEPTH) -> float:
        """Wait for a depth image after an instant; return how long that took from there."""
        images = self.stand.witness.images

        def come() -> bool:
            return bool(images) and images[-1].arrival_s > since_s

        self.stand.until(come, "depth images come again", PATIENCE_S, name)
        first = next(image for image in images if image.arrival_s > since_s)
        return first.arrival_s - since_s

    def learner_from(self, since_s: float) -> dict[str, str]:
        """Wait until the learner tells its version after an instant; return its status."""
        learning = self.stand.witness.learning

        def told() -> bool:
            return learning[-1].arrival_s > since_s and bool(learning[-1].values.get("version"))

        self.stand.until(told, "the learner says which version it has", PATIENCE_S, LEARNER)
        return learning[-1].values

    def steps_grow(self, more: int = 1) -> int:
        """Wait until learning has gone on by some steps; return how many there are."""
        begin = int(self.stand.learning("accepted_steps") or 0)

        def grown() -> bool:
            return int(self.stand.learning("accepted_steps") or 0) >= begin + more

        self.stand.until(grown, "learning goes on", PATIENCE_S, LEARNER)
        return int(self.stand.learning("accepted_steps"))

    def second_version(self) -> int:
        """Wait until the latest version is not the first; return it."""

        def published() -> bool:
            disk = look(self.stand.deployment.folder)
            return disk.latest is not None and disk.latest > min(disk.versions)

        self.stand.until(published, "a candidate is published", 5 * PATIENCE_S, LEARNER)
        return look(self.stand.deployment.folder).latest or 0

    def gap_in_windows(self, since_s: float) -> float:
        """Return the longest time without a depth image since an instant, in windows."""
        images = self.stand.witness.images
        return longest_gap_s(images, since_s, time.monotonic()) / self.hop_s
