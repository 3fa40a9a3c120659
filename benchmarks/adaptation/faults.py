"""What can go wrong with a teacher and its cameras, for a while, in simulated time.

A fault of the teacher changes what its network puts out; one of the cameras changes the recording,
for learning and for depth alike. All are drawn from the seed and the time alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.bags.container import RecordedMessage
from dae_ros.bags.recording import Recording
from dae_ros.bags.topics import choose_events_topic
from dae_ros.distillation.labels import DepthRange
from dae_ros.distillation.teacher import FrameBackend, FrameTeacher, TorchFrames
from dae_ros.events.codecs import create_decoder
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket, Events
from dae_ros.model.checkpoint import load_checkpoint
from dae_ros.simulation.encoders import create_encoder

# Between what a slow teacher is asked and what it says.
SLOW_LABEL_S = 8.0
# Of a camera that was knocked: columns between what it sees and what the events show.
SHIFT_PX = 12
# Of frames whose clock is off.
LATE_NS = 60_000_000
# Events of every pixel and second in a flood: each one is active in each window.
FLOOD_HZ = 60.0
# Of a teacher whose metres drift: its depth doubles in a minute.
DRIFT_PER_S = math.log(2.0) / 60.0
TEACHER_FAULTS = (
    "random", "constant", "inverted", "frozen", "noisy", "blotchy", "doubled", "drifting", "slow",
)  # fmt: skip
CAMERA_FAULTS = ("shifted", "late", "black_frames", "no_events", "blinded", "flood")
FAULTS = (*TEACHER_FAULTS, *CAMERA_FAULTS)


@dataclass
class Clock:
    """Seconds of the drive that have passed; the recording moves it."""

    now_s: float = 0.0


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        name: one of `FAULTS`, or `none`.
        begin_s, end_s: when.
        clock: of the drive.
        seed: of what is drawn.
    """

    name: str
    begin_s: float
    end_s: float
    clock: Clock
    seed: int

    @property
    def active(self) -> bool:
        """Whether it is going on."""
        return self.name != "none" and self.begin_s <= self.clock.now_s < self.end_s

    @property
    def age_s(self) -> float:
        """How long it has been going on."""
        return self.clock.now_s - self.begin_s

    def random(self) -> np.random.Generator:
        """Return what is drawn at this instant."""
        return np.random.default_rng([self.seed, round(self.clock.now_s * 1e6)])

    def label_s(self) -> float:
        """Return how long a label takes."""
        return SLOW_LABEL_S if self.active and self.name == "slow" else 0.0


class FailingFrames:
    """A frame network of metres that fails while a fault goes on; a `FrameBackend`.

    Args:
        frames: the network.
        fault: when, and how.
    """

    def __init__(self, frames: FrameBackend, fault: Fault) -> None:
        self._frames = frames
        self._fault = fault
        self._frozen: Tensor | None = None

    def __call__(self, frames: Tensor) -> Tensor:
        """Return metres, float32 (N, H, W), of frames, uint8 (N, H, W)."""
        healthy = self._frames(frames)
        if not self._fault.active:
            return healthy
        if self._frozen is None or self._frozen.shape != healthy.shape[1:]:
            self._frozen = healthy[0].clone()
        ways: Mapping[str, Callable[[Tensor], Tensor]] = {
            "random": self._random,
            "constant": lambda depth: torch.full_like(depth, 5.0),
            # What was near is far, and the other way, about the image's own middle.
            "inverted": lambda depth: depth.flatten(1).median(1).values[:, None, None] ** 2 / depth,
            "frozen": lambda depth: depth.new_tensor(0.0) + self._still(depth),
            "noisy": lambda depth: depth * torch.exp(0.3 * self._noise(depth, 1)),
            "blotchy": lambda depth: depth * torch.exp(0.5 * self._noise(depth, 24)),
            # Smoothly wrong: nothing about the shape of these gives them away.
            "doubled": lambda depth: 2.0 * depth,
            "drifting": lambda depth: depth * math.exp(DRIFT_PER_S * self._fault.age_s),
        }
        way = ways.get(self._fault.name)
        return healthy if way is None else way(healthy)

    def _still(self, depth: Tensor) -> Tensor:
        if self._frozen is None:
            raise RuntimeError("nothing is frozen yet")
        return self._frozen.expand_as(depth).clone()

    def _random(self, depth: Tensor) -> Tensor:
        return torch.exp(2.0 + self._noise(depth, 1))

    def _noise(self, depth: Tensor, cell_px: int) -> Tensor:
        """Return normal noise, the same over about `cell_px` pixels, another for each frame."""
        count, height, width = depth.shape
        rows, columns = -(-height // cell_px), -(-width // cell_px)
        drawn = self._fault.random().standard_normal((count, 1, rows, columns))
        noise = torch.from_numpy(drawn.astype(np.float32)).to(depth.device)
        if cell_px > 1:
            noise = torch.nn.functional.interpolate(
                noise, (height, width), mode="bilinear", align_corners=False
            )
        return noise[:, 0, :height, :width]


def failing_teacher(
    checkpoint: str, depth_range: DepthRange, fault: Fault, name: str = "frames"
) -> FrameTeacher:
    """Return a frame network of this project that fails as a fault says, also by not failing."""
    loaded = load_checkpoint(checkpoint)
    backend = FailingFrames(TorchFrames(loaded, torch.device("cpu")), fault)
    return FrameTeacher(name, loaded.digest, backend, loaded.meaning, depth_range)


class Drive(Recording):
    """A part of a recording that moves a clock, and has a fault of the cameras in it.

    Args:
        recording: opened.
        fault: of any kind; those of the teacher change nothing here.
        length_s: of the part; None for all that is left.
        begin_s: what the clock shows at its beginning.
        start_s: where in the recording the part begins.
    """

    def __init__(
        self,
        recording: Recording,
        fault: Fault,
        length_s: float | None = None,
        begin_s: float = 0.0,
        start_s: float = 0.0,
    ) -> None:
        super().__init__(recording.containers, recording.paths)
        self._fault = fault
        self._length_s = length_s
        self._begin_s = begin_s
        self._skipped_ns = round(start_s * 1e9)
        self._events_topic = choose_events_topic(self.topics, None)
        self._flood: _Flood | None = None

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int | None = None
    ) -> Iterator[RecordedMessage]:
        """See `Recording.messages`."""
        first_ns: int | None = None
        if self._skipped_ns and start_ns is None and self.start_ns is not None:
            start_ns = self.start_ns + self._skipped_ns
        for message in super().messages(topics, start_ns):
            first_ns = message.time_ns if first_ns is None else first_ns
            elapsed_s = (message.time_ns - first_ns) / 1e9
            if self._length_s is not None and elapsed_s >= self._length_s:
                return
            self._fault.clock.now_s = self._begin_s + elapsed_s
            lost = self._is("no_events", "blinded") and message.topic == self._events_topic
            if not lost:
                yield message

    def read_frame(self, message: RecordedMessage) -> Frame:
        """See `Recording.read_frame`."""
        frame = super().read_frame(message)
        if self._is("black_frames", "blinded"):
            return dataclasses.replace(frame, image=np.zeros_like(frame.image))
        if self._is("shifted"):
            return dataclasses.replace(frame, image=shifted(frame.image))
        if self._is("late"):
            return dataclasses.replace(frame, stamp_ns=frame.stamp_ns + LATE_NS)
        return frame

    def read_packet(self, message: RecordedMessage) -> EventPacket:
        """See `Recording.read_packet`."""
        packet = super().read_packet(message)
        if self._fault.name != "flood":
            return packet
        if self._flood is None:
            self._flood = _Flood(packet)
        return self._flood.packet(packet, self._fault.random() if self._fault.active else None)

    def _is(self, *names: str) -> bool:
        return self._fault.active and self._fault.name in names


def shifted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image whose content is `SHIFT_PX` columns further right; its edge is repeated."""
    return np.concatenate([np.repeat(image[:, :1], SHIFT_PX, axis=1), image[:, :-SHIFT_PX]], axis=1)


class _Flood:
    """Decodes every packet and encodes it again, with noise at all pixels where it is asked for.

    All packets go through it, because encodings carry state from one to the next.
    """

    def __init__(self, packet: EventPacket) -> None:
        self._size = packet.height, packet.width
        self._decoder = create_decoder(packet.encoding, packet.width, packet.height)
        self._encoder = create_encoder(packet.encoding, packet.width, packet.height)

    def packet(self, packet: EventPacket, random: np.random.Generator | None) -> EventPacket:
        """Return the packet, with noise where there is something to draw from."""
        events = self._decoder.decode(packet.payload, packet.time_base_ns)
        if random is not None and len(events):
            events = self._with_noise(events, random)
        payload, time_base_ns = self._encoder.encode(events)
        return dataclasses.replace(packet, payload=payload, time_base_ns=time_base_ns)

    def _with_noise(self, events: Events, random: np.random.Generator) -> Events:
        height, width = self._size
        begin, end = int(events.t[0]), int(events.t[-1])
        count = int(random.poisson(FLOOD_HZ * height * width * (end - begin) / 1e9))
        noise = (
            # Whole microseconds, as a camera gives them.
            np.sort(random.integers(begin // 1000, end // 1000 + 1, count)) * 1000,
            random.integers(width, size=count).astype(np.uint16),
            random.integers(height, size=count).astype(np.uint16),
            random.integers(2, size=count).astype(np.uint8),
        )
        columns = [
            np.concatenate([a, b])
            for a, b in zip((events.t, events.x, events.y, events.p), noise, strict=True)
        ]
        order = np.argsort(columns[0], kind="stable")
        t, x, y, p = (column[order] for column in columns)
        return Events(t, x, y, p)
