"""Normalised depth losses: an oracle, invariance, contexts that are too small or flat."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.distillation.normalisation import SEGMENTS, normalised_depth_loss
from dae_ros.errors import ConfigurationError, DistillationError
from test.reference import depth_losses as oracle

AFFINE_MODES = ["hybrid", "local", "global"]


def _random(seed: int, shape: tuple[int, ...] = (2, 12, 13)) -> tuple[torch.Tensor, ...]:
    random = np.random.default_rng(seed)
    target = random.uniform(1, 40, shape) ** 1.3
    prediction = np.log(target) + random.normal(0, 0.2, shape)
    mask = random.uniform(size=shape) < 0.8
    return torch.from_numpy(prediction), torch.from_numpy(target), torch.from_numpy(mask)


def test_the_oracle_by_hand() -> None:
    """Medians, deviations and contexts of six pixels worked out on paper."""
    # lower median 2, deviations 2 1 0 1 2 6 -> mean 2
    assert oracle.normalise([0.0, 1.0, 2.0, 3.0, 4.0, 8.0]) == [-1.0, -0.5, 0.0, 0.5, 1.0, 3.0]
    d = np.array([[[0.0, 1.0, 2.0, 3.0, 4.0, 8.0]]])
    p = np.array([[[0.0, 1.0, 2.0, 3.0, 4.0, 2.0]]])
    # p: lower median 2, mean deviation 1 -> -2 -1 0 1 2 0 against -1 -.5 0 .5 1 3
    ones = np.ones_like(p, bool)
    assert oracle.normalised_difference(p, d, ones, (1,), 2) == pytest.approx(6 / 6)
    # halves of 0..8: [0, 4) has 4 px and is equal on both sides, [4, 8] has 2 px, dropped at 3
    assert oracle.normalised_difference(p, d, ones, (2,), 3) == 0
    assert oracle.normalised_difference(p, d, ones, (1, 2), 3) == pytest.approx(
        (1 / 2 + 0.5 / 2 + 0 + 0.5 / 2 + 1 + 3) / 6
    )


@pytest.mark.parametrize("mode", AFFINE_MODES)
@pytest.mark.parametrize("minimum_pixels", [2, 30])
def test_equals_the_oracle(mode: str, minimum_pixels: int) -> None:
    """Every mode agrees with straight-line Python, with and without dropped contexts."""
    maps = _random(1)
    actual = normalised_depth_loss(*maps, mode, minimum_pixels)
    expected = oracle.normalised_difference(
        *(values.numpy() for values in maps), SEGMENTS[mode], minimum_pixels
    )
    assert actual.total.item() == pytest.approx(expected, rel=1e-9)
    assert actual.contexts + actual.dropped == 2 * sum(SEGMENTS[mode])
    assert (actual.dropped > 0) == (minimum_pixels == 30 and mode != "global")


def test_no_normalisation_is_the_mean_difference() -> None:
    """Mode `none` compares in the label's own unit, over valid pixels, image by image."""
    prediction, target, mask = _random(2)
    expected = np.mean(
        [(p - d).abs()[m].mean() for p, d, m in zip(prediction, target, mask, strict=True)]
    )
    loss = normalised_depth_loss(prediction, target, mask, "none")
    assert loss.total.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("mode", SEGMENTS)
def test_an_image_without_contexts_counts_as_0(mode: str) -> None:
    """Two halves of a batch add up to the whole, one with an empty and a half-empty image too."""
    maps = _random(9, (4, 12, 13))
    maps[2][1] = False
    maps[2][3, 1:] = False
    maps[0].requires_grad_()
    whole = normalised_depth_loss(*maps, mode, 30).total
    halves = [
        normalised_depth_loss(*(values[part] for values in maps), mode, 30).total
        for part in (slice(2), slice(2, 4))
    ]
    assert torch.stack(halves).mean().item() == pytest.approx(whole.item(), rel=1e-12)
    if mode != "none":
        expected = oracle.normalised_difference(
            *(values.detach().numpy() for values in maps), SEGMENTS[mode], 30
        )
        assert whole.item() == pytest.approx(expected, rel=1e-9)
    whole.backward()
    assert torch.isfinite(maps[0].grad).all() and not maps[0].grad[1].any()


@given(
    scale=st.floats(0.01, 100), shift=st.floats(-20, 20), other=st.floats(0.01, 100),
    mode=st.sampled_from(AFFINE_MODES),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_invariant_on_both_sides(scale: float, shift: float, other: float, mode: str) -> None:
    """Positive scale and shift of the prediction and scale of the label change nothing."""
    prediction, target, mask = _random(3)
    expected = normalised_depth_loss(prediction, target, mask, mode, 8).total.item()
    moved = normalised_depth_loss(scale * prediction + shift, other * target, mask, mode, 8)
    assert moved.total.item() == pytest.approx(expected, rel=1e-6)


def test_gradient_is_exact() -> None:
    """Automatic and numeric derivatives agree, medians included."""
    prediction, target, mask = _random(4, (2, 6, 6))
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: normalised_depth_loss(p, target, mask, "hybrid", 3).total, prediction
    )


def test_local_order_costs_where_global_order_hides_it() -> None:
    """A near wall turned inside out costs far more with local contexts than with a global one."""
    target = torch.cat([torch.linspace(1, 2, 400), torch.linspace(40, 80, 400)]).reshape(1, 20, 40)
    prediction = target.clone()
    prediction[0, :10] = 3 - prediction[0, :10]
    mask = torch.ones_like(target, dtype=torch.bool)
    loss = {
        m: normalised_depth_loss(prediction, target, mask, m, 50).total.item() for m in SEGMENTS
    }
    assert loss["local"] > 10 * loss["global"]
    assert loss["global"] < loss["hybrid"] < loss["local"]


@pytest.mark.parametrize("mode", SEGMENTS)
def test_invalid_pixels_and_empty_masks(mode: str) -> None:
    """NaN outside of the mask and in the label are ignored; of nothing the loss is 0."""
    prediction, target, mask = _random(5)
    prediction.requires_grad_()
    expected = normalised_depth_loss(prediction, target, mask, mode, 8)
    expected.total.backward()
    gradient, prediction.grad = prediction.grad, None
    bad = torch.where(mask, prediction, torch.nan)
    hole = torch.where(mask, target, torch.nan)
    loss = normalised_depth_loss(bad, hole, torch.ones_like(mask), mode, 8)
    loss.total.backward()
    assert loss.total.item() == expected.total.item()
    assert torch.equal(prediction.grad, gradient)
    prediction.grad = None
    bad = torch.where(mask, prediction, torch.nan)
    empty = normalised_depth_loss(bad, target, torch.zeros_like(mask), mode)
    empty.total.backward()
    assert (empty.total.item(), empty.contexts) == (0, 0)
    assert not prediction.grad.any()


def test_flat_contexts() -> None:
    """A flat label teaches nothing and is dropped; a flat prediction stays finite."""
    prediction, target, mask = _random(6)
    flat = normalised_depth_loss(prediction, torch.full_like(target, 7.3), mask, "global", 8)
    assert (flat.total.item(), flat.contexts, flat.dropped) == (0, 0, 2)
    constant = torch.full_like(prediction, 0.1).requires_grad_()
    loss = normalised_depth_loss(constant, target, mask, "hybrid", 8).total
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(constant.grad).all()


def test_weights_count_in_the_mean() -> None:
    """A pixel of weight 0 does not exist; equal weights are the same as a mask."""
    prediction, target, mask = _random(7)
    expected = normalised_depth_loss(prediction, target, mask, "global", 8).total.item()
    weighted = normalised_depth_loss(prediction, target, mask * 0.25, "global", 8).total.item()
    assert weighted == pytest.approx(expected, rel=1e-12)


def test_wrong_settings_are_refused() -> None:
    """An unknown mode, a context of one pixel and maps of two sizes are named."""
    prediction, target, mask = _random(8)
    with pytest.raises(ConfigurationError, match="hybrid, local, global, none"):
        normalised_depth_loss(prediction, target, mask, "regional")
    with pytest.raises(ConfigurationError, match="2 px"):
        normalised_depth_loss(prediction, target, mask, "hybrid", 1)
    with pytest.raises(DistillationError, match="one shape"):
        normalised_depth_loss(prediction[:, 1:], target, mask)
