"""The values between the cameras and the learner: clips, labelled clips, refusals."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import DistillationError

# Teacher of clips whose depth was measured or simulated.
GROUND_TRUTH = "ground_truth"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A gate said no; counted and published, never raised.

    Attributes:
        reason: a stable word, the key under which it is counted.
        detail: a sentence with the numbers.
    """

    reason: str
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class EventClip:
    """T windows of events without a gap between them: what is learned from; read-only.

    Attributes:
        end_ns: end of the last window, event time, whole microseconds.
        window_ns: length of each window.
        windows: uint8[T, H, W], Tencode of each window as `clip_codes` codes it.
        sharp: bool[T]: the frame at the window's end is sharp enough for terms that compare edges;
            False where there is no frame.
        supported: bool[T]: the window holds enough events to learn from; otherwise it only
            advances the recurrent state.
        event_counts: int64[T].
        luminance: mean grey level of the last frame, 0..255.
        event_rate_hz: events per second over all windows.
        image_speed_px_s: how fast edges move in the last window; NaN where nothing says it.

    Raises:
        DistillationError: arrays that do not belong together.
    """

    end_ns: int
    window_ns: int
    windows: NDArray[np.uint8]
    sharp: NDArray[np.bool_]
    supported: NDArray[np.bool_]
    event_counts: NDArray[np.int64]
    luminance: float
    event_rate_hz: float
    image_speed_px_s: float

    def __post_init__(self) -> None:
        self.windows.flags.writeable = False
        for name in ("sharp", "supported", "event_counts"):
            _require(name, getattr(self, name), (len(self.windows),))

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.windows)

    @property
    def start_ns(self) -> int:
        """Beginning of the first window, event time."""
        return self.end_ns - len(self) * self.window_ns

    @property
    def ends_ns(self) -> NDArray[np.int64]:
        """Ends of all windows, int64[T], event time."""
        return self.end_ns - self.window_ns * np.arange(len(self) - 1, -1, -1, dtype=np.int64)

    @property
    def byte_count(self) -> int:
        """Memory of the arrays."""
        return _bytes_of(self)


@dataclass(frozen=True, slots=True, eq=False)
class Observation(EventClip):
    """A clip with the camera's frames, for a teacher to look at; read-only.

    Attributes:
        frames: uint8[T, H, W], grey; zeros where `has_frame` is False.
        has_frame: bool[T]: a frame's middle of exposure is at the window's end, within the
            tolerance. The last is True: the end of the clip is the middle of its exposure.
        frame_ns: int64[T], these middles of exposure, event time; the window's end where there is
            no frame.
        masks: bool[T, H, W]: pixels of the frame that may be used; False where there is none.

    Raises:
        DistillationError: arrays that do not belong together, or no frame at the end.
    """

    frames: NDArray[np.uint8]
    has_frame: NDArray[np.bool_]
    frame_ns: NDArray[np.int64]
    masks: NDArray[np.bool_]

    def __post_init__(self) -> None:
        EventClip.__post_init__(self)  # `super()` is that of the class without slots
        for name in ("frames", "masks"):
            _require(name, getattr(self, name), self.windows.shape)
        for name in ("has_frame", "frame_ns"):
            _require(name, getattr(self, name), (len(self),))
        if not self.has_frame[-1]:
            raise DistillationError("an observation ends at a camera frame; this one does not")

    def without_frames(self) -> EventClip:
        """Return what is learned from, a sixth of the memory and less."""
        return EventClip(**{item.name: getattr(self, item.name) for item in fields(EventClip)})


@dataclass(frozen=True, slots=True, eq=False)
class LabelledClip:
    """A clip with what a teacher says of some of its frames; read-only.

    Attributes:
        observation: the clip, without frames: nothing that learns looks at them.
        labelled: int64[K], the windows at whose end something is known, ascending.
        depth: float16[K, H, W], NaN where nothing is known: metres, or depth up to scale and
            shift where `label_metric` is False.
        weight: uint8[K, H, W]: confidence, 255 is full; 0 where there is no label.
        label_metric: whether depth is metres.
        teacher, teacher_digest: name and sha256 of who said it.
        state: the student's recurrent state before window `lead`, float16, or () for none.
        state_version: of the weights that made the state; -1 for none.

    Raises:
        DistillationError: arrays that do not belong together.
    """

    observation: EventClip
    labelled: NDArray[np.int64]
    depth: NDArray[np.float16]
    weight: NDArray[np.uint8]
    label_metric: bool
    teacher: str
    teacher_digest: str
    state: tuple[NDArray[np.float16], ...] = ()
    state_version: int = -1

    def __post_init__(self) -> None:
        count, size = len(self.labelled), self.observation.windows.shape[1:]
        _require("labelled", self.labelled, (count,))
        for name in ("depth", "weight"):
            _require(name, getattr(self, name), (count, *size))
        if np.any(np.diff(self.labelled, prepend=-1) <= 0) or np.any(
            self.labelled >= len(self.observation)
        ):
            raise DistillationError(
                f"a clip of {len(self.observation)} windows has no labels at "
                f"{self.labelled.tolist()}; they ascend from 0 on",
                labelled=self.labelled.tolist(),
            )
        for column in self.state:
            column.flags.writeable = False

    @property
    def byte_count(self) -> int:
        """Memory of the arrays, the observation's included."""
        return (
            self.observation.byte_count
            + _bytes_of(self)
            + sum(column.nbytes for column in self.state)
        )


def _require(name: str, column: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    """Freeze an array of the right shape.

    Raises:
        DistillationError: another shape.
    """
    if column.shape != shape:
        raise DistillationError(
            f"'{name}' of a clip is {column.shape}, the windows ask for {shape}",
            name=name,
            shape=column.shape,
            expected=shape,
        )
    column.flags.writeable = False


def _bytes_of(value: EventClip | LabelledClip) -> int:
    columns = (getattr(value, item.name) for item in fields(value))
    return sum(column.nbytes for column in columns if isinstance(column, np.ndarray))
