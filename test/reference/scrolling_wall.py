"""A textured wall that scrolls past the camera: frames, events and depth that belong together.

Grey says how far away a point is, so that a "teacher" reads depth off any frame, mirrored or cut.
Events come where the logarithm of grey, sampled every millisecond, has moved by a threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket, Events

BASE_NS = 1_700_000_000_000_000_000
MS = 1_000_000


def depth_of_grey(grey: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return metres of a grey level."""
    return (1.0 + grey / 16.0).astype(np.float32)


def mono_packet(events: Events, height: int, width: int, seq: int, stamp_ns: int) -> EventPacket:
    """Pack events as `mono` words: 32 bit of time, x, y, polarity."""
    base = int(events.t[0]) if len(events) else stamp_ns
    words = (
        (events.t - base).astype(np.uint64)
        | events.x.astype(np.uint64) << np.uint64(32)
        | events.y.astype(np.uint64) << np.uint64(48)
        | events.p.astype(np.uint64) << np.uint64(63)
    )
    return EventPacket("mono", height, width, words.tobytes(), base, stamp_ns, seq, "camera")


@dataclass(frozen=True)
class Wall:
    """The scene.

    Attributes:
        seed: of the texture.
        height, width: px.
        speed_px_s: to the left.
        duration_ms: how long.
        still_from_ms: from when on it stands still.
    """

    seed: int = 0
    height: int = 28
    width: int = 42
    speed_px_s: float = 100.0
    duration_ms: int = 1000
    still_from_ms: int = 1_000_000
    texture: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        columns = np.arange(self.width + 2000)[None, :]
        rows = np.arange(self.height)[:, None]
        waves = np.zeros((self.height, columns.shape[1]))
        for _ in range(12):
            kx, ky, phase = (
                random.uniform(0.1, 0.5),
                random.uniform(-0.3, 0.3),
                random.uniform(0, 7),
            )
            waves += np.sin(kx * columns + ky * rows + phase)
        object.__setattr__(self, "texture", 120 + 30 * waves.clip(-3, 3))

    def grey(self, at_ms: float) -> NDArray[np.float64]:
        """Return the image in the middle of an exposure, before rounding."""
        shift = self.speed_px_s * min(at_ms, self.still_from_ms) / 1000
        whole, part = int(shift), shift - int(shift)
        first = self.texture[:, whole : whole + self.width]
        second = self.texture[:, whole + 1 : whole + 1 + self.width]
        return (1 - part) * first + part * second

    def frame(self, at_ms: float, stamp_ms: float | None = None, exposure_ms: float = 0) -> Frame:
        """Return the frame with its middle of exposure at `at_ms`, stamped there or elsewhere."""
        stamp_ms = at_ms if stamp_ms is None else stamp_ms
        image = np.rint(self.grey(at_ms)).astype(np.uint8)
        return Frame(BASE_NS + round(stamp_ms * MS), image, round(exposure_ms * MS), "camera")

    def events(self) -> Events:
        """Return all events; times within a millisecond are spread evenly."""
        reference = np.log(self.grey(0))
        t, x, y, p = [], [], [], []
        for at_ms in range(1, self.duration_ms):
            change = np.log(self.grey(at_ms)) - reference
            steps = np.trunc(change / 0.1).astype(int)
            reference += 0.1 * steps
            ys, xs = np.nonzero(steps)
            for k, (row, column) in enumerate(zip(ys, xs, strict=True)):
                t.append(BASE_NS + (at_ms - 1) * MS + MS * k // len(ys) // 1000 * 1000)
                x.append(column)
                y.append(row)
                p.append(1 if steps[row, column] > 0 else 0)
        return Events(
            np.array(t, np.int64), np.array(x, np.uint16), np.array(y, np.uint16),
            np.array(p, np.uint8),
        )  # fmt: skip

    def packets(self, length_ms: int = 10) -> Iterator[EventPacket]:
        """Yield the events in packets, stamped at their beginning; empty ones too."""
        events = self.events()
        for seq, begin_ms in enumerate(range(0, self.duration_ms, length_ms)):
            begin_ns = BASE_NS + begin_ms * MS
            low, high = np.searchsorted(events.t, [begin_ns, begin_ns + length_ms * MS])
            part = events.slice(int(low), int(high))
            yield mono_packet(part, self.height, self.width, seq, begin_ns)
