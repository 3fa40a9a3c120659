"""What is better passes, what is not is refused, and evidence is asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.guard import Guard
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.replay import HeldoutBlock
from test.reference.noisy_original import (
    CHAIN,
    ORIGINAL,
    PARAMETERS,
    TRUTH,
    Judge,
    at,
    blocks_of,
    labelled,
    network_of,
    noisy,
    shorter,
    towards,
    with_last,
)
from test.reference.online_clips import changed


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


def test_relative_depth_is_judged_after_alignment(
    guard: Guard, published: ClipNetwork, relative: list[HeldoutBlock]
) -> None:
    """Labels of any scale and shift; metres do not come into it."""
    verdict = guard.judge(network_of(at(0.5)), published, relative, list(relative[0].clips))
    assert verdict.accepted
    assert not any("metric" in name for name in verdict.numbers)
    assert verdict.numbers["gain"] > 0.3
    assert verdict.numbers["anchor_taught_worsening"] < -0.3


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
