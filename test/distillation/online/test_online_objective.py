"""What a step minimises, against formulas written out, and what it must not depend on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from dae_ros.distillation.online.objective import ALPHA, Targets, clip_loss
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.online_terms import log_depth_term, pin_term

PARAMETERS = OnlineParameters()
SIZE = (3, 24, 32)


def maps(seed: int) -> torch.Tensor:
    return 1.0 + 5.0 * torch.rand(SIZE, generator=torch.Generator().manual_seed(seed))


def targets(depth: torch.Tensor, **changes: Any) -> Targets:
    values: dict[str, Any] = {
        "depth": depth,
        "weight": torch.ones(SIZE),
        "sharp": torch.ones(SIZE[0], dtype=torch.bool),
        "quiet": torch.zeros(SIZE[0], dtype=torch.bool),
        "metric": True,
        "original": depth,
        "anchored": False,
        "held": False,
    }
    return Targets(**{**values, **changes})


def test_log_depth_is_the_formula() -> None:
    """With weights, unknown pixels, a blurred window and trimming, the label term is exact."""
    depth = maps(0)
    p = depth * (1 + 0.2 * (maps(1) - 3.5) / 2.5)
    weight = (maps(2) - 1.0) / 5.0
    depth[:, :4] = torch.nan
    weight[:, :4] = 0
    sharp = torch.tensor([True, False, True])
    loss = clip_loss(p, targets(depth, weight=weight, sharp=sharp, original=p), PARAMETERS)
    expected = log_depth_term(
        p.double().tolist(), depth.double().tolist(), weight.double().tolist(), sharp, 0.1, ALPHA
    )
    assert loss.labels == 3 and dict(loss.verdicts) == {"accepted": 3}
    assert loss.parts["label"] == pytest.approx(expected, rel=1e-4)
    assert float(loss.total) == pytest.approx(expected, rel=1e-4)


def test_the_oracle_counts_by_hand() -> None:
    """One row of four pixels, the last trimmed: data 0.1, one slope of 0.1 over three pixels."""
    e = 2.718281828459045
    p, d = [[[e, e**1.1, e**1.2, e**3]]], [[[e, e, e, e]]]
    ones = [[[1.0] * 4]]
    # Strides 2, 4 and 8 see pixels 0 and 2, 0, and 0.
    slopes = 0.2 / 3 + 0.2 / 2
    assert log_depth_term(p, d, ones, [True], 0.25, 0.5) == pytest.approx(
        0.1 + 0.5 * slopes, abs=1e-5
    )
    assert pin_term([[[0.0, 1.0, 2.0]]], [[[1.0, 3.0, 5.0]]]) == pytest.approx(
        0.6931 + 1 / (4 / 3), abs=1e-4
    )


def test_the_pin_is_the_formula_and_zero_at_the_original() -> None:
    """|ln s| + |t| / MAD against the original, 0 where the student did not move."""
    depth, original = maps(0), maps(0) * 1.3 + 0.4 + 0.1 * maps(5)
    loss = clip_loss(depth, targets(depth, original=original), PARAMETERS)
    assert loss.parts["pin"] == pytest.approx(
        pin_term(depth.double().tolist(), original.double().tolist()), rel=1e-3
    )
    assert clip_loss(depth, targets(depth), PARAMETERS).parts["pin"] == pytest.approx(0, abs=1e-5)


def test_relative_labels_have_no_scale() -> None:
    """Without metres a label may be moved and stretched; upside down it is refused."""
    depth, p = maps(0), maps(0) + 0.3 * maps(3)
    one, other = (
        clip_loss(p, targets(label, metric=False, original=p), PARAMETERS)
        for label in (depth, 40 * depth + 7)
    )
    assert one.parts["label"] > 0.01
    assert one.parts["label"] == pytest.approx(other.parts["label"], rel=1e-3)
    blurred = clip_loss(
        p, targets(depth, metric=False, sharp=torch.tensor([False] * 3)), PARAMETERS
    )
    assert 0 < blurred.parts["label"] < one.parts["label"]
    upside_down = clip_loss(p, targets(10 - depth, metric=False), PARAMETERS)
    assert upside_down.labels == 0 and dict(upside_down.verdicts) == {"negative_scale": 3}


def test_anchors_hold_and_are_never_refused() -> None:
    """On an anchor the original's shape counts as well, and no label is doubted."""
    depth, p = maps(0), maps(7).requires_grad_()
    loose = clip_loss(p, targets(depth), PARAMETERS)
    assert loose.labels == 0 and float(loose.total.detach()) == 0
    for metric, weight in ((True, 5.0), (False, 0.5)):
        held = clip_loss(
            p, targets(depth, anchored=True, held=True, original=maps(4), metric=metric), PARAMETERS
        )
        assert held.labels == 3 and held.parts["anchor"] > 0
        total = held.parts["label"] + weight * held.parts["anchor"] + 0.01 * held.parts["pin"]
        assert float(held.total.detach()) == pytest.approx(total, rel=1e-5)
        held.total.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
        assert p.grad is not None and bool(torch.isfinite(p.grad).all())


def test_metres_are_held_in_scale_as_well() -> None:
    """On an anchor in metres the term is mean |ln p - ln o|; else scale and shift are free."""
    depth, original = maps(0), maps(4)
    for factor in (1.0, 1.002, 1.2):
        at = targets(depth, anchored=True, held=True, original=original)
        found = clip_loss(factor * original, at, PARAMETERS).parts["anchor"]
        assert found == pytest.approx(math.log(factor), abs=1e-6)
        free = dataclasses.replace(at, metric=False)
        assert clip_loss(factor * original, free, PARAMETERS).parts["anchor"] < 1e-5
    # It pulls as much near the original as far from it.
    slopes = []
    for factor in (1.001, 1.2):
        scale = torch.tensor(factor, requires_grad=True)
        term = clip_loss(
            scale * original, targets(original, anchored=True, held=True), PARAMETERS
        ).total
        term.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
        assert scale.grad is not None
        slopes.append(float(scale.grad) * factor)
    assert slopes[0] == pytest.approx(slopes[1], rel=0.02) and slopes[0] > 5.0


def test_quiet_windows_want_the_same_depth() -> None:
    """Only the change INTO a window in which the camera stood still counts, relative to depth."""
    depth = torch.full(SIZE, 2.0) + maps(0) / 100
    p = depth * torch.tensor([1.0, 1.1, 1.3])[:, None, None]
    quiet = torch.tensor([True, False, True])
    loss = clip_loss(p, targets(depth, quiet=quiet), PARAMETERS)
    assert loss.parts["quiet"] == pytest.approx(0.2 / 1.3, rel=5e-3)
    still = dataclasses.replace(targets(depth), quiet=torch.tensor([True, False, False]))
    assert clip_loss(p, still, PARAMETERS).parts["quiet"] == 0


def test_windows_without_label_count_nothing() -> None:
    """The label term is a mean over labelled windows; one unlabelled changes nothing in it."""
    depth, p = maps(0), maps(0) + 0.2 * maps(3)
    weight = torch.ones(SIZE)
    weight[1] = 0
    part = clip_loss(p, targets(depth, weight=weight), PARAMETERS)
    depth_of_two = targets(
        depth[::2],
        weight=weight[::2],
        sharp=torch.ones(2, dtype=torch.bool),
        quiet=torch.zeros(2, dtype=torch.bool),
        original=depth[::2],
    )
    alone = clip_loss(p[::2], depth_of_two, PARAMETERS)
    assert part.labels == alone.labels == 2
    assert part.parts["label"] == pytest.approx(alone.parts["label"], rel=1e-6)
