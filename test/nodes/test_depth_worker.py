"""The worker behind a full inbox: what waits, what is dropped, and what must never be."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest

from dae_ros.bags.messages import write_image
from dae_ros.events.cdr import write_event_array, write_packet
from dae_ros.events.packet import EventPacket, Events
from dae_ros.model.untrained import untrained
from dae_ros.nodes.depth_worker import DepthWorker, ResetState
from dae_ros.parameters import DepthParameters
from dae_ros.runtime import torch_slots
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_runner import GraphRunner
from test.reference.leaky_estimator import LeakyEstimator

HEIGHT, WIDTH = 24, 32
START_NS = 1_700_000_000_000_000_000
TYPE = "event_camera_msgs/msg/EventPacket"
ARRAY = "dvs_msgs/msg/EventArray"
CAPACITY_BYTES = 1_000_000


class BusyWorker:
    """A worker on a network of one line, held up in each result until it is let go on."""

    def __init__(self, **parameters: object) -> None:
        self.busy, self.go_on = threading.Event(), threading.Semaphore(0)
        self.free = False
        self.published = self.handed_over = 0
        self.faults: list[object] = []
        self._seq, self._time_ns = 0, START_NS
        self.parameters = DepthParameters.from_mapping(
            {"inbox_mb": 1, "window_s": 0.02, "hop_s": 0.02, "orientation": "depth", **parameters}
        )
        self.worker = DepthWorker(
            self.parameters,
            publish=self._publish,
            warn=print,
            failed=self.faults.append,
            load=lambda _: LeakyEstimator(),
        )
        self.worker.start()
        while not self.busy.is_set():
            self.worker.put_events(self.message(50), TYPE)
            time.sleep(0.001)

    def _publish(self, _: object) -> None:
        self.published += 1
        self.busy.set()
        if not self.free:
            assert self.go_on.acquire(timeout=120.0)

    def message(self, events: int) -> bytes:
        """Return a packet of evenly spaced events over the next 5 ms; `mono` has 8 octets each."""
        offsets = np.linspace(0, 4_999_999, events).astype(np.uint64)
        self._seq += 1
        packet = EventPacket(
            "mono",
            HEIGHT,
            WIDTH,
            (offsets | np.uint64(1 << 63)).tobytes(),
            self._time_ns,
            self._time_ns,
            self._seq,
            "camera",
        )
        self._time_ns += 5_000_000
        return write_packet(packet)

    def array(self, events: int) -> bytes:
        """Return an event array, which has no counter, over the next 5 ms."""
        t = self._time_ns + np.arange(events) * 5_000_000 // events
        zeros = np.zeros(events, np.uint16)
        cut = Events(t, zeros, zeros, zeros.astype(np.uint8))
        self._time_ns += 5_000_000
        return write_event_array(cut, HEIGHT, WIDTH, int(t[0]), "camera")

    def feed(self, messages: list[bytes], images: list[bytes]) -> threading.Thread:
        """Hand messages and images over, in turns, on a thread of their own."""

        def run() -> None:
            for number in range(max(len(messages), len(images))):
                if number < len(messages):
                    self.worker.put_events(messages[number], TYPE)
                    self.handed_over += 1
                if number < len(images):
                    self.worker.put_image(images[number])

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def release(self) -> None:
        """Let it go on for good."""
        self.free = True
        self.go_on.release()

    def finish(self) -> None:
        """Wait until it has taken everything."""
        deadline_s = time.monotonic() + 120.0
        while len(self.worker.inbox) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert len(self.worker.inbox) == 0
        time.sleep(0.7)  # a snapshot is at most half a second old


@pytest.fixture
def busy(ros):
    """Make busy workers; all are stopped afterwards."""
    made: list[BusyWorker] = []

    def make(**parameters: object) -> BusyWorker:
        made.append(BusyWorker(**parameters))
        return made[-1]

    yield make
    for one in made:
        one.release()
        assert one.worker.stop(120.0)
        assert one.faults == []


@pytest.mark.parametrize("follow", [False, True])
def test_what_slows_the_network_down_is_part_of_the_backend(ros, monkeypatch, follow):
    """Steps that were to be recorded and are not are told, also of weights that change."""

    def refused(_):
        raise RuntimeError("no graphs here")

    monkeypatch.setattr(torch_slots, "_runner", lambda step: GraphRunner(step, refused))
    worker = DepthWorker(
        DepthParameters(weights="untrained:tiny", backend="torch", follow_snapshots=follow),
        publish=print,
        warn=print,
        failed=print,
        load=lambda _: TorchEstimator(untrained("tiny")),
    )
    worker.start()
    assert (worker.swap is not None) == follow
    assert str(worker.backend) == (
        "torch (the parameter 'backend' says so; steps take longer, without CUDA graphs: it cannot "
        "be recorded (no graphs here))"
    )
    assert worker.stop(120.0)


def test_a_queue_loses_no_message_whatever_its_size(busy):
    """Messages wait for as much room as they need; one larger than the inbox, for all of it."""
    held = busy(overload="queue")
    before = held._seq
    sizes = [50_000, 87_000, 10_000, 120_000, 150_000, 40_000, 120_000]
    messages = [held.message(events) for events in sizes]
    assert max(map(len, messages)) > CAPACITY_BYTES
    feeder = held.feed(messages, [])
    feeder.join(0.5)
    assert feeder.is_alive(), "nothing holds the receiver back"
    assert held.worker.inbox.byte_count <= CAPACITY_BYTES
    held.release()
    feeder.join(120.0)
    assert not feeder.is_alive()
    held.finish()
    snapshot = held.worker.snapshot
    assert snapshot.inbox_dropped == 0
    assert snapshot.pipeline.events == before * 50 + sum(sizes)
    assert snapshot.pipeline.gaps == {}


def test_a_queue_loses_no_camera_frame_either(busy):
    """Frames wait for room as events do, and push no events out."""
    held = busy(overload="queue")
    before = held._seq
    image = write_image(np.zeros((1000, 600), np.uint8), START_NS, "camera")
    messages = [held.message(50_000) for _ in range(6)]
    feeder = held.feed(messages, [image] * 6)
    feeder.join(0.5)
    assert feeder.is_alive(), "nothing holds the receiver back"
    held.release()
    feeder.join(120.0)
    assert not feeder.is_alive()
    held.finish()
    assert held.worker.snapshot.inbox_dropped == 0
    assert held.worker.snapshot.pipeline.events == before * 50 + 6 * 50_000


def test_room_comes_with_each_message_and_not_with_the_whole_inbox(busy):
    """A receiver that is held back waits for one message only: the executor gets its turns."""
    held = busy(overload="queue")
    feeder = held.feed([held.message(10_000) for _ in range(40)], [])
    while held.handed_over < 11:
        time.sleep(0.01)
    feeder.join(0.3)
    assert feeder.is_alive()
    fitting = held.handed_over
    assert 11 <= fitting <= 12
    held.busy.clear()
    held.go_on.release()
    assert held.busy.wait(120.0)
    while held.handed_over == fitting:
        time.sleep(0.01)
    feeder.join(0.3)
    # A window of 20 ms takes four messages of 5 ms; what waits behind them stays in the inbox.
    assert 1 <= held.handed_over - fitting <= 5


def test_a_reset_passes_a_receiver_that_is_held_back_and_a_stop_frees_it(busy):
    """Nothing that the executor calls waits for room: reset, pause and stop cannot deadlock."""
    held = busy(overload="queue")
    feeder = held.feed([held.message(50_000) for _ in range(12)], [])
    feeder.join(0.3)
    assert feeder.is_alive()
    held.worker.put_command(ResetState("service"))
    held.worker.interrupt()
    feeder.join(120.0)
    assert not feeder.is_alive()


@pytest.mark.parametrize("overload", ["latest", "queue"])
def test_accepted_parameters_are_never_pushed_out(busy, overload):
    """A flood of messages drops the oldest of them, not the scale that was set before."""
    held = busy(overload=overload)
    assert held.worker.kind == "relative"
    waiting = len(held.worker.inbox)
    held.worker.put_command(dataclasses.replace(held.parameters, scale=2.0))
    feeder = held.feed([held.message(60_000) for _ in range(6)], [])
    feeder.join(0.5)
    held.release()
    feeder.join(120.0)
    held.finish()
    assert held.worker.kind == "metric"
    # Two of the six fit.
    assert held.worker.snapshot.inbox_dropped == (4 + waiting if overload == "latest" else 0)


@pytest.mark.parametrize("overload", ["latest", "queue"])
def test_more_than_can_be_decoded_is_left_out_and_counted(busy, overload):
    """After `largest_lag_s` of decoding what waits is dropped, but for what is no message."""
    held = busy(overload=overload, inbox_mb=1024, largest_lag_s=0.05)
    before = held._seq
    waiting = len(held.worker.inbox)
    # No processor decodes these in a twentieth of a second.
    feeder = held.feed([held.message(500_000) for _ in range(60)], [])
    feeder.join(120.0)
    held.worker.put_command(dataclasses.replace(held.parameters, scale=2.0))
    held.release()
    held.finish()
    snapshot = held.worker.snapshot
    assert held.worker.kind == "metric"
    assert snapshot.inbox_dropped == 0
    decoded = snapshot.pipeline.events - 50 * before
    assert decoded == 500_000 * (60 - snapshot.inbox_late)
    if overload == "latest":
        assert 0 < snapshot.inbox_late <= 60 + waiting
        # What comes then is taken as ever.
        held.worker.put_events(held.message(70), TYPE)
        held.finish()
        assert held.worker.snapshot.pipeline.events - 50 * before == decoded + 70
    else:
        assert snapshot.inbox_late == 0


@pytest.mark.parametrize("pushed_out", [True, False])
def test_what_is_dropped_of_messages_without_a_counter_is_a_gap(busy, pushed_out):
    """Event arrays do not say that some are missing, the node that dropped them does."""
    held = busy(inbox_mb=1 if pushed_out else 1024, largest_lag_s=0.05)
    held.release()
    held.finish()
    for _ in range(4):
        held.worker.put_events(held.array(50), ARRAY)
    held.finish()
    assert held.worker.snapshot.pipeline.drops["gap_encoding"] == 1
    held.free = False
    held.busy.clear()
    while not held.busy.is_set():
        held.worker.put_events(held.array(50), ARRAY)
        time.sleep(0.01)
    # Three of these fit, and no processor decodes all of the others in a twentieth of a second.
    count, events = (12, 20_000) if pushed_out else (40, 400_000)
    for _ in range(count):
        held.worker.put_events(held.array(events), ARRAY)
    held.release()
    held.finish()
    held.worker.put_events(held.array(50), ARRAY)
    held.finish()
    snapshot = held.worker.snapshot
    assert (snapshot.inbox_dropped if pushed_out else snapshot.inbox_late) > 0
    assert snapshot.pipeline.drops["gap_lost"] == 1


@pytest.mark.parametrize("overload", ["latest", "queue"])
def test_a_pause_keeps_accepted_parameters(busy, overload):
    """What was received is forgotten by a pause; a scale that was set meanwhile holds after it."""
    held = busy(overload=overload)
    for _ in range(3):
        held.worker.put_events(held.message(1000), TYPE)
    held.worker.put_command(dataclasses.replace(held.parameters, scale=2.0))
    forgetting = threading.Thread(target=held.worker.forget, args=("deactivated",))
    forgetting.start()
    time.sleep(0.05)
    held.release()
    forgetting.join(120.0)
    assert not forgetting.is_alive()
    held.finish()
    assert held.worker.kind == "metric"
    assert held.worker.snapshot.pipeline.resets["deactivated"] == 1
    assert held.published == 1
