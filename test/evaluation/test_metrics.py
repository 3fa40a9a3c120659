"""Metrics: the published ones and the evaluator of the fork, an oracle, and the quirks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dae_ros.evaluation.alignment import align
from dae_ros.evaluation.metrics import (
    published_metrics,
    standard_metrics,
    stretched_target,
)
from dae_ros.evaluation.scoring import Scoring, score_frame
from test.reference import depth_metrics as oracle

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "losses_metrics.npz"
PUBLISHED_NAMES = {
    "abs_rel_diff": "abs_rel", "squ_rel_diff": "sq_rel", "RMS_linear": "rmse",
    "RMS_log": "rmse_log", "SILog": "si_log", "mean_target_depth": "mean_target",
    "median_target_depth": "median_target", "mean_prediction_depth": "mean_prediction",
    "median_prediction_depth": "median_prediction", "mean_depth_error": "mean_error",
    "median_diff": "median_difference", "threshold_delta_1.25": "delta_1",
    "threshold_delta_1.25^2": "delta_2", "threshold_delta_1.25^3": "delta_3",
}  # fmt: skip
FORK_NAMES = {
    "Abs Rel": "abs_rel", "Sq Rel": "sq_rel", "RMSE": "rmse", "Log RMSE": "rmse_log",
    "d1.25": "delta_1", "d1.25^2": "delta_2", "d1.25^3": "delta_3", "valid_pixels": "valid_pixels",
}  # fmt: skip


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def values(golden: dict[str, np.ndarray]) -> dict[str, float]:
    return json.loads(str(golden["_values_json"]))


def _published_name(key: str) -> str:
    head, _, rest = key.partition("_")
    return f"{PUBLISHED_NAMES[rest]}_{head}m" if head.isdigit() else PUBLISHED_NAMES[key]


def _select(values: dict[str, float], prefix: str) -> dict[str, float]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


@pytest.mark.parametrize("log_depth", [0, 1])
@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("frame", [0, 1])
def test_every_golden_metric(
    golden: dict[str, np.ndarray], values: dict[str, float],
    log_depth: int, aligned: int, frame: int,
) -> None:  # fmt: skip
    """All 448 published metrics are met within 1e-5, from prepared maps and from raw ones."""
    prefix = f"eval_ss{aligned}_log{log_depth}_b{frame}_"
    expected = _select(values, prefix)
    assert len(expected) == 56
    names = [_published_name(key) for key in expected]
    target, prepared = golden[f"eval_b{frame}_target"], golden[f"{prefix}pred"]
    metrics = published_metrics(prepared, target, np.ones(target.shape, bool))
    np.testing.assert_allclose([metrics[n] for n in names], list(expected.values()), rtol=1e-5)

    prediction = golden["pred"][frame]
    if log_depth:
        prediction = _metres(np.clip(prediction / prediction.max(), np.float32(0.05), 1))
    fitted = aligned and not log_depth
    scoring = Scoring("published", "lstsq_published" if fitted else "none")
    metrics = score_frame(prediction, golden["target"][frame], scoring).metrics
    # Near depth 0 a logarithm multiplies the last digit of the float32 fit.
    for name, value in zip(names, expected.values(), strict=True):
        near_zero = fitted and name.startswith(("si_log", "rmse_log"))
        assert metrics[name] == pytest.approx(value, rel=1e-4 if near_zero else 1e-5), name


def _metres(log_depth: np.ndarray) -> np.ndarray:
    """Turn normalised log depth into metres as published: a frame's farthest pixel is at 80 m."""
    depth = np.exp(np.float32(3.70378) * (log_depth - 1))
    return depth / depth.max() * np.float32(80)


def test_golden_preparation(golden: dict[str, np.ndarray]) -> None:
    """Stretched ground truth equals the published arrays."""
    for frame in range(2):
        stretched = stretched_target(golden["target"][frame])
        np.testing.assert_allclose(stretched, golden[f"eval_b{frame}_target"], rtol=1e-6)


@pytest.mark.parametrize("mode", ["metric", "median", "lstsq", "scale"])
@pytest.mark.parametrize("frame", [0, 1])
def test_standard_metrics_equal_the_fork(
    golden: dict[str, np.ndarray], values: dict[str, float], mode: str, frame: int
) -> None:
    """The fork's evaluator gives the same numbers within 1e-5 after each of its alignments."""
    prediction, depth = golden["pred"][frame], golden["target"][frame]
    mask = (depth > 0) & (depth < 80)
    if mode == "scale":
        factor = oracle.robust_scale(prediction[mask].tolist(), depth[mask].tolist())
        aligned = np.float32(factor) * prediction
    else:
        method = "none" if mode == "metric" else mode
        aligned = align(method, prediction, depth, mask).apply(prediction)
    metrics = standard_metrics(aligned, depth, mask)
    expected = _select(values, f"tools_{mode}_b{frame}_")
    for key, name in FORK_NAMES.items():
        # Ten reweightings in float32 leave their mark on the fork's factor.
        assert metrics[name] == pytest.approx(expected[key], rel=2e-5 if mode == "scale" else 1e-5)


@pytest.mark.parametrize("frame", [0, 1])
def test_least_absolute_deviations_beat_the_fork(
    golden: dict[str, np.ndarray], values: dict[str, float], frame: int
) -> None:
    """The fork's general minimiser stops near the minimum; its fit scores as it says, ours less.

    Its fit is not stored: it is found from Abs Rel and RMSE, and must give the other numbers.
    """
    prediction, depth = golden["pred"][frame].astype(float), golden["target"][frame].astype(float)
    mask = (depth > 0) & (depth < 80)
    expected = _select(values, f"tools_lad_b{frame}_")
    ours = align("lad", prediction, depth, mask)

    def errors(fit: np.ndarray) -> np.ndarray:
        metrics = standard_metrics(fit[0] * prediction + fit[1], depth, mask)
        return np.array(
            [metrics["abs_rel"] - expected["Abs Rel"], metrics["rmse"] - expected["RMSE"]]
        )

    fit = np.array([ours.scale, ours.shift])
    for _ in range(30):
        slope = np.column_stack(
            [(errors(fit + step) - errors(fit - step)) / 2e-4 for step in 1e-4 * np.eye(2)]
        )
        fit = fit - np.linalg.solve(slope, errors(fit))
    metrics = standard_metrics(fit[0] * prediction + fit[1], depth, mask)
    for key, name in FORK_NAMES.items():
        assert metrics[name] == pytest.approx(expected[key], rel=2e-5), key
    p, d = prediction[mask].tolist(), depth[mask].tolist()
    theirs = oracle.deviation(p, d, *fit)
    assert oracle.deviation(p, d, ours.scale, ours.shift) < theirs


def test_the_oracles_by_hand() -> None:
    """Depths 2, 4 and 8 (the last one the farthest), predicted 3, 4 and 8."""
    published = oracle.published([3.0, 4.0, 8.0], [2.0, 4.0, 8.0])
    assert published["valid_pixels"] == 2
    assert published["abs_rel"] == pytest.approx(0.25, rel=1e-4)
    assert published["sq_rel"] == pytest.approx(0.125, rel=1e-4)
    assert published["rmse"] == pytest.approx(math.sqrt(0.5))
    assert published["rmse_log"] == pytest.approx(math.log(1.5) / math.sqrt(2), rel=1e-4)
    assert published["si_log"] == pytest.approx(math.log(1.5) ** 2 / 4, rel=1e-4)
    assert [published[f"delta_{k}"] for k in (1, 2, 3)] == [0.5, 1.0, 1.0]
    assert published["median_difference"] == pytest.approx(0.5)
    standard = oracle.standard([3.0, 4.0, 8.0], [2.0, 4.0, 8.0])
    assert standard["abs_rel"] == pytest.approx(0.5 / 3)
    assert standard["sq_rel"] == pytest.approx(0.5 / 3)
    assert standard["mean_error_10m"] == pytest.approx(1 / 3)
    assert [standard[f"delta_{k}"] for k in (1, 2, 3)] == [2 / 3, 1.0, 1.0]


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_the_oracle(seed: int) -> None:
    """On random maps with clipped and negative predictions both variants equal plain Python."""
    random = np.random.default_rng(seed)
    depth = random.uniform(0.5, 79, (9, 13)).astype(np.float32)
    prediction = (depth * random.lognormal(0, 0.4, depth.shape)).astype(np.float32)
    prediction[0], prediction[1, :3] = 0, 80
    mask = random.uniform(size=depth.shape) < 0.7
    depth[1, 5] = 80
    actual = published_metrics(prediction, depth, mask | (depth == 80))
    counted = (mask | (depth == 80)).ravel()
    expected = oracle.published(
        prediction.ravel()[counted].tolist(), depth.ravel()[counted].tolist()
    )
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
    prediction[0, ::2] = -3
    standard = standard_metrics(prediction, depth, mask)
    expected = oracle.standard(prediction[mask].tolist(), depth[mask].tolist())
    assert standard.keys() == expected.keys()
    for name, value in expected.items():
        assert standard[name] == pytest.approx(value, rel=1e-9), name


def test_stretching_and_dropping_are_in_the_published_variant_only() -> None:
    """A frame that ends at 60 m is stretched to 80 m, and predictions at the ends are dropped."""
    depth = np.array([[15.0, 30.0, 60.0, 0.0, np.nan]], np.float32)
    np.testing.assert_allclose(stretched_target(depth), [[20, 40, 80, 0, 0]])
    perfect = score_frame(depth, depth, Scoring("published", "none")).metrics
    assert perfect["abs_rel"] == pytest.approx(0.25, rel=1e-4)
    assert score_frame(depth, depth, Scoring("standard", "none")).metrics["abs_rel"] == 0
    saturated = np.array([[15.0, 500.0, 60.0, 1.0, 1.0]], np.float32)
    published = score_frame(saturated, depth, Scoring("published", "none")).metrics
    standard = score_frame(saturated, depth, Scoring("standard", "none")).metrics
    assert (published["valid_pixels"], standard["valid_pixels"]) == (1, 3)
    assert standard["abs_rel"] == pytest.approx((80 - 30) / 30 / 3)


@pytest.mark.parametrize("variant", ["published", "standard"])
def test_infinite_ground_truth_is_invalid(variant: str) -> None:
    """Infinity and NaN in the ground truth score as 0 does: not at all."""
    random = np.random.default_rng(9)
    depth = random.uniform(2, 80, (8, 9))
    prediction = depth + random.normal(0, 3, depth.shape)
    scores = []
    for invalid in (0.0, np.inf, np.nan, -3.0):
        depth[2] = invalid
        scores.append(score_frame(prediction, depth, Scoring(variant, "lstsq")).metrics)
    assert scores[0] == scores[1] == scores[2] == scores[3]


def test_nothing_to_score_is_nan() -> None:
    """Without a valid pixel every metric is NaN, silently, and the count is 0."""
    empty = np.zeros((4, 5), np.float32)
    for scoring in (Scoring("published", "lstsq_published"), Scoring()):
        metrics = dict(score_frame(np.ones((4, 5), np.float32), empty, scoring).metrics)
        assert metrics["valid_pixels"] == 0
        assert all(math.isnan(v) for k, v in metrics.items() if not k.startswith("valid_pixels"))
