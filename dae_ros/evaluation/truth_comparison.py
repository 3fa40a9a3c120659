"""Depth compared with ground truth that comes at instants of its own: in a recording, or live."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dae_ros.evaluation.observation import Observation
from dae_ros.evaluation.report import ScoreTable
from dae_ros.evaluation.scoring import FrameScore, SequenceAverage
from dae_ros.evaluation.sequence_scorer import PIXELS_IN_WORDS, TableChoice, score_observation
from dae_ros.evaluation.stamp_matcher import Match, StampMatcher
from dae_ros.representation.event_image import EventImage
from dae_ros.representation.render import FloatImage

# Half of the default hop: each truth has a window that ends no further away.
DEFAULT_TOLERANCE_NS = 25_000_000
_NO_EVENTS = np.zeros((3, 0, 0), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """A depth map as it was put out.

    Attributes:
        depth: float32[H, W], metres, or relative depth that grows with depth.
        image: Tencode, uint16[H, W] or float32[3, H, W]; None where it is not known, which leaves
            the choice of pixels with events without any.
        event_count: 0 where it is not known.
    """

    depth: FloatImage
    image: EventImage | None = None
    event_count: int = 0


@dataclass(frozen=True, slots=True)
class ComparedFrame:
    """One pair: stamp of the truth, distance of the prediction, score under the first table."""

    stamp_ns: int
    offset_ns: int
    score: FrameScore


class TruthComparison:
    """Pairs predictions with truths by stamp, scores them, and keeps means in bounded memory.

    Args:
        name: of the sequence.
        choices: the tables.
        tolerance_ns: furthest that the two of a pair may lie apart.

    Attributes:
        counts: `matched`, and `wrong_size` pairs of maps of different sizes, which are not scored.
        largest_offset_ns: among the scored pairs.
    """

    def __init__(
        self, name: str, choices: Sequence[TableChoice], tolerance_ns: int = DEFAULT_TOLERANCE_NS
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.largest_offset_ns = 0
        self._choices = tuple(choices)
        self._averages = [SequenceAverage(name) for _ in choices]
        self._matcher: StampMatcher[Prediction, FloatImage] = StampMatcher(tolerance_ns)

    @property
    def unmatched_predictions(self) -> int:
        """Predictions without a truth, of those decided so far."""
        return self._matcher.unmatched_predictions

    @property
    def unmatched_truths(self) -> int:
        """Truths without a prediction, of those decided so far."""
        return self._matcher.unmatched_truths

    def add_prediction(self, stamp_ns: int, prediction: Prediction) -> list[ComparedFrame]:
        """Take a prediction; return the pairs that can be scored now."""
        return self._score(self._matcher.add_prediction(stamp_ns, prediction))

    def add_truth(self, stamp_ns: int, depth: FloatImage) -> list[ComparedFrame]:
        """Take a ground truth, float32[H, W] in metres; return the pairs to score now."""
        return self._score(self._matcher.add_truth(stamp_ns, depth))

    def flush(self) -> list[ComparedFrame]:
        """Return the remaining pairs: nothing more will come."""
        return self._score(self._matcher.flush())

    def tables(self) -> tuple[ScoreTable, ...]:
        """Return the means so far."""
        return tuple(
            ScoreTable(PIXELS_IN_WORDS[choice.pixels], choice.scoring, (average.score(),))
            for choice, average in zip(self._choices, self._averages, strict=True)
        )

    def _score(self, matches: list[Match[Prediction, FloatImage]]) -> list[ComparedFrame]:
        found = []
        for match in matches:
            prediction, depth = match.prediction, match.truth
            if prediction.depth.shape != depth.shape:
                self.counts["wrong_size"] += 1
                continue
            image = _NO_EVENTS if prediction.image is None else prediction.image
            observation = Observation(
                stamp_ns=match.truth_ns,
                offset_ns=match.offset_ns,
                prediction=prediction.depth,
                depth=depth,
                image=image,
                frame=None,
                event_count=prediction.event_count,
            )
            scores = [score_observation(observation, choice)[0] for choice in self._choices]
            for average, score in zip(self._averages, scores, strict=True):
                average.add(score)
            self.counts["matched"] += 1
            self.largest_offset_ns = max(self.largest_offset_ns, abs(match.offset_ns))
            found.append(ComparedFrame(match.truth_ns, match.offset_ns, scores[0]))
        return found
