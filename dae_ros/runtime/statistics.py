"""Counters of a pipeline, handed out as an immutable snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from dae_ros.events.sensor_clock import SensorClock


@dataclass(frozen=True, slots=True)
class PipelineStatistics:
    """What a pipeline has done since it was made.

    Attributes:
        packets, events: taken in; `events` are those decoded and in bounds.
        windows: stepped, `windows_empty` of them without events.
        windows_skipped: closed but not stepped, by the overload policy or because the ring no
            longer held them.
        windows_failed: of which the network made nothing; `errors` says why.
        windows_silent: not stepped because nothing had moved for `max_silence_s`.
        unreached: frames and trigger edges that would end a window and that no event has passed.
        resets, gaps, drops, errors: counts by cause, reason or error code.
        clock_offset_ns, clock_jitter_ns: ROS minus event clock, None before the first packet.
        silent: whether stepping has stopped for want of events.
        no_ends: why no window can close although events come, with what to do; None where one can.
        no_stamps: why results bear sensor time though ROS time is wanted, with what to do; else
            None.
    """

    packets: int
    events: int
    windows: int
    windows_empty: int
    windows_skipped: int
    windows_failed: int
    windows_silent: int
    unreached: int
    resets: Mapping[str, int]
    gaps: Mapping[str, int]
    drops: Mapping[str, int]
    errors: Mapping[str, int]
    clock_offset_ns: int | None
    clock_jitter_ns: int | None
    silent: bool
    no_ends: str | None
    no_stamps: str | None


class Tally:
    """The mutable side, owned by the thread that runs the pipeline."""

    def __init__(self) -> None:
        self.packets = 0
        self.events = 0
        self.windows = 0
        self.windows_empty = 0
        self.windows_skipped = 0
        self.windows_failed = 0
        self.windows_silent = 0
        self.unreached = 0
        self.resets: Counter[str] = Counter()
        self.gaps: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def failed(self, code: str) -> None:
        """Count a window of which the network made nothing, and why."""
        self.windows_failed += 1
        self.errors[code] += 1

    def snapshot(
        self,
        drops: Mapping[str, int],
        clock: SensorClock,
        stamp_clock: str,
        silent: bool,
        no_ends: str | None,
    ) -> PipelineStatistics:
        """Return everything counted so far, with what the pipeline knows beside the counts."""
        return PipelineStatistics(
            packets=self.packets,
            events=self.events,
            windows=self.windows,
            windows_empty=self.windows_empty,
            windows_skipped=self.windows_skipped,
            windows_failed=self.windows_failed,
            windows_silent=self.windows_silent,
            unreached=self.unreached,
            resets=dict(self.resets),
            gaps=dict(self.gaps),
            drops=dict(drops),
            errors=dict(self.errors),
            clock_offset_ns=clock.offset_ns,
            clock_jitter_ns=clock.jitter_ns,
            silent=silent,
            no_ends=no_ends,
            no_stamps=no_stamps(clock, stamp_clock),
        )


def no_stamps(clock: SensorClock, stamp_clock: str) -> str | None:
    """Return why results bear no ROS time, and what to do about it; None where all is well.

    Args:
        clock: of the newest events.
        stamp_clock: `DepthParameters.stamp_clock`.
    """
    stamp_ns = clock.useless_stamp_ns
    if stamp_ns is None or clock.absolute or stamp_clock != "ros":
        return None
    what = "0" if stamp_ns == 0 else f"always {stamp_ns / 1e9:.3f} s"
    return (
        f"depth bears the sensor's own time: header.stamp of the event messages is {what}, which "
        "does not lead to ROS time; let the camera driver fill it, or set stamp_clock to sensor"
    )
