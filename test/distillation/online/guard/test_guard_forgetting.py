"""What was known may not be lost, neither at once nor little by little."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.guard import Guard
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.replay import HeldoutBlock
from dae_ros.distillation.online.verdict import Verdict
from test.reference.noisy_original import (
    CHAIN,
    PARAMETERS,
    TRUTH,
    at,
    blocks_of,
    labelled,
    network_of,
)
from test.reference.online_clips import changed, wedge_clip


def test_what_forgets_is_refused_though_it_is_better_here(
    guard: Guard, published: ClipNetwork, held: list[HeldoutBlock]
) -> None:
    """The anchors' truth lies on the other side of the original."""
    anchors = [labelled(seed, at(-0.5), "ground_truth") for seed in (60, 61)]
    verdict = guard.judge(network_of(at(0.5)), published, held, anchors)
    assert verdict.reasons == ("forgetting",)
    assert verdict.harmful and verdict.forgotten
    assert verdict.numbers["anchor_true_worsening"] > 0.5


def test_many_small_steps_do_not_add_up(original: ClipNetwork, held: list[HeldoutBlock]) -> None:
    """Each publication forgets less than is allowed of the one before; the sum is not allowed."""
    anchors = [labelled(70, at(-1.0), "ground_truth")]
    guard = Guard(
        original, dataclasses.replace(PARAMETERS, largest_true_forgetting=0.12), metric=True
    )
    published, verdicts = original, []
    for part in (0.08, 0.16, 0.24):
        candidate = network_of(at(part))
        verdict = guard.judge(candidate, published, held, anchors)
        error = verdict.numbers["anchor_true_abs_rel_candidate"]
        before = verdict.numbers["anchor_true_abs_rel_published"]
        assert error / before - 1 < 0.12
        verdicts.append(verdict)
        if not verdict.accepted:
            break
        published = candidate
    assert verdicts[0].accepted
    assert verdicts[-1].reasons == ("forgetting",)
    assert published is not original
    parts = []
    for kind in ("", "aligned_"):
        candidate_error, published_error, original_error = (
            verdicts[-1].numbers[f"anchor_true_{kind}abs_rel_{who}"]
            for who in ("candidate", "published", "original")
        )
        room = 1.12 * original_error - published_error
        parts.append(min(1.0, room / (candidate_error - published_error)))
    assert verdicts[-1].fits == pytest.approx(min(parts))


def test_a_little_too_much_forgotten_is_too_far(
    original: ClipNetwork, held: list[HeldoutBlock]
) -> None:
    """Half of its way is allowed; where anchors are 5 % worse, no step is small enough."""
    anchors = [labelled(70, at(-1.0), "ground_truth")]
    loose = dataclasses.replace(PARAMETERS, largest_true_forgetting=0.025)
    guard = Guard(original, loose, metric=True)
    half, too_far, forgotten = (
        guard.judge(network_of(at(part)), original, held, anchors) for part in (0.015, 0.03, 0.12)
    )
    assert half.accepted
    assert too_far.reasons == forgotten.reasons == ("forgetting",)
    assert too_far.too_far and not too_far.harmful
    assert 0.3 < too_far.fits < 1.0
    assert guard.judge(network_of(at(0.9 * too_far.fits * 0.03)), original, held, anchors).accepted
    assert forgotten.harmful and not forgotten.too_far


@pytest.mark.parametrize("limit", [0.3, 100.0])
def test_a_place_may_not_be_lost_for_all_others(
    original: ClipNetwork, held: list[HeldoutBlock], limit: float
) -> None:
    """The mean falls; what of the way leaves that place as it was may pass."""
    anchors = [labelled(seed, TRUTH, "ground_truth") for seed in range(60, 68)]
    anchors.insert(3, labelled(70, at(-0.5), "ground_truth"))
    parameters = dataclasses.replace(PARAMETERS, largest_place_forgetting=limit)
    guard = Guard(original, parameters, metric=True)
    verdict = guard.judge(network_of(at(0.5)), original, held, anchors)
    assert verdict.reasons == (("forgetting",) if limit < 1 else ())
    assert verdict.numbers["anchor_true_worsening"] < -0.1
    assert verdict.numbers["anchor_true_worst"] > 0.5
    alone = guard.judge(network_of(at(0.5)), original, held, anchors[3:4])
    assert alone.numbers["anchor_true_worsening"] == verdict.numbers["anchor_true_worst"]
    if limit < 1:
        assert "one of 9 places" in verdict.refusals[0].detail
        assert verdict.too_far and not verdict.forgotten
        part = 0.9 * verdict.fits
        assert 0.1 < part < 0.7
        assert guard.judge(network_of(at(0.5 * part)), original, held, anchors).accepted


def test_a_place_may_not_be_lost_in_shape_either(
    original: ClipNetwork, held: list[HeldoutBlock]
) -> None:
    """Its metres are right, and as far from the truth in shape as the candidate goes."""
    anchors = [labelled(seed, TRUTH, "ground_truth") for seed in range(60, 68)]
    lost = labelled(70, at(-0.5), "ground_truth")
    anchors.append(changed(lost, depth=(20.0 * lost.depth.astype(np.float32)).astype(np.float16)))
    guard = Guard(original, PARAMETERS, metric=True)
    verdict = guard.judge(network_of(at(0.5)), original, held, anchors)
    assert verdict.reasons == ("forgetting",)
    assert verdict.numbers["anchor_true_worst"] < 0.3 < verdict.numbers["anchor_true_aligned_worst"]


def test_a_place_without_a_label_may_not_be_lost(
    original: ClipNetwork, held: list[HeldoutBlock]
) -> None:
    """The mean departure is allowed and that of one place is not."""
    nothing = np.zeros((4, 28, 42), np.uint8)
    anchors = [changed(wedge_clip(seed, length=4), weight=nothing) for seed in range(80, 88)]
    limits = dataclasses.replace(PARAMETERS, largest_departure=1.0, largest_place_forgetting=1.0)
    candidate = network_of(at(0.5))
    each = [
        Guard(original, limits, metric=True).judge(candidate, original, held, [anchor])
        for anchor in anchors
    ]
    departures = [verdict.numbers["anchor_departure"] for verdict in each]
    between = (max(departures) + sum(departures) / len(departures)) / 2
    for limit, reasons in ((between, ("forgetting",)), (1.01 * max(departures), ())):
        strict = dataclasses.replace(limits, largest_place_forgetting=limit)
        verdict = Guard(original, strict, metric=True).judge(candidate, original, held, anchors)
        assert verdict.reasons == reasons
        assert verdict.numbers["anchor_departure_worst"] == pytest.approx(max(departures))
    assert verdict.numbers["anchor_departure"] < between


def chain_of_verdicts(
    blocks: list[HeldoutBlock], anchors: list[LabelledClip], **limits: float
) -> list[Verdict]:
    """Publish what passes, from the first of the chain on; return the verdicts up to a refusal."""
    published = network_of(CHAIN[0])
    guard = Guard(published, dataclasses.replace(PARAMETERS, **limits), metric=True)
    verdicts = []
    for weights in CHAIN[1:]:
        candidate = network_of(weights)
        verdicts.append(guard.judge(candidate, published, blocks, anchors))
        if not verdicts[-1].accepted:
            break
        published = candidate
    return verdicts


def test_shape_may_not_be_paid_for_metres_in_small_steps(held: list[HeldoutBlock]) -> None:
    """Each is better in metres and loses less than 2 % of shape; two steps lose more."""
    unlabelled = [changed(wedge_clip(80, length=4), weight=np.zeros((4, 28, 42), np.uint8))]
    verdicts = chain_of_verdicts(held, unlabelled, largest_departure=0.5, largest_scale_step=0.1)
    assert [verdict.reasons for verdict in verdicts] == [(), ("worse",)]
    for verdict in verdicts:
        assert verdict.numbers["gain"] > 0.05
        assert -0.02 < verdict.numbers["aligned_gain"] < -0.017
    assert verdicts[1].numbers["aligned_gain_over_original"] < -0.03
    assert verdicts[1].harmful


def test_shape_of_anchors_may_not_be_paid_for_metres_either(anchors: list[LabelledClip]) -> None:
    """Better in every way where it is, better in metres on anchors, whose shape it forgets."""
    here = blocks_of([labelled(seed, at(-2.0)) for seed in range(6)])
    verdicts = chain_of_verdicts(here, anchors, largest_true_forgetting=0.03)
    assert [verdict.reasons for verdict in verdicts] == [(), ("forgetting",)]
    assert verdicts[1].numbers["anchor_true_worsening"] < -0.1
    assert 0.03 < verdicts[1].numbers["anchor_true_aligned_worsening"] < 0.045


def test_anchors_without_a_label_hold_depth_near_the_originals(
    original: ClipNetwork, published: ClipNetwork, held: list[HeldoutBlock]
) -> None:
    """What the original says stands for the truth that nobody knows."""
    anchors = [changed(wedge_clip(80, length=4), weight=np.zeros((4, 28, 42), np.uint8))]
    verdicts = [
        Guard(
            original, dataclasses.replace(PARAMETERS, largest_departure=limit), metric=True
        ).judge(network_of(at(0.5)), published, held, anchors)
        for limit in (0.1, 0.01)
    ]
    assert [verdict.reasons for verdict in verdicts] == [(), ("forgetting",)]
    assert 0.02 < verdicts[0].numbers["anchor_departure"] < 0.06
    limit = 0.7 * verdicts[0].numbers["anchor_departure"]
    guard = Guard(original, dataclasses.replace(PARAMETERS, largest_departure=limit), metric=True)
    too_far = guard.judge(network_of(at(0.5)), published, held, anchors)
    assert 0.3 < too_far.fits < 0.7
    nearer = guard.judge(network_of(at(0.2 + 0.9 * too_far.fits * 0.3)), published, held, anchors)
    assert nearer.accepted
