"""Faults that are made once: what is done, what has to follow, and what did.

Each is a function of the stand that returns what happened in words, or raises `StandError` where
something else did. After each, both processes must run, depth images come, and the disk be whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from benchmarks.faults.disk import look
from benchmarks.faults.scene import PATIENCE_S, SETTLE_S, Outcome, Scene
from benchmarks.faults.weights import (
    announced_falsehoods,
    cut_announcement,
    damaged_latest,
    damaged_original,
    damaged_state,
    flip,
    full_disk,
    halve,
    two_learners,
)
from benchmarks.live.online_stand import DEPTH, LEARNER, StandError
from dae_ros.nodes.process_harness import ProcessError


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
    yield "announced weights: a bit changed", lambda: damaged_latest(scene, flip)
    yield "announced weights: cut in half", lambda: damaged_latest(scene, halve)
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
