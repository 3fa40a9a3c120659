"""A recording through the depth pipeline into files, without ROS: the same every time.

It drives the same `DepthPipeline` as the live node, with the overload policy `queue`: no window
is skipped, and what comes out depends on the recording and the parameters alone.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dae_ros.bags.container import RecordedMessage
from dae_ros.bags.message_types import CAMERA_INFO, IMAGE
from dae_ros.bags.messages import write_camera_info, write_image
from dae_ros.bags.recording import Recording
from dae_ros.bags.topics import choose_events_topic, choose_image_topic, require_topic
from dae_ros.bags.writer import BagWriter
from dae_ros.errors import ConfigurationError, DaeError, PacketError, RecordingError
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backend_choice import choose_backend
from dae_ros.runtime.backends import create_estimator
from dae_ros.runtime.bag_calibration import BagCalibration
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.drop_meanings import meanings_of
from dae_ros.runtime.estimator import FloatImage, hampered_by
from dae_ros.runtime.output_folder import write_json
from dae_ros.runtime.pipeline import DepthPipeline
from dae_ros.runtime.preview import PreviewWriter
from dae_ros.runtime.stage_times import StageLatencies
from dae_ros.runtime.warm_up import warm_up
from dae_ros.runtime.windows import carries_no_triggers

# What a run leaves in its folder, and what --overwrite may remove.
OUTPUTS = ("depth", "preview.mp4", "contact_sheet.png", "summary.json", "timing.json")
CAMERA_INFO_TOPIC = "/depth/camera_info"
_REPORT_S = 0.1
DEPTH_TOPICS = {"metric": "/depth/image", "relative": "/depth/relative"}


@dataclass(frozen=True, slots=True)
class BagSelection:
    """Which part of a recording is run.

    Attributes:
        events, image, camera_info: topics; None chooses by name.
        calibration: a file (`read_calibration`), where the recording has no camera_info.
        start_s: record time to skip at the beginning.
        duration_s: record time to run, None to the end.
    """

    events: str | None = None
    image: str | None = None
    camera_info: str | None = None
    calibration: Path | None = None
    start_s: float = 0.0
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        fraction: of the selected part, None where its length is not known.
        windows, events: so far.
    """

    fraction: float | None
    windows: int
    events: int


@dataclass(frozen=True, slots=True)
class BagResult:
    """What a run left behind.

    Attributes:
        summary: the content of `summary.json`.
        timing: the content of `timing.json`.
        interrupted: whether it was stopped before its end.
        done_s: record time of the selected part that was run.
        length_s: of that part as a whole, None where the recording does not say it.
        damage: the error that ended the recording before its end, None for a whole one.
        better_range_m: see `PreviewWriter`.
    """

    summary: dict[str, Any]
    timing: dict[str, Any]
    interrupted: bool
    done_s: float
    length_s: float | None
    damage: RecordingError | None
    better_range_m: tuple[float, float] | None


class Observer(Protocol):
    """Somebody who compares the results with ground truth, which is on topics of its own.

    Attributes:
        topics: what it wants to see of the recording.
    """

    topics: tuple[str, ...]

    def add_message(self, recording: Recording, message: RecordedMessage) -> FloatImage:
        """Take a message of its topics; return its depth in metres, float32[H, W], to be shown.

        Raises:
            RecordingError: it is damaged; it is counted and the next one follows.
        """

    def add_window(self, frame: DepthFrame) -> None:
        """Take a window's result."""

    def summary(self) -> dict[str, object]:
        """Return what it found, for `summary.json`; equal for equal runs."""


def run_bag(
    recording: Recording,
    parameters: DepthParameters,
    out: Path,
    selection: BagSelection,
    *,
    report: Callable[[Progress], None],
    note: Callable[[str], None],
    stopped: Callable[[], bool],
    observer: Observer | None = None,
) -> BagResult:
    """Run a recording and write depth, previews, summary and timing below `out`.

    Args:
        recording: opened.
        parameters: validated; the overload policy must be `queue`.
        out: made by `output_folder`.
        selection: which topics, which part.
        report: called often, with how far the run is.
        note: called with sentences that the user should read.
        stopped: asked between messages; True ends the run with everything written so far whole.
        observer: sees every result; what it found is `metrics` in the summary.

    Raises:
        RecordingError: a topic is missing, nothing was recorded from the start on, or the
            calibration is of another sensor.
        InferenceError: the backend failed; what was written before is whole.
        ConfigurationError, WeightsError: see `create_estimator`.
    """
    return _BagRun(recording, parameters, out, selection, note, observer).run(report, stopped)


class _BagRun:
    def __init__(
        self,
        recording: Recording,
        parameters: DepthParameters,
        out: Path,
        selection: BagSelection,
        note: Callable[[str], None],
        observer: Observer | None,
    ) -> None:
        if parameters.overload != "queue":
            raise ConfigurationError(
                f"a recording runs with the overload policy 'queue', not '{parameters.overload}'",
                overload=parameters.overload,
            )
        self._recording = recording
        self._parameters = parameters
        # Now, as the file that it may depend on need not be there at the end.
        self._backend = choose_backend(parameters).backend
        self._out = out
        self._selection = selection
        self._note = note
        self._observer = observer
        self._observed = () if observer is None else observer.topics
        topics = recording.topics
        self._events = choose_events_topic(topics, selection.events)
        if selection.image is not None:
            require_topic(topics, selection.image, IMAGE)
        self._image = selection.image or choose_image_topic(topics, self._events)
        if parameters.window == "frame" and self._image is None:
            raise RecordingError(
                "windows that end at camera frames need an image topic, and the recording has "
                "none that belongs to the events; give it with --image"
            )
        if parameters.window == "trigger":
            self._require_triggers()
        self._unreadable: Counter[str] = Counter()
        self._calibration = BagCalibration(
            recording, self._events, selection.calibration, selection.camera_info, note
        )
        self._explained: set[str] = set()
        estimator = create_estimator(parameters)
        # Compiling belongs to no window's latency.
        warm_up(estimator)
        self._pipeline = DepthPipeline(parameters, estimator, on_packet_error=self._explain)
        self._pipeline_s = 0.0
        self._latencies = StageLatencies()
        self._start_ns, self._stop_ns = self._limits()

    def _limits(self) -> tuple[int, int | None]:
        """Return the record times between which messages are taken."""
        start_ns = self._recording.record_time_at(self._selection.start_s, [self._events])
        if self._selection.duration_s is None:
            return start_ns, None
        return start_ns, start_ns + round(self._selection.duration_s * 1e9)

    def _require_triggers(self) -> None:
        """Refuse, before anything is run, events that cannot end a window at a trigger."""
        first = self._recording.first(self._events)
        try:
            encoding = None if first is None else self._recording.read_packet(first).encoding
        except PacketError:
            return  # told and counted when its turn comes
        reason = carries_no_triggers(encoding)
        if reason is not None:
            raise RecordingError(reason, topic=self._events, encoding=encoding)

    def run(self, report: Callable[[Progress], None], stopped: Callable[[], bool]) -> BagResult:
        begin_s = time.perf_counter()
        begin_cpu_s = time.process_time()
        interrupted = False
        damage: RecordingError | None = None
        next_report_s = 0.0
        now_ns = self._start_ns
        preview = PreviewWriter(
            self._out,
            self._parameters,
            with_frames=self._image is not None,
            with_truth=self._observer is not None,
        )
        with BagWriter(self._out / "depth") as bag, preview:
            # Both topics are announced even where no window closes.
            bag.add_topic(DEPTH_TOPICS[self._pipeline.kind], IMAGE)
            bag.add_topic(CAMERA_INFO_TOPIC, CAMERA_INFO)
            messages = self._messages()
            while True:
                if stopped():
                    interrupted = True
                    break
                try:
                    message = next(messages, None)
                except RecordingError as error:
                    damage = error
                    break
                if message is None:
                    break
                self._feed(message, preview)
                now_ns = message.time_ns
                while (frame := self._step()) is not None:
                    self._write(frame, bag)
                    preview.add_window(frame)
                    self._latencies.add(frame.times, time.perf_counter_ns())
                    if self._observer is not None:
                        self._observer.add_window(frame)
                if time.perf_counter() >= next_report_s:
                    next_report_s = time.perf_counter() + _REPORT_S
                    report(self._progress(self._fraction(now_ns)))
            if not interrupted and damage is None:
                report(self._progress(1.0))
            closing_s = time.perf_counter()
        closing_s = time.perf_counter() - closing_s
        done = self._pipeline.statistics()
        for reason in (done.no_ends, done.no_stamps):
            if reason is not None:
                self._note(reason)
        wall_s = time.perf_counter() - begin_s
        summary = self._summary(interrupted, damage)
        timing = self._timing(wall_s, time.process_time() - begin_cpu_s, closing_s)
        write_json(self._out / "summary.json", summary)
        write_json(self._out / "timing.json", timing)
        done_s, end_ns = (now_ns - self._start_ns) / 1e9, self._end_ns()
        length_s = None if end_ns is None else (end_ns - self._start_ns) / 1e9
        return BagResult(
            summary, timing, interrupted, done_s, length_s, damage, preview.better_range_m
        )

    def _messages(self) -> Iterator[RecordedMessage]:
        """Yield the messages of the selected part."""
        topics = {self._events, *self._observed} | ({self._image} if self._image else set())
        for message in self._recording.messages(topics, self._start_ns):
            if self._stop_ns is not None and message.time_ns >= self._stop_ns:
                return
            yield message

    def _feed(self, message: RecordedMessage, preview: PreviewWriter) -> None:
        """Hand one message on; one that is damaged is counted, and the next one follows."""
        try:
            if message.topic == self._events:
                self._pipeline.feed(self._recording.read_packet(message))
            elif self._observer is not None and message.topic in self._observed:
                preview.add_truth(self._observer.add_message(self._recording, message))
            else:
                frame = self._recording.read_frame(message)
                preview.add_frame(frame)
                self._pipeline.add_frame(frame)
        except (PacketError, RecordingError) as error:
            self._unreadable[error.code] += 1
            self._explain(error)

    def _explain(self, error: DaeError) -> None:
        """Tell the user about the first error of each kind; the summary counts all of them."""
        if error.code not in self._explained:
            self._explained.add(error.code)
            self._note(f"{error} (further ones are only counted)")

    def _write(self, frame: DepthFrame, bag: BagWriter) -> None:
        image = write_image(frame.depth, frame.stamp_ns, frame.frame_id)
        calibration = self._calibration.of_image(*frame.depth.shape)
        camera = write_camera_info(calibration, frame.stamp_ns, frame.frame_id)
        bag.write(DEPTH_TOPICS[frame.kind], IMAGE, frame.stamp_ns, image)
        bag.write(CAMERA_INFO_TOPIC, CAMERA_INFO, frame.stamp_ns, camera)

    def _progress(self, fraction: float | None) -> Progress:
        done = self._pipeline.statistics()
        return Progress(fraction, done.windows, done.events)

    def _fraction(self, time_ns: int) -> float | None:
        end_ns = self._end_ns()
        if end_ns is None or end_ns <= self._start_ns:
            return None
        return min(1.0, (time_ns - self._start_ns) / (end_ns - self._start_ns))

    def _end_ns(self) -> int | None:
        """Return the record time at which the selected part ends, None where nothing tells."""
        ends = [end for end in (self._stop_ns, self._recording.end_ns) if end is not None]
        return min(ends, default=None)

    def _summary(self, interrupted: bool, damage: RecordingError | None) -> dict[str, object]:
        """Return everything that is the same for every run of this input."""
        done = self._pipeline.statistics()
        drops = {name: count for name, count in sorted(done.drops.items()) if count}
        estimator = self._pipeline.estimator
        return {
            "recording": [str(path) for path in self._recording.paths],
            "topics": {"events": self._events, "image": self._image},
            "start_s": self._selection.start_s,
            "duration_s": self._selection.duration_s,
            "height": self._pipeline.height,
            "width": self._pipeline.width,
            "packets": done.packets,
            "events": done.events,
            "windows": {
                "stepped": done.windows,
                "empty": done.windows_empty,
                "skipped": done.windows_skipped,
                "silent": done.windows_silent,
                "unreached": done.unreached,
            },
            "no_windows_because": done.no_ends,
            "sensor_time_because": done.no_stamps,
            "resets": dict(sorted(done.resets.items())),
            "gaps": dict(sorted(done.gaps.items())),
            "drops": drops,
            "drops_mean": meanings_of(drops),
            "errors": dict(sorted(done.errors.items())),
            "unreadable_messages": dict(sorted(self._unreadable.items())),
            "clock_offset_ns": done.clock_offset_ns,
            "clock_jitter_ns": done.clock_jitter_ns,
            "depth": {"kind": self._pipeline.kind, "orientation": self._pipeline.orientation},
            "weights": {
                "name": estimator.name,
                "sha256": estimator.digest,
                "notes": [*estimator.notes, *hampered_by(estimator)],
                "backend": self._backend,
            },
            "calibrated": self._calibration.complete,
            "metrics": None if self._observer is None else self._observer.summary(),
            "interrupted": interrupted,
            "damage": None if damage is None else damage.message,
            "parameters": dataclasses.asdict(self._parameters),
        }

    def _step(self) -> DepthFrame | None:
        begin_s = time.perf_counter()
        frame = self._pipeline.step()
        self._pipeline_s += time.perf_counter() - begin_s
        return frame

    def _timing(self, wall_s: float, cpu_s: float, closing_s: float) -> dict[str, object]:
        done = self._pipeline.statistics()
        return {
            "wall_s": wall_s,
            "cpu_s": cpu_s,
            # Of wall_s, after the last window: the ends of depth bag, video and contact sheet.
            "closing_s": closing_s,
            # Reading, the depth bag and the video are in wall_s, but not in pipeline_s.
            "mev_per_s": done.events / wall_s / 1e6,
            "pipeline_s": self._pipeline_s,
            "pipeline_mev_per_s": done.events / self._pipeline_s / 1e6 if done.events else 0.0,
            "windows_per_s": done.windows / wall_s,
            "cpu_count": os.cpu_count(),
            "stages": self._latencies.to_dict(),
        }
