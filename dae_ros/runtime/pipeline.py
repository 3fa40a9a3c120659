"""Event packets in, depth frames out: the one object that the live node and the bag runner drive.

Single-threaded and ROS-free. `feed` only queues; `step` decodes, closes at most one window, runs
the network and returns the result, so that what comes out depends on the packets and not on how
the calls were grouped (with the overload policy `queue`).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState, PacketError
from dae_ros.events.frame import Frame, middle_of_exposure
from dae_ros.events.packet import BYTES_PER_EVENT, EventPacket
from dae_ros.events.stream import EventStream, StreamPart
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.depth_frame import DepthFrame, scale_of
from dae_ros.runtime.estimator import DepthEstimator
from dae_ros.runtime.parts import cut
from dae_ros.runtime.stage_times import Arrivals, StageTimes
from dae_ros.runtime.statistics import PipelineStatistics, Tally
from dae_ros.runtime.window_encoder import WindowEncoder
from dae_ros.runtime.windows import (
    CountWindows,
    StampWindows,
    Window,
    create_windows,
    no_ends,
)

UNBOUNDED_NS = 1 << 62
# Camera frames that may wait for their events: half a minute and more at usual rates.
MOST_WAITING_FRAMES = 1000


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
            # A count window of a quiet scene may be any time long; memory alone bounds it.
            ring_length_ns=(
                UNBOUNDED_NS if parameters.window == "count" else round(parameters.ring_s * 1e9)
            ),
            ring_capacity_bytes=parameters.ring_mb * 1_000_000,
        )
        self._inbox: deque[tuple[EventPacket | Frame, int]] = deque()
        self._parts: deque[StreamPart] = deque()
        self._encoder: WindowEncoder | None = None
        self._tally = Tally()
        self._dropped: Counter[str] = Counter()
        self._arrivals = Arrivals()
        self._fed_ns = self._decoded_ns = 0  # of what is being taken in
        self._newest_ns: int | None = None
        self._clock = self._stream.clock  # of the newest part that was taken in
        # First event of the newest packet: times up to it have their final place on the ROS clock.
        self._clock_ns_final: int | None = None
        # Middles of exposure in ROS time that no event has passed yet.
        self._frames_ns: list[int] = []
        self._silence_ns = round(parameters.max_silence_s * 1e9)
        # Of a part: what is longer would push its own beginning out of the ring before it is used.
        self._longest = (
            min(round(parameters.ring_s * 1e9) // 4, self._silence_ns),
            parameters.ring_mb * 1_000_000 // BYTES_PER_EVENT // 4,
        )
        self._silent = False
        self._frame_id = parameters.frame_id
        chosen = parameters.event_encoder
        self._encoder_name = estimator.meaning.event_encoder if chosen == "checkpoint" else chosen
        self.apply(parameters)

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

    def note_drop(self) -> None:
        """Say that messages after those absorbed were dropped: not every type counts its own."""
        self._stream.note_drop()

    def add_frame(self, frame: Frame, fed_ns: int | None = None) -> None:
        """Queue a camera frame: with `window: frame` its middle of exposure ends a window."""
        self._inbox.append((frame, self._clock_ns() if fed_ns is None else fed_ns))

    def finish(self, grace_ns: int) -> None:
        """Let windows close that end up to `grace_ns` after the newest event: nothing more comes.

        To be called when `step` has returned None; the next calls of `step` return them.
        """
        if self._newest_ns is not None:
            self._newest_ns += grace_ns
            self._clock_ns_final = self._newest_ns
            self._release_frames()

    def apply(self, parameters: DepthParameters) -> None:
        """Take over parameters that may change at run time: scale, shift and colours."""
        self._parameters = parameters
        self._scale = scale_of(
            self.estimator, parameters.orientation, parameters.scale, parameters.shift
        )

    def reset_state(self, cause: str) -> None:
        """Forget the recurrent state and count the cause."""
        self.estimator.reset()
        self._tally.resets[cause] += 1

    def restart(self, cause: str) -> None:
        """Forget everything that came before: queued packets, ring, windows, recurrent state."""
        self._inbox.clear()
        self._parts.clear()
        self._frames_ns.clear()
        self._stream.reset()
        self._begin_again(cause)

    def absorb(self) -> None:
        """Decode what was fed, as `step` does first where windows may be skipped."""
        while self._absorb_next():
            pass

    def step(self) -> DepthFrame | None:
        """Work until one window has been stepped.

        Returns:
            The result, or None when the packets fed so far close no further window.

        Raises:
            InferenceError: the backend failed on this window; the next call goes on after it.
        """
        if self._parameters.overload != "queue":
            self.absorb()
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
        reason = None
        if isinstance(self._windows, StampWindows):
            self._tally.unreached = self._windows.unreached + len(self._frames_ns)
            if self._tally.events and not self._windows.added:
                reason = no_ends(self._parameters.window, self._stream.encoding)
        clock, wanted = self._stream.clock, self._parameters.stamp_clock
        return self._tally.snapshot(drops, clock, wanted, self._silent, reason)

    def _absorb_next(self) -> bool:
        """Take in one part, decoding the next packet if none is left; False if nothing waits."""
        if self._parts:
            if not self._rest_before(self._parts[0]):
                self._absorb(self._parts.popleft())
            return True
        if not self._inbox:
            return False
        item, self._fed_ns = self._inbox.popleft()
        if isinstance(item, Frame):
            self._decoded_ns = self._clock_ns()
            self._absorb_frame(item)
            return True
        self._tally.packets += 1
        if not self._parameters.frame_id:
            self._frame_id = item.frame_id
        encoder, before = self._encoder, (self._stream.ring, self._windows.next_end_ns)
        try:
            parts = self._stream.feed(item, encoder.direct(*before) if encoder else None)
        except PacketError as error:
            self._tally.errors[error.code] += 1
            self._on_packet_error(error)
            return True
        self._decoded_ns = self._clock_ns()
        self._parts.extend(piece for part in parts for piece in cut(part, *self._longest))
        return True

    def _absorb_frame(self, frame: Frame) -> None:
        if self._parameters.window != "frame" or not isinstance(self._windows, StampWindows):
            return
        marks = self._parameters.image_stamp, self._parameters.exposure_s
        self._frames_ns.append(middle_of_exposure(frame.stamp_ns, frame.exposure_ns, *marks))
        if len(self._frames_ns) > MOST_WAITING_FRAMES:
            self._frames_ns.remove(min(self._frames_ns))
            self._dropped["frame_without_events"] += 1
        self._release_frames()

    def _release_frames(self) -> None:
        """Turn the frames that the events have passed into windows.

        Only then is their event time final: until a packet has been seen that is newer, the clock
        estimator may still change it. Frames and events come on two topics, whose order DDS does
        not keep; the windows must not depend on it.
        """
        clock = self._clock
        newest_ns = self._newest_ns if clock.absolute else self._clock_ns_final
        if newest_ns is None or not isinstance(self._windows, StampWindows):
            return
        reached_ns = clock.to_ros(newest_ns)
        for middle_ns in sorted(stamp for stamp in self._frames_ns if stamp <= reached_ns):
            self._frames_ns.remove(middle_ns)
            self._end_window(self._windows, clock.to_event(middle_ns), "frame_not_newer")

    def _end_window(self, windows: StampWindows, stamp_ns: int, refused: str) -> None:
        if windows.add(stamp_ns):
            self._arrivals.add(stamp_ns, self._fed_ns, self._decoded_ns)
        else:
            self._dropped[refused] += 1

    def _absorb(self, part: StreamPart) -> None:
        if part.gap is not None:
            self._tally.gaps[part.gap.cause] += 1
            gap, long_ns = part.gap, self._parameters.gap_reset_ms * 1_000_000
            if gap.breaks_time or (gap.duration_ns or 0) > long_ns:
                self._skip_closed()
                self._begin_again(gap.cause if gap.breaks_time else "gap")
        self._clock, self._clock_ns_final = part.clock, part.clock.final_ns
        events = part.events
        if len(events):
            self._tally.events += len(events)
            first_ns = events.first_ns
            if self._ends_silence(part):
                self._skip_closed()
                self._tally.windows_silent += self._windows.skip_to(first_ns)
                self.reset_state("silence")
            self._silent = False
            if isinstance(self._windows, CountWindows):
                self._windows.begin_at(self._stream.ring.total_pushed)
            else:
                self._windows.begin(first_ns)
        self._stream.ring.push(events)
        if self._encoder is not None:
            self._encoder.follow(self._stream.ring, self._windows.next_end_ns)
        if self._parameters.window == "trigger" and isinstance(self._windows, StampWindows):
            for stamp_ns in part.triggers.t[part.triggers.edge == 1].tolist():
                self._end_window(self._windows, stamp_ns, "trigger_not_newer")
        if part.newest_time_ns is not None:
            self._reach(part.newest_time_ns)
        else:
            self._release_frames()

    def _reach(self, newest_ns: int) -> None:
        """Let windows close that end up to this time."""
        self._newest_ns = newest_ns
        if not isinstance(self._windows, StampWindows):
            self._arrivals.add(newest_ns, self._fed_ns, self._decoded_ns)
        self._release_frames()

    def _skip_closed(self) -> None:
        """Count the windows that had closed but not been stepped before time broke."""
        while self._take_window() is not None:
            self._windows.skipped += 1

    def _begin_again(self, cause: str) -> None:
        self._stream.ring.clear()
        self._encoder = None
        self._arrivals.clear()
        self._windows.restart()
        self._newest_ns = self._clock_ns_final = None
        self._silent = False
        self.reset_state(cause)

    def _take_window(self) -> Window | None:
        if self._newest_ns is None:
            return None
        while True:
            window = self._windows.take(
                self._stream.ring, self._newest_ns, self._parameters.overload
            )
            if window is None or not self._is_silent(window):
                return window

    def _is_silent(self, window: Window) -> bool:
        """Whether nothing has happened for so long that this window is not worth a step."""
        newest_ns = self._stream.ring.newest_ns
        if newest_ns is None or newest_ns >= min(window.start_ns, window.end_ns - self._silence_ns):
            return False
        self._silent = True
        self._tally.windows_silent += 1
        if self._newest_ns is not None:
            self._tally.windows_silent += self._windows.skip_to(self._newest_ns)
        return True

    def _ends_silence(self, part: StreamPart) -> bool:
        """Whether this part's first event comes after a silence."""
        before_ns = self._stream.ring.newest_ns
        if before_ns is None or not len(part.events):
            return False
        return part.events.first_ns - before_ns > self._silence_ns

    def _rest_before(self, part: StreamPart) -> bool:
        """Close the windows of a pause, before what ends it drives their events out of the ring.

        Returns:
            Whether there may be some now; only where all windows are stepped.
        """
        newest_ns, events = self._newest_ns, part.events
        if self._parameters.overload != "queue" or part.gap or newest_ns is None or not len(events):
            return False
        pause_ns = events.first_ns - newest_ns
        if pause_ns <= 0 or (pause_ns <= self._longest[0] and not self._ends_silence(part)):
            return False
        self._reach(events.first_ns)
        return True

    def _run(self, window: Window) -> DepthFrame | None:
        ring = self._stream.ring
        height, width = self._stream.height, self._stream.width
        if height is None or width is None:
            raise ConfigurationError("a window closed before a packet gave the sensor's size")
        if not ring.covers(window.start_ns):
            self._dropped["window_evicted"] += 1
            return None
        closed_ns = self._clock_ns()
        arrival_ns, decoded_ns = self._arrivals.closed(window.end_ns)
        if self._encoder is None:
            self._encoder = WindowEncoder(
                self._encoder_name, height, width, self.estimator.input_channels
            )
        encoded = self._encoder.encode(ring, window)
        begun_ns = self._clock_ns()
        try:
            prediction = self.estimator.estimate(encoded.network_input)
        except NonFiniteState as error:
            self._tally.failed(error.code)
            self.reset_state("non_finite")
            return None
        except InferenceError as error:
            self._tally.failed(error.code)
            raise
        done_ns = self._clock_ns()
        self._tally.windows += 1
        self._tally.windows_empty += encoded.event_count == 0
        in_ros_time = self._parameters.stamp_clock == "ros"
        return DepthFrame(
            index=window.index,
            start_ns=window.start_ns,
            end_ns=window.end_ns,
            stamp_ns=self._clock.to_ros(window.end_ns) if in_ros_time else window.end_ns,
            depth=self._scale.apply(prediction),
            kind=self._scale.kind,
            orientation=self._scale.orientation,
            image=encoded.image,
            event_count=encoded.event_count,
            state_age=self.estimator.state_age,
            weight_version=self.estimator.weight_version,
            digest=self.estimator.digest,
            frame_id=self._frame_id,
            times=StageTimes(arrival_ns, decoded_ns, closed_ns, begun_ns, done_ns),
            warming=self.estimator.warming,
        )
