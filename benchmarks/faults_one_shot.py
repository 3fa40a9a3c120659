"""Faults that are made once: what is done, what has to follow, and what did.

Each is a function of the stand that returns what happened in words, or raises `StandError` where
something else did. After each, both processes must run, depth images come, and the disk be whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults_camera import Camera
from benchmarks.faults_disk import look
from benchmarks.faults_kills import longest_gap_s
from benchmarks.faults_segments import held_by, remove_orphans
from benchmarks.online_stand import DEPTH, LEARNER, Stand, StandError
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.untrained import untrained
from dae_ros.nodes.process_harness import ProcessError
from dae_ros.runtime.snapshots import Announcement

PATIENCE_S = 120.0
SETTLE_S = 3.0
# Files may not grow beyond this while the disk is said to be full: nothing of a learner fits.
FULL_BYTES = 4096
# A second learner looks for a free folder every 10 s.
TAKE_OVER_S = 60.0


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


def full_disk(scene: Scene) -> str:
    """No file may grow: nothing is lost or half written, and learning goes on when there is room.

    The limit on the size of files stands in for a full disk; it needs no rights.
    """
    stand = scene.stand
    pid, before = stand.harness[LEARNER].pid, look(stand.deployment.folder)
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    since_s = time.monotonic()
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL_BYTES, hard))
    try:
        saved, sentence = stand.ask("/distillation/save")
        if saved or "cannot be written" not in sentence:
            raise StandError(f"saving said {saved}: {sentence}")
        stand.until(lambda: stand.learning("problem"), "the status says that", PATIENCE_S, LEARNER)
        scene.steps_grow(2)
        meanwhile = look(stand.deployment.folder)
        if meanwhile.versions != before.versions or meanwhile.steps is None:
            raise StandError(f"the disk changed: {meanwhile}")
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    gap = scene.gap_in_windows(since_s)
    saved, sentence = stand.ask("/distillation/save")
    if not saved:
        raise StandError(f"with room again: {sentence}")
    return (
        "saving failed with a sentence, the status said so, learning went on, no byte on disk "
        f"changed; with room again all was saved. Longest gap of depth: {gap:.1f} windows"
    )


def damaged_latest(scene: Scene, damage: Callable[[Path], None]) -> str:
    """The announced version is damaged while all are down: both take the newest whole one."""
    latest = scene.second_version()
    scene.crash(DEPTH, LEARNER)
    path = scene.folder / f"w_{latest:06d}.safetensors"
    whole = path.read_bytes()
    damage(path)
    versions = look(scene.stand.deployment.folder).versions
    expected = max(version for version in versions if version < latest)
    since_s = time.monotonic()
    scene.stand.start(DEPTH)
    scene.images_from(since_s)
    scene.stand.until(
        lambda: scene.stand.version() == expected, f"depth has version {expected}", PATIENCE_S
    )
    started_s = time.monotonic()
    scene.stand.start(LEARNER)
    found = scene.learner_from(started_s)["version"]
    if int(found) < expected or int(found) == latest:
        raise StandError(f"the learner went on from version {found}, not {expected}")
    path.write_bytes(whole)
    return f"version {latest} was not whole: depth and learner went on with {expected}"


def cut_announcement(scene: Scene) -> str:
    """Half of LATEST.json: the newest whole version is taken."""
    scene.second_version()
    scene.crash(DEPTH, LEARNER)
    path = scene.folder / "LATEST.json"
    path.write_bytes(path.read_bytes()[:100])
    expected = max(look(scene.stand.deployment.folder).versions)
    since_s = time.monotonic()
    scene.stand.start(DEPTH)
    scene.stand.start(LEARNER)
    scene.images_from(since_s)
    scene.stand.until(
        lambda: scene.stand.version() >= expected, f"depth has version {expected}", PATIENCE_S
    )
    found = scene.learner_from(since_s)["version"]
    if int(found) < expected:
        raise StandError(f"the learner went on from version {found}, not {expected}")
    # The next publication writes it anew; until then it stays what it is.
    scene.stand.ask("/distillation/reset_to_anchor")
    return f"depth and learner went on with version {expected}, the newest whole one"


def damaged_original(scene: Scene) -> str:
    """The first version of the folder is damaged: learning waits and says so, depth goes on."""
    stand = scene.stand
    scene.crash(LEARNER)
    path = scene.folder / f"w_{min(look(stand.deployment.folder).versions):06d}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    since_s = time.monotonic()
    running = stand.start(LEARNER)
    try:
        running.wait_for_output("holding:folder", PATIENCE_S)
        gap = scene.gap_in_windows(since_s)
    finally:
        path.write_bytes(whole)
    scene.learner_from(since_s)
    return f"the learner held (folder) until it was mended; longest gap of depth {gap:.1f} windows"


def damaged_state(scene: Scene) -> str:
    """A bit of the learner's state changes while it is down: it goes on from the one before."""
    scene.steps_grow(1)
    scene.stand.ask("/distillation/save")
    scene.crash(LEARNER)
    path = scene.stand.deployment.folder / "learner" / "state.bin"
    _flip(path)
    expected = look(scene.stand.deployment.folder).accepted_steps
    if expected is None:
        raise StandError("there is no state before the last one")
    since_s = time.monotonic()
    scene.stand.start(LEARNER)
    found = int(scene.learner_from(since_s)["accepted_steps"])
    if found < expected:
        raise StandError(f"it went on from {found} steps, and {expected} were saved before")
    return f"it went on from the state before, of {expected} steps"


def announced_falsehoods(scene: Scene) -> str:
    """Announcements that are not true, to a running depth node: each is refused by its name.

    Learning is stopped meanwhile: of announcements that wait for their file the newest counts.
    """
    scene.second_version()
    scene.stand.ask("/distillation/stop")
    try:
        return _lie(scene)
    finally:
        scene.stand.ask("/distillation/start")


def _lie(scene: Scene) -> str:
    stand, scratch = scene.stand, scene.folder.parent / "falsehoods"
    latest = look(stand.deployment.folder).latest or 0
    scratch.mkdir(exist_ok=True)
    path = scene.folder / f"w_{latest:06d}.safetensors"
    stand.until(lambda: stand.version() >= latest, f"depth has version {latest}", PATIENCE_S)
    true = Announcement(latest, path, _digest(path), path.stat().st_size)
    flipped, half, other = (scratch / name for name in ("flipped", "half", "other.safetensors"))
    flipped.write_bytes(path.read_bytes())
    _flip(flipped)
    half.write_bytes(path.read_bytes()[: true.size // 2])
    network = untrained("tiny")
    save_checkpoint(other, network.network, network.meaning)
    # Not the true one: a verdict on that is the learner's business, who would announce it again.
    digest = hashlib.sha256(b"a lie").hexdigest()
    lies = {
        "sha256": dataclasses.replace(true, path=flipped, sha256=digest),
        "size": dataclasses.replace(true, path=half, sha256=digest),
        "damaged": Announcement(0, half, _digest(half), half.stat().st_size),
        "other_network": Announcement(0, other, _digest(other), other.stat().st_size),
        "downgraded": true,
    }
    with _announcer(stand) as announce:
        for number, (code, lie) in enumerate(lies.items()):
            version = 1 if code == "downgraded" else 100_000 + number
            said, in_use = len(stand.witness.verdicts), stand.version()
            changed = dataclasses.replace(lie, version=version)
            if code == "downgraded":
                first = scene.folder / "w_000001.safetensors"
                changed = Announcement(1, first, _digest(first), first.stat().st_size)
            announce(changed.to_json())

            def refused(version: int = version, said: int = said) -> bool:
                new = [one.values for one in stand.witness.verdicts[said:]]
                return any(one["version"] == version for one in new)

            stand.until(refused, f"a verdict on '{code}'", PATIENCE_S, DEPTH)
            (verdict,) = (
                one.values
                for one in stand.witness.verdicts[said:]
                if one.values["version"] == version
            )
            if (verdict["verdict"], verdict["code"]) != ("refused", code):
                raise StandError(f"'{code}' was {verdict['verdict']} [{verdict['code']}]")
            if stand.version() < in_use:
                raise StandError(f"depth went from version {in_use} to {stand.version()}")
        announce("this is no JSON")
        time.sleep(SETTLE_S)
    return f"refused as {', '.join(lies)}; what is no JSON was left alone"


def two_learners(scene: Scene) -> str:
    """A second learner on the same folder waits, and takes over when the first is killed."""
    stand = scene.stand
    plan = stand.plan[LEARNER]
    second = dataclasses.replace(
        plan, name="second", remappings=(*plan.remappings, ("distill/status", "second/status"))
    )
    running = stand.start("second", second)
    running.wait_for_output("holding:folder", PATIENCE_S)
    scene.steps_grow(1)
    before = look(stand.deployment.folder)
    scene.crash(LEARNER)
    since_s = time.monotonic()
    running.wait_for_output("announced", TAKE_OVER_S)
    took_s = time.monotonic() - since_s
    if before.problems:
        raise StandError("; ".join(before.problems))
    running.stop(20.0)
    del stand.harness.running["second"]
    stand.start(LEARNER)
    scene.learner_from(time.monotonic())
    return f"the second held (folder), and took over {took_s:.0f} s after the first was killed"


def clocks_jump(scene: Scene, by_s: float, *, clock: bool, stamps: bool, sensor: bool) -> str:
    """Clocks jump by some seconds: depth goes on at once, learning with clips from afterwards."""
    stand, camera = scene.stand, scene.camera
    since_s = time.monotonic()
    camera.clock_ahead_s += by_s * clock
    camera.stamps_ahead_s += by_s * stamps
    camera.sensor_ahead_s += by_s * sensor
    time.sleep(SETTLE_S)
    gap = scene.gap_in_windows(since_s)
    scene.images_from(time.monotonic())
    steps = scene.steps_grow(2)
    if gap * scene.hop_s > SETTLE_S / 2:
        raise StandError(f"depth stopped for {gap:.1f} windows")
    jumps = stand.counted("clock_jump")
    return (
        f"longest gap of depth {gap:.1f} windows; learning went on (step {steps}, "
        f"{jumps} jumps counted)"
    )


def camera_stops(scene: Scene) -> str:
    """No messages for a while: the learner holds and says why, both go on afterwards."""
    stand, camera = scene.stand, scene.camera
    camera.silent = True
    try:
        stand.until(
            lambda: stand.learning("state").startswith("holding:no_"),
            "the learner holds",
            PATIENCE_S,
            LEARNER,
        )
        state = stand.learning("state")
    finally:
        camera.silent = False
    back_s = scene.images_from(time.monotonic())
    scene.steps_grow(1)
    return f"the learner was {state}; depth came back {back_s / scene.hop_s:.0f} windows later"


def restarted(scene: Scene, name: str) -> str:
    """A node is stopped by SIGINT and started again: it ends with 0 and goes on."""
    stand, before = scene.stand, scene.stand.version()
    since_s = time.monotonic()
    code = stand.harness[name].stop(20.0)
    if code != 0:
        raise StandError(f"{name} ended with {code}")
    stopped_s = time.monotonic() - since_s
    saved = look(stand.deployment.folder)
    since_s = time.monotonic()
    stand.start(name)
    if name == DEPTH:
        back_s = scene.images_from(since_s)
        stand.until(lambda: stand.version() >= before, f"depth has version {before}", PATIENCE_S)
        return f"ended with 0 after {stopped_s:.1f} s, first image {back_s:.1f} s after its start"
    steps = int(scene.learner_from(since_s)["accepted_steps"])
    if saved.accepted_steps is None or steps < saved.accepted_steps:
        raise StandError(f"it went on from {steps} steps, and had saved {saved.accepted_steps}")
    return f"ended with 0 after {stopped_s:.1f} s; no step was lost ({saved.accepted_steps})"


def cycled(scene: Scene, name: str) -> str:
    """Deactivated, cleaned up, configured, activated: everything is there again."""
    from lifecycle_msgs.msg import Transition

    stand, before = scene.stand, scene.stand.version()
    for transition in (
        Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE,
    ):  # fmt: skip
        if not stand.harness.change_state(name, transition, 60.0):
            raise StandError(f"{name} did not make transition {transition}")
    since_s = time.monotonic()
    scene.images_from(since_s)
    if name == DEPTH:
        stand.until(lambda: stand.version() >= before, f"depth has version {before}", PATIENCE_S)
        return f"all four transitions were made, and version {before} is in use again"
    return f"all four transitions were made, it went on from step {scene.steps_grow(1)}"


def faults(scene: Scene) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield every fault: what is done, and the doing."""
    yield "full disk (learner)", lambda: full_disk(scene)
    yield "announced weights: a bit changed", lambda: damaged_latest(scene, _flip)
    yield "announced weights: cut in half", lambda: damaged_latest(scene, _halve)
    yield "LATEST.json: cut", lambda: cut_announcement(scene)
    yield "original weights: cut in half", lambda: damaged_original(scene)
    yield "learner's state: a bit changed", lambda: damaged_state(scene)
    yield "false announcements to depth", lambda: announced_falsehoods(scene)
    yield "two learners, one folder", lambda: two_learners(scene)
    everything = {"clock": True, "stamps": True, "sensor": True}
    yield "all clocks 30 s back", lambda: clocks_jump(scene, -30.0, **everything)
    yield "all clocks 1 h ahead", lambda: clocks_jump(scene, 3600.0, **everything)
    only = {"clock": True, "stamps": False, "sensor": False}
    yield "/clock alone 20 s back", lambda: clocks_jump(scene, -20.0, **only)
    yield "/clock alone 20 s ahead", lambda: clocks_jump(scene, 20.0, **only)
    host = {"clock": False, "stamps": True, "sensor": False}
    yield "stamps alone 30 s back", lambda: clocks_jump(scene, -30.0, **host)
    yield "stamps alone 30 s ahead", lambda: clocks_jump(scene, 30.0, **host)
    yield "camera stops and comes back", lambda: camera_stops(scene)
    for name in (DEPTH, LEARNER):
        yield f"SIGINT and start of {name}", lambda name=name: restarted(scene, name)
        yield f"lifecycle round of {name}", lambda name=name: cycled(scene, name)


def run(scene: Scene, wanted: str = "") -> list[Outcome]:
    """Make every fault whose name contains a text; say how it goes."""
    found = []
    for name, make in faults(scene):
        if wanted not in name:
            continue
        begin_s, passed = time.monotonic(), True
        try:
            happened = make()
            _all_well(scene)
        except (StandError, ProcessError) as error:
            passed, happened = False, error.message
            _mend(scene)
        found.append(Outcome(name, happened, passed, round(time.monotonic() - begin_s, 1)))
        print(f"{name}: {happened}" if passed else f"{name}: FAILED: {happened}", flush=True)
    return found


def _all_well(scene: Scene) -> None:
    """See that everything works.

    Raises:
        StandError: something does not.
    """
    for name in (DEPTH, LEARNER):
        code = scene.stand.harness[name].exit_code
        if code is not None:
            raise StandError(f"{name} has ended with {code}")
    scene.images_from(time.monotonic())
    problems = look(scene.stand.deployment.folder).problems
    if problems:
        raise StandError("; ".join(problems))


def _mend(scene: Scene) -> None:
    """Start what does not run, so that the next fault finds all in place."""
    for name in (DEPTH, LEARNER):
        if scene.stand.harness[name].exit_code is not None:
            scene.stand.start(name)
    scene.images_from(time.monotonic())


@contextmanager
def _announcer(stand: Stand) -> Iterator[Callable[[str], None]]:
    """Give a way to publish on the learner's topic."""
    from std_msgs.msg import String

    from dae_ros.nodes.qos import latched_qos

    node = stand.witness.node
    publisher = node.create_publisher(String, "distill/snapshot", latched_qos())
    try:
        # Depth and the witness.
        stand.until(
            lambda: publisher.get_subscription_count() >= 2, "depth listens", PATIENCE_S, DEPTH
        )
        yield lambda text: publisher.publish(String(data=text))
    finally:
        node.destroy_publisher(publisher)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _halve(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def as_json(outcomes: list[Outcome]) -> list[dict[str, object]]:
    """Return outcomes for JSON."""
    found: list[dict[str, object]] = json.loads(
        json.dumps([dataclasses.asdict(one) for one in outcomes])
    )
    return found
