"""The scores of one sequence under several scorings, and what the plots and pictures need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.alignment import best_constant
from dae_ros.evaluation.error_statistics import DepthBin, ErrorOverDepth, ErrorOverImage
from dae_ros.evaluation.metrics import mean
from dae_ros.evaluation.observation import Observation
from dae_ros.evaluation.report import ALL_PIXELS
from dae_ros.evaluation.scoring import (
    PUBLISHED,
    STANDARD,
    STANDARD_METRIC,
    FrameScore,
    ScoredMaps,
    Scoring,
    SequenceAverage,
    SequenceScore,
    align_frame,
    score_maps,
)
from dae_ros.evaluation.strips import StripSheet
from dae_ros.representation.event_image import pixels_with_events

Pixels: TypeAlias = Literal["all", "events"]
PIXELS: tuple[Pixels, ...] = get_args(Pixels)
PIXELS_IN_WORDS = {"all": ALL_PIXELS, "events": f"{ALL_PIXELS} and events"}


@dataclass(frozen=True, slots=True)
class TableChoice:
    """One table of a report: which pixels, scored how."""

    pixels: Pixels
    scoring: Scoring


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One scored frame under the first table, for a list of all of them.

    Attributes:
        stamp_ns, offset_ns, event_count: see `Observation`.
        score: of the first table.
    """

    stamp_ns: int
    offset_ns: int
    event_count: int
    score: FrameScore


def default_scorings(kind: str, *, published: bool) -> tuple[Scoring, ...]:
    """Return the scorings of a report where the user names none.

    Args:
        kind: `metric` or `relative`, what the pipeline puts out.
        published: whether a published protocol is run; its own scoring is the first then.
    """
    own = (STANDARD_METRIC, STANDARD) if kind == "metric" else (STANDARD,)
    return (PUBLISHED, *own) if published else own


def require_scorable(kind: str, orientation: str, scorings: Sequence[Scoring]) -> None:
    """Check that what a network puts out can be scored so.

    Args:
        kind: `metric` or `relative`.
        orientation: `depth`, `inverse_depth` or `unknown`.
        scorings: that are wanted.

    Raises:
        ConfigurationError: relative depth without alignment, or a number of which nobody says
            that it grows with depth.
    """
    if kind == "metric":
        return
    if orientation != "depth":
        says = (
            "grows with inverse depth"
            if orientation == "inverse_depth"
            else "may grow with depth or with inverse depth, the weights do not say which"
        )
        raise ConfigurationError(
            f"The network's number {says}, and alignments fit numbers that grow with depth. Set "
            f"'orientation' to depth if it does, or 'orientation' and 'scale' (and 'shift') so "
            f"that it becomes metres.",
            orientation=orientation,
        )
    if any(scoring.alignment == "none" for scoring in scorings):
        raise ConfigurationError(
            "The network's number is relative depth, so that scores without alignment mean "
            "nothing. Choose another alignment, or set 'scale' and 'shift' to metres.",
            kind=kind,
        )


def score_observation(
    observation: Observation, choice: TableChoice, rows: tuple[int, int] | None = None
) -> tuple[FrameScore, ScoredMaps]:
    """Score one window; standard metrics are joined by `best_constant_abs_rel`.

    Args:
        observation: the window.
        choice: pixels and scoring.
        rows: the first, and one past the last, that count; None for all.
    """
    used = slice(*rows) if rows else slice(None)
    mask = pixels_with_events(observation.image)[used] if choice.pixels == "events" else None
    maps = align_frame(observation.prediction[used], observation.depth[used], choice.scoring, mask)
    score = score_maps(maps, choice.scoring)
    if choice.scoring.variant == "published":
        return score, maps
    target = maps.target[maps.counted].astype(np.float64)
    error = np.abs(target - best_constant(maps.target, maps.counted)) / target
    metrics = {**score.metrics, "best_constant_abs_rel": mean(error)}
    return FrameScore(metrics, score.alignment, score.coverage), maps


class SequenceScorer:
    """Collects one sequence; plots and pictures show its first table.

    Args:
        name: of the sequence.
        choices: the tables, at least one.
        rows: see `score_observation`.

    Attributes:
        records: one for each frame.
    """

    def __init__(
        self, name: str, choices: Sequence[TableChoice], rows: tuple[int, int] | None = None
    ) -> None:
        self.name = name
        self.records: list[FrameRecord] = []
        self._choices = tuple(choices)
        self._rows = rows
        self._averages = [SequenceAverage(name) for _ in choices]
        self._over_depth = ErrorOverDepth()
        self._over_image = ErrorOverImage()
        self._strips = StripSheet()

    def add(self, observation: Observation) -> FrameScore:
        """Score a window under every table; return the score of the first."""
        for index, choice in enumerate(self._choices):
            score, maps = score_observation(observation, choice, self._rows)
            self._averages[index].add(score)
            if index == 0:
                self._over_depth.add(maps)
                self._over_image.add(maps)
                self._add_strip(observation, maps)
                self.records.append(
                    FrameRecord(
                        observation.stamp_ns, observation.offset_ns, observation.event_count, score
                    )
                )
        return self.records[-1].score

    def tables(self) -> tuple[SequenceScore, ...]:
        """Return the means of the sequence, one for each table."""
        return tuple(average.score() for average in self._averages)

    def error_over_depth(self) -> tuple[DepthBin, ...]:
        """Return the errors by depth."""
        return self._over_depth.bins()

    def mean_error(self) -> NDArray[np.float32] | None:
        """Return the mean Abs Rel of each pixel; see `ErrorOverImage.mean`."""
        return self._over_image.mean()

    def save_strips(self, path: Path) -> None:
        """Write the pictures of up to eight windows; nothing without a window."""
        self._strips.save(path)

    def _add_strip(self, observation: Observation, maps: ScoredMaps) -> None:
        used = slice(*self._rows) if self._rows else slice(None)
        first_ns = self.records[0].stamp_ns if self.records else observation.stamp_ns
        frame = observation.frame
        if frame is not None and frame.shape == observation.depth.shape:
            frame = frame[used]
        label = f"events {(observation.stamp_ns - first_ns) / 1e9:.2f} s"
        self._strips.add(label, observation.image[..., used, :], frame, maps)
