"""The guard: what is better passes, what does harm does not, and every reason is told.

The truth of these worlds is what one network says. The original is that network with noise on its
weights; what lies between them is better the nearer it is to the truth.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.guard import Guard
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.replay import HeldoutBlock
from dae_ros.distillation.online.verdict import Verdict
from dae_ros.model.configuration import Meaning, variant
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.online_clips import changed, wedge_clip

Weights = Mapping[str, Tensor]

CONFIG = variant("micro", input_height=28, input_width=42, activation="exp", output_scale=4.0)
MEANING = Meaning(event_encoder="tencode", orientation="depth", scale="metric")
PARAMETERS = OnlineParameters(lead=0, burn_in=1, unroll=3)
# The last layer: logarithmic depth.
LAST = "depth_head.scratch.output_conv2.2."
TRUTH: Weights = untrained("micro").network.state_dict()


def noisy(weights: Weights, seed: int, amount: float = 0.1) -> Weights:
    """Return weights with noise on the head's matrices, relative to their spread."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: w + amount * w.std() * torch.randn(w.shape, generator=generator)
        if name.startswith("depth_head") and w.ndim > 1
        else w
        for name, w in weights.items()
    }


def towards(start: Weights, end: Weights, part: float) -> Weights:
    return {
        name: torch.lerp(w, end[name], part) if w.is_floating_point() else w
        for name, w in start.items()
    }


def network_of(weights: Weights) -> ClipNetwork:
    network = build_network(CONFIG)
    network.load_state_dict(dict(weights))
    return ClipNetwork(network.eval().requires_grad_(False), MEANING)


def with_last(weights: Weights, change: Callable[[str, Tensor], Tensor]) -> Weights:
    return {
        name: change(name.removeprefix(LAST), w) if name.startswith(LAST) else w
        for name, w in weights.items()
    }


def scaled(weights: Weights, factor: float) -> Weights:
    """Return weights whose depth is so many times as large."""
    return with_last(weights, lambda name, w: w + math.log(factor) if name == "bias" else w)


def labelled(seed: int, by: Weights, teacher: str = "teacher") -> LabelledClip:
    """Return a clip whose label is what a network says."""
    clip = wedge_clip(seed, length=4)
    maps = network_of(by).predict(clip.observation, 0).maps.numpy()
    return changed(clip, depth=maps.astype(np.float16), teacher=teacher)


def blocks_of(clips: list[LabelledClip]) -> list[HeldoutBlock]:
    return [HeldoutBlock(index, (clip,), ((index % 2, 0),)) for index, clip in enumerate(clips)]


ORIGINAL = noisy(TRUTH, seed=0)


def at(part: float) -> Weights:
    return towards(ORIGINAL, TRUTH, part)


@pytest.fixture(scope="module")
def held() -> list[HeldoutBlock]:
    return blocks_of([labelled(seed, TRUTH) for seed in range(6)])


@pytest.fixture(scope="module")
def relative(held: list[HeldoutBlock]) -> list[HeldoutBlock]:
    """The same labels with another scale and shift."""
    return blocks_of(
        [
            changed(clip, depth=(3.0 * clip.depth + 2.0).astype(np.float16), label_metric=False)
            for block in held
            for clip in block.clips
        ]
    )


@pytest.fixture(scope="module")
def anchors() -> list[LabelledClip]:
    return [labelled(seed, TRUTH, "ground_truth") for seed in (50, 51)]


@pytest.fixture(scope="module")
def published() -> ClipNetwork:
    return network_of(at(0.2))


@pytest.fixture(scope="module")
def original() -> ClipNetwork:
    return network_of(ORIGINAL)


@pytest.fixture(scope="module")
def guard(original: ClipNetwork) -> Guard:
    return Guard(original, PARAMETERS, metric=True)


Judge = Callable[[Weights], Verdict]


@pytest.fixture(scope="module")
def judge(
    guard: Guard,
    published: ClipNetwork,
    held: list[HeldoutBlock],
    anchors: list[LabelledClip],
) -> Judge:
    return lambda weights: guard.judge(network_of(weights), published, held, anchors)


def test_what_is_nearer_to_the_truth_is_accepted(judge: Judge) -> None:
    """The error falls on every block and every anchor; the numbers say by how much."""
    verdict = judge(at(0.5))
    assert verdict.accepted
    assert not verdict.harmful
    assert verdict.reasons == ()
    assert not verdict.too_far
    numbers = verdict.numbers
    assert 0.3 < numbers["gain_lower"] < numbers["gain"] < numbers["gain_upper"] < 0.4
    assert numbers["gain_over_original"] > numbers["gain"]
    assert numbers["gain"] == pytest.approx(
        1
        - numbers["heldout_metric_abs_rel_candidate"] / numbers["heldout_metric_abs_rel_published"]
    )
    assert numbers["anchor_true_worsening"] < -0.4
    assert (numbers["heldout_blocks"], numbers["heldout_strata"]) == (6, 2)


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
    """A tenth short of the truth: all of it at once is right, a quarter is too much at once."""
    for part, accepted in ((1.1, True), (1.25, False)):
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


def test_the_published_and_the_original_weights_are_refused(judge: Judge) -> None:
    """The same again is no gain; what was before is worse."""
    same, before = judge(at(0.2)), judge(ORIGINAL)
    assert same.reasons == ("no_gain",)
    assert not same.harmful
    assert (same.numbers["gain"], same.numbers["gain_lower"]) == (0.0, 0.0)
    assert same.numbers["jitter"] == 1.0
    assert {"no_gain", "worse"} <= set(before.reasons)
    assert "worse_than_original" not in before.reasons
    assert before.numbers["gain_over_original"] == 0.0


def test_what_is_better_where_it_learned_and_worse_elsewhere_is_refused(
    guard: Guard,
    published: ClipNetwork,
    held: list[HeldoutBlock],
) -> None:
    """On the clips it learned from it would pass, on held-out ones it is worse."""
    special = noisy(TRUTH, seed=7, amount=0.2)
    train = blocks_of([labelled(seed, special) for seed in range(20, 26)])
    candidate = network_of(towards(at(0.2), special, 0.3))
    pinned = [labelled(30, special, "ground_truth")]
    assert "no_gain" not in guard.judge(candidate, published, train, pinned).reasons
    assert {"no_gain", "worse"} <= set(guard.judge(candidate, published, held, pinned).reasons)


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


def test_what_was_published_and_is_worse_than_the_original_is_told(
    original: ClipNetwork, held: list[HeldoutBlock], anchors: list[LabelledClip]
) -> None:
    """In another place the original would pass as a candidate: in metres, or in shape alone."""
    guard = Guard(original, PARAMETERS, metric=True)
    of_shape = Guard(network_of(CHAIN[0]), PARAMETERS, metric=True)
    for judging, weights, metres, worse in (
        (guard, at(-0.1), 0.08, True),
        (of_shape, shorter(1 - 0.7 * 1.06, 1.15), -0.2, True),
        # As much of its shape as a candidate may lose is not taken back.
        (of_shape, shorter(1 - 0.7 * 1.019, 1.15), -0.2, False),
    ):
        network = network_of(weights)
        verdict = judging.judge(network, network, held, anchors)
        assert verdict.published_worse == worse
        assert (verdict.numbers["gain_of_going_back"] > metres) == (metres > 0)
    # What is better than both takes its place, and nothing has to be taken back.
    verdict = guard.judge(network_of(at(0.2)), network_of(at(-0.1)), held, anchors)
    assert verdict.accepted and verdict.numbers["gain_of_going_back"] > 0.05
    # Where it was better before, the newest blocks count.
    network = network_of(at(0.3))
    elsewhere = [labelled(seed, at(-1.0)) for seed in range(6)]
    both = blocks_of([*(clip for block in held for clip in block.clips), *elsewhere])
    assert guard.judge(network, network, both, anchors).published_worse
    assert not guard.judge(network, network, both[::-1], anchors).published_worse
    # The same beyond doubt but by less than what a candidate must gain, or not at all.
    for published in (at(-0.005), at(0.0), at(0.3)):
        network = network_of(published)
        assert not guard.judge(network, network, held, anchors).published_worse


def shorter(part: float, factor: float) -> Weights:
    """Return weights of a shape between original and truth that say too few metres."""
    return scaled(at(part), 1 / factor)


# Each is nearer to the metres and 1.9 % further from the shape than the one before.
CHAIN = [shorter(1 - 0.7 * 1.019**step, 1.3 / 1.06**step) for step in range(4)]


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


def test_relative_depth_is_judged_after_alignment(
    guard: Guard, published: ClipNetwork, relative: list[HeldoutBlock]
) -> None:
    """Labels of any scale and shift; metres do not come into it."""
    verdict = guard.judge(network_of(at(0.5)), published, relative, list(relative[0].clips))
    assert verdict.accepted
    assert not any("metric" in name for name in verdict.numbers)
    assert verdict.numbers["gain"] > 0.3
    assert verdict.numbers["anchor_taught_worsening"] < -0.3


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


@pytest.mark.parametrize("lack", ["blocks", "strata", "anchors", "labels"])
def test_without_enough_evidence_nothing_passes(
    guard: Guard,
    published: ClipNetwork,
    held: list[HeldoutBlock],
    anchors: list[LabelledClip],
    lack: str,
) -> None:
    """Five blocks, one kind of scene, no anchor, or a block whose clip has no label."""
    blocks = list(held)
    if lack == "blocks":
        blocks = blocks[:5]
    elif lack == "strata":
        blocks = [HeldoutBlock(block.index, block.clips, ((1, 1),)) for block in held]
    elif lack == "labels":
        empty = changed(held[0].clips[0], weight=np.zeros((4, 28, 42), np.uint8))
        blocks[0] = HeldoutBlock(0, (empty,), held[0].strata)
    calls: list[None] = []
    verdict = guard.judge(
        network_of(at(0.5)),
        published,
        blocks,
        [] if lack == "anchors" else anchors,
        lambda: calls.append(None),
    )
    assert verdict.reasons == ("not_enough_evidence",)
    assert not verdict.harmful
    assert not calls  # nothing was rolled


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


def test_a_verdict_does_not_depend_on_those_before(
    judge: Judge,
    original: ClipNetwork,
    published: ClipNetwork,
    held: list[HeldoutBlock],
    anchors: list[LabelledClip],
) -> None:
    """What is remembered of the other two networks is what would be measured again."""
    again = judge(at(0.5))
    fresh = Guard(original, PARAMETERS, metric=True)
    calls: list[None] = []
    assert (
        fresh.judge(
            network_of(at(0.5)), published, held, anchors, lambda: calls.append(None)
        ).to_dict()
        == again.to_dict()
    )
    assert len(calls) == 8  # a pause after each clip
    after = fresh.judge(network_of(at(0.6)), network_of(at(0.4)), held, anchors)
    expected = Guard(original, PARAMETERS, metric=True).judge(
        network_of(at(0.6)), network_of(at(0.4)), held, anchors
    )
    assert after.to_dict() == expected.to_dict()
    assert after.numbers["heldout_metric_abs_rel_published"] == pytest.approx(
        judge(at(0.4)).numbers["heldout_metric_abs_rel_candidate"]
    )


def test_verdicts_are_plain_values(judge: Judge) -> None:
    """JSON without NaN, every reason with its sentence."""
    verdict = judge(with_last(at(0.5), lambda name, w: w * 0.0 if name == "weight" else w))
    plain = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert plain["accepted"] is False
    assert [item["reason"] for item in plain["refusals"]] == list(verdict.reasons)
    assert all(item["detail"] for item in plain["refusals"])
    assert set(plain["numbers"]) == set(verdict.numbers)
