"""Labelled windows of a recording, in one pass and bounded memory.

Messages go through the same decoder, order rules and clock as in the depth pipeline. Windows end
at depth images (to learn from and to be measured by true depth) or at camera frames (to learn from
a frame teacher's labels); they are [end - length, end), the end floored to whole microseconds, and
closed by an event or packet time, never by another topic.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Iterator
from types import TracebackType
from typing import Literal

from dae_ros.bags.container import RecordedMessage
from dae_ros.bags.datasets.images import valid_depth
from dae_ros.bags.labelled_window import LabelledWindow
from dae_ros.bags.messages import read_depth, stamp_of
from dae_ros.bags.recording import Recording
from dae_ros.bags.topics import (
    choose_depth_topic,
    choose_events_topic,
    choose_image_topic,
    describe,
    require_topic,
)
from dae_ros.bags.truth_beside import truth_beside
from dae_ros.errors import PacketError, RecordingError
from dae_ros.events.cdr import event_types
from dae_ros.events.frame import Frame, middle_of_exposure
from dae_ros.events.stream import EventStream, StreamPart

MS = 1_000_000
# A label that waits longer than this for events lies in a silence, where the pipeline rests too.
PATIENCE_NS = 1_000 * MS
# At the end of a recording a window may end this much after the last event: the published slicer
# of DSEC works in whole milliseconds.
AFTER_LAST_EVENT_NS = MS
# A pause of lost packets longer than this ends continuity; the default of `gap_reset_ms`.
GAP_RESET_NS = 200 * MS
# What `skipped` counts that is no label.
BESIDE_LABELS = ("unreadable_events", "unreadable_frames")

Ends = Literal["depth", "frame"]


class LabelledRecording:
    """The windows of a recording; see `LabelledSequence`.

    Where the events were rectified, windows are cut from what the sensor sent and moved then, so
    that they know when their first and last event were, also where those left the image, and where
    between pixels each came to lie.

    `skipped` counts labels `before_events` (the window begins before the first event),
    `in_silence` (no event for a second), `after_events` (which ended, or went on at another time),
    `not_newer` than the one before, `too_late` (recorded when the events had left memory) and
    `unreadable`; beside labels also event messages that were `unreadable_events`, and frames that
    were `unreadable_frames`, without which the window is given.

    Args:
        recording: opened; closed with this.
        window_ns, ends, events, label, image_stamp, exposure_s: see `open_labelled`.
    """

    def __init__(
        self,
        recording: Recording,
        window_ns: int,
        ends: Ends = "depth",
        events: str | None = None,
        label: str | None = None,
        *,
        image_stamp: str = "mid",
        exposure_s: float = 0.0,
    ) -> None:
        self.name = recording.name
        self.skipped: Counter[str] = Counter()
        self.fraction: float | None = None
        self._recording = recording
        self._window_ns = window_ns
        self._ends = ends
        self.events, self.label = _choose(recording, ends, events, label)
        image = choose_image_topic(recording.topics, self.events)
        # Frames of another camera show other pixels, and decoding them costs more than the rest.
        beside = image is not None and image.rpartition("/")[0] == self.events.rpartition("/")[0]
        self.image = image if ends == "depth" and beside else None
        self.rectifier = recording.rectifier(self.events)
        self.exposure = image_stamp, exposure_s

    def __iter__(self) -> Iterator[LabelledWindow]:
        """See `LabelledSequence`."""
        self.skipped, self.fraction = Counter(), None
        return _Pass(self, self._recording, self._window_ns, self._ends).windows()

    def __enter__(self) -> LabelledRecording:
        """Return the sequence."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the recording."""
        self._recording.close()


class _Pass:
    """One iteration over a recording."""

    def __init__(
        self, owner: LabelledRecording, recording: Recording, window_ns: int, ends: Ends
    ) -> None:
        self._owner = owner
        self._recording = recording
        self._window_ns = window_ns
        self._ends = ends
        self._stream = EventStream(ring_length_ns=3 * PATIENCE_NS + window_ns)
        self._clock = self._stream.clock
        self._pending: deque[tuple[int, RecordedMessage]] = deque()
        self._frames: deque[tuple[int, RecordedMessage]] = deque()
        self._first_ns: int | None = None
        self._last_event_ns: int | None = None
        self._resumed_ns: int | None = None
        self._last_end_ns: int | None = None
        self._restarts = True

    def windows(self) -> Iterator[LabelledWindow]:
        owner, damage = self._owner, None
        recording = self._recording
        packets = owner.rectifier[0] if owner.rectifier else owner.events
        topics = {packets, owner.label, *([owner.image] if owner.image else [])}
        messages = recording.messages(topics)
        while True:
            try:
                message = next(messages, None)
            except RecordingError as error:
                damage = error
                break
            if message is None:
                break
            if recording.start_ns is not None and recording.end_ns is not None:
                length_ns = max(recording.end_ns - recording.start_ns, 1)
                owner.fraction = min(1.0, (message.time_ns - recording.start_ns) / length_ns)
            if message.topic == packets:
                yield from self._take_packet(message)
            else:
                self._take_stamped(message)
                # Its events may all be here already; a break in time must not find it waiting.
                yield from self._closed(self._stream.newest_time_ns)
        if self._stream.newest_time_ns is not None:
            yield from self._closed(self._stream.newest_time_ns + AFTER_LAST_EVENT_NS)
        if self._pending:
            owner.skipped["after_events"] += len(self._pending)
        if damage is not None:
            raise damage

    def _take_stamped(self, message: RecordedMessage) -> None:
        try:
            stamp_ns = stamp_of(self._recording.to_cdr(message))
        except (RecordingError, PacketError):
            label = message.topic == self._owner.label
            self._owner.skipped["unreadable" if label else "unreadable_frames"] += 1
            return
        if self._ends == "frame" or message.topic == self._owner.image:
            stamp_ns = middle_of_exposure(stamp_ns, message.exposure_ns, *self._owner.exposure)
        if message.topic == self._owner.label:
            self._pending.append((stamp_ns, message))
            self._give_up()
        else:
            self._frames.append((stamp_ns, message))
            while stamp_ns - self._frames[0][0] > 3 * PATIENCE_NS and len(self._frames) > 1:
                self._frames.popleft()

    def _give_up(self) -> None:
        """Drop labels that no events come for, so that they do not pile up."""
        pending, newest_ns = self._pending, self._stream.newest_time_ns
        if newest_ns is None:
            while pending[-1][0] - pending[0][0] > PATIENCE_NS:
                pending.popleft()
                self._owner.skipped["before_events"] += 1
            return
        while pending and self._end_of(pending[-1][0]) - newest_ns > PATIENCE_NS:
            pending.pop()
            self._owner.skipped["in_silence"] += 1

    def _end_of(self, stamp_ns: int) -> int:
        return self._clock.to_event(stamp_ns) // 1000 * 1000

    def _take_packet(self, message: RecordedMessage) -> Iterator[LabelledWindow]:
        try:
            parts = self._stream.feed(self._recording.read_packet(message))
        except PacketError:
            self._owner.skipped["unreadable_events"] += 1
            return
        for part in parts:
            self._begin(part)
            if len(part.events) > 0:
                # Before the ring may let go of what was ahead of a pause.
                yield from self._closed(part.events.first_ns)
            self._stream.ring.push(part.events)
            yield from self._closed(part.newest_time_ns)

    def _begin(self, part: StreamPart) -> None:
        """Take in a part's gap and first event before its events."""
        gap = part.gap
        self._clock = part.clock
        if gap is not None and gap.breaks_time:
            self._stream.ring.clear()
            if self._pending:
                self._owner.skipped["after_events"] += len(self._pending)
                self._pending.clear()
            self._first_ns = self._last_event_ns = self._resumed_ns = self._last_end_ns = None
            self._restarts = True
        elif gap is not None and (gap.duration_ns or 0) > GAP_RESET_NS:
            self._restarts = True
        if len(part.events) > 0:
            first_ns, before_ns = part.events.first_ns, self._last_event_ns
            if before_ns is None:
                self._first_ns = first_ns
            elif first_ns - before_ns > PATIENCE_NS:
                self._resumed_ns = first_ns
            self._last_event_ns = part.events.last_ns

    def _closed(self, newest_ns: int | None) -> Iterator[LabelledWindow]:
        """Yield the windows that end at or before `newest_ns`; none while no time is known."""
        if newest_ns is None:
            return
        while self._pending and self._end_of(self._pending[0][0]) <= newest_ns:
            stamp_ns, message = self._pending.popleft()
            end_ns = self._end_of(stamp_ns)
            reason = self._reason_against(end_ns)
            window = None
            if not reason:
                window = self._window(stamp_ns, end_ns, message)
                reason = "" if window else "unreadable"
            if window is None:
                self._owner.skipped[reason] += 1
                continue
            self._last_end_ns = end_ns
            self._restarts = False
            if self._after_silence(end_ns):
                self._resumed_ns = None
            yield window

    def _reason_against(self, end_ns: int) -> str:
        start_ns = end_ns - self._window_ns
        if self._first_ns is None or start_ns < self._first_ns:
            return "before_events"
        if self._last_end_ns is not None and end_ns <= self._last_end_ns:
            return "not_newer"
        return "" if self._stream.ring.covers(start_ns) else "too_late"

    def _window(
        self, stamp_ns: int, end_ns: int, message: RecordedMessage
    ) -> LabelledWindow | None:
        height, width = self._stream.height or 0, self._stream.width or 0
        depth, frame = None, None
        try:
            if self._ends == "frame":
                frame = self._frame(stamp_ns, message)
                shape = frame.image.shape
            else:
                depth = valid_depth(read_depth(self._recording.to_cdr(message)).depth)
                shape = depth.shape
        except RecordingError:
            return None
        if shape != (height, width) and self._ends == "depth":
            raise RecordingError(
                f"{message.topic} has {shape[1]}x{shape[0]} px and {self._owner.events} "
                f"{width}x{height}; choose the depth that belongs to the events",
                topic=message.topic,
            )
        if self._ends == "depth":
            frame = self._newest_frame(stamp_ns)
        start_ns = end_ns - self._window_ns
        events, sensed, place = self._stream.ring.window(start_ns, end_ns), None, None
        if self._owner.rectifier is not None:
            rectifier, sensed = self._owner.rectifier[1], events
            events, place = rectifier.rectified(sensed), rectifier.points
        return LabelledWindow(
            start_ns=start_ns,
            end_ns=end_ns,
            stamp_ns=stamp_ns,
            height=height,
            width=width,
            events=events,
            voxels=None,
            depth=depth,
            frame=frame,
            restarts=self._restarts or self._after_silence(end_ns),
            sensed=sensed,
            place=place,
        )

    def _after_silence(self, end_ns: int) -> bool:
        return self._resumed_ns is not None and end_ns > self._resumed_ns

    def _newest_frame(self, stamp_ns: int) -> Frame | None:
        while len(self._frames) > 1 and self._frames[1][0] <= stamp_ns:
            self._frames.popleft()
        if not self._frames or self._frames[0][0] > stamp_ns:
            return None
        try:
            return self._frame(*self._frames[0])
        except RecordingError:
            self._frames.popleft()
            self._owner.skipped["unreadable_frames"] += 1
            return None

    def _frame(self, middle_ns: int, message: RecordedMessage) -> Frame:
        return dataclasses.replace(self._recording.read_frame(message), stamp_ns=middle_ns)


def _choose(
    recording: Recording, ends: Ends, events: str | None, label: str | None
) -> tuple[str, str]:
    """Return the topics of the events and of the labels."""
    topics = recording.topics
    beside = choose_depth_topic if ends == "depth" else choose_image_topic
    if events is None:
        first = choose_events_topic(topics, None)
        others = sorted(name for name, info in topics.items() if info.type in event_types())
        events = next((name for name in (first, *others) if beside(topics, name)), first)
    else:
        events = choose_events_topic(topics, events)
    if label is not None:
        require_topic(topics, label)
        return events, label
    found = beside(topics, events)
    if found is None:
        absent = truth_beside(recording.paths[0]) if ends == "depth" else None
        if absent is not None and not absent.exists():
            raise RecordingError(
                f"there are no depth images beside {events}, since {absent.name} is not beside "
                f"{recording.paths[0]}; put it there, or give the topic that has depth",
                topic=events,
                path=str(absent),
            )
        what = "depth images" if ends == "depth" else "camera frames"
        raise RecordingError(
            f"there are no {what} beside {events}; give their topic, or open the recording that "
            f"has them as well. There are {describe(topics)}",
            topic=events,
            topics=sorted(topics),
        )
    return events, found
