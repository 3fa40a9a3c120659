"""Alignments: exactness, what they undo, and what they do with maps that cannot be aligned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.alignment import METHODS, align, best_constant, mean_depth_map
from test.reference import depth_metrics as oracle

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "losses_metrics.npz"
AFFINE = ["lstsq_published", "lstsq", "lad"]


def _scene(seed: int, shape: tuple[int, int] = (12, 15)) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.uniform(1, 60, shape), random.uniform(size=shape) < 0.7


@pytest.mark.parametrize("method", ["median", *AFFINE])
@given(scale=st.floats(0.02, 50), shift=st.floats(-20, 20), seed=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_undoes_scale_and_shift(method: str, scale: float, shift: float, seed: int) -> None:
    """A map off by a positive scale (and, but for the median, a shift) comes back as it was."""
    depth, mask = _scene(seed)
    prediction = (depth - (0 if method == "median" else shift)) / scale
    fit = align(method, prediction, depth, mask)
    exact = method != "lstsq_published"  # float32
    np.testing.assert_allclose(
        fit.apply(prediction), depth, rtol=1e-6 if exact else 1e-3, atol=1e-6 if exact else 1e-2
    )
    assert fit.determined


def test_golden_fit() -> None:
    """The published fit, of any sign, is met within 1e-5."""
    with np.load(GOLDEN) as golden:
        for frame in range(2):
            maps = (golden[key][frame] for key in ("pred", "target", "mask"))
            fit = align("lstsq_published", *maps)
            assert fit.scale == pytest.approx(golden["lsq_scale"][frame], rel=1e-5)
            assert fit.shift == pytest.approx(golden["lsq_shift"][frame], rel=1e-5)


def test_least_squares_is_corrected_where_the_scale_is_negative() -> None:
    """Inverse depth gets a plausible negative scale as published; corrected, only a constant."""
    depth = np.linspace(2, 60, 500).reshape(20, 25)
    mask = np.ones_like(depth, bool)
    published = align("lstsq_published", 1 / depth, depth, mask)
    assert published.scale < 0
    corrected = align("lstsq", 1 / depth, depth, mask)
    assert corrected.scale == 0
    assert corrected.shift == pytest.approx(depth.mean())
    assert corrected.determined
    # Where the unconstrained scale is positive both are the same least squares.
    noisy = depth + np.random.default_rng(1).normal(0, 5, depth.shape)
    one, other = (align(method, noisy, depth, mask) for method in ("lstsq_published", "lstsq"))
    assert one.scale == pytest.approx(other.scale, rel=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_least_absolute_deviations_are_exact(seed: int) -> None:
    """No line through any two pixels has a smaller sum of errors, ties and outliers included."""
    random = np.random.default_rng(seed)
    prediction = (
        random.integers(0, 8, (6, 7)).astype(float) if seed % 2 else random.normal(size=(6, 7))
    )
    depth = 3 * prediction + 5 + random.laplace(0, 2, (6, 7))
    depth[0, :3] += 100
    mask = random.uniform(size=(6, 7)) < 0.8
    fit = align("lad", prediction, depth, mask)
    p, d = prediction[mask].tolist(), depth[mask].tolist()
    least = oracle.least_deviation(p, d)
    assert oracle.deviation(p, d, fit.scale, fit.shift) == pytest.approx(least, rel=1e-9)


def test_the_oracle_by_hand() -> None:
    """Three points on y = 2 x + 1 and an outlier 9 too high: the outlier alone is the error."""
    p, d = [0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 5.0, 16.0]
    assert oracle.deviation(p, d, 2, 1) == 9
    assert oracle.least_deviation(p, d) == 9
    fit = align("lad", np.array([p]), np.array([d]), np.ones((1, 4), bool))
    assert (fit.scale, fit.shift) == (2, 1)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_mask_counts(method: str) -> None:
    """NaN and nonsense outside of the mask change no fit."""
    depth, mask = _scene(3)
    prediction = np.sqrt(depth)
    expected = align(method, prediction, depth, mask)
    bad = align(method, np.where(mask, prediction, np.nan), np.where(mask, depth, -1e6), mask)
    assert bad == expected


@pytest.mark.parametrize("method", ["median", *AFFINE])
@pytest.mark.parametrize("kind", ["empty", "zero"])
def test_undetermined_fits(method: str, kind: str) -> None:
    """Nothing valid, or a prediction of zeros, is said to be undetermined; nothing is NaN."""
    depth, mask = _scene(4)
    fit = align(method, np.zeros_like(depth), depth, mask & (kind == "zero"))
    assert not fit.determined
    assert fit.scale == 0
    expected = {"lstsq": depth[mask].mean(), "lad": np.median(depth[mask])}.get(method, 0)
    assert fit.shift == pytest.approx(expected if kind == "zero" else 0)


def test_median_is_the_lower_one() -> None:
    """Of an even number of pixels the lower middle value counts, on both sides."""
    prediction, depth = np.array([[1.0, 2.0, 4.0, 9.0]]), np.array([[6.0, 5.0, 8.0, 7.0]])
    fit = align("median", prediction, depth, np.ones((1, 4), bool))
    assert (fit.scale, fit.shift) == (3, 0)


def test_best_constant() -> None:
    """No other constant has a smaller Abs Rel."""
    depth, mask = _scene(5)
    valid = depth[mask]
    candidates = np.concatenate([valid, np.linspace(1, 60, 500)])
    errors = (np.abs(candidates[:, None] - valid) / valid).mean(axis=1)
    constant = best_constant(depth, mask)
    assert np.mean(np.abs(constant - valid) / valid) == pytest.approx(errors.min(), rel=1e-12)
    assert np.isnan(best_constant(depth, np.zeros_like(mask)))


def test_wrong_use_is_refused() -> None:
    """An unknown method and maps of two sizes are named."""
    depth, mask = _scene(6)
    with pytest.raises(ConfigurationError, match="none, median, lstsq_published, lstsq, lad"):
        align("ransac", depth, depth, mask)
    with pytest.raises(ConfigurationError, match="one shape"):
        align("lstsq", depth[1:], depth, mask)


def test_mean_map_by_hand() -> None:
    """Each pixel's mean is over the valid depths of all stacks; nothing else counts."""
    first = np.array([[[1, 2], [np.nan, 4]], [[3, 80], [0, 4]]], np.float16)
    second = np.array([[[5, -1], [np.inf, 10]]], np.float16)
    mean = mean_depth_map([first, second])
    np.testing.assert_array_equal(mean, np.array([[3, 2], [np.nan, 6]], np.float32))
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean_depth_map([second], 8.0)[0], [5, np.nan])
    with pytest.raises(ConfigurationError, match="one size"):
        mean_depth_map([first, second[:, :1]])
    with pytest.raises(ConfigurationError, match="no depth"):
        mean_depth_map([])
