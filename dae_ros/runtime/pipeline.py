"""Event packets in, depth frames out: the one object that the live node and the bag runner drive.

Single-threaded and ROS-free. `feed` only queues; `step` decodes, closes at most one window, runs
the network and returns the result, so that what comes out depends on the packets and not on how
the calls were grouped (with the overload policy `queue`).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeAlias

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState, PacketError
from dae_ros.events.frame import Frame
from dae_ros.events.packet import EventPacket
from dae_ros.events.stream import EventStream, StreamPart
from dae_ros.parameters import DepthParameters
from dae_ros.representation.surface import TencodeSurface
from dae_ros.representation.tencode import tencode_voxel
from dae_ros.runtime.depth_frame import DepthFrame, scale_of
from dae_ros.runtime.estimator import DepthEstimator, FloatImage
from dae_ros.runtime.statistics import PipelineStatistics, Tally
from dae_ros.runtime.windows import CountWindows, StampWindows, TimeWindows, Window, create_windows

Encoder: TypeAlias = "Callable[[Window], FloatImage]"

# Causes of a gap after which the past says nothing about the present, however short it was.
RESETTING_GAPS = frozenset({"time_backward", "restart", "resolution", "encoding"})


def _ignore(_: PacketError) -> None:
    """Do nothing: the error is counted anyway."""


class DepthPipeline:
    """One camera's stream, windows, network and recurrent state.

    Args:
        parameters: validated.
        estimator: the network, with the state inside.
        on_packet_error: called with each packet error (to log it); counting is done here.
        clock_ns: monotonic time for latencies.
    """

    def __init__(
        self,
        parameters: DepthParameters,
        estimator: DepthEstimator,
        *,
        on_packet_error: Callable[[PacketError], None] = _ignore,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.estimator = estimator
        self._on_packet_error = on_packet_error
        self._clock_ns = clock_ns
        self._parameters = parameters
        self._windows = create_windows(parameters)
        self._stream = EventStream(
            ring_length_ns=round(parameters.ring_s * 1e9),
            ring_capacity_bytes=parameters.ring_mb * 1_000_000,
        )
        self._inbox: deque[tuple[EventPacket | Frame, int]] = deque()
        self._parts: deque[tuple[StreamPart, int]] = deque()
        self._surface: TencodeSurface | None = None
        self._tally = Tally()
        self._dropped: Counter[str] = Counter()
        self._fed_ns = 0
        self._newest_ns: int | None = None
        self._last_event_ns: int | None = None
        self._silent = False
        self._frame_id = parameters.frame_id
        self._encoder_name = (
            estimator.meaning.event_encoder if parameters.event_encoder == "checkpoint"
            else parameters.event_encoder)
        self._scale = scale_of(
            estimator, parameters.orientation, parameters.scale, parameters.shift)

    @property
    def height(self) -> int | None:
        """Sensor rows in px, None before the first packet."""
        return self._stream.height

    @property
    def width(self) -> int | None:
        """Sensor columns in px, None before the first packet."""
        return self._stream.width

    @property
    def kind(self) -> str:
        """`metric` or `relative`: what `DepthFrame.depth` will hold."""
        return self._scale.kind

    @property
    def orientation(self) -> str:
        """`depth`, `inverse_depth` or `unknown`."""
        return self._scale.orientation

    def feed(self, packet: EventPacket, fed_ns: int | None = None) -> None:
        """Queue a packet; `fed_ns` is when it arrived, on the clock that measures latency."""
        self._inbox.append((packet, self._clock_ns() if fed_ns is None else fed_ns))

    def add_frame(self, frame: Frame) -> None:
        """Queue a camera frame: with `window: frame` its middle of exposure ends a window."""
        self._inbox.append((frame, self._clock_ns()))

    def apply(self, parameters: DepthParameters) -> None:
        """Take over parameters that may change at run time: scale, shift and colours."""
        self._parameters = parameters
        self._scale = scale_of(
            self.estimator, parameters.orientation, parameters.scale, parameters.shift)

    def reset_state(self, cause: str) -> None:
        """Forget the recurrent state and count the cause."""
        self.estimator.reset()
        self._tally.resets[cause] += 1

    def restart(self, cause: str) -> None:
        """Forget everything that came before: queued packets, ring, windows, recurrent state."""
        self._inbox.clear()
        self._parts.clear()
        self._stream.reset()
        self._begin_again(cause)
        self._newest_ns = None

    def step(self) -> DepthFrame | None:
        """Work until one window has been stepped.

        Returns:
            The result, or None when the packets fed so far close no further window.

        Raises:
            InferenceError: the backend failed on this window; the next call goes on after it.
        """
        if self._parameters.overload != "queue":
            while self._absorb_next():
                pass
        while True:
            window = self._take_window()
            if window is None:
                if not self._absorb_next():
                    return None
                continue
            frame = self._run(window)
            if frame is not None:
                return frame

    def statistics(self) -> PipelineStatistics:
        """Return an immutable snapshot of all counters."""
        drops = Counter(self._stream.counts())
        drops.update(self._dropped)
        self._tally.windows_skipped = self._windows.skipped
        clock = self._stream.clock
        return self._tally.snapshot(
            drops, None if clock is None else clock.offset_ns,
            None if clock is None else clock.jitter_ns, self._silent)

    def _absorb_next(self) -> bool:
        """Take in one part, decoding the next packet if none is left; False if nothing waits."""
        if not self._parts:
            if not self._inbox:
                return False
            item, self._fed_ns = self._inbox.popleft()
            if isinstance(item, Frame):
                self._absorb_frame(item)
                return True
            begin_ns = self._clock_ns()
            self._tally.packets += 1
            try:
                parts = self._stream.feed(item)
            except PacketError as error:
                self._tally.errors[error.code] += 1
                self._on_packet_error(error)
                return True
            self._tally.time("decode", self._clock_ns() - begin_ns)
            if not self._parameters.frame_id:
                self._frame_id = item.frame_id
            self._parts.extend((part, self._fed_ns) for part in parts)
            return True
        part, self._fed_ns = self._parts.popleft()
        self._absorb(part)
        return True

    def _absorb_frame(self, frame: Frame) -> None:
        if self._parameters.window != "frame" or not isinstance(self._windows, StampWindows):
            return
        exposure_ns = frame.exposure_ns or round(self._parameters.exposure_s * 1e9)
        shift_ns = {"start": exposure_ns // 2, "mid": 0, "end": -(exposure_ns // 2)}
        middle_ns = frame.stamp_ns + shift_ns[self._parameters.image_stamp]
        clock = self._stream.clock
        if clock is None or clock.offset_ns is None:
            self._dropped["frame_before_events"] += 1
        elif not self._windows.add(middle_ns - clock.offset_ns):
            self._dropped["frame_not_newer"] += 1

    def _absorb(self, part: StreamPart) -> None:
        if part.gap is not None:
            self._tally.gaps[part.gap.cause] += 1
            if part.gap.cause in RESETTING_GAPS:
                self._begin_again(part.gap.cause)
                self._newest_ns = None
            elif self._jump_ns(part) > self._parameters.gap_reset_ms * 1_000_000:
                self._begin_again("gap")
        events = part.events
        if len(events):
            self._tally.events += len(events)
            first_ns = int(events.t[0])
            if self._silent:
                self._silent = False
                self.reset_state("silence")
            if isinstance(self._windows, TimeWindows):
                self._windows.begin(first_ns)
            elif isinstance(self._windows, CountWindows):
                self._windows.begin_at(self._stream.ring.total_pushed)
            self._stream.ring.push(events)
            self._last_event_ns = int(events.t[-1])
        if self._parameters.window == "trigger" and isinstance(self._windows, StampWindows):
            for stamp_ns in part.triggers.t[part.triggers.edge == 1].tolist():
                if not self._windows.add(stamp_ns):
                    self._dropped["trigger_not_newer"] += 1
        if self._newest_ns is None or part.newest_time_ns > self._newest_ns:
            self._newest_ns = part.newest_time_ns

    def _jump_ns(self, part: StreamPart) -> int:
        """How far event time moved over a gap."""
        if self._newest_ns is None:
            return 0
        next_ns = int(part.events.t[0]) if len(part.events) else part.newest_time_ns
        return next_ns - self._newest_ns

    def _begin_again(self, cause: str) -> None:
        self._stream.ring.clear()
        self._surface = None
        self._windows.restart()
        self._last_event_ns = None
        self._silent = False
        self.reset_state(cause)

    def _take_window(self) -> Window | None:
        if self._newest_ns is None:
            return None
        while True:
            window = self._windows.take(
                self._stream.ring, self._newest_ns, self._parameters.overload)
            if window is None or not self._is_silent(window):
                return window

    def _is_silent(self, window: Window) -> bool:
        """Whether nothing has happened for so long that this window is not worth a step."""
        if not isinstance(self._windows, TimeWindows):
            return False
        ring = self._stream.ring
        before = ring.last_before(window.end_ns)
        limit_ns = round(self._parameters.max_silence_s * 1e9)
        if before is not None and (
            before >= window.start_ns or window.end_ns - before <= limit_ns
        ):
            return False
        after = ring.first_from(window.end_ns)
        resume_ns = self._newest_ns if after is None else after
        self._tally.windows_silent += 1
        if resume_ns is not None:
            self._tally.windows_silent += self._windows.skip_to(resume_ns)
        if after is None:
            self._silent = True
        else:
            self.reset_state("silence")
        return True

    def _run(self, window: Window) -> DepthFrame | None:
        ring = self._stream.ring
        height, width = self._stream.height, self._stream.width
        if height is None or width is None:
            raise ConfigurationError("a window closed before a packet gave the sensor's size")
        if not ring.covers(window.start_ns):
            self._dropped["window_evicted"] += 1
            return None
        fed_ns = self._fed_ns
        begin_ns = self._clock_ns()
        if self._encoder_name == "tencode":
            if self._surface is None:
                self._surface = TencodeSurface(height, width)
            encoded = self._surface.encode(ring, window.start_ns, window.end_ns)
            image, event_count = encoded.image, encoded.event_count
        else:
            events = ring.window(window.start_ns, window.end_ns)
            image, event_count = tencode_voxel(events, height, width), len(events)
        encoded_ns = self._clock_ns()
        try:
            prediction = self.estimator.estimate(image)
        except NonFiniteState as error:
            self._tally.errors[error.code] += 1
            self.reset_state("non_finite")
            return None
        except InferenceError as error:
            self._tally.errors[error.code] += 1
            raise
        done_ns = self._clock_ns()
        self._tally.windows += 1
        self._tally.windows_empty += event_count == 0
        self._tally.time("encode", encoded_ns - begin_ns)
        self._tally.time("infer", done_ns - encoded_ns)
        self._tally.time("latency", done_ns - fed_ns)
        stamp_ns = window.end_ns
        if self._parameters.stamp_clock == "ros" and self._stream.clock is not None:
            stamp_ns = self._stream.clock.to_ros(window.end_ns)
        return DepthFrame(
            index=window.index, start_ns=window.start_ns, end_ns=window.end_ns,
            stamp_ns=stamp_ns, depth=self._scale.apply(prediction), kind=self._scale.kind,
            orientation=self._scale.orientation, image=image, event_count=event_count,
            state_age=self.estimator.state_age, weight_version=self.estimator.weight_version,
            digest=self.estimator.digest, frame_id=self._frame_id,
            latency_ns=done_ns - fed_ns)
