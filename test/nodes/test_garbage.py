"""No pause by Python's garbage collector while a window is stepped, and no garbage that grows."""

from __future__ import annotations

import gc
import threading
import time

import pytest
from rclpy.lifecycle import TransitionCallbackReturn

from dae_ros.events.cdr import write_packet
from dae_ros.nodes.depth_worker import DepthWorker
from dae_ros.nodes.garbage import GarbageCollection
from dae_ros.parameters import DepthParameters

TYPE = "event_camera_msgs/msg/EventPacket"
# Cycles that each result leaves: several thresholds of the collector's youngest generation.
CYCLES = 5000


class Cycle:
    """An object that only the collector can free."""

    alive = 0

    def __init__(self) -> None:
        self.itself = self
        Cycle.alive += 1

    def __del__(self) -> None:
        Cycle.alive -= 1


class Steps:
    """A worker whose results leave garbage, and when collections and steps were.

    Attributes:
        windows: (closed, published) of each, and pauses: (begin, end, generation, thread), in ns.
        waiting: how many cycles were alive after each window.
    """

    def __init__(self, garbage: GarbageCollection | None) -> None:
        self.windows: list[tuple[int, int]] = []
        self.pauses: list[tuple[int, int, int, str]] = []
        self.waiting: list[int] = []
        self._begin_ns = 0
        self.worker = DepthWorker(
            DepthParameters(weights="untrained:tiny", threads=1, backend="torch", overload="queue"),
            publish=self._publish,
            warn=print,
            failed=print,
            garbage=garbage,
        )

    def _publish(self, frame) -> None:
        for _ in range(CYCLES):
            Cycle()
        self.waiting.append(Cycle.alive)
        self.windows.append((frame.times.closed_ns, time.perf_counter_ns()))

    def noted(self, phase: str, info: dict[str, int]) -> None:
        now_ns = time.perf_counter_ns()
        if phase == "start":
            self._begin_ns = now_ns
        else:
            name = threading.current_thread().name
            self.pauses.append((self._begin_ns, now_ns, info["generation"], name))

    def run(self, camera, packets: int) -> None:
        gc.callbacks.append(self.noted)
        try:
            for _ in range(packets):
                self.worker.put_events(write_packet(camera.packet()), TYPE)
                time.sleep(0.002)
            deadline_s = time.monotonic() + 120.0
            while len(self.windows) < packets // 10 - 2 and time.monotonic() < deadline_s:
                time.sleep(0.01)
        finally:
            gc.callbacks.remove(self.noted)

    def inside(self) -> list[tuple[int, int, int, str]]:
        """Return the pauses in the middle of a window."""
        return [
            pause
            for pause in self.pauses
            for begin_ns, end_ns in self.windows
            if pause[0] < end_ns and pause[1] > begin_ns
        ]


@pytest.fixture
def stepped(camera):
    """Step windows with or without our collector; it is given back afterwards."""
    made = []

    def step(garbage: GarbageCollection | None) -> Steps:
        steps = Steps(garbage)
        made.append((steps, garbage))
        steps.worker.start()
        if garbage is not None:
            garbage.settle()
        steps.run(camera, 250)
        return steps

    yield step
    for steps, garbage in made:
        steps.worker.stop(120.0)
        if garbage is not None:
            garbage.end()
    gc.collect()


@pytest.mark.parametrize(("whole_period_s", "generation"), [(60.0, 1), (0.0, 2)])
def test_nothing_is_collected_while_a_window_is_stepped(stepped, whole_period_s, generation):
    """Not even the youngest generation, in no thread; between windows new objects, or all."""
    garbage = GarbageCollection(period_s=0.1, whole_period_s=whole_period_s)
    steps = stepped(garbage)
    assert len(steps.windows) >= 20
    assert steps.inside() == []
    assert len(steps.pauses) >= 3
    assert {(generation, thread) for _, _, generation, thread in steps.pauses} == {
        (generation, "depth_worker")
    }
    said = steps.worker.snapshot.collections
    assert 0 < said.count <= garbage.collections.count
    longest_ms = max((end_ns - begin_ns) / 1e6 for begin_ns, end_ns, _, _ in steps.pauses)
    assert garbage.collections.longest_ms >= longest_ms


def test_garbage_does_not_grow(stepped):
    """What waits is what some windows left, at the end as at the beginning."""
    steps = stepped(GarbageCollection(period_s=0.0))
    assert len(steps.windows) >= 20
    # One collection after each turn that stepped, which in `queue` is one window or two.
    assert max(steps.waiting) <= 3 * CYCLES


def test_what_has_grown_old_waits_for_the_collection_of_everything():
    """A cycle that fell apart after it had survived a collection is freed with the next whole."""
    garbage = GarbageCollection(period_s=0.0, whole_period_s=0.3)
    try:
        garbage.settle()
        old, begin_s = Cycle(), time.monotonic()
        garbage.rest()
        del old
        garbage.rest()
        if time.monotonic() - begin_s < 0.25:
            assert Cycle.alive == 1
        time.sleep(0.3)
        garbage.rest()
        assert Cycle.alive == 0 and garbage.collections.count == 3
    finally:
        garbage.end()


def test_python_alone_collects_in_the_middle_of_windows(stepped):
    """That is what the other tests would see."""
    steps = stepped(None)
    assert any(thread == "depth_worker" for *_, thread in steps.inside())


def test_what_is_loaded_is_left_alone_until_the_end():
    """The collector is off and has nothing to look at; `end` undoes both, also twice."""
    garbage = GarbageCollection(period_s=0.0)
    garbage.rest()
    assert garbage.collections.count == 0 and gc.isenabled()
    try:
        garbage.settle()
        assert not gc.isenabled() and gc.get_freeze_count() > 10_000
        Cycle()
        garbage.rest()
        assert Cycle.alive == 0 and garbage.collections.count == 1
        garbage.settle()
        assert garbage.collections.count == 0
    finally:
        garbage.end()
    assert gc.isenabled() and gc.get_freeze_count() == 0
    garbage.end()
    gc.disable()
    garbage.end()
    assert not gc.isenabled(), "what others set is theirs"
    gc.enable()


def test_a_node_settles_when_it_is_configured_and_gives_back_when_it_is_cleaned_up(graph, depth):
    """Diagnostics tell of collections; a node of somebody else's process leaves its collector."""
    plain = depth()
    assert plain.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert gc.isenabled() and gc.get_freeze_count() == 0
    (told,) = (s for s in plain._statuses("inactive") if s.name.endswith(": windows"))
    assert not any(value.key.startswith("collection") for value in told.values)
    graph.remove(plain)
    own = depth(garbage=GarbageCollection(period_s=0.0))
    assert own.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert not gc.isenabled() and gc.get_freeze_count() > 10_000
    graph.until(lambda: own._worker.snapshot.collections.count)
    (told,) = (s for s in own._statuses("inactive") if s.name.endswith(": windows"))
    values = {value.key: value.value for value in told.values}
    assert int(values["collections"]) > 0
    assert float(values["collection_last_ms"]) <= float(values["collection_max_ms"])
    assert own.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert gc.isenabled() and gc.get_freeze_count() == 0
