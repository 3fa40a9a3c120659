"""Faults of what lies on the disk or is said about it: a full one, damaged files, false words."""

from __future__ import annotations

import dataclasses
import hashlib
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.disk import look
from benchmarks.faults.scene import PATIENCE_S, SETTLE_S, Scene
from benchmarks.live.online_stand import DEPTH, LEARNER, Stand, StandError
from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.untrained import untrained
from dae_ros.runtime.announcement import Announcement

# Files may not grow beyond this while the disk is said to be full: nothing of a learner fits.
FULL_BYTES = 4096
# A second learner looks for a free folder every 10 s.
TAKE_OVER_S = 60.0


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
    flip(path)
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
    flip(flipped)
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


def flip(path: Path) -> None:
    """Change a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def halve(path: Path) -> None:
    """Cut a file in the middle."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
