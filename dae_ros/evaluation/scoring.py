"""From maps to scores: one frame, then the mean of a sequence, then the mean of sequences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.alignment import METHODS, Alignment, DepthMap, Mask, Method, align
from dae_ros.evaluation.metrics import (
    RANGES_M,
    published_metrics,
    published_pixels,
    standard_metrics,
    stretched_target,
)

Variant: TypeAlias = Literal["published", "standard"]


@dataclass(frozen=True, slots=True)
class Scoring:
    """How predictions become numbers; two runs compare only where this is equal.

    Attributes:
        variant: `published` or `standard` metrics.
        alignment: see `alignment.py`.
        clip_distance_m: ground truth at or beyond it is not scored; published: is clipped to it.
        minimum_depth_m: standard only: aligned predictions are cut to minimum .. clip distance,
            as scores on KITTI are; ground truth below it is not scored.
        ranges_m: upper ends of the mean errors.
    """

    variant: Variant = "standard"
    alignment: Method = "lstsq"
    clip_distance_m: float = 80.0
    minimum_depth_m: float = 1e-3
    ranges_m: tuple[float, ...] = RANGES_M

    def __post_init__(self) -> None:
        if self.variant not in ("published", "standard") or self.alignment not in METHODS:
            raise ConfigurationError(
                f"There is no scoring '{self.variant}' with alignment '{self.alignment}'; "
                f"variants are published and standard, alignments {', '.join(METHODS)}.",
                variant=self.variant,
                alignment=self.alignment,
            )
        if not 0 < self.minimum_depth_m < self.clip_distance_m:
            raise ConfigurationError(
                "Scores need 0 < minimum depth < clip distance.",
                minimum_depth_m=self.minimum_depth_m,
                clip_distance_m=self.clip_distance_m,
            )


PUBLISHED = Scoring("published", "lstsq_published")
STANDARD = Scoring()
STANDARD_METRIC = Scoring(alignment="none")


@dataclass(frozen=True, slots=True)
class FrameScore:
    """The numbers of one frame.

    Attributes:
        metrics: name -> value, NaN where no pixel counted.
        alignment: the fit behind them.
        coverage: share of the pixels to score at which the prediction is finite; only those are
            scored. NaN where there are none to score.
    """

    metrics: Mapping[str, float]
    alignment: Alignment
    coverage: float


@dataclass(frozen=True, slots=True)
class SequenceScore:
    """The means of one sequence.

    Attributes:
        name: of the sequence.
        frames: scored.
        frames_without_pixels: of these, frames on which no pixel counted; in no mean.
        positive_scale: share of the frames with pixels whose fitted scale is > 0.
        coverage: mean over the frames with pixels to score.
        metrics: name -> mean over frames, those with NaN left out; `valid_pixels` as well.
    """

    name: str
    frames: int
    frames_without_pixels: int
    positive_scale: float
    coverage: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredMaps:
    """One frame as it is compared: what the numbers, the plots and the pictures are made of.

    Attributes:
        prediction: [H, W], metres, aligned and cut as the scoring says; NaN where the network
            gave no number.
        target: [H, W], metres, 0 invalid; of the published variant the stretched one.
        counted: bool[H, W], the pixels behind the numbers.
        alignment, coverage: see `FrameScore`.
    """

    prediction: DepthMap
    target: DepthMap
    counted: Mask
    alignment: Alignment
    coverage: float


def align_frame(
    prediction: DepthMap, depth: DepthMap, scoring: Scoring, mask: Mask | None = None
) -> ScoredMaps:
    """Bring one frame to the form in which it is scored; see `score_frame` for the arguments."""
    if mask is None:
        mask = np.ones(depth.shape, np.bool_)
    if not prediction.shape == depth.shape == mask.shape:
        raise ConfigurationError(
            f"Prediction {prediction.shape}, ground truth {depth.shape} and mask {mask.shape} "
            "must have one shape.",
            prediction=prediction.shape,
            depth=depth.shape,
            mask=mask.shape,
        )
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(depth.dtype)
    answered = np.isfinite(prediction)
    if scoring.variant == "published":
        wanted = mask & (depth > 0)
        target: DepthMap = stretched_target(depth, scoring.clip_distance_m)
        alignment, aligned = _published_alignment(prediction, target, scoring, answered)
        counted = mask & answered & published_pixels(aligned, target)
    else:
        wanted = mask & (depth >= scoring.minimum_depth_m) & (depth < scoring.clip_distance_m)
        target = depth
        counted = wanted & answered
        alignment = align(scoring.alignment, prediction, depth, counted)
        aligned = np.clip(
            alignment.apply(prediction), scoring.minimum_depth_m, scoring.clip_distance_m
        )
    coverage = float((wanted & answered).sum() / wanted.sum()) if wanted.any() else np.nan
    return ScoredMaps(
        np.where(answered, aligned, np.nan).astype(aligned.dtype),
        target,
        counted,
        alignment,
        coverage,
    )


def score_frame(
    prediction: DepthMap, depth: DepthMap, scoring: Scoring, mask: Mask | None = None
) -> FrameScore:
    """Align and score one frame.

    Args:
        prediction: [H, W], growing with depth; pixels that are not finite are not scored, and
            lower the coverage.
        depth: [H, W], ground truth in metres; 0, negative, NaN and infinity are invalid.
        scoring: how.
        mask: bool[H, W], which pixels to score, for instance those with events; None: all.

    Raises:
        ConfigurationError: shapes that differ.
    """
    return score_maps(align_frame(prediction, depth, scoring, mask), scoring)


def score_maps(maps: ScoredMaps, scoring: Scoring) -> FrameScore:
    """Score one frame that `align_frame` made with the same scoring."""
    metrics = published_metrics if scoring.variant == "published" else standard_metrics
    found = metrics(maps.prediction, maps.target, maps.counted, scoring.ranges_m)
    return FrameScore(found, maps.alignment, maps.coverage)


class SequenceAverage:
    """The means of one sequence, frame by frame, without keeping the frames."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._frames = self._counted = self._positive = 0
        self._coverage = _Mean()
        self._metrics: dict[str, _Mean] = {}

    def add(self, score: FrameScore) -> None:
        """Take a frame; all frames have the same metrics."""
        self._frames += 1
        if score.metrics["valid_pixels"] > 0:
            self._counted += 1
            self._positive += score.alignment.scale > 0
        self._coverage.add(score.coverage)
        for name, value in score.metrics.items():
            self._metrics.setdefault(name, _Mean()).add(value)

    def score(self) -> SequenceScore:
        """Return the means so far; each metric over the frames where it is a number."""
        return SequenceScore(
            name=self._name,
            frames=self._frames,
            frames_without_pixels=self._frames - self._counted,
            positive_scale=self._positive / self._counted if self._counted else math.nan,
            coverage=self._coverage.value,
            metrics={name: mean.value for name, mean in self._metrics.items()},
        )


def mean_of_frames(name: str, frames: Iterable[FrameScore]) -> SequenceScore:
    """Return the mean of each metric over the frames where it is a number."""
    average = SequenceAverage(name)
    for frame in frames:
        average.add(frame)
    return average.score()


def mean_of_sequences(sequences: Sequence[SequenceScore]) -> dict[str, float]:
    """Return the published mean: every sequence weighs the same, however long it is."""
    means: dict[str, _Mean] = {}
    for sequence in sequences:
        for name, value in sequence.metrics.items():
            means.setdefault(name, _Mean()).add(value)
    return {name: mean.value for name, mean in means.items()}


class _Mean:
    """The mean of the numbers among what it is given; NaN of none."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._count = 0

    def add(self, value: float) -> None:
        if not math.isnan(value):
            self._sum += value
            self._count += 1

    @property
    def value(self) -> float:
        return self._sum / self._count if self._count else math.nan


def _published_alignment(
    prediction: DepthMap, target: DepthMap, scoring: Scoring, answered: Mask
) -> tuple[Alignment, DepthMap]:
    """Return the fit and the prediction in metres, 0 to the clip distance."""
    # The fit sees every pixel with ground truth, those at the clip distance included, whatever
    # the mask of the metrics.
    alignment = align(scoring.alignment, prediction, target, (target > 0) & answered)
    finite = np.where(answered, prediction, 0).astype(np.float32)
    return alignment, np.clip(alignment.apply(finite), 0, np.float32(scoring.clip_distance_m))
