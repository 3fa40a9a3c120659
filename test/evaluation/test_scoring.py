"""Scoring frames, sequences and data sets, and the report that says what may be compared."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.protocols import DSEC, MVSEC, PROTOCOLS, TEST_SPLIT
from dae_ros.evaluation.published_results import PUBLISHED_ROWS
from dae_ros.evaluation.report import (
    ALL_PIXELS,
    EvaluationReport,
    ScoreTable,
    not_comparable,
    to_json,
    to_markdown,
    write_report,
)
from dae_ros.evaluation.scoring import (
    PUBLISHED,
    STANDARD,
    STANDARD_METRIC,
    FrameScore,
    Scoring,
    SequenceScore,
    mean_of_frames,
    mean_of_sequences,
    score_frame,
)


def _frame(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    depth = random.uniform(2, 70, (20, 30)).astype(np.float32)
    return depth + random.normal(0, 1, depth.shape).astype(np.float32), depth


def test_alignment_makes_relative_predictions_scorable() -> None:
    """After corrected least squares scale and shift cost nothing; metric scoring sees them."""
    prediction, depth = _frame(1)
    plain = score_frame(prediction, depth, STANDARD)
    moved = score_frame(prediction / 20 - 1, depth, STANDARD)
    for name, value in plain.metrics.items():
        assert moved.metrics[name] == pytest.approx(value, rel=1e-4), name
    assert plain.metrics["abs_rel"] < 0.2
    assert score_frame(prediction / 20 - 1, depth, STANDARD_METRIC).metrics["abs_rel"] > 0.9


def test_masks_and_holes() -> None:
    """Only masked pixels with valid ground truth count; a hole lowers coverage."""
    prediction, depth = _frame(2)
    depth[:5] = np.array([0, np.nan, np.inf, 90, 80], np.float32)[:, None]
    events = np.zeros(depth.shape, bool)
    events[:, :15] = True
    score = score_frame(prediction, depth, STANDARD, events)
    assert score.metrics["valid_pixels"] == 15 * 15
    assert score.coverage == 1
    assert score.metrics == score_frame(prediction[5:, :15], depth[5:, :15], STANDARD).metrics
    prediction[5:8, :15] = np.nan
    score = score_frame(prediction, depth, STANDARD, events)
    assert score.metrics["valid_pixels"] == 12 * 15
    assert score.coverage == pytest.approx(12 / 15)
    assert all(math.isfinite(value) for value in score.metrics.values())


def test_the_published_fit_sees_the_clipped_pixels() -> None:
    """Pixels beyond 80 m take part in the published fit and in none of the corrected one."""
    depth = np.linspace(5, 70, 600, dtype=np.float32).reshape(20, 30)
    far = depth.copy()
    far[0] = 200.0
    published = score_frame(depth, far, PUBLISHED)
    assert published.alignment.scale != pytest.approx(1, abs=0.02)
    assert score_frame(depth, far, STANDARD).alignment.scale == pytest.approx(1, abs=1e-5)


def _score(name: str, scales: list[float], errors: list[float]) -> SequenceScore:
    frames = []
    for scale, error in zip(scales, errors, strict=True):
        metrics = {"abs_rel": error, "valid_pixels": 0.0 if math.isnan(error) else 100.0}
        alignment = dataclasses.replace(score_frame(*_frame(3), STANDARD).alignment, scale=scale)
        frames.append(FrameScore(metrics, alignment, 0.5))
    return mean_of_frames(name, frames)


def test_means() -> None:
    """Frames without a number are left out of a sequence; sequences weigh the same."""
    long = _score("long", [1, -1, 1, 1, 1], [0.1, 0.3, math.nan, 0.1, 0.1])
    assert (long.frames, long.frames_without_pixels) == (5, 1)
    assert long.positive_scale == 0.75
    assert long.coverage == 0.5
    assert long.metrics["abs_rel"] == pytest.approx(0.15)
    short = _score("short", [1], [0.45])
    assert mean_of_sequences([long, short])["abs_rel"] == pytest.approx(0.3)
    empty = _score("empty", [1], [math.nan])
    assert mean_of_sequences([long, short, empty])["abs_rel"] == pytest.approx(0.3)
    assert math.isnan(empty.positive_scale)
    assert mean_of_frames("none", []).frames == 0


def test_wrong_scorings_are_refused() -> None:
    """Unknown names, an empty range of depths and other shapes."""
    with pytest.raises(ConfigurationError, match="published and standard"):
        Scoring("official")
    with pytest.raises(ConfigurationError, match="minimum depth"):
        Scoring(clip_distance_m=0)
    prediction, depth = _frame(4)
    with pytest.raises(ConfigurationError, match="one shape"):
        score_frame(prediction[1:], depth, STANDARD)


def test_protocols() -> None:
    """Frames, windows and crops are those that the authors' constants enforce."""
    assert sum(MVSEC.splits["test"].values()) == 5125 + 5111 + 5478 + 5411
    assert sum(DSEC.splits["validation"].values()) == 7167
    assert sum(DSEC.scored_frames("validation").values()) == 7167 - 10
    assert (len(DSEC.splits["train"]), len(DSEC.splits["validation"])) == (31, 10)
    assert not DSEC.splits["train"].keys() & DSEC.splits["validation"].keys()
    # a centre crop of 320 rows
    assert DSEC.rows == ((480 - 320) // 2, 480 - (480 - 320) // 2)
    assert (MVSEC.window_ns, DSEC.window_ns) == (50_000_000, 50_000_000)
    assert {row.dataset for row in PUBLISHED_ROWS} == set(PROTOCOLS) == set(TEST_SPLIT)


def _full_table(scoring: Scoring) -> ScoreTable:
    metrics = score_frame(*_frame(5), scoring).metrics
    return ScoreTable(ALL_PIXELS, scoring, tuple(
        SequenceScore(name, frames, 0, 1.0, 1.0, metrics)
        for name, frames in MVSEC.scored_frames("test").items()
    ))  # fmt: skip


def test_published_rows_stand_beside_the_published_protocol_alone() -> None:
    """The paper's rows appear for its scoring, sequences and frames; otherwise the reason does."""
    table = _full_table(PUBLISHED)
    report = EvaluationReport("mvsec", "micro", (table, _full_table(STANDARD)), {"seed": "7"})
    text = to_markdown(report)
    assert "| DepthAnyEvent-R | supervised | 0.365 | 6.465 | 0.489 |" in text
    assert text.count("0.365") == 1
    assert "* seed: 7" in text
    assert "after its own least squares" in text
    assert not_comparable(report, table) is None
    fewer = dataclasses.replace(table, sequences=table.sequences[:2])
    assert "all frames" in not_comparable(report, fewer)
    events = dataclasses.replace(table, pixels="with ground truth and events")
    assert "of all pixels" in not_comparable(report, events)
    lab = dataclasses.replace(report, dataset="lab")
    assert "no numbers on lab" in not_comparable(lab, table)
    other = dataclasses.replace(report, deviation="the state was cleared")
    assert not_comparable(other, table) == "the state was cleared"
    assert "DepthAnyEvent-R" not in to_markdown(other)
    assert "DepthAnyEvent-R" not in to_markdown(EvaluationReport("lab", "micro", (table,)))


def test_markdown_numbers() -> None:
    """Every sequence and the mean stand in the table with three decimals, a missing one as -."""
    metrics = {"abs_rel": 0.12345, "rmse": math.nan, "valid_pixels": 10.0}
    sequence = SequenceScore("lab", 3, 1, 0.5, 0.25, metrics)
    lines = to_markdown(
        EvaluationReport("lab", "micro", (ScoreTable("with events", STANDARD, (sequence,)),))
    ).splitlines()
    assert "| sequence | frames | scale > 0 | coverage | Abs Rel | RMSE m |" in lines
    assert "| lab | 3 | 50.0 % | 25.0 % | 0.123 | - |" in lines
    assert "| **mean of sequences** | 3 |  |  | 0.123 | - |" in lines
    metric = dataclasses.replace(STANDARD, alignment="none")
    text = to_markdown(EvaluationReport("lab", "micro", (ScoreTable("all", metric, (sequence,)),)))
    assert "| lab | 3 | - | 25.0 % | 0.123 | - |" in text


def test_report_files(tmp_path: Path) -> None:
    """JSON is strict, holds everything, and is replaced whole; nothing else is left behind."""
    metrics = {"abs_rel": math.nan, "valid_pixels": 0.0}
    table = ScoreTable("with events", STANDARD, (SequenceScore("lab", 2, 2, math.nan, 0, metrics),))
    report = EvaluationReport("lab", "micro", (table,))
    folder = tmp_path / "new" / "run"
    for _ in range(2):
        paths = write_report(report, folder)
    assert sorted(folder.iterdir()) == sorted(paths)
    document = json.loads(paths[0].read_text(), parse_constant=pytest.fail)
    assert document == json.loads(to_json(report))
    first = document["tables"][0]
    assert first["sequences"][0]["metrics"]["abs_rel"] is None
    assert first["mean"]["valid_pixels"] == 0
    assert first["scoring"]["alignment"] == "lstsq"
    assert paths[1].read_text() == to_markdown(report)
