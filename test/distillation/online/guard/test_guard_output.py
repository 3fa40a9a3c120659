"""Broken, flat, inverted, trembling depth, and metres that jump or drift."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.guard import Guard
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.replay import HeldoutBlock
from test.reference.noisy_original import (
    PARAMETERS,
    TRUTH,
    Judge,
    at,
    blocks_of,
    labelled,
    network_of,
    noisy,
    scaled,
    with_last,
)
from test.reference.online_clips import changed


@pytest.mark.parametrize("seed", range(5))
def test_a_random_change_is_refused(judge: Judge, seed: int) -> None:
    """Every time; a direction drawn at random does not lead towards the truth."""
    verdict = judge(noisy(at(0.2), seed=100 + seed))
    assert {"no_gain", "worse", "forgetting"} <= set(verdict.reasons)
    assert verdict.harmful


def test_a_constant_is_refused(judge: Judge) -> None:
    """The last layer forgets its input."""
    verdict = judge(with_last(at(0.5), lambda name, w: w * 0.0 if name == "weight" else w))
    assert {"dead_output", "saturated", "inverted", "no_gain"} <= set(verdict.reasons)
    assert verdict.harmful


def test_what_is_upside_down_is_refused(judge: Judge) -> None:
    """Near becomes far: alignment alone would not see it."""
    verdict = judge(with_last(TRUTH, lambda name, w: -w if name == "weight" else w))
    assert {"inverted", "no_gain", "worse"} <= set(verdict.reasons)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(judge: Judge, value: float) -> None:
    """One bad number in the last layer."""
    verdict = judge(with_last(at(0.5), lambda _, w: torch.full_like(w, value)))
    assert verdict.reasons == ("not_finite",)
    assert verdict.harmful


# ln of the factor that depth is multiplied with; float32 ends at 88.
HUGE = [30.0, 40.0, 44.0, 60.0, 80.0]


def _masked(blocks: list[HeldoutBlock]) -> list[HeldoutBlock]:
    """Return blocks with pixels that no label says anything of."""
    right = np.arange(blocks[0].clips[0].weight.shape[-1]) >= 8
    return blocks_of(
        [changed(clip, weight=clip.weight * right) for block in blocks for clip in block.clips]
    )


@pytest.mark.parametrize("log_factor", HUGE)
def test_what_is_finite_and_too_large_to_be_scored_is_refused(
    guard: Guard,
    published: ClipNetwork,
    held: list[HeldoutBlock],
    anchors: list[LabelledClip],
    log_factor: float,
) -> None:
    """The squares of such depth overflow: a refusal, whatever its size."""
    huge = network_of(scaled(at(0.5), math.exp(log_factor)))
    verdict = guard.judge(huge, published, _masked(held), anchors)
    assert not verdict.accepted and verdict.harmful
    if log_factor > 30.0:
        assert verdict.reasons == ("not_finite",)


@pytest.mark.parametrize("log_factor", HUGE)
def test_published_weights_that_are_too_large_to_be_scored_prove_nothing(
    original: ClipNetwork, held: list[HeldoutBlock], anchors: list[LabelledClip], log_factor: float
) -> None:
    """They are to be taken back; where the original is as bad, there is no way out."""
    huge = network_of(scaled(at(0.2), math.exp(log_factor)))
    guard, candidate = Guard(original, PARAMETERS, metric=True), network_of(at(0.5))
    verdict = guard.judge(candidate, huge, _masked(held), anchors)
    assert not verdict.accepted and verdict.published_worse
    if log_factor > 30.0:
        assert verdict.reasons == ("nothing_to_compare", "published_worse")
    verdict = Guard(huge, PARAMETERS, metric=True).judge(candidate, huge, _masked(held), anchors)
    assert not verdict.accepted
    if log_factor > 30.0:
        assert verdict.reasons == ("nothing_to_compare",)


@pytest.mark.parametrize("log_factor", HUGE)
def test_an_original_that_is_too_large_to_be_scored_is_no_label(
    held: list[HeldoutBlock], anchors: list[LabelledClip], log_factor: float
) -> None:
    """Where no teacher spoke its depth stands for a label, which is no reason for an error."""
    huge = network_of(scaled(at(0.2), math.exp(log_factor)))
    silent = [changed(clip, weight=np.zeros_like(clip.weight)) for clip in anchors]
    verdict = Guard(huge, PARAMETERS, metric=True).judge(
        network_of(at(0.5)), network_of(at(0.2)), held, silent
    )
    assert not verdict.accepted


@pytest.mark.parametrize("factor", [1.1, 1 / 1.1])
def test_a_tenth_more_or_less_metres_is_refused(judge: Judge, factor: float) -> None:
    """The best shape, and wrong metres."""
    verdict = judge(scaled(at(0.5), factor))
    assert {"no_gain", "worse", "forgetting"} <= set(verdict.reasons)
    assert verdict.numbers["heldout_log_scale_step"] == pytest.approx(math.log(factor), abs=0.02)


@pytest.mark.parametrize("factor", [1.1, 1 / 1.1])
def test_a_tenth_more_or_less_of_relative_depth_is_refused(
    relative: list[HeldoutBlock], guard: Guard, published: ClipNetwork, factor: float
) -> None:
    """A better shape, and a scale that jumps for everyone who uses it: it went too far."""
    anchors = list(relative[0].clips)
    verdict = guard.judge(network_of(scaled(at(0.5), factor)), published, relative, anchors)
    assert set(verdict.reasons) == {"scale_step"}
    assert verdict.too_far
    assert not verdict.harmful


def test_metres_may_be_corrected_in_steps(
    original: ClipNetwork, held: list[HeldoutBlock], anchors: list[LabelledClip]
) -> None:
    """A fifth short of the truth: all of it at once is right, a third is too much at once."""
    for part, accepted in ((1.25, True), (1.45, False)):
        published = network_of(scaled(at(0.2), 1 / part))
        verdict = Guard(original, PARAMETERS, metric=True).judge(
            network_of(at(0.3)), published, held, anchors
        )
        assert verdict.accepted == accepted
        assert verdict.too_far != accepted
        step = abs(verdict.numbers["heldout_log_scale_step"])
        at_anchors = abs(verdict.numbers["anchor_log_scale_step"])
        limit = PARAMETERS.largest_metric_scale_step
        assert verdict.fits == pytest.approx(min(1.0, limit / max(step, at_anchors)))


def test_the_scale_may_not_drift_in_small_steps_either(
    original: ClipNetwork, held: list[HeldoutBlock], anchors: list[LabelledClip]
) -> None:
    """Near the published scale and far from the original's."""
    published, candidate = (network_of(scaled(at(part), 1.4)) for part in (0.2, 0.5))
    verdict = Guard(original, PARAMETERS, metric=True).judge(candidate, published, held, anchors)
    assert "scale_drift" in verdict.reasons
    assert "scale_step" not in verdict.reasons
    assert verdict.numbers["anchor_log_scale_drift"] == pytest.approx(math.log(1.4), abs=0.03)


def test_metres_of_a_new_place_may_lie_far_from_what_was_known(
    original: ClipNetwork, anchors: list[LabelledClip]
) -> None:
    """Depth of the deployment may become 1.7 times as large where metres say so, not 7 times."""
    found = {}
    for factor in (1.7, 7.0):
        truth = blocks_of([labelled(seed, scaled(TRUTH, factor)) for seed in range(6)])
        pinned = list(truth[0].clips)
        published, candidate = (network_of(scaled(at(part), factor)) for part in (0.2, 0.5))
        guard = Guard(original, PARAMETERS, metric=True)
        found[factor] = guard.judge(candidate, published, truth, pinned)
        assert found[factor].numbers["gain"] > 0.1
        # What was known before must keep its scale all the same.
        both = guard.judge(candidate, published, truth, [*pinned, *anchors])
        assert "scale_drift" in both.reasons
    assert found[1.7].accepted
    assert "scale_drift" in found[7.0].reasons


def test_depth_that_trembles_more_is_refused(
    original: ClipNetwork,
    published: ClipNetwork,
    held: list[HeldoutBlock],
    anchors: list[LabelledClip],
    judge: Judge,
) -> None:
    """However much better it is: a limit just below what is measured refuses it."""
    strict = dataclasses.replace(PARAMETERS, largest_jitter=judge(at(0.5)).numbers["jitter"] - 1e-3)
    verdict = Guard(original, strict, metric=True).judge(
        network_of(at(0.5)), published, held, anchors
    )
    assert verdict.reasons == ("flicker",)
    assert verdict.too_far


def test_published_weights_that_broke_prove_nothing(
    original: ClipNetwork, held: list[HeldoutBlock], anchors: list[LabelledClip]
) -> None:
    """They are to be taken back; nothing can be measured against them."""
    broken = network_of(with_last(at(0.2), lambda _, w: w * math.nan))
    verdict = Guard(original, PARAMETERS, metric=True).judge(
        network_of(at(0.5)), broken, held, anchors
    )
    assert verdict.reasons == ("nothing_to_compare", "published_worse")
    assert not verdict.harmful and verdict.published_worse
