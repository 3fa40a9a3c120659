"""Teacher labels: conversion, trust in them, and the choice of a teacher."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from dae_ros.distillation.labels import (
    OUTDOOR,
    DepthRange,
    agreement_mask,
    depth_from_disparity,
    depth_label,
    flip_consistency,
    select_teacher,
)
from dae_ros.distillation.losses import ScaleAndShiftInvariantLoss
from dae_ros.errors import ConfigurationError, DistillationError

INDOOR = DepthRange(0.3, 15.0)


def _scene(seed: int, shape: tuple[int, int, int] = (2, 40, 50)) -> torch.Tensor:
    """Depths of 2 to 60 m with as much near as far."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(np.exp(random.uniform(np.log(2), np.log(60), shape))).float()


def test_disparity_by_hand() -> None:
    """The quantile ends become z_max and z_min, the middle 1 over the mean inverse."""
    # 101 values 0 .. 100: the 2 % quantile is 2 and the 98 % quantile 98
    disparity = torch.arange(101, dtype=torch.float32).reshape(1, 1, 101)
    label = depth_from_disparity(disparity, DepthRange(2.0, 10.0))
    depth = label.depth[0, 0]
    assert not label.metric
    assert torch.equal(label.mask[0, 0], torch.arange(101) >= 2)
    assert torch.isnan(depth[:2]).all()
    assert depth[2].item() == pytest.approx(10.0, rel=1e-5)
    assert depth[98].item() == pytest.approx(2.0, rel=1e-5)
    assert depth[50].item() == pytest.approx(1 / (0.5 / 2 + 0.5 / 10), rel=1e-5)
    assert 0 < depth[100] < depth[98]


def test_conversion_keeps_the_student_in_its_space() -> None:
    """For a student that sees true depth a raw disparity label is refused, a converted one fits."""
    truth = _scene(1)
    disparity = 30 / truth + 4
    mask = torch.ones_like(truth, dtype=torch.bool)
    loss = ScaleAndShiftInvariantLoss.online(trim=0.0)
    assert set(loss(truth, disparity, mask).verdict.reasons) == {"negative_scale"}
    label = depth_label(disparity, "inverse_depth", "relative", DepthRange(2.0, 60.0))
    assert label.mask.float().mean() > 0.97
    verdict = loss(truth, label.depth, label.mask).verdict
    assert set(verdict.reasons) == {"accepted"}
    # With the true range of depths the conversion is near to exact.
    assert (verdict.correlation > 0.99).all()


def test_each_convention_of_a_teacher() -> None:
    """Metric depth passes within its range, metric inverse depth is inverted, others by kind."""
    output = torch.tensor([[[0.0, 0.5, 2.0, torch.nan, 90.0]]])
    label = depth_label(output, "depth", "metric", OUTDOOR)
    assert label.metric
    assert label.mask.tolist() == [[[False, True, True, False, False]]]
    assert label.depth[0, 0, 1:3].tolist() == [0.5, 2.0]
    assert torch.isnan(label.depth[~label.mask]).all()
    label = depth_label(output, "inverse_depth", "metric", INDOOR)
    assert label.mask.tolist() == [[[False, True, True, False, True]]]
    assert label.depth[0, 0, 1:3].tolist() == [2.0, 0.5]
    label = depth_label(output[:, None], "depth", "relative", INDOOR)
    assert not label.metric
    assert label.mask.tolist() == [[[False, True, True, False, True]]]


def test_a_teacher_of_unknown_space_is_refused() -> None:
    """No orientation, no label; the error says what to measure."""
    with pytest.raises(DistillationError, match="measure its orientation"):
        depth_label(torch.ones(1, 2, 2), "unknown", "relative", OUTDOOR)
    with pytest.raises(ConfigurationError, match="minimum < maximum"):
        DepthRange(10.0, 2.0)


@pytest.mark.parametrize("bad", ["flat", "nan"])
def test_useless_disparity_is_an_empty_label(bad: str) -> None:
    """A flat map or one with NaN is invalid whole, and leaves its neighbour in the batch alone."""
    disparity = 1 / _scene(2)
    expected = depth_from_disparity(disparity, OUTDOOR).depth[1]
    disparity[0] = 0.3
    if bad == "nan":
        disparity[0] = 1 / _scene(3)[0]
        disparity[0, 3, 4] = torch.nan
    label = depth_from_disparity(disparity, OUTDOOR)
    assert not label.mask[0].any()
    assert torch.isnan(label.depth[0]).all()
    assert torch.equal(label.depth[1].nan_to_num(), expected.nan_to_num())


def test_flip_consistency() -> None:
    """An equivariant teacher is trusted fully, in any scale; where it changes its mind, less."""
    output = _scene(4)
    mask = torch.ones_like(output, dtype=torch.bool)
    mask[:, 0] = False
    same = flip_consistency(output, 2 * output.flip(2) + 1, mask)
    assert same.confidence[mask].min() > 0.999
    assert not same.confidence[~mask].any()
    np.testing.assert_allclose(same.mean, 1, atol=1e-3)
    mirrored = output.flip(2).clone()
    mirrored[0, 10:20, :10] += 30
    changed = flip_consistency(output, mirrored, mask)
    assert changed.confidence[0, 10:20, 40:].max() < 0.1
    assert changed.mean[0] < changed.mean[1]
    assert flip_consistency(output, -output.flip(2), mask).mean.tolist() == [0, 0]


def test_flip_confidence_by_hand() -> None:
    """A difference of one tolerance of the spread leaves 1/e."""
    # 0 .. 100 has a spread of 96 between its quantiles; antisymmetric bumps keep the fit.
    output = torch.arange(101, dtype=torch.float64).reshape(1, 1, 101)
    other = output.clone()
    bump = 0.05 * 96
    other[0, 0, [20, 80]] += bump
    other[0, 0, [30, 70]] -= bump
    confidence = flip_consistency(output, other.flip(2), torch.ones(1, 1, 101)).confidence[0, 0]
    np.testing.assert_allclose(confidence[[20, 30, 70, 80]], np.exp(-1), rtol=0.02)


def test_teachers_disagree_by_pixel() -> None:
    """Pixels where the second teacher differs are masked; an inverted teacher agrees nowhere."""
    first = _scene(5)
    mask = torch.ones_like(first, dtype=torch.bool)
    mask[0, :, :5] = False
    second = 0.1 * first - 3
    second[0, 5:9, 10:20] += 4
    agreed = agreement_mask(first, second, mask)
    expected = mask.clone()
    expected[0, 5:9, 10:20] = False
    assert torch.equal(agreed, expected)
    assert not agreement_mask(first, -second, mask).any()


def test_one_teacher_per_iteration() -> None:
    """The draw follows the weights, repeats from seed and iteration, and ignores their order."""
    weights = {"dav2": 7.0, "assistant": 3.0}
    draws = [select_teacher(weights, 5, iteration) for iteration in range(2000)]
    assert Counter(draws)["dav2"] / 2000 == pytest.approx(0.7, abs=0.04)
    backwards = dict(reversed(weights.items()))
    assert [select_teacher(backwards, 5, iteration) for iteration in range(50)] == draws[:50]
    assert [select_teacher(weights, 6, iteration) for iteration in range(50)] != draws[:50]
    assert select_teacher({"only": 0.1}, 0, 0) == "only"
    for bad in ({}, {"a": 0.0}, {"a": float("nan")}):
        with pytest.raises(ConfigurationError, match="at least one teacher"):
            select_teacher(bad, 0, 0)
