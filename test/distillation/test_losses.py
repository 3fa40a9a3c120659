"""The published losses: goldens, an oracle, invariance, and the traps of empty and bad maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.distillation.losses import (
    ScaleAndShiftInvariantLoss,
    gradient_matching,
    si_log_loss,
)
from dae_ros.distillation.scale_and_shift import AlignmentRule, solve_scale_and_shift
from dae_ros.errors import ConfigurationError, DistillationError
from test.reference import depth_losses as oracle

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "losses_metrics.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as archive:
        return dict(archive)


def _maps(golden: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(golden[key]) for key in ("pred", "target", "mask"))


def _random(seed: int, shape: tuple[int, ...] = (2, 9, 11)) -> tuple[torch.Tensor, ...]:
    random = np.random.default_rng(seed)
    prediction = torch.from_numpy(random.uniform(0.1, 3, shape).astype(np.float32))
    target = torch.from_numpy(random.uniform(1, 60, shape).astype(np.float32))
    return prediction, target, torch.from_numpy(random.uniform(size=shape) < 0.7)


def _loss_of_key(key: str, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
    kind, *parts = key.split("_")
    if kind == "ssi":
        reduction, alpha, scales = parts
        loss = ScaleAndShiftInvariantLoss(float(alpha[1:]), int(scales[1:]), reduction)
        return loss(*maps).total
    return si_log_loss(*maps, float(parts[0][1:]))


def test_every_golden_loss(golden: dict[str, np.ndarray]) -> None:
    """All fifteen published loss values are met within 1e-5 relative."""
    values = json.loads(str(golden["_values_json"]))
    keys = [key for key in values if key.split("_")[0] in ("ssi", "silog")]
    assert len(keys) == 15
    actual = [_loss_of_key(key, _maps(golden)).item() for key in keys]
    np.testing.assert_allclose(actual, [values[key] for key in keys], rtol=1e-5)


def test_golden_gradient_and_fit(golden: dict[str, np.ndarray]) -> None:
    """The gradient that flows through the solve, and the solve itself, are the published ones."""
    prediction, target, mask = _maps(golden)
    prediction.requires_grad_()
    ScaleAndShiftInvariantLoss(alpha=0.5)(prediction, target, mask).total.backward()
    expected = golden["ssi_batch_a0.5_s4_grad"]
    np.testing.assert_allclose(prediction.grad, expected, rtol=1e-5, atol=1e-6)
    fit = solve_scale_and_shift(*_maps(golden))
    np.testing.assert_allclose(fit.scale, golden["lsq_scale"], rtol=1e-5)
    np.testing.assert_allclose(fit.shift, golden["lsq_shift"], rtol=1e-5)
    low, high = torch.quantile(target[mask], torch.tensor([0.1, 0.9]))
    fit = solve_scale_and_shift(*_maps(golden)[:2], mask & (target >= low) & (target <= high))
    np.testing.assert_allclose(fit.scale, golden["lsq_scale_q10_90"], rtol=1e-5)
    np.testing.assert_allclose(fit.shift, golden["lsq_shift_q10_90"], rtol=1e-5)


def test_the_oracle_by_hand() -> None:
    """Four pixels worked out on paper: fit (2, 1), residuals, both terms."""
    p = np.array([[[0.0, 1.0], [1.0, 2.0]]])
    d = np.array([[[0.0, 4.0], [4.0, 4.0]]])
    # fit: mean p 1, mean d 3, cov 1, var 0.5 -> scale 2, shift 1; residuals 1, -1, -1, 1
    assert oracle.line_fit(p.ravel().tolist(), d.ravel().tolist(), [1.0] * 4) == (2.0, 1.0)
    w = np.ones_like(p)
    assert oracle.scale_and_shift_invariant(p, d, w, 0.0, 1, "batch") == 4 / (2 * 4)
    # stride 1: four neighbouring pairs differ by 2 each, over 4 px; stride 2: one pixel, no pair
    assert oracle.scale_and_shift_invariant(p, d, w, 0.25, 2, "batch") == 0.5 + 0.25 * 8 / 4
    # without the last pixel: fit (4, 0) is exact
    w[0, 1, 1] = 0
    assert oracle.scale_and_shift_invariant(p, d, w, 0.25, 2, "image") == 0.0


@pytest.mark.parametrize("reduction", ["batch", "image"])
def test_loss_equals_the_oracle(reduction: str) -> None:
    """With weights, an empty image and odd sizes the loss is that of straight-line Python."""
    prediction, target, mask = _random(1, (3, 9, 11))
    weight = mask * torch.from_numpy(np.random.default_rng(2).uniform(0.1, 1, mask.shape)).float()
    weight[1] = 0
    actual = ScaleAndShiftInvariantLoss(0.25, 3, reduction)(prediction, target, weight)
    expected = oracle.scale_and_shift_invariant(
        *(values.double().numpy() for values in (prediction, target, weight)), 0.25, 3, reduction
    )
    assert actual.total.item() == pytest.approx(expected, rel=1e-5)
    assert actual.total.item() == pytest.approx(
        actual.data.item() + 0.25 * actual.gradient.item(), rel=1e-6
    )


@given(scale=st.floats(0.01, 100), shift=st.floats(-50, 50), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_invariant_to_scale_and_shift(scale: float, shift: float, seed: int) -> None:
    """Any positive scale and any shift of the prediction leave the loss as it is."""
    prediction, target, mask = (v.double() for v in _random(seed))
    loss = ScaleAndShiftInvariantLoss()
    moved = loss(scale * prediction + shift, target, mask).total.item()
    assert moved == pytest.approx(loss(prediction, target, mask).total.item(), rel=1e-6)


def test_gradients_are_exact() -> None:
    """Automatic and numeric derivatives agree for every loss, the solve included."""
    prediction, target, mask = _random(3, (2, 8, 8))
    prediction, target = prediction.double().requires_grad_(), target.double()
    for loss in (
        lambda p: ScaleAndShiftInvariantLoss(0.25, 2, ridge=1e-6)(p, target, mask).total,
        lambda p: si_log_loss(p, target, mask),
    ):
        assert torch.autograd.gradcheck(loss, prediction)


LOSSES = {
    "published": lambda *maps: ScaleAndShiftInvariantLoss()(*maps).total,
    "image": lambda *maps: ScaleAndShiftInvariantLoss(reduction="image")(*maps).total,
    "online": lambda *maps: ScaleAndShiftInvariantLoss.online()(*maps).total,
    "silog": si_log_loss,
}


@pytest.mark.parametrize("name", LOSSES)
def test_empty_masks_are_no_loss(name: str) -> None:
    """Without a valid pixel, or with one, loss and gradient are finite; of none both are 0."""
    prediction, target, mask = _random(4, (2, 24, 24))
    prediction.requires_grad_()
    loss = LOSSES[name](prediction, target, torch.zeros_like(mask))
    loss.backward()
    assert loss.item() == 0
    assert not prediction.grad.any()
    one = torch.zeros_like(mask)
    one[0, 8, 8] = True
    loss = LOSSES[name](prediction, target, one)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_invalid_does_not_matter(name: str) -> None:
    """NaN, infinity or any number at invalid pixels changes neither loss nor gradient."""
    prediction, target, mask = _random(5, (2, 24, 24))
    prediction.requires_grad_()
    loss = LOSSES[name](prediction, target, mask)
    loss.backward()
    expected, prediction.grad = prediction.grad, None
    for p_bad, d_bad in ((torch.nan, torch.nan), (torch.inf, 0.0), (-7.0, -torch.inf)):
        prediction.grad = None
        bad_prediction = torch.where(mask, prediction, p_bad)
        # NaN in the label invalidates by itself as well.
        other_mask = mask if d_bad == 0 else torch.ones_like(mask)
        again = LOSSES[name](bad_prediction, torch.where(mask, target, d_bad), other_mask)
        again.backward()
        assert again.item() == loss.item()
        assert torch.equal(prediction.grad, expected)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_broken_prediction_shows(name: str, bad: float) -> None:
    """NaN or infinity at a valid pixel makes the loss NaN; the verdict says so."""
    prediction, target, mask = _random(7, (2, 24, 24))
    prediction[0, 3, 4], mask[0, 3, 4] = bad, True
    assert torch.isnan(LOSSES[name](prediction, target, mask))
    rule = AlignmentRule(minimum_pixels=2, minimum_correlation=-1)
    verdict = ScaleAndShiftInvariantLoss(rule=rule)(prediction, target, mask).verdict
    assert verdict.reasons[0] == "not_finite"


def test_constant_maps_are_no_explosion() -> None:
    """A constant prediction has the published fit (0, 0) and no gradient; equal maps no SILog."""
    _, target, mask = _random(8)
    prediction = torch.full_like(target, 0.1).requires_grad_()
    fit = solve_scale_and_shift(prediction, target, mask)
    assert (fit.scale.tolist(), fit.shift.tolist()) == ([0, 0], [0, 0])
    ScaleAndShiftInvariantLoss()(prediction, target, mask).total.backward()
    assert not prediction.grad.any()
    same = target.clone().requires_grad_()
    value = si_log_loss(same, target, mask)
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(same.grad).all()


def test_inverse_depth_labels_are_refused() -> None:
    """Depth against 1/depth fits with scale < 0: published it trains, online it is refused."""
    depth = torch.linspace(2, 60, 1024).reshape(1, 32, 32).requires_grad_()
    disparity = (1 / depth).detach()
    mask = torch.ones(1, 32, 32, dtype=torch.bool)
    published = ScaleAndShiftInvariantLoss()(depth, disparity, mask)
    assert published.verdict.scale.item() < 0
    assert published.verdict.reasons == ("accepted",)
    assert published.total > 0
    online = ScaleAndShiftInvariantLoss.online(trim=0.0)(depth, disparity, mask)
    assert online.verdict.reasons == ("negative_scale",)
    assert not online.verdict.accepted.any()
    online.total.backward()
    assert online.total.item() == 0
    assert not depth.grad.any()


def test_every_reason_of_refusal() -> None:
    """Each rule refuses its image and leaves the others in the batch as they were."""
    prediction, _, _ = _random(9, (6, 32, 32))
    target = 3 * prediction + 1
    mask = torch.ones_like(target, dtype=torch.bool)
    mask[0, 8:] = False
    prediction[1] = 2.0
    target[2] = -target[2]
    noise = torch.from_numpy(np.random.default_rng(10).normal(size=(32, 32))).float()
    target[3] = 3 * prediction[3] + 100 * noise
    target[4] = 100 * prediction[4]
    loss = ScaleAndShiftInvariantLoss(rule=AlignmentRule())(prediction, target, mask, 3.0)
    assert loss.verdict.reasons == (
        "few_pixels", "constant", "negative_scale", "uncorrelated", "scale_jump", "accepted",
    )  # fmt: skip
    assert loss.verdict.accepted.tolist() == [False] * 5 + [True]
    assert loss.total.item() == pytest.approx(0, abs=1e-8)


def test_trimming_ignores_gross_errors() -> None:
    """With 5 % of the label replaced by spikes, trimming a tenth still finds the true fit."""
    prediction, _, mask = _random(11, (2, 32, 32))
    target = 4 * prediction + 2
    target[:, ::5, ::4] = 500.0
    plain = ScaleAndShiftInvariantLoss()(prediction, target, mask)
    trimmed = ScaleAndShiftInvariantLoss(trim=0.1)(prediction, target, mask)
    np.testing.assert_allclose(trimmed.verdict.scale, 4, rtol=1e-3)
    np.testing.assert_allclose(trimmed.verdict.shift, 2, rtol=1e-3)
    assert trimmed.total < 1e-3 * plain.total


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    """A half-precision prediction costs exactly what its float32 copy costs."""
    prediction, target, mask = _random(12, (1, 200, 300))
    prediction = (prediction * 20).to(dtype)
    loss = ScaleAndShiftInvariantLoss()
    half, single = (loss(p, target, mask).total for p in (prediction, prediction.float()))
    assert half.dtype == torch.float32
    assert half.item() == single.item()
    assert torch.isfinite(half)


def test_channel_axis_and_shapes() -> None:
    """(B, 1, H, W) is the same as (B, H, W); other shapes and settings are refused by name."""
    prediction, target, mask = _random(13)
    loss = ScaleAndShiftInvariantLoss()
    four = loss(prediction[:, None], target[:, None], mask[:, None]).total
    assert four.item() == loss(prediction, target, mask).total.item()
    with pytest.raises(DistillationError, match="one shape"):
        loss(prediction[:, :-1], target, mask)
    with pytest.raises(DistillationError, match=r"\(B, H, W\)"):
        gradient_matching(prediction[0], mask[0])
    with pytest.raises(ConfigurationError, match="reduction"):
        ScaleAndShiftInvariantLoss(reduction="sum")
    with pytest.raises(ConfigurationError, match="trim"):
        ScaleAndShiftInvariantLoss(trim=1.0)
