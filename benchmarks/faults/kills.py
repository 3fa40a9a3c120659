"""kill -9 of depth or of the learner at random instants, again and again.

After each kill, before anything is started again, the learner's folder is read by code that shares
nothing with what wrote it (`disk.py`); then the process is started again, and has to come back.
A quarter of the kills hit a process that is still starting. Instants at which something is being
written are rare, so that some more kills wait for one.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults.disk import Disk, look
from benchmarks.faults.segments import held_by, remove_orphans
from benchmarks.live.online_stand import DEPTH, LEARNER, Image, Stand, StandError

SHARE_OF_STARTS = 0.25
# A process that runs is killed within so many seconds after it has come back.
LONGEST_RUN_S = 6.0
# A start beside others may take so many times as long as the first one, and a little more.
SLOWER, MORE_S = 2.0, 2.0
PATIENCE_S = 120.0
# A file under way is looked for so often, and killed within so many seconds after it is seen.
LOOK_S, LONGEST_WRITE_S = 0.0005, 0.02


@dataclass(frozen=True)
class Kill:
    """One kill and what came of it.

    Attributes:
        victim: node name.
        phase: `running`; `starting` where it had not come back from the kill before; `writing`
            where a file under way was waited for.
        life_s: how long it had lived.
        unfinished: files under way that the kill cut.
        segments: how many pieces of shared memory were removed after it.
        version: that depth had before.
        latest: that the disk named after it.
        lost_steps: steps that the learner had told of and the disk does not have; None where
            nothing was told or saved since the kill before.
        back_s: until depth images came again, or the learner's status; None of a start that was
            killed in its turn.
        taken_s: until depth had the version of the disk; None of the learner.
        stopped_s: the longest time without a depth image meanwhile.
        problems: sentences; none where all is well.
        at_s: when, since the killing began.
    """

    victim: str
    phase: str
    life_s: float
    unfinished: tuple[str, ...]
    segments: int
    version: int
    latest: int | None
    lost_steps: int | None
    back_s: float | None = None
    taken_s: float | None = None
    stopped_s: float = 0.0
    problems: tuple[str, ...] = ()
    at_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        found = dataclasses.asdict(self)
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in found.items()
        }


@dataclass
class Memory:
    """What must not be forgotten, and what nobody may contradict.

    Attributes:
        announced: version -> sha256, as it was heard or read in LATEST.json.
        segments: what killed processes held and others held as well when they died.
    """

    announced: dict[int, str] = field(default_factory=dict)
    segments: set[str] = field(default_factory=set)
    had_latest: bool = False
    heard: int = 0

    def contradictions(self, stand: Stand, disk: Disk) -> list[str]:
        """Return what disagrees with what was announced before."""
        found = []
        told = stand.witness.announced
        pairs = [(said.values["version"], said.values["sha256"]) for said in told[self.heard :]]
        self.heard = len(told)
        if disk.latest is not None and disk.latest in disk.versions:
            pairs.append((disk.latest, disk.versions[disk.latest]))
        for version, sha256 in pairs:
            if self.announced.setdefault(version, sha256) != sha256:
                found.append(f"version {version} is another one than before")
        if self.had_latest and disk.latest is None:
            found.append("LATEST.json is gone")
        self.had_latest |= disk.latest is not None
        return found


class Killer:
    """Kills, looks, starts again.

    Args:
        stand: with both processes running and learning.
        start_s: node name -> how long its first start took.
        seed: of what is killed when.
    """

    def __init__(self, stand: Stand, start_s: dict[str, float], seed: int) -> None:
        self._stand = stand
        self._start_s = start_s
        self._random = random.Random(seed)
        self.memory = Memory()
        self._save_every = int(stand.deployment.learner.get("save_every_steps", 10))
        self._first_s = time.monotonic()
        self._begun_s = dict.fromkeys((DEPTH, LEARNER), self._first_s)
        self.images_of_the_original = 0

    def run(self, kills: int, aimed: int) -> list[Kill]:
        """Kill at random instants, and then the learner while it writes; say how it goes.

        Args:
            kills: how many at random instants.
            aimed: how many while a file is under way.
        """
        found: list[Kill] = []
        while len(found) < kills:
            victim = self._random.choice((DEPTH, LEARNER))
            time.sleep(self._random.uniform(0.0, LONGEST_RUN_S))
            kill = self.kill(victim, "running")
            while len(found) + 1 < kills and self._random.random() < SHARE_OF_STARTS:
                found.append(kill)
                time.sleep(self._random.uniform(0.0, self._start_s[victim]))
                kill = self.kill(victim, "starting")
            found.append(self.come_back(kill))
            print(f"{len(found)}/{kills} {found[-1].victim}: {found[-1].problems or 'well'}")
        for number in range(aimed):
            self._wait_for_writing()
            time.sleep(self._random.uniform(0.0, LONGEST_WRITE_S))
            found.append(self.come_back(self.kill(LEARNER, "writing")))
            print(f"{number + 1}/{aimed} while it writes: {found[-1].problems or 'well'}")
        return found

    def _wait_for_writing(self) -> None:
        """Wait until a file is under way, as long as there is patience."""
        folder = self._stand.deployment.folder
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            for place in (folder / "snapshots", folder / "learner"):
                if any(".tmp" in path.name for path in place.iterdir()):
                    return
            time.sleep(LOOK_S)

    def kill(self, victim: str, phase: str) -> Kill:
        """Kill a process and its group, read the disk, remove its memory, start it again."""
        stand = self._stand
        running = stand.harness[victim]
        version = stand.version()
        # Still, so that what it holds is what it held when it died.
        os.killpg(running.pid, signal.SIGSTOP)
        held = held_by(running.pid)
        os.killpg(running.pid, signal.SIGKILL)
        code = running.wait(10.0)
        killed_s = time.monotonic()
        life_s = killed_s - self._begun_s[victim]
        disk = look(stand.deployment.folder)
        problems = [*disk.problems, *self.memory.contradictions(stand, disk)]
        if code != -signal.SIGKILL:
            problems.append(f"{victim} ended by itself before, with {code}")
        lost = self._lost_steps(disk) if victim == LEARNER else None
        if lost is not None and lost > self._save_every:
            problems.append(f"{lost} steps were lost, {self._save_every} may be")
        self.memory.segments |= held
        removed = remove_orphans(self.memory.segments)
        self.memory.segments -= set(removed)
        stand.start(victim)
        self._begun_s[victim] = killed_s
        return Kill(
            victim, phase, life_s, disk.unfinished, len(removed), version, disk.latest, lost,
            problems=tuple(problems), at_s=killed_s - self._first_s,
        )  # fmt: skip

    def come_back(self, kill: Kill) -> Kill:
        """Wait until the process works again, and say what depth did meanwhile."""
        since_s = self._begun_s[kill.victim]
        try:
            found = self._depth_back(kill) if kill.victim == DEPTH else self._learner_back(kill)
        except StandError as error:
            return dataclasses.replace(kill, problems=(*kill.problems, error.message))
        images = list(self._stand.witness.images)
        problems = [*found.problems, *self._steps_back(images, since_s)]
        stopped_s = longest_gap_s(images, since_s, time.monotonic())
        if kill.victim == LEARNER and stopped_s > MORE_S:
            problems.append(f"depth stopped for {stopped_s:.2f} s although only the learner died")
        return dataclasses.replace(found, stopped_s=stopped_s, problems=tuple(problems))

    def _depth_back(self, kill: Kill) -> Kill:
        stand, since_s = self._stand, self._begun_s[DEPTH]
        limit_s = SLOWER * self._start_s[DEPTH] + MORE_S

        def images() -> list[Image]:
            return [image for image in stand.witness.images[-400:] if image.arrival_s > since_s]

        stand.until(images, "depth images come again", PATIENCE_S, DEPTH)
        back_s = images()[0].arrival_s - since_s
        problems = list(kill.problems)
        if back_s > limit_s:
            problems.append(f"depth came back after {back_s:.1f} s, {limit_s:.1f} s are allowed")

        # What it had, unless somebody went back meanwhile.
        def taken() -> bool:
            disk = look(stand.deployment.folder)
            version = stand.version()
            return version >= kill.version or (disk.rollback and version == disk.latest)

        stand.until(taken, f"depth has version {kill.version} again", PATIENCE_S, DEPTH)
        self.images_of_the_original += sum(image.version == 0 for image in images())
        return dataclasses.replace(
            kill,
            back_s=back_s,
            taken_s=time.monotonic() - since_s,
            problems=tuple(problems),
        )

    def _learner_back(self, kill: Kill) -> Kill:
        stand, since_s = self._stand, self._begun_s[LEARNER]
        disk = look(stand.deployment.folder)
        learning = stand.witness.learning

        def told() -> list[Any]:
            return [said for said in learning[-20:] if said.arrival_s > since_s]

        stand.until(
            lambda: told() and told()[-1].values.get("accepted_steps"),
            "the learner tells its steps again",
            PATIENCE_S,
            LEARNER,
        )
        said, problems = told()[-1], list(kill.problems)
        if disk.accepted_steps and int(said.values["accepted_steps"]) < disk.accepted_steps:
            problems.append(
                f"it began with {said.values['accepted_steps']} steps, and the disk had "
                f"{disk.accepted_steps}"
            )
        return dataclasses.replace(kill, back_s=said.arrival_s - since_s, problems=tuple(problems))

    def _lost_steps(self, disk: Disk) -> int | None:
        """Return how many steps were told of and are not on disk."""
        since_s = self._begun_s[LEARNER]
        told = [
            int(said.values["steps"])
            for said in self._stand.witness.work[-50:]
            if said.arrival_s > since_s and said.values["action"] == "learned"
        ]
        return max(told) - disk.steps if told and disk.steps is not None else None

    def _steps_back(self, images: Sequence[Image], since_s: float) -> list[str]:
        """Return where a version was lower than the one before although nobody had said so."""
        witness = self._stand.witness
        allowed = {
            (said.values["version"], said.values["live_version"])
            for said in witness.verdicts
            if said.values["verdict"] == "rolled_back"
        }
        back = {said.values["version"] for said in witness.announced if said.values["rollback"]}
        begun_s = self._begun_s[DEPTH]
        found = []
        for before, after in itertools.pairwise(images):
            if after.arrival_s < since_s or after.version >= before.version:
                continue
            restarted = before.arrival_s < begun_s <= after.arrival_s
            if restarted or after.version in back or (before.version, after.version) in allowed:
                continue
            found.append(f"version {after.version} came after {before.version}")
        return found


def longest_gap_s(images: Sequence[Image], begin_s: float, end_s: float) -> float:
    """Return the longest time without a depth image between two instants."""
    arrivals = [image.arrival_s for image in images if begin_s < image.arrival_s < end_s]
    times = [begin_s, *arrivals, end_s]
    return max(after - before for before, after in itertools.pairwise(times))
