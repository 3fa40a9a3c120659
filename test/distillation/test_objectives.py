"""Objectives: what is minimised, and which labels of a teacher are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dae_ros.distillation.batches import ClipSampler
from dae_ros.distillation.clip_store import open_clip_store
from dae_ros.distillation.configuration import (
    DistillationParameters,
    TrainingParameters,
    load_settings,
)
from dae_ros.distillation.losses import ScaleAndShiftInvariantLoss
from dae_ros.distillation.objectives import TeacherObjective, TrueDepthObjective
from dae_ros.distillation.parallel import Workers
from dae_ros.distillation.preparation import Preparation, Prepared, at_size
from dae_ros.distillation.trainer import Trainer
from dae_ros.distillation.validation import Validation
from dae_ros.errors import DistillationError
from dae_ros.model.weights import load_weights
from dae_ros.runtime.torch_fitting import Fitting
from test.reference.wedge_teacher import (
    CPU,
    METRIC_GREY,
    RELATIVE_GREY,
    Settings,
    distillation,
    seen_depth,
    teacher,
)


def seen_nearness(frames: Tensor) -> Tensor:
    return 1 / seen_depth(frames)


def test_true_depth_by_hand() -> None:
    """log_depth is the mean |ln p / d| of an image plus the gradient term, near labels only."""
    some = TrainingParameters.from_mapping({"clips": "x", "alpha": 0.5, "maximum_depth_m": 10.0})
    depth = torch.tensor([[[2.0, 4.0], [torch.nan, 20.0]]])
    prediction = torch.tensor([[[4.0, 4.0], [9.0, 9.0]]])
    empty = torch.full((1, 2, 2), torch.nan)
    batch = Prepared(
        torch.empty(0), torch.stack((depth, empty), dim=1), torch.empty(0), torch.empty(0), None
    )
    value = TrueDepthObjective(some)(torch.stack((prediction, prediction), dim=1), batch, 0)
    # Image one: ln 2 and 0, the slope between them over 2 px at stride 1; image two: nothing.
    data, slope = np.log(2) / 2, np.log(2) / 2
    assert value.parts["data"].item() == pytest.approx(data / 2, rel=1e-5)
    # At strides 2, 4 and 8 a single pixel is left, without a neighbour.
    assert value.parts["gradient"].item() == pytest.approx(slope / 2, rel=1e-5)
    assert value.total.item() == pytest.approx((data + 0.5 * slope) / 2, rel=1e-5)
    pooled = TrainingParameters.from_mapping({"clips": "x", "alpha": 0.0, "reduction": "batch"})
    value = TrueDepthObjective(pooled)(torch.stack((prediction, prediction), dim=1), batch, 0)
    # The three labels of the batch, the far one included: 80 m is allowed here.
    expected = (np.log(2) + abs(np.log(9 / 20))) / 3
    assert value.total.item() == pytest.approx(expected, rel=1e-5)


def test_true_depth_also_by_its_shape(batch: Prepared, settings: Settings) -> None:
    """The normalised term ignores scale and shift, and its weight is what it adds."""
    plain = TrueDepthObjective(settings())
    shaped = TrueDepthObjective(settings(normalised_weight=0.5))
    moved = 2 * batch.depth + 1
    value = shaped(moved, batch, 0)
    assert value.parts["normalised"].item() == pytest.approx(0, abs=1e-5)
    assert value.total.item() == pytest.approx(plain(moved, batch, 0).total.item(), abs=1e-5)
    # Pressed together in the distance.
    value = shaped(batch.depth.sqrt(), batch, 0)
    extra = value.total.item() - plain(batch.depth.sqrt(), batch, 0).total.item()
    assert extra == pytest.approx(0.5 * value.parts["normalised"].item(), rel=1e-4)
    assert extra > 0.005


def test_a_perfect_teacher_gives_the_depth_loss(batch: Prepared, settings: Settings) -> None:
    """Labels of a teacher that sees metres are true depth, at the student's pixels."""
    prediction = torch.rand(batch.depth.shape, generator=torch.Generator().manual_seed(1)) + 2
    some = distillation(settings, loss="log_depth", far_m=80.0)
    taught = TeacherObjective(some, {"wedge": teacher()})(prediction, batch, 0)
    true = TrueDepthObjective(settings())(prediction, batch, 0)
    assert taught.total.item() == pytest.approx(true.total.item(), rel=1e-3)
    missing = Prepared(
        batch.images, batch.depth, batch.frames, torch.zeros_like(batch.has_frame), None
    )
    assert TeacherObjective(some, {"wedge": teacher()})(prediction, missing, 0).total == 0


@pytest.mark.parametrize(
    "terms",
    [
        {},
        {"normalised_weight": 0.5},
        {"local_global_share": 1.0},
        {"loss": "log_depth", "normalised_weight": 0.5},
    ],
    ids=["alone", "normalised", "local-global", "metres"],
)
def test_labels_upside_down_are_refused(
    batch: Prepared, settings: Settings, terms: dict[str, Any]
) -> None:
    """For a student that knows depth, a teacher whose nearness is called depth teaches nothing."""
    some = distillation(settings, refuse_after=10, **terms)
    meaning = METRIC_GREY if some.metric else RELATIVE_GREY
    wrong = TeacherObjective(some, {"wedge": teacher(seen_nearness, meaning)})
    right = TeacherObjective(some, {"wedge": teacher()})
    prediction = batch.depth.clone().requires_grad_()
    early, late = wrong(prediction, batch, 9), wrong(prediction, batch, 10)
    assert not early.verdicts and early.total > 0
    if not some.metric:
        # Used all the same, but noticed.
        assert (early.fits, early.below) == (4, 4)
        upright = right(prediction, batch, 9)
        assert (upright.fits, upright.below) == (4, 0)
    assert late.verdicts == {"negative_scale": 4}
    late.total.backward()
    assert late.total == 0 and (prediction.grad == 0).all()
    assert right(prediction, batch, 10).verdicts == {"accepted": 4}


@pytest.mark.parametrize("loss", ["published", "log_depth", "none"])
def test_windows_without_a_frame_are_not_judged(
    batch: Prepared, settings: Settings, loss: str
) -> None:
    """They have no label to refuse: where frames are rare, wrong labels are most all the same."""
    some = distillation(settings, loss=loss, refuse_after=0, normalised_weight=0.5)
    meaning = METRIC_GREY if some.metric else RELATIVE_GREY
    rare = dataclasses.replace(batch, has_frame=torch.tensor([[True, False], [False, False]]))
    wrong = TeacherObjective(some, {"wedge": teacher(seen_nearness, meaning)})
    assert wrong(batch.depth, rare, 0).verdicts == {"negative_scale": 1}
    right = TeacherObjective(some, {"wedge": teacher()})
    assert right(batch.depth, rare, 0).verdicts == {"accepted": 1}


@pytest.mark.parametrize("name", ["mvsec_distilled", "dsec_distilled", "mvsec_e2depth_distilled"])
def test_presets_of_the_paper_have_its_loss(batch: Prepared, name: str) -> None:
    """Exactly what is published, weak fits and few pixels too; labels upside down apart."""
    some = load_settings(DistillationParameters, name)
    some = dataclasses.replace(some, teachers="wedge", batch=2)
    generator = torch.Generator().manual_seed(5)
    noise = torch.rand((4, 20, 20), generator=generator)
    label = at_size(seen_depth(batch.frames.flatten(0, 1)), (20, 20))
    spread = label.flatten(1).std(dim=1)[:, None, None]
    part = torch.tensor([0.03, 0.03, 0.03, -0.3])[:, None, None]
    # 400 px, correlations of about 0.1, the last one below 0; hardly any contrast, as a ridge sees.
    prediction = 1 + 0.01 * (noise + part * label / spread)
    taught = TeacherObjective(some, {"wedge": teacher()})(prediction.unflatten(0, (2, 2)), batch, 0)
    assert taught.verdicts == {"accepted": 3, "negative_scale": 1}
    published = ScaleAndShiftInvariantLoss(alpha=0.25, reduction="batch")
    upright, target = prediction[:3], label[:3] / 80.0
    expected = published(upright, target, torch.ones_like(target))
    assert (expected.verdict.correlation < 0.25).all() and (expected.verdict.scale > 0).all()
    assert taught.total.item() == pytest.approx(expected.total.item(), rel=1e-6)


def test_a_wrong_label_space_ends_the_run(
    overfitted: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trained student and inverted labels: the run stops with a sentence, the weights stay."""
    monkeypatch.setattr("dae_ros.distillation.trainer.JUDGED_AT_LEAST", 8)
    loaded = load_weights(str(overfitted / "best.safetensors"))
    before = {key: value.clone() for key, value in loaded.network.state_dict().items()}
    store = (open_clip_store(overfitted.parent / "clips"),)
    some = distillation(settings, refuse_after=0, weight_decay=0.0, burn_in=0, unroll=2, flip=0.0)
    fitting = Fitting(loaded.config, 14, CPU)
    wrong = TeacherObjective(some, {"wedge": teacher(seen_nearness, RELATIVE_GREY)})
    trainer = Trainer(
        some, tmp_path, loaded.network, loaded.meaning,
        sampler=ClipSampler(store, some), preparation=Preparation(fitting, "tencode"),
        compare=wrong,
        validation=Validation(
            store, fitting, "tencode", metric=False, windows=2, maximum_depth_m=80.0
        ),
        workers=Workers(0, 1, CPU), provenance={}, data=[],
    )  # fmt: skip
    with pytest.raises(DistillationError, match="fit the student only upside down"):
        trainer.run(lambda: False, lambda *_: None, print)
    for key, value in loaded.network.state_dict().items():
        assert torch.equal(value, before[key])


def test_terms_are_switched_by_their_weights(batch: Prepared, settings: Settings) -> None:
    """Normalised and local-global terms appear with a weight, and only then."""
    generator = torch.Generator().manual_seed(3)
    prediction = torch.rand(batch.depth.shape, generator=generator) + 2
    for changes, parts in (
        ({}, {"data", "gradient"}),
        ({"normalised_weight": 0.5}, {"data", "gradient", "normalised"}),
        ({"local_global_share": 1.0}, {"data", "gradient", "local_global"}),
        ({"loss": "none", "normalised_weight": 1.0}, {"normalised"}),
    ):
        objective = TeacherObjective(distillation(settings, **changes), {"wedge": teacher()})
        value = objective(prediction, batch, 0)
        assert set(value.parts) == parts
        assert torch.isfinite(value.total)


@pytest.mark.parametrize("loss", ["log_depth", "silog"])
def test_the_largest_residuals_are_left_out(batch: Prepared, settings: Settings, loss: str) -> None:
    """`trim` forgives labels that are wrong on few pixels, in metres too, and hides no NaN."""
    prediction = batch.depth.clone()
    prediction[..., :5, :] *= 3
    share = 5 / prediction.shape[-2]
    for trim, forgiven in ((0.0, False), (0.5 * share, False), (1.1 * share, True)):
        some = distillation(settings, loss=loss, far_m=80.0, trim=trim)
        value = TeacherObjective(some, {"wedge": teacher()})(prediction, batch, 0)
        assert (value.parts["data"] < 2e-3) == forgiven
        assert (value.parts["gradient"] < 2e-2) == forgiven
        broken = prediction.clone()
        broken[0, 0, 9, 9] = torch.nan
        value = TeacherObjective(some, {"wedge": teacher()})(broken, batch, 0)
        assert value.total.isnan()


def test_local_global_sees_shape_inside_of_crops(batch: Prepared, settings: Settings) -> None:
    """A student that is right up to scale and shift has no local-global loss; a wrong one has."""
    some = distillation(settings, local_global_share=1.0, normalisation="global", loss="none")
    objective = TeacherObjective(some, {"wedge": teacher()})
    right = objective(0.3 * batch.depth + 1.0, batch, 0).parts["local_global"]
    wrong = objective(batch.depth.flip(-1), batch, 0).parts["local_global"]
    assert right < 0.05 < 0.3 < wrong


def test_parts_of_a_batch_add_up(batch: Prepared, settings: Settings) -> None:
    """The mean of what two processes minimise is what one does, crops and missing frames too."""
    has_frame = batch.has_frame.clone()
    has_frame[0] = False
    whole = dataclasses.replace(batch, has_frame=has_frame)
    halves = [
        dataclasses.replace(
            whole, images=whole.images[clip], depth=whole.depth[clip], frames=whole.frames[clip],
            has_frame=whole.has_frame[clip],
        )
        for clip in (slice(1), slice(1, 2))
    ]  # fmt: skip
    prediction = torch.rand(batch.depth.shape, generator=torch.Generator().manual_seed(4)) + 2
    some = distillation(settings, local_global_share=1.0, normalised_weight=0.5)
    teachers = {"wedge": teacher()}
    expected = TeacherObjective(some, teachers)(prediction, whole, 0)
    parts = [
        TeacherObjective(some, teachers, (index, 2))(prediction[index : index + 1], half, 0)
        for index, half in enumerate(halves)
    ]
    for name, value in expected.parts.items():
        mean = sum(part.parts[name].item() for part in parts) / 2
        assert mean == pytest.approx(value.item(), rel=1e-5), name


def test_one_teacher_is_drawn_for_each_update(batch: Prepared, settings: Settings) -> None:
    """Labels of two teachers are never mixed: every update has one of the two losses."""
    some = distillation(settings, teachers="near:0.5,far:0.5", loss="log_depth", far_m=80.0)
    objective = TeacherObjective(
        some, {"near": teacher(), "far": teacher(lambda frames: 2 * seen_depth(frames))}
    )
    losses = {
        round(objective(batch.depth, batch, step).parts["data"].item(), 3) for step in range(20)
    }
    assert losses == {0.0, round(float(np.log(2)), 3)}
    agreeing = distillation(
        settings, teachers="near:0.5,far:0.5", loss="log_depth", far_m=80.0,
        agreement_tolerance=0.1,
    )  # fmt: skip
    flat = {"near": teacher(), "far": teacher(lambda frames: 5 - 0.1 * seen_depth(frames))}
    assert TeacherObjective(agreeing, flat)(batch.depth * 2, batch, 0).parts["data"] == 0
