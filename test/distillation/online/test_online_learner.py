"""The learner: it learns, holds what it knew, refuses what is broken, and repeats itself."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.learner import Learner
from dae_ros.distillation.online.observation import GROUND_TRUTH, LabelledClip
from dae_ros.distillation.online.reports import StepReport
from dae_ros.errors import ConfigurationError, DistillationError
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from dae_ros.model.configuration import Meaning
from dae_ros.model.untrained import untrained
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.online_clips import changed, wedge_clip

Online = Callable[..., OnlineParameters]
CPU = torch.device("cpu")
# Half as deep again as what the student has seen.
CLIPS = [wedge_clip(seed, length=5, scale=1.5) for seed in range(4)]


def unlabelled(clip: LabelledClip) -> LabelledClip:
    return changed(clip, depth=np.full_like(clip.depth, np.nan), weight=np.zeros_like(clip.weight))


def weights(network: ClipNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.network.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float((v - second[n]).square().sum()) for n, v in first.items()))


def teach(learner: Learner, first: int, last: int) -> list[StepReport]:
    return [learner.step([CLIPS[step % 3]], [CLIPS[3]], step) for step in range(first, last)]


def log_error(network: ClipNetwork, clip: LabelledClip) -> float:
    """Mean |ln p - ln d| of the last window."""
    maps = network.predict(clip.observation, 0).maps
    label = torch.from_numpy(clip.depth[-1].astype(np.float32))
    return float((maps[-1].log() - label.log()).abs().mean())


def test_the_candidate_learns_and_the_original_stays(student: LoadedModel, online: Online) -> None:
    """Twenty steps bring the candidate nearer to the labels; encoder and original do not move."""
    learner = Learner(
        student, online(learning_rate=3e-3, average_decay=0.8, warm_up=2, tier=2), CPU
    )
    original = weights(learner.original)
    reports = teach(learner, 0, 20)
    candidate = learner.candidate()
    assert log_error(candidate, CLIPS[0]) < 0.5 * log_error(learner.original, CLIPS[0])
    assert all(report.accepted for report in reports) and learner.accepted_steps == 20
    assert reports[0].learning_rate == pytest.approx(1e-3) and reports[9].learning_rate == 3e-3
    assert {"label", "pin", "quiet"} == set(reports[0].parts)
    assert equal(original, weights(learner.original))
    assert equal(original, student.network.state_dict())
    moved = {n for n, v in weights(candidate).items() if not torch.equal(v, original[n])}
    assert moved and all(name.startswith("depth_head.") for name in moved)


def test_a_candidate_goes_a_part_of_the_way(student: LoadedModel, online: Online) -> None:
    """What learns does not know of it; what does not learn is the original's to the bit."""
    learners = [
        Learner(student, online(candidate_part=part, learning_rate=1e-2, tier=2), CPU)
        for part in (1.0, 0.75)
    ]
    losses = [[report.loss for report in teach(learner, 0, 4)] for learner in learners]
    assert losses[0] == losses[1]
    whole, nearer = (weights(learner.candidate()) for learner in learners)
    for name, begin in weights(learners[0].original).items():
        if name.startswith("depth_head."):
            expected = begin + 0.75 * (whole[name] - begin)
            torch.testing.assert_close(nearer[name], expected, rtol=0.0, atol=1e-7)
        else:
            assert torch.equal(nearer[name], begin)
    assert distance(whole, nearer) > 1e-3


def test_a_candidate_is_a_plain_checkpoint(
    student: LoadedModel, online: Online, tmp_path: Path
) -> None:
    """At tier 3 as well, what is saved loads strictly and says the same."""
    learner = Learner(student, online(tier=3, lora_rank=4, learning_rate=1e-3), CPU)
    teach(learner, 0, 2)
    candidate = learner.candidate()
    save_checkpoint(tmp_path / "w.safetensors", candidate.network, student.meaning)
    loaded = load_checkpoint(tmp_path / "w.safetensors")
    one, other = (
        network.predict(CLIPS[0].observation, 1)
        for network in (candidate, ClipNetwork(loaded.network, loaded.meaning))
    )
    torch.testing.assert_close(one.maps, other.maps, rtol=1e-5, atol=1e-5)
    moved = {
        name
        for name, value in weights(candidate).items()
        if not torch.equal(value, student.network.state_dict()[name])
    }
    assert any(name.startswith("pretrained.") for name in moved)


def test_equal_learners_learn_equally(student: LoadedModel, online: Online) -> None:
    """Same steps: same bits, with or without a cache; another order of clips: others."""
    results = []
    for first, changes in ((0, {}), (0, {"cache_mb": 0}), (1, {})):
        learner = Learner(student, online(**changes), CPU)
        teach(learner, first, 4)
        results.append(weights(learner.candidate()))
    assert equal(results[0], results[1]) and not equal(results[0], results[2])


@pytest.mark.parametrize("tier", [1, 3])
def test_a_restored_learner_gives_the_same_bits(
    student: LoadedModel, online: Online, tier: int
) -> None:
    """Moments, average, counters and low-rank factors survive; what is handed out is a copy."""
    parameters = online(tier=tier, lora_rank=4, soft_reset_steps=3, warm_up=2)
    old, new = Learner(student, parameters, CPU), Learner(student, parameters, CPU)
    teach(old, 0, 4)
    old.lineage = (7, 3)
    state = old.state()
    teach(old, 4, 7)
    new.restore(state)
    reports = teach(new, 4, 7)
    assert equal(weights(new.candidate()), weights(old.candidate()))
    assert [report.step for report in reports] == [4, 5, 6]
    assert new.lineage == (7, 3) and new.accepted_steps == 7
    assert dict(new.interventions) == dict(old.interventions) == {"soft_reset": 2}
    other = dataclasses.replace(student, digest="f" * 64)
    with pytest.raises(ConfigurationError, match="another original"):
        Learner(other, parameters, CPU).restore(state)


def test_anchors_without_a_label_hold_the_student(student: LoadedModel, online: Online) -> None:
    """What the original says is learned on them: nothing at first, then the way back."""
    learner = Learner(student, online(pull=0.0, learning_rate=1e-3), CPU)
    anchor = unlabelled(CLIPS[3])
    report = learner.step([], [anchor], 0)
    assert report.accepted and report.labels == 2
    assert report.loss == pytest.approx(0, abs=1e-5)
    teach(learner, 1, 6)
    before = learner.step([], [anchor], 6).loss
    for step in range(7, 20):
        after = learner.step([], [anchor], step).loss
    assert after < 0.5 * before


def test_clips_of_the_deployment_are_not_held_to_the_original(
    student: LoadedModel, online: Online
) -> None:
    """Anchors with true depth hold the student; pinned clips, which a teacher labelled, do not."""
    learner = Learner(student, online(), CPU)
    held = learner.step([], [changed(CLIPS[3], teacher=GROUND_TRUTH)], 0)
    pinned = learner.step([], [CLIPS[3]], 1)
    assert CLIPS[3].teacher != GROUND_TRUTH
    assert "anchor" in held.parts and "anchor" not in pinned.parts
    assert pinned.labels == held.labels > 0


def test_a_step_without_labels_moves_nothing(student: LoadedModel, online: Online) -> None:
    """No label, or windows without events: `no_label`; an upside-down one: `contradicted`."""
    learner = Learner(student, online(), CPU)
    teach(learner, 0, 3)
    before = weights(learner.candidate())
    none = unlabelled(CLIPS[0])
    inverted = changed(CLIPS[0], depth=(18 - CLIPS[0].depth).astype(np.float16))
    empty = changed(CLIPS[0], supported=np.zeros(5, np.bool_))
    for clip, reason in ((none, "no_label"), (inverted, "contradicted"), (empty, "no_label")):
        report = learner.step([clip], [], 3)
        assert (report.accepted, report.reason, report.labels) == (False, reason, 0)
        assert math.isnan(report.loss)
    assert "negative_scale" in learner.step([inverted], [], 3).verdicts
    assert equal(before, weights(learner.candidate())) and learner.accepted_steps == 3


def test_labels_that_break_the_arithmetic_move_nothing(
    student: LoadedModel, online: Online
) -> None:
    """Infinite labels are no labels; weights that give NaN are refused, then given up."""
    learner = Learner(student, online(learning_rate=1e-3), CPU)
    infinite = changed(CLIPS[0], depth=np.full_like(CLIPS[0].depth, np.inf))
    assert learner.step([infinite], [], 0).reason == "no_label"
    teach(learner, 0, 2)
    candidate = weights(learner.candidate())
    state = learner.state()
    name = "depth_head.scratch.output_conv2.0.bias"
    state["raw"][name] = torch.full_like(state["raw"][name], torch.nan)
    learner.restore(state)
    reports = [learner.step([CLIPS[0]], [], step) for step in range(20)]
    assert {report.reason for report in reports} == {"not_finite"}
    assert [report.intervention for report in reports] == [""] * 19 + ["average_restored"]
    assert equal(candidate, weights(learner.candidate()))
    assert learner.step([CLIPS[0]], [], 20).accepted


def test_a_copy_that_every_label_contradicts_is_given_up(
    student: LoadedModel, online: Online
) -> None:
    """The copy becomes the average after twenty such steps, and begins anew if that is no better.

    Labels that are upside down for the copy may be right for what it was: steps without one that
    is used would go on for ever.
    """
    learner = Learner(student, online(learning_rate=1e-3), CPU)
    teach(learner, 0, 2)
    inverted = changed(CLIPS[0], depth=(18 - CLIPS[0].depth).astype(np.float16))
    reports = [learner.step([inverted], [], step) for step in range(39)]
    copied = Learner(student, online(learning_rate=1e-3), CPU)
    copied.restore(learner.state())
    for one in (learner, copied):
        assert distance(weights(one.candidate()), weights(one.original)) > 0
        last = one.step([inverted], [], 39)
        assert last.intervention == "hard_reset"
        assert one.interventions == {"average_restored": 1, "hard_reset": 1}
        assert equal(weights(one.candidate()), weights(one.original))
        assert one.step([CLIPS[0]], [], 40).accepted
    found = [report.intervention for report in reports]
    assert found == [""] * 19 + ["average_restored"] + [""] * 19
    assert {report.reason for report in reports} == {"contradicted"}


def test_resets_lead_back(student: LoadedModel, online: Online) -> None:
    """A soft reset halves the way, a hard one is all of it, or goes to a version that is given."""
    parameters = online(soft_reset_steps=6, learning_rate=1e-3, pull=0.0, warm_up=0)
    learner = Learner(student, parameters, CPU)
    original = weights(learner.original)
    teach(learner, 0, 5)
    version = weights(learner.candidate())
    report = teach(learner, 5, 6)[0]
    assert report.intervention == "soft_reset"
    undisturbed = Learner(student, online(learning_rate=1e-3, pull=0.0, warm_up=0), CPU)
    teach(undisturbed, 0, 6)
    far = distance(weights(undisturbed.candidate()), original)
    assert distance(weights(learner.candidate()), original) == pytest.approx(far / 2, rel=1e-3)
    learner.reset()
    assert equal(weights(learner.candidate()), original)
    learner.reset(version)
    # But for what float32 rounds on the way there and back.
    assert distance(weights(learner.candidate()), version) < 1e-5 * distance(version, original)
    assert learner.interventions == {"soft_reset": 1, "hard_reset": 2}
    # Nothing is left of the moments: the next step is that of a learner which begins there.
    fresh = Learner(student, parameters, CPU)
    fresh.reset(version)
    assert teach(learner, 9, 10)[0].loss == teach(fresh, 9, 10)[0].loss
    assert equal(weights(learner.candidate()), weights(fresh.candidate()))


def test_pull_bounds_how_far_weights_go(student: LoadedModel, online: Online) -> None:
    """With a strong pull the candidate stays nearer to the original."""
    far, near = (
        Learner(student, online(learning_rate=3e-3, pull=pull, average_decay=0.5), CPU)
        for pull in (0.0, 0.5)
    )
    for learner in (far, near):
        teach(learner, 0, 8)
    original = weights(far.original)
    assert distance(weights(near.candidate()), original) < 0.5 * distance(
        weights(far.candidate()), original
    )


def test_another_tier_goes_on_from_the_same_weights(student: LoadedModel, online: Online) -> None:
    """What is asked for wins over what was saved; no weight changes by itself, more move then."""
    lower = Learner(student, online(tier=1, lora_rank=4, learning_rate=1e-3), CPU)
    teach(lower, 0, 3)
    before = weights(lower.candidate())
    learner = Learner(student, online(tier=3, lora_rank=4, learning_rate=1e-3), CPU)
    learner.restore(lower.state())
    assert equal(before, weights(learner.candidate())) and learner.tier == 3
    assert learner.accepted_steps == 3
    teach(learner, 3, 5)
    after = weights(learner.candidate())
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert any(name.startswith("pretrained.") for name in moved)
    lower.restore(learner.state())
    assert equal(after, weights(lower.candidate())) and lower.tier == 1


def test_a_fresh_stored_state_is_used_and_a_stale_one_is_not(
    student: LoadedModel, online: Online
) -> None:
    """Up to three versions later learning begins with the stored state, then with the lead.

    A state of weights that were gone back from is none, however near their number is.
    """
    learner = Learner(student, online(), CPU)
    clip = CLIPS[0]
    prediction = learner.original.predict(clip.observation, learner.lead)
    true = learner.remember(clip, prediction)
    assert [column.dtype for column in true.state] == [np.float16] * len(prediction.state)
    strange = dataclasses.replace(true, state=tuple(column + 1 for column in true.state))

    def loss(one: LabelledClip, *lineage: int, **changes: float) -> float:
        fresh = Learner(student, online(**changes), CPU)
        fresh.lineage = lineage
        return fresh.step([one], [], 0).loss

    none = loss(clip, 0)
    assert loss(true, 0) == pytest.approx(none, rel=1e-2)
    assert loss(strange, 3, 2, 1, 0) != pytest.approx(none, rel=1e-2)
    assert loss(strange, 9, 0) != pytest.approx(none, rel=1e-2)
    assert loss(strange, 4, 3, 2, 1, 0) == none
    assert loss(strange, 2, 1) == none
    wrong = dataclasses.replace(true, state=true.state[:1])
    with pytest.raises(DistillationError, match="clear the clips"):
        learner.step([wrong], [], 0)


def test_a_loop_may_give_way_between_clips(student: LoadedModel, online: Online) -> None:
    """`pause` is called once after each clip."""
    calls: list[int] = []
    learner = Learner(student, online(), CPU)
    learner.step(CLIPS[:2], [CLIPS[3]], 0, lambda: calls.append(1))
    assert len(calls) == 3


def test_networks_without_memory_learn_as_well(student: LoadedModel, online: Online) -> None:
    """DepthAnyEvent has no state; relative transformers learn up to scale and shift."""
    config = dataclasses.replace(student.config, recurrence=None)  # type: ignore[type-var]
    from dae_ros.model.networks import build_network

    torch.manual_seed(0)
    relative = Meaning(event_encoder="tencode", orientation="depth", scale="relative")
    memoryless = dataclasses.replace(
        student, network=build_network(config), config=config, meaning=relative
    )
    learner = Learner(memoryless, online(), CPU)
    clip = learner.remember(CLIPS[0], learner.original.predict(CLIPS[0].observation, 1))
    assert clip.state == () and clip.state_version == -1
    assert learner.step([], [clip], 0).accepted


@pytest.mark.parametrize("name", ["tiny_e2depth", "tiny_ereformer"])
def test_what_cannot_learn_online_is_refused(name: str, online: Online) -> None:
    """Another family, a voxel grid, or inverse depth: a sentence, not a wrong lesson."""
    with pytest.raises(ConfigurationError, match="online"):
        Learner(untrained(name), online(), CPU)
    loaded = copy.deepcopy(untrained("micro"))
    for meaning, words in (
        (Meaning(event_encoder="grey"), "keeps windows as Tencode"),
        (Meaning(event_encoder="tencode", orientation="inverse_depth"), "inverse depth"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            Learner(dataclasses.replace(loaded, meaning=meaning), online(), CPU)


def test_bfloat16_learns_too(student: LoadedModel, online: Online) -> None:
    """With half precision inside, a step is accepted and goes the way of that of float32."""
    losses, ways = [], []
    original = student.network.state_dict()
    for precision in ("float32", "bfloat16"):
        learner = Learner(
            student, online(precision=precision, tier=2, average_decay=0.0, warm_up=0), CPU
        )
        report = learner.step(CLIPS[:1], [], 0)
        assert report.accepted
        losses.append(report.loss)
        moved = learner.candidate().network.state_dict()
        ways.append(torch.cat([(moved[name] - original[name]).flatten() for name in original]))
    # Three digits inside, and a loss of differences between them.
    assert losses[1] == pytest.approx(losses[0], rel=0.2) and losses[1] != losses[0]
    assert float(torch.cosine_similarity(*ways, dim=0)) > 0.8
