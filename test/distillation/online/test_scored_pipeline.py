"""What a scored pipeline says of the messages that it was given."""

from __future__ import annotations

from dataclasses import replace

from dae_ros.distillation.online.scored_pipeline import ErrorCurve, ScoredPipeline
from dae_ros.runtime.pipeline import DepthPipeline
from test.reference.leaky_estimator import LeakyEstimator
from test.reference.pipeline_streams import dense, parameters, stream


def test_windows_that_fail_are_no_messages_that_cannot_be_used() -> None:
    """A network that gives NaN does not make a recording damaged."""
    estimator = LeakyEstimator()
    estimator.poison_at = 3
    scored = ScoredPipeline(DepthPipeline(parameters(), estimator), ErrorCurve())
    packets = stream(dense(600), 20)
    packets[30] = replace(packets[30], encoding="unknown")
    for packet in packets:
        scored.pipeline.feed(packet)
    assert len(list(scored.step())) > 5
    assert scored.pipeline.statistics().errors["non_finite_state"] == 1
    assert scored.packet_errors == {"unsupported_encoding": 1}
