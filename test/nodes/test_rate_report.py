"""What the depth node says of its own accord about its results."""

from __future__ import annotations

import numpy as np

from dae_ros.nodes.rate_report import Patience, RateReport
from dae_ros.runtime.depth_frame import DepthFrame
from dae_ros.runtime.stage_times import StageTimes


def frame(latency_ms: int) -> DepthFrame:
    """A metric result of 4x3 px."""
    depth = np.ones((3, 4), np.float32)
    return DepthFrame(
        index=0, start_ns=0, end_ns=1, stamp_ns=1, depth=depth, kind="metric", orientation="depth",
        image=np.zeros((3, 3, 4), np.float32), event_count=1, state_age=1, weight_version=1,
        digest="", frame_id="", times=StageTimes(7, 7, 7, 7, 7 + latency_ms * 1_000_000),
    )  # fmt: skip


def test_the_first_result_is_announced_and_then_each_period_summed_up() -> None:
    """Rate and mean latency are of the results since the last sentence, never of all."""
    report = RateReport(period_s=30.0)
    said = {
        second: sentence
        for second in range(100)
        if (sentence := report.add(frame(10 if second <= 30 else 20), 1000.0 + second)) is not None
    }
    assert list(said) == [0, 30, 60, 90]
    assert said[0] == (
        "first depth image on 'depth/image': metres, 4x3 px, 10 ms after the packet that closed "
        "its window"
    )
    assert said[30].startswith("'depth/image': 1.0 images/s over the last 30 s, 10 ms")
    assert said[60].startswith("'depth/image': 1.0 images/s over the last 30 s, 20 ms")


def test_what_windows_wait_for_is_said_once_and_not_at_once() -> None:
    """A reason that holds for five seconds is said; frames that come a little later are not."""
    patience = Patience()
    said = [patience.wait("no frame", float(second)) for second in range(20)]
    assert [second for second, sentence in enumerate(said) if sentence] == [5]
    patient = Patience()
    reasons = ["no frame"] * 4 + [None] + ["no frame"] * 5
    assert [patient.wait(reason, float(s)) for s, reason in enumerate(reasons)] == [None] * 10


def test_silence_counts_as_time_without_results() -> None:
    """After a pause of the stream the rate is over the whole time since the last sentence."""
    report = RateReport(period_s=30.0)
    report.add(frame(10), 0.0)
    sentence = report.add(frame(10), 100.0)
    assert sentence is not None
    assert "0.0 images/s over the last 100 s" in sentence
