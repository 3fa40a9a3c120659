"""Event packets and camera frames in, clips that end at frames out.

The depth node's windows end where they like; a label belongs to the middle of an exposure. So the
windows of a clip are cut again from the events that are kept, the last one ending exactly there.
Single-threaded and ROS-free. `feed` and `add_frame` only queue, in any order, as two topics deliver
them; what `step` gives does not depend on how the calls were grouped.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Mapping

import numpy as np

from dae_ros.distillation.clip_codes import code_of_tencode
from dae_ros.distillation.online.event_gate import active_share, refuse_flash, refuse_hot_pixels
from dae_ros.distillation.online.frame_agreement import FrameAgreement
from dae_ros.distillation.online.frame_gate import FrameGate, GatedFrame
from dae_ros.distillation.online.image_speed import image_speed_px_s
from dae_ros.distillation.online.observation import Observation, Refusal
from dae_ros.errors import ConfigurationError, PacketError
from dae_ros.events.frame import Frame, FrameStamp, middle_of_exposure
from dae_ros.events.packet import EventPacket
from dae_ros.events.stream import EventStream, StreamPart
from dae_ros.parameters.distillation import OnlineParameters
from dae_ros.runtime.window_encoder import WindowEncoder
from dae_ros.runtime.windows import Window

# What a clip can hold in a byte per pixel (`clip_codes`).
CODED_ENCODERS = ("tencode", "tencode_voxel")
_US = 1000


def _never(_start_ns: int, _end_ns: int) -> bool:
    """Want no clip more than others."""
    return False


class Pairing:
    """One camera's recent events and frames.

    Args:
        parameters: validated.
        event_encoder: what the student takes, one of `CODED_ENCODERS`.

    Attributes:
        stride: every how many usable frames give an observation, at least 1; may change.
        wanted: asked whether a clip from start to end, event time in ns, is wanted as soon as
            `shortest_stride` allows; may change.
        last_cut: the camera's frames in the last observation, by window; none before.

    Raises:
        ConfigurationError: another encoder.
    """

    def __init__(
        self,
        parameters: OnlineParameters,
        event_encoder: str = "tencode",
    ) -> None:
        if event_encoder not in CODED_ENCODERS:
            raise ConfigurationError(
                f"online learning takes students of {' or '.join(CODED_ENCODERS)}, not of "
                f"{event_encoder}; train others offline (dae-ros distill)",
                event_encoder=event_encoder,
            )
        self.stride = 1
        self.wanted: Callable[[int, int], bool] = _never
        self.last_cut: Mapping[int, FrameStamp] = {}
        self._parameters = parameters
        self._event_encoder = event_encoder
        self._stream = EventStream(round(parameters.ring_s * 1e9), parameters.ring_mb * 1_000_000)
        self._encoder: WindowEncoder | None = None
        self._gate = FrameGate(parameters)
        self._agreement = FrameAgreement(parameters)
        self._counts: Counter[str] = Counter()
        self._inbox: deque[EventPacket | Frame] = deque()
        self._parts: deque[StreamPart] = deque()
        # Middles of exposure in ROS time, with frames that no event has passed yet.
        self._waiting: list[tuple[int, Frame]] = []
        self._ready: deque[tuple[int, Frame] | Refusal] = deque()  # event time
        # Event time, as long as a clip.
        self._kept: deque[tuple[int, GatedFrame, FrameStamp]] = deque()
        self._clock = self._stream.clock
        self._newest_ns: int | None = None
        self._final_ns: int | None = None
        self._newest_frame_ns: int | None = None  # ROS time
        self._history_ns: int | None = None  # nothing continuous came before
        self._last_ns: int | None = None
        self._usable_frames = 0

    def feed(self, packet: EventPacket) -> None:
        """Queue an event packet."""
        self._inbox.append(packet)

    def add_frame(self, frame: Frame) -> None:
        """Queue a camera frame."""
        self._inbox.append(frame)

    def step(self) -> Observation | Refusal | None:
        """Work until a frame has been judged.

        Returns:
            An observation, or why a frame gives none (`docs/online.md` lists the reasons); None
            when what was fed so far says nothing more. Usable frames between two strides give
            nothing.
        """
        while True:
            while self._ready:
                item = self._ready.popleft()
                result = item if isinstance(item, Refusal) else self._judge(*item)
                if result is not None:
                    key = "observations" if isinstance(result, Observation) else result.reason
                    self._counts[key] += 1
                    return result
            if not self._absorb_next():
                return None

    def holding(self, now_ns: int | None = None) -> Refusal | None:
        """Say whether nothing can be learned because one of the two is missing.

        Args:
            now_ns: ROS time; None for the newest that events or frames have shown, which cannot
                tell when both have stopped.

        Returns:
            `no_events`, `no_frames`, or None.
        """
        events_ns = None if self._newest_ns is None else self._clock.to_ros(self._newest_ns)
        frames_ns = self._newest_frame_ns
        known = [time for time in (events_ns, frames_ns, now_ns) if time is not None]
        if not known:
            return Refusal("no_events", "neither events nor frames have come yet")
        for reason, last_ns in (("no_events", events_ns), ("no_frames", frames_ns)):
            if last_ns is None:
                return Refusal(reason, f"{reason[3:]} have not come yet")
            behind_s = (max(known) - last_ns) / 1e9
            if behind_s > self._parameters.hold_after_s:
                return Refusal(reason, f"the last {reason[3:]} are {behind_s:.1f} s old")
        return None

    def counts(self) -> Mapping[str, int]:
        """Return `frames`, `observations`, refusals by reason, and what the stream counts."""
        return {**self._stream.counts(), **self._counts}

    def _absorb_next(self) -> bool:
        """Take in one part of events or one frame; False if nothing waits."""
        if self._parts:
            self._absorb(self._parts.popleft())
            return True
        if not self._inbox:
            return False
        item = self._inbox.popleft()
        if isinstance(item, Frame):
            self._absorb_frame(item)
            return True
        # The stream counts what it refuses.
        with contextlib.suppress(PacketError):
            self._parts.extend(self._stream.feed(item))
        return True

    def _absorb(self, part: StreamPart) -> None:
        if part.gap is not None:
            self._history_ns = None
            self._kept.clear()
            self._agreement.reset()
            if part.gap.breaks_time:
                self._stream.ring.clear()
                self._encoder = None
                self._last_ns = None
        self._clock, self._final_ns = part.clock, part.clock.final_ns
        self._newest_ns = part.newest_time_ns
        if self._history_ns is None:
            events = part.events
            self._history_ns = events.first_ns if len(events) else part.newest_time_ns
        self._stream.ring.push(part.events)
        self._release()

    def _absorb_frame(self, frame: Frame) -> None:
        self._counts["frames"] += 1
        marks = self._parameters.image_stamp, self._parameters.exposure_s
        middle_ns = middle_of_exposure(frame.stamp_ns, frame.exposure_ns, *marks)
        self._newest_frame_ns = max(middle_ns, self._newest_frame_ns or middle_ns)
        self._waiting.append((middle_ns, frame))
        if len(self._waiting) > self._parameters.waiting_frames:
            oldest = min(self._waiting, key=lambda item: item[0])
            self._waiting.remove(oldest)
            self._ready.append(
                Refusal("without_events", f"no events have reached a frame of {oldest[0]} ns")
            )
        self._release()

    def _release(self) -> None:
        """Hand on the frames that the events have passed: only then is their event time final."""
        newest_ns = self._newest_ns if self._clock.absolute else self._final_ns
        if newest_ns is None:
            return
        reached_ns = self._clock.to_ros(newest_ns)
        passed = [item for item in self._waiting if item[0] <= reached_ns]
        self._waiting = [item for item in self._waiting if item[0] > reached_ns]
        for middle_ns, frame in sorted(passed, key=lambda item: item[0]):
            self._ready.append((self._clock.to_event(middle_ns), frame))

    def _judge(self, middle_ns: int, frame: Frame) -> Observation | Refusal | None:
        """Judge a frame, keep it for the clips to come, and cut a clip where one is due."""
        if self._last_ns is not None and middle_ns <= self._last_ns:
            return Refusal("repeated", f"a frame of {middle_ns} ns is not newer than the last")
        self._last_ns = middle_ns
        height, width = self._stream.height, self._stream.width
        if height is None or width is None or frame.image.shape != (height, width):
            return Refusal(
                "other_size",
                f"a frame of {frame.image.shape} px does not show the {height} x {width} px of "
                "the events; only a camera that shares its pixels can label them",
            )
        gated = self._gate.look(frame)
        if isinstance(gated, Refusal):
            return gated
        end_ns = middle_ns // _US * _US
        window_ns = self._parameters.window_ns
        missing = self._missing(end_ns - window_ns)
        if missing is not None:
            return missing
        events = self._stream.ring.window(end_ns - window_ns, end_ns)
        speed_px_s = image_speed_px_s(events, height, width)
        judged = self._gate.judge_blur(gated, speed_px_s)
        self._agreement.add(self._stream.ring, middle_ns, gated.image, gated.mask)
        if isinstance(judged, Refusal):
            return judged
        disagreement = self._agreement.refusal()
        if disagreement is not None:
            return disagreement
        self._keep(middle_ns, judged, frame)
        self._usable_frames += 1
        stride = self.stride
        if self.wanted(end_ns - self._parameters.windows_per_clip * window_ns, end_ns):
            stride = min(stride, self._parameters.shortest_stride)
        if self._usable_frames < stride:
            return None
        return self._cut(end_ns, height, width, speed_px_s)

    def _missing(self, start_ns: int) -> Refusal | None:
        """Say why the events from `start_ns` on are not there without a break."""
        if self._history_ns is None or start_ns < self._history_ns:
            return Refusal("no_history", "the clip would begin before the events, or reach a gap")
        if not self._stream.ring.covers(start_ns):
            return Refusal(
                "no_history", "events that the clip needs are no longer kept (ring_s, ring_mb)"
            )
        return None

    def _keep(self, middle_ns: int, gated: GatedFrame, frame: Frame) -> None:
        self._kept.append((middle_ns, gated, FrameStamp(frame.stamp_ns, frame.frame_id)))
        length_ns = self._parameters.windows_per_clip * self._parameters.window_ns
        while self._kept[0][0] < middle_ns - length_ns:
            self._kept.popleft()

    def _cut(
        self, end_ns: int, height: int, width: int, speed_px_s: float
    ) -> Observation | Refusal:
        """Encode the windows that end at `end_ns` and attach the frames that belong to them."""
        parameters, ring = self._parameters, self._stream.ring
        length, window_ns = parameters.windows_per_clip, parameters.window_ns
        start_ns = end_ns - length * window_ns
        missing = self._missing(start_ns)
        if missing is not None:
            return missing
        if self._encoder is None:
            self._encoder = WindowEncoder(self._event_encoder, height, width, channels=3)
        windows = np.empty((length, height, width), np.uint8)
        counts = np.empty(length, np.int64)
        supported = np.empty(length, np.bool_)
        for index in range(length):
            window = Window(index, start_ns + index * window_ns, start_ns + (index + 1) * window_ns)
            encoded = self._encoder.encode(ring, window)
            windows[index] = code_of_tencode(encoded.image)
            counts[index] = encoded.event_count
            supported[index] = active_share(windows[index]) >= parameters.fewest_active_share
            events = ring.window(window.start_ns, window.end_ns)
            refusal = refuse_flash(parameters, events, windows[index])
            if refusal is None and index == length - 1:
                refusal = refuse_hot_pixels(parameters, events, height, width, window_ns)
            if refusal is not None:
                return refusal
        self._usable_frames = 0
        frames = np.zeros((length, height, width), np.uint8)
        masks = np.zeros((length, height, width), np.bool_)
        has_frame, sharp = np.zeros(length, np.bool_), np.zeros(length, np.bool_)
        ends_ns = start_ns + window_ns * np.arange(1, length + 1, dtype=np.int64)
        frame_ns = ends_ns.copy()
        chosen = self._frames_of(ends_ns)
        for index, (middle_ns, gated, _) in chosen.items():
            frames[index], masks[index] = gated.image, gated.mask
            has_frame[index], sharp[index] = True, gated.sharp
            frame_ns[index] = middle_ns
        self.last_cut = {index: stamp for index, (_, _, stamp) in chosen.items()}
        return Observation(
            end_ns=end_ns,
            window_ns=window_ns,
            windows=windows,
            frames=frames,
            has_frame=has_frame,
            frame_ns=frame_ns,
            masks=masks,
            sharp=sharp,
            supported=supported,
            event_counts=counts,
            luminance=self._kept[-1][1].luminance,
            event_rate_hz=float(counts.sum()) / (length * window_ns / 1e9),
            image_speed_px_s=speed_px_s,
        )

    def _frames_of(
        self, ends_ns: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> dict[int, tuple[int, GatedFrame, FrameStamp]]:
        """Return index of a window -> the frame nearest to its end, within the tolerance."""
        tolerance_ns = round(self._parameters.sync_tolerance_s * 1e9)
        nearest: dict[int, tuple[int, GatedFrame, FrameStamp]] = {}
        for middle_ns, gated, stamp in self._kept:
            index = int(np.argmin(np.abs(ends_ns - middle_ns)))
            distance_ns = abs(int(ends_ns[index]) - middle_ns)
            # The newest frame is less than a microsecond after the last end, by its rounding.
            if distance_ns > max(tolerance_ns, _US):
                continue
            rival = nearest.get(index)
            if rival is None or distance_ns < abs(int(ends_ns[index]) - rival[0]):
                nearest[index] = (middle_ns, gated, stamp)
        return nearest
