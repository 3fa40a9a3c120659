"""The simulated camera as a stream: event packets, grey frames and true depth, in time order.

All stamps are on one clock, the ROS clock of the simulation, which begins at `START_NS`
whenever it is run, so that two runs give the same bytes. Event times are on the clock that
the encoding has: that of the stamps for absolute encodings, the camera's own, which shows
`SENSOR_START_NS` at the beginning, for `evt3`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket, Events
from dae_ros.parameters import SimulatorParameters
from dae_ros.simulation.aps import FrameSensor
from dae_ros.simulation.camera import Pose
from dae_ros.simulation.encoders import create_encoder
from dae_ros.simulation.sensor import EventSensor
from dae_ros.simulation.worlds import World, create_world

START_NS = 1_700_000_000_000_000_000
SENSOR_START_NS = 1_000_000_000
FRAME_ID = "camera_optical_frame"
# Between two renderings nothing moves further than this, down to the shortest step.
MOTION_PER_STEP_PX = 0.5
SHORTEST_STEP_US = 50
# Encodings whose times count from the start of the camera.
_SENSOR_CLOCK = ("evt3",)
EVENT_ARRAY_CDR = "event_array_cdr"


@dataclass(frozen=True, slots=True, eq=False)
class DepthTruth:
    """Exact depth at one instant.

    Attributes:
        stamp_ns: the instant, on the clock of the stamps.
        depth: float32[H, W], m along the optical axis; NaN where a ray meets nothing.
        frame_id: the optical frame.
        pose: where it is in the world.
    """

    stamp_ns: int
    depth: NDArray[np.float32]
    frame_id: str
    pose: Pose


Item: TypeAlias = "Events | Frame | DepthTruth"


class Simulation:
    """A camera that moves through a world; every call of `run`, `items` or `events` begins anew.

    Args:
        parameters: what to simulate; pacing and subscribers are the node's business.
        world: instead of the one that the parameters name.

    Attributes:
        camera: the camera.
        event_start_ns: what event times show at the start.

    Raises:
        ConfigurationError: parameters out of range.
    """

    def __init__(self, parameters: SimulatorParameters, world: World | None = None) -> None:
        parameters.validate()
        self._parameters = parameters
        self._world = create_world(parameters) if world is None else world
        self.camera = self._world.camera
        relative = parameters.encoding in _SENSOR_CLOCK
        self.event_start_ns = SENSOR_START_NS if relative else START_NS

    def run(self) -> Iterator[EventPacket | Frame | DepthTruth]:
        """Yield everything in order of its stamp, until `duration_s` (0: without end).

        Packets cover `packet_s` each and carry the time of their first event as their stamp;
        one without events is not sent. Frames carry the middle of their exposure.
        """
        encoder = self.encoder()
        for item in self.items():
            yield encoder.packet(item) if isinstance(item, Events) else item

    def encoder(self) -> PacketEncoder:
        """Return what turns the events of one run into packets."""
        return PacketEncoder(self._parameters, self.event_start_ns)

    def events(self) -> Iterator[Events]:
        """Yield the events of one packet after another, as a decoder of the packets gives them."""
        return (item for item in self.items() if isinstance(item, Events))

    def items(self) -> Iterator[Item]:
        """Yield events (one packet's after another), frames and depth in order of their stamps."""
        waiting: list[tuple[int, int, Item]] = []
        for count, (stamp_ns, item, earliest_ns) in enumerate(self._produce()):
            if item is not None:
                heapq.heappush(waiting, (stamp_ns, count, item))
            while waiting and waiting[0][0] < earliest_ns:
                yield heapq.heappop(waiting)[2]
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _produce(self) -> Iterator[tuple[int, Item | None, int]]:
        """Yield (stamp, item or None, no later item is stamped before this), ns since the start."""
        parameters = self._parameters
        view = self._world.view()
        ends_us = [] if self._world.end_us is None else [self._world.end_us]
        if parameters.duration_s > 0.0:
            ends_us.append(_microseconds(parameters.duration_s))
        end_us = min(ends_us, default=None)
        packets = _PacketCutter(_microseconds(parameters.packet_s), self.event_start_ns)
        depth_count = 0
        now_us = 0
        view.look(0)
        radiance = view.radiance()
        exposure = FrameSensor(
            radiance,
            _microseconds(parameters.exposure_s),
            parameters.frame_hz,
            parameters.auto_exposure,
            parameters.seed,
        )
        sensor = EventSensor(
            radiance,
            self.event_start_ns // 1000,
            contrast_threshold=parameters.contrast_threshold,
            off_ratio=parameters.off_ratio,
            threshold_spread=parameters.threshold_spread,
            bandwidth_hz=parameters.bandwidth_hz,
            refractory_us=max(1, _microseconds(parameters.refractory_s)),
            leak_hz=parameters.leak_hz,
            noise_hz=parameters.noise_hz,
            hot_pixels=parameters.hot_pixels,
            readout_hz=parameters.readout_hz,
            seed=parameters.seed,
        )
        while True:
            depth_us = round(depth_count * 1e6 / parameters.depth_hz)

            def earliest_ns(next_depth_us: int = depth_us) -> int:
                return 1000 * min(packets.start_us, exposure.middle_us, next_depth_us)

            if depth_us == now_us:
                depth_count += 1
                truth = DepthTruth(START_NS + now_us * 1000, view.depth(), FRAME_ID, view.pose())
                yield now_us * 1000, truth, 0
                continue
            if now_us == end_us:
                break
            deadlines = [depth_us, exposure.next_instant_us(now_us)]
            if end_us is not None:
                deadlines.append(end_us)
            step_us = _step_us(
                view.greatest_flow(), min(deadlines) - now_us, self._world.longest_step_us
            )
            before = radiance
            now_us += step_us
            view.look(now_us)
            radiance = view.radiance()
            packets.add(sensor.expose(radiance, self.event_start_ns // 1000 + now_us), now_us)
            grey = exposure.add(before, radiance, now_us, step_us)
            if grey is not None:
                stamp_us, exposure_us, image = grey
                frame = Frame(START_NS + stamp_us * 1000, image, exposure_us * 1000, FRAME_ID)
                yield stamp_us * 1000, frame, 0
            for events in packets.closed():
                yield int(events.t[0]) - self.event_start_ns, events, 0
            yield 0, None, earliest_ns()
        for events in packets.rest():
            yield int(events.t[0]) - self.event_start_ns, events, 0


class PacketEncoder:
    """Encodes the events of one run as the packets of a camera; see `Simulation.run`."""

    def __init__(self, parameters: SimulatorParameters, event_start_ns: int) -> None:
        self._is_array = parameters.encoding == "dvs_msgs"
        self._event_start_ns = event_start_ns
        self._encoding = EVENT_ARRAY_CDR if self._is_array else parameters.encoding
        self._encoder = create_encoder(self._encoding, parameters.width, parameters.height)
        self._count = 0

    def packet(self, events: Events) -> EventPacket:
        """Return the next packet; at least one event, later than those before."""
        payload, time_base_ns = self._encoder.encode(events)
        self._count += 1
        return EventPacket(
            self._encoding, self._encoder.height, self._encoder.width, payload, time_base_ns,
            START_NS + int(events.t[0]) - self._event_start_ns,
            None if self._is_array else self._count - 1, FRAME_ID,
        )  # fmt: skip


class _PacketCutter:
    """Cuts the stream of events into packets of equal length, leaving out empty ones.

    Attributes:
        start_us: beginning of the packet that is open, us since the start.
    """

    def __init__(self, length_us: int, event_start_ns: int) -> None:
        self._length_us = length_us
        self._event_start_ns = event_start_ns
        self._parts: list[Events] = []
        self._now_us = 0
        self.start_us = 0

    def add(self, events: Events, now_us: int) -> None:
        """Append the events before `now_us`."""
        self._parts.append(events)
        self._now_us = now_us

    def closed(self) -> Iterator[Events]:
        """Yield the packets that have ended."""
        while self.start_us + self._length_us <= self._now_us:
            self.start_us += self._length_us
            everything = Events.concatenate(self._parts)
            border = self._event_start_ns + self.start_us * 1000
            cut = int(np.searchsorted(everything.t, border))
            self._parts = [everything.slice(cut, len(everything))]
            if cut > 0:
                yield everything.slice(0, cut)

    def rest(self) -> Iterator[Events]:
        """Yield the packet that the end of the simulation cut short."""
        everything = Events.concatenate(self._parts)
        self._parts = []
        if len(everything) > 0:
            yield everything


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _step_us(flow_px_s: float, remaining_us: int, longest_us: int) -> int:
    """Divide the time that remains into equal steps that are short enough for the motion."""
    step = longest_us
    if flow_px_s * longest_us > MOTION_PER_STEP_PX * 1e6:
        step = max(SHORTEST_STEP_US, int(MOTION_PER_STEP_PX * 1e6 / flow_px_s))
    return math.ceil(remaining_us / math.ceil(remaining_us / step))
