"""A camera in a process of its own: encoded packets over DDS, paced by the clock, for hours.

    python -m benchmarks.live.camera PLAN FOLDER

Events are encoded once, as cycles of up to a second, and sent again and again. EVT 3.0 counts
time in steps of 4096 us (TIME_HIGH, 12 bits); a cycle is a whole number of them, so that adding to
these words alone moves it on in time, and neither decoder nor clock ever sees anything repeat.
Message counter and stamp are set for each message, at the cost of one copy.

The process prints one line when it is ready, begins at the line `go` on its standard input as soon
as somebody subscribes, with next to no events, sends what is planned from the line `plan` on, and
ends at any other line or the input's end. It then writes `camera.npz` into the folder: for each
message when it was sent, the newest event time it reaches, and how many events it has.
"""

from __future__ import annotations

import gc
import json
import struct
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.cdr import read_packet, write_packet
from dae_ros.events.packet import EventPacket, Events
from dae_ros.events.stream import EventStream
from dae_ros.simulation.encoders import create_encoder
from dae_ros.simulation.moving_texture import moving_texture

TOPIC = "events"
TYPE_NAME = "event_camera_msgs/msg/EventPacket"
STEP_US = 4096  # of TIME_HIGH
SLOT_US = STEP_US // 4  # the shortest packet: 1.024 ms
LONGEST_CYCLE_STEPS = 250  # 1.024 s
MOST_EVENTS = 6_000_000  # of a cycle
TIME_HIGH = 8
STAMP_AT = 4  # behind the encapsulation
MARK = 0x1122334455667788
ACKNOWLEDGE_S = 90.0
DRIVER_DEPTH = 1000  # messages that a driver keeps
READY, GO, PLAN = "ready", "go", "plan"
LOG = "camera.npz"
# Next to no events, but enough that no window is silent: a packet every 25.6 ms.
QUIET_MEVS, QUIET_SLOTS = 0.01, 25
OPENING = -1  # number of the block before the plan


@dataclass(frozen=True)
class Block:
    """Some seconds at one rate.

    Attributes:
        rate_mevs: million events per second.
        seconds: how long; rounded to whole cycles.
        slots: length of a packet in units of 1.024 ms.
    """

    rate_mevs: float
    seconds: float
    slots: int = 1

    @property
    def cycle_steps(self) -> int:
        """Length of its cycle in steps of TIME_HIGH, a whole number of packets."""
        most = int(MOST_EVENTS / (self.rate_mevs * STEP_US))
        steps = max(1, min(LONGEST_CYCLE_STEPS, most))
        while steps * 4 % self.slots:
            steps += 1
        return steps


@dataclass(frozen=True)
class CameraPlan:
    """What a camera sends.

    Attributes:
        height, width: in px.
        blocks: one after the other; the last one goes on until the camera is stopped.
        reliable: quality of service. A reliable camera waits for its acknowledgements now and
            then, as `replay_node` does, so that a subscriber can hold it back.
        lose: one message in so many is lost on the way; 0 for none.
    """

    height: int
    width: int
    blocks: tuple[Block, ...]
    reliable: bool = False
    lose: int = 0

    def to_json(self) -> str:
        """Return it as the process takes it."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> CameraPlan:
        """Return what `to_json` wrote."""
        values = json.loads(text)
        return CameraPlan(**{**values, "blocks": tuple(Block(**b) for b in values["blocks"])})


class Message:
    """One message of a cycle, to be sent again and again.

    Attributes:
        events: how many it has.
        newest_ns: newest event time that it reaches, since the beginning of the cycle.
    """

    def __init__(self, data: bytes, events: int, newest_ns: int) -> None:
        self._data = bytearray(data)
        self._seq_at = data.index(struct.pack("<Q", MARK))
        payload = len(read_packet(TYPE_NAME, data).payload)
        self._words = np.frombuffer(self._data, "<u2", payload // 2, len(data) - payload)
        self._places = np.flatnonzero(self._words >> 12 == TIME_HIGH)
        self._high = (self._words[self._places] & 0xFFF).astype(np.int64)
        self.events, self.newest_ns = events, newest_ns

    def at(self, steps: int, seq: int, stamp_ns: int) -> bytes:
        """Return it with its times moved on by so many steps of TIME_HIGH."""
        self._words[self._places] = TIME_HIGH << 12 | ((self._high + steps) & 0xFFF)
        struct.pack_into("<iI", self._data, STAMP_AT, *divmod(stamp_ns, 10**9))
        struct.pack_into("<Q", self._data, self._seq_at, seq)
        return bytes(self._data)


def cycle(height: int, width: int, block: Block) -> list[Message]:
    """Return the messages of one cycle, each of `block.slots`; every cycle can be decoded alone."""
    duration_us = block.cycle_steps * STEP_US
    events = moving_texture(
        height, width, block.rate_mevs, max(1, int(block.rate_mevs * duration_us))
    )
    stop = int(np.searchsorted(events.t, duration_us * 1000))
    events = events.slice(0, stop)
    encoder, stream = create_encoder("evt3", width, height), EventStream()
    edges = np.arange(0, duration_us + 1, block.slots * SLOT_US) * 1000
    bounds = np.searchsorted(events.t, edges).tolist()
    messages = []
    for index, (first, last) in enumerate(pairwise(bounds)):
        part = events.slice(first, last)
        payload, _ = encoder.encode(_never_empty(part, int(edges[index])))
        packet = EventPacket("evt3", height, width, payload, 0, 0, MARK + index, "camera")
        stream.feed(packet)
        data = write_packet(EventPacket("evt3", height, width, payload, 0, 0, MARK, "camera"))
        messages.append(Message(data, max(1, len(part)), stream.newest_time_ns or 0))
    return messages


def _never_empty(events: Events, start_ns: int) -> Events:
    """Give a packet without events one at its beginning, so that time goes on."""
    if len(events):
        return events
    one = np.zeros(1, np.uint16)
    return Events(np.array([start_ns]), one, one, np.zeros(1, np.uint8))


def quiet(seconds: float) -> Block:
    """Return a block with next to no events."""
    return Block(QUIET_MEVS, seconds, QUIET_SLOTS)


def schedule(plan: CameraPlan, planned: threading.Event) -> Iterator[tuple[int, Block, int]]:
    """Yield (number of the block, block, cycles of it), the last one again and again.

    Args:
        plan: what to send.
        planned: set when the opening is over.
    """
    while not planned.is_set():
        yield OPENING, quiet(0.0), 1
    for number, block in enumerate(plan.blocks):
        cycle_s = block.cycle_steps * STEP_US / 1e6
        yield number, block, max(1, round(block.seconds / cycle_s))
    while True:
        yield number, block, 1


class Camera:
    """Sends the plan and keeps the log.

    Args:
        plan: what to send.
        publisher: of rclpy, for serialized messages.

    Attributes:
        planned, leaving: to be set when the plan shall begin, and when it shall end.
    """

    def __init__(self, plan: CameraPlan, publisher: Any) -> None:
        self._plan, self._publisher = plan, publisher
        self.planned, self.leaving = threading.Event(), threading.Event()
        made: dict[tuple[float, int], list[Message]] = {}
        for block in (quiet(0.0), *plan.blocks):
            if (block.rate_mevs, block.slots) not in made:
                made[block.rate_mevs, block.slots] = cycle(plan.height, plan.width, block)
        self._cycles = made
        self._sent_ns, self._newest_ns = array("q"), array("q")
        self._events, self._blocks = array("q"), array("q")
        self._waited_ns = 0

    def run(self) -> None:
        """Send until it shall end."""
        from dae_ros.nodes.qos import Unacknowledged

        batch = Unacknowledged()
        # Time begins a step late: decoders take 0 for a time like any other, people do not.
        steps, seq, begin_ns, begin_stamp_ns = 1, 0, time.perf_counter_ns(), time.time_ns()
        for number, block, cycles in schedule(self._plan, self.planned):
            messages = self._cycles[block.rate_mevs, block.slots]
            for _ in range(cycles):
                for index, message in enumerate(messages):
                    # A packet leaves when its last event has happened.
                    due_us = (steps - 1) * STEP_US + (index + 1) * block.slots * SLOT_US
                    self._wait(begin_ns + due_us * 1000)
                    if self.leaving.is_set():
                        return
                    # Held back or not: the stamp is when the camera had it.
                    data = message.at(steps, seq, begin_stamp_ns + due_us * 1000)
                    if self._plan.reliable:
                        self._wait_for_room(batch, len(data))
                    self._sent_ns.append(time.perf_counter_ns())
                    if not self._plan.lose or (seq + 1) % self._plan.lose:
                        self._publisher.publish(data)
                    self._newest_ns.append(message.newest_ns + steps * STEP_US * 1000)
                    self._events.append(message.events)
                    self._blocks.append(number)
                    seq += 1
                steps += block.cycle_steps

    def save(self, folder: Path) -> None:
        """Write the log."""
        np.savez(
            folder / LOG,
            sent_ns=np.array(self._sent_ns),
            newest_ns=np.array(self._newest_ns),
            events=np.array(self._events),
            block=np.array(self._blocks),
            waited_ns=self._waited_ns,
        )

    def _wait(self, due_ns: int) -> None:
        while (left_ns := due_ns - time.perf_counter_ns()) > 0 and not self.leaving.is_set():
            time.sleep(min(left_ns / 1e9, 0.05))

    def _wait_for_room(self, batch: Any, size_bytes: int) -> None:
        from rclpy.duration import Duration

        batch.add(size_bytes)
        if not batch.full:
            return
        begin_ns = time.perf_counter_ns()
        while not self.leaving.is_set() and not self._publisher.wait_for_all_acked(Duration()):
            time.sleep(0.001)
        batch.clear()
        self._waited_ns += time.perf_counter_ns() - begin_ns

    def wait_acknowledged(self, timeout_s: float) -> None:
        """Wait until subscribers have what was sent, which goes with the publisher otherwise."""
        from rclpy.duration import Duration

        deadline_s = time.monotonic() + timeout_s
        while not self._publisher.wait_for_all_acked(Duration()) and time.monotonic() < deadline_s:
            time.sleep(0.01)


@dataclass(frozen=True)
class CameraLog:
    """What a camera has sent.

    Attributes:
        sent_ns: int64[N], `time.perf_counter_ns` just before each message left.
        newest_ns: int64[N], newest event time that the message reaches.
        events, block: int64[N], how many events it has, and of which block it is: `OPENING`, or
            its place in the plan.
        waited_s: how long a reliable camera was held back.
    """

    sent_ns: NDArray[np.int64]
    newest_ns: NDArray[np.int64]
    events: NDArray[np.int64]
    block: NDArray[np.int64]
    waited_s: float

    @staticmethod
    def load(folder: Path) -> CameraLog:
        """Return what `Camera.save` wrote."""
        with np.load(folder / LOG) as file:
            found = {name: file[name] for name in file.files}
        waited_s = float(found.pop("waited_ns")) / 1e9
        return CameraLog(**found, waited_s=waited_s)

    @property
    def rate_mevs(self) -> float:
        """Million events per second of what was planned."""
        planned = self.block != OPENING
        sent_ns = self.sent_ns[planned]
        if len(sent_ns) < 2:
            return 0.0
        return float(self.events[planned][1:].sum()) / float(sent_ns[-1] - sent_ns[0]) * 1e3

    def closing(self, ends_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which message closed each window: the first that reaches its end.

        Args:
            ends_ns: int64[M], ends of windows in event time, all of them reached.

        Raises:
            ValueError: a window ends after everything that was sent.
        """
        found = np.searchsorted(self.newest_ns, ends_ns, side="left")
        if len(found) and found.max() >= len(self.newest_ns):
            raise ValueError("a window ends after the newest event that was sent")
        return found


def main() -> None:
    """Be the camera."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    from dae_ros.nodes.qos import Unacknowledged, message_class

    plan, folder = CameraPlan.from_json(sys.argv[1]), Path(sys.argv[2])
    rclpy.init(args=[])
    node = rclpy.create_node("camera")
    reliability = ReliabilityPolicy.RELIABLE if plan.reliable else ReliabilityPolicy.BEST_EFFORT
    depth = Unacknowledged.DEPTH if plan.reliable else DRIVER_DEPTH
    qos = QoSProfile(depth=depth, reliability=reliability)
    publisher = node.create_publisher(message_class(TYPE_NAME), TOPIC, qos)
    camera = Camera(plan, publisher)

    def listen() -> None:
        if sys.stdin.readline().strip() == PLAN:
            camera.planned.set()
            sys.stdin.readline()
        camera.leaving.set()

    print(READY, flush=True)
    if sys.stdin.readline().strip() == GO:
        threading.Thread(target=listen, daemon=True).start()
        while not publisher.get_subscription_count() and not camera.leaving.is_set():
            time.sleep(0.01)
        time.sleep(0.5)
        gc.freeze()
        gc.disable()
        camera.run()
        if plan.reliable:
            camera.wait_acknowledged(ACKNOWLEDGE_S)
    camera.save(folder)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
