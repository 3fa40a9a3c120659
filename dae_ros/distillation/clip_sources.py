"""Where clips come from: a simulated world, any recording, or a data set's sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dae_ros.bags.labelled import open_labelled
from dae_ros.bags.labelled_recording import PATIENCE_NS, Ends
from dae_ros.bags.rosbag2 import storage_of
from dae_ros.errors import RecordingError
from dae_ros.events.frame import Frame
from dae_ros.parameters import SimulatorParameters, Value
from dae_ros.representation.tencode import FloatImage, tencode_voxel
from dae_ros.representation.voxel_grid import voxel_grid
from dae_ros.simulation.clips import ClipWindow, clip_windows

VOXEL_BINS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One encoded window with what is known about its end.

    Attributes:
        image: float32[C, H, W], as the network's encoder gives it.
        depth: float32[H, W], metres, NaN unknown; or None.
        frame: uint8[H, W] of the same pixels, or None.
        frame_offset_us: the frame's stamp minus the window's end; no meaning without a frame.
        end_ns: of the window, on the events' clock.
        restarts: nothing continuous came before: a state must not be carried into this window.
    """

    image: FloatImage
    depth: NDArray[np.float32] | None
    frame: NDArray[np.uint8] | None
    frame_offset_us: int
    end_ns: int
    restarts: bool


@dataclass(frozen=True)
class WorldSource:
    """A simulated world along one path.

    Attributes:
        parameters: of the simulator, the seed and the duration among them.
    """

    parameters: Mapping[str, Value]

    @property
    def label(self) -> str:
        """Scene and seed."""
        return f"{self.parameters['scene']}_{self.parameters['seed']}"

    @property
    def places(self) -> tuple[str, ...]:
        """What no other source may have: the seed makes the world."""
        return (f"world {self.label}",)

    def facts(self) -> dict[str, Any]:
        """Return all that its windows depend on, JSON types."""
        return {"world": dict(self.parameters)}

    def samples(
        self, event_encoder: str, window_ns: int, left_out: Counter[str]
    ) -> Iterator[Sample]:
        """Yield the windows; see `RecordingSource.samples`."""
        del left_out  # a simulation has no gaps
        parameters = SimulatorParameters.from_mapping(self.parameters)
        size = parameters.height, parameters.width
        for index, window in enumerate(clip_windows(parameters, window_s=window_ns / 1e9)):
            image = _encode(window, event_encoder, *size)
            frame = None if window.frame is None else window.frame.image
            yield Sample(image, window.depth, frame, 0, window.end_ns, index == 0)


@dataclass(frozen=True)
class RecordingSource:
    """A recording or a data set's sequence.

    Attributes:
        paths: files or folders that are read as one.
        ends: where windows end, at `depth` images or camera `frame`s.
        events, label: topics; None as `open_labelled` chooses.
        rows: first and one past the last row that is kept, after encoding; None for all.
        image_stamp, exposure_s: see `middle_of_exposure`.
    """

    paths: tuple[str, ...]
    ends: Ends = "depth"
    events: str | None = None
    label_topic: str | None = None
    rows: tuple[int, int] | None = None
    image_stamp: str = "mid"
    exposure_s: float = 0.0

    @property
    def label(self) -> str:
        """The first path's name."""
        return Path(self.paths[0]).resolve().stem

    @property
    def places(self) -> tuple[str, ...]:
        """What no other source may have: every file, by whatever name."""
        return tuple(f"recording {file}" for path in self.paths for file in storage_of(Path(path)))

    def facts(self) -> dict[str, Any]:
        """Return all that its windows depend on, JSON types; sizes stand for contents."""
        facts = {
            "recording": [Path(path).name for path in self.paths],
            "bytes": [_size_of(Path(path)) for path in self.paths],
            "ends": self.ends,
            "events": self.events,
            "label": self.label_topic,
            "rows": None if self.rows is None else list(self.rows),
        }
        if self.image_stamp != "mid":
            facts |= {"image_stamp": self.image_stamp, "exposure_s": self.exposure_s}
        return facts

    def samples(
        self, event_encoder: str, window_ns: int, left_out: Counter[str]
    ) -> Iterator[Sample]:
        """Yield the windows.

        Args:
            event_encoder: a name of `Meaning.event_encoder`.
            window_ns: length of a window.
            left_out: counts, by reason, of labels without a window and frames of other pixels.

        Raises:
            RecordingError: a file that is cut or damaged, or without labels.
        """
        paths = list(self.paths)
        with open_labelled(
            paths if len(paths) > 1 else paths[0],
            window_ns=window_ns,
            ends=self.ends,
            events=self.events,
            label=self.label_topic,
            image_stamp=self.image_stamp,
            exposure_s=self.exposure_s,
        ) as sequence:
            rows = slice(None) if self.rows is None else slice(*self.rows)
            before_ns: int | None = None
            for window in sequence:
                if self.rows is not None and self.rows[1] > window.height:
                    raise RecordingError(
                        f"'rows' {list(self.rows)} go beyond the {window.height} rows of "
                        f"{self.label}",
                        rows=self.rows,
                    )
                image = window.encode(event_encoder, VOXEL_BINS)
                frame = _frame_of(window.frame, (window.height, window.width), left_out)
                offset_ns = 0 if window.frame is None else window.frame.stamp_ns - window.stamp_ns
                yield Sample(
                    np.ascontiguousarray(image[:, rows]),
                    None if window.depth is None else window.depth[rows],
                    None if frame is None else frame[rows],
                    offset_ns // 1000,
                    window.end_ns,
                    # Where labels are missing nobody sees the events; evaluation, as published,
                    # carries the state over that.
                    window.restarts
                    or (before_ns is not None and window.end_ns - before_ns > PATIENCE_NS),
                )
                before_ns = window.end_ns
            left_out.update({key: count for key, count in sequence.skipped.items() if count})


Source: TypeAlias = WorldSource | RecordingSource


def _encode(window: ClipWindow, event_encoder: str, height: int, width: int) -> FloatImage:
    if event_encoder == "tencode":
        return window.image
    if event_encoder == "tencode_voxel":
        return tencode_voxel(window.events, height, width)
    return voxel_grid(window.events, height, width, VOXEL_BINS, normalise=True)


def _frame_of(
    frame: Frame | None, size: tuple[int, int], left_out: Counter[str]
) -> NDArray[np.uint8] | None:
    """Return a frame of the events' own pixels; another camera's cannot label them."""
    if frame is None or frame.image.shape == size:
        return None if frame is None else frame.image
    left_out["frame_of_other_size"] += 1
    return None


def _size_of(path: Path) -> int:
    if not path.exists():
        raise RecordingError(f"there is no {path}", path=str(path))
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
