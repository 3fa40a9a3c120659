"""What the guard measures of one network on one clip."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dae_ros.distillation.online.measures import FEWEST_PIXELS, Label, label_of, measure
from test.reference.clip_scores import aligned_scores
from test.reference.online_clips import changed, wedge_clip


def ramp(windows: int = 3, height: int = 10, width: int = 20) -> torch.Tensor:
    """Return maps that grow by 1 from pixel to pixel, 1 to 200."""
    return torch.arange(1.0, height * width + 1).reshape(height, width).repeat(windows, 1, 1)


def full(depth: torch.Tensor, *, metric: bool = False) -> Label:
    return Label(depth, torch.ones_like(depth), metric)


def test_the_oracle_gives_what_was_worked_out_by_hand() -> None:
    """Five pixels of which one is off: fitted to the others, the error is that one's alone."""
    maps, depth = [[[1.0, 2.0, 3.0, 4.0, 5.0]]], [[[3.0, 5.0, 16.0, 9.0, 11.0]]]
    ones = [[[1.0] * 5]]
    # The outlier in the middle moves the plain fit up, 2 p + 2.8, and has its largest residual;
    # 2 p + 1 fits the others and says 7 there.
    assert aligned_scores(maps, depth, ones, 0.2, 1) == pytest.approx(((16 - 7) / 16 / 5, 0.8))


def test_scores_are_those_of_a_fit_pixel_by_pixel() -> None:
    """Random maps, weights with zeros, and a window without enough of a label."""
    random = np.random.default_rng(3)
    maps = random.uniform(1, 5, (3, 12, 16))
    depth = 0.5 * maps + random.uniform(0.5, 3, maps.shape)
    weight = random.choice([0.0, 0.2, 1.0], maps.shape)
    weight[1, 4:] = 0.0
    assert (weight[1] > 0).sum() < FEWEST_PIXELS
    label = Label(
        torch.tensor(depth, dtype=torch.float32), torch.tensor(weight, dtype=torch.float32), False
    )
    found = measure(torch.tensor(maps, dtype=torch.float32), 3, label, 0.1)
    abs_rel, delta_1 = aligned_scores(maps, depth, weight, 0.1, FEWEST_PIXELS)
    assert found.scores == pytest.approx(
        {"aligned_abs_rel": abs_rel, "aligned_delta_1": delta_1}, rel=1e-4
    )
    assert found.positive_scale == 1.0


def test_metres_are_compared_as_they_are() -> None:
    """Ten per cent too far everywhere: a tenth in metres, nothing after alignment."""
    found = measure(1.1 * ramp(), 3, full(ramp(), metric=True), 0.1)
    assert found.scores["metric_abs_rel"] == pytest.approx(0.1, rel=1e-5)
    assert found.scores["metric_delta_1"] == 1.0
    assert found.scores["aligned_abs_rel"] == pytest.approx(0.0, abs=1e-5)


def test_what_is_upside_down_is_scored_as_a_constant() -> None:
    """A negative scale would fit it perfectly."""
    found = measure(-ramp(), 3, full(ramp()), 0.0)
    mean = float(ramp()[0].mean())
    expected = float(((ramp()[0] - mean).abs() / ramp()[0]).mean())
    assert found.positive_scale == 0.0
    assert found.scores["aligned_abs_rel"] == pytest.approx(expected, rel=1e-5)


def test_only_the_last_windows_count() -> None:
    """What comes before brings up the state."""
    maps = torch.cat([torch.full((5, 10, 20), 7.0), ramp(2)])
    found = measure(maps, 2, full(ramp(2), metric=True), 0.0)
    assert found.scores["metric_abs_rel"] == 0.0
    assert found.log_median.tolist() == pytest.approx([math.log(100.0)] * 2)
    assert found.spread == pytest.approx(float(np.arange(200).std()), rel=1e-5)


@pytest.mark.parametrize(
    ("values", "jitter"),
    [
        ([0.0, 1.0, 2.0, 3.0], 0.0),  # moves evenly
        ([0.0, 1.0, 0.0, 1.0], 2.0),  # to and fro: second differences of 2
        ([0.0, 0.0, 1.0, 1.0], 1.0),
    ],
)
def test_jitter_is_what_does_not_move_evenly(values: list[float], jitter: float) -> None:
    """Relative to the deviation from the median, which is 50 for the ramp of 200 steps."""
    maps = ramp(4) + torch.tensor(values)[:, None, None]
    assert measure(maps, 4, None, 0.1).jitter == pytest.approx(jitter / 50.0, rel=1e-4)


@pytest.mark.parametrize(("scale", "shift"), [(3.0, 0.0), (0.1, 40.0)])
def test_jitter_is_free_of_scale_and_shift(scale: float, shift: float) -> None:
    """Relative depth has neither."""
    torch.manual_seed(0)
    maps = ramp(4) + torch.randn(4, 10, 20)
    before, after = (measure(m, 4, None, 0.1).jitter for m in (maps, scale * maps + shift))
    assert after == pytest.approx(before, rel=1e-3)


def test_saturation_counts_both_ends_of_the_range() -> None:
    """A fifth at the lowest value, a tenth at the highest, nothing else near them."""
    maps = ramp(1).clamp(40, 181)
    assert measure(maps, 1, None, 0.1).saturated == pytest.approx((40 + 20) / 200)
    assert measure(torch.ones(1, 10, 20), 1, None, 0.1).saturated == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_pixel_that_is_not_finite_is_told(value: float) -> None:
    """Nothing is measured of such a clip."""
    maps = ramp(3)
    maps[1, 4, 4] = value
    assert not measure(maps, 3, full(ramp()), 0.1).finite


@pytest.mark.parametrize("size", [1e15, 1e20, 1e26, 1e38])
def test_what_is_measured_is_finite_or_said_not_to_be(size: float) -> None:
    """Squares of finite numbers need not be finite."""
    label = full(ramp(), metric=True)
    label.weight[..., :4] = 0.0
    found = measure(size * ramp() / 200.0, 3, label, 0.1)
    assert found.finite == (size < 1e16)
    assert found.finite == all(map(math.isfinite, [found.spread, *found.scores.values()]))
    assert bool(found.scores) == found.finite


def test_a_label_is_the_clips_at_the_networks_size() -> None:
    """Weights from 0 to 1, nothing where depth is unknown, at the nearest pixel."""
    clip = wedge_clip(1, length=4)
    depth = clip.depth.copy()
    depth[-1, :14] = np.nan
    label = label_of(changed(clip, depth=depth), (14, 21), 2, torch.device("cpu"), metric=True)
    assert label is not None
    assert label.metric
    assert label.depth.shape == (2, 14, 21)
    assert (label.weight[1] > 0).float().mean() == 0.5
    assert set(label.weight.unique().tolist()) == {0.0, 1.0}
    assert torch.isfinite(label.depth).all()


@pytest.mark.parametrize("what", ["weight", "depth"])
def test_a_clip_without_enough_of_a_label_has_none(what: str) -> None:
    """Fewer pixels than a fit needs are no label, wherever they lack."""
    clip = wedge_clip(1, length=4)
    values: Any = getattr(clip, what).copy()
    values[-2:] = 0
    values[-3:, 0, : FEWEST_PIXELS - 1] = 255
    one = torch.device("cpu")
    assert label_of(changed(clip, **{what: values}), (28, 42), 2, one, metric=True) is None
