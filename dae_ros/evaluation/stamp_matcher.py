"""Which ground truth belongs to which prediction, where the two come at instants of their own."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from dae_ros.errors import ConfigurationError

P = TypeVar("P")
T = TypeVar("T")

# Depth maps of 260x346 px: 23 MB a side.
LIMIT = 64


@dataclass(frozen=True, slots=True)
class Match(Generic[P, T]):
    """A pair; `truth_ns` is the truth's stamp, `offset_ns` the prediction's minus it."""

    prediction: P
    truth: T
    truth_ns: int
    offset_ns: int


class StampMatcher(Generic[P, T]):
    """Pairs the predictions and truths that are each other's closest, as soon as that is certain.

    Each is used once. Of two that are equally close the earlier one is taken. What comes out
    depends on the stamps alone, not on which of the two streams arrives first, as long as
    neither runs ahead of the other by more than `limit`.

    Args:
        tolerance_ns: furthest that the two of a pair may lie apart, at least 0.
        limit: waiting items of a stream; beyond it the oldest is given up.

    Attributes:
        unmatched_predictions, unmatched_truths: given up so far.

    Raises:
        ConfigurationError: a negative tolerance, or a limit below 1.
    """

    def __init__(self, tolerance_ns: int, limit: int = LIMIT) -> None:
        if tolerance_ns < 0 or limit < 1:
            raise ConfigurationError(
                "Matching needs a tolerance of at least 0 ns and room for at least 1 item.",
                tolerance_ns=tolerance_ns,
                limit=limit,
            )
        self._tolerance_ns = tolerance_ns
        self._limit = limit
        self._predictions: deque[tuple[int, P]] = deque()
        self._truths: deque[tuple[int, T]] = deque()
        self._newest_prediction_ns: int | None = None
        self._newest_truth_ns: int | None = None
        self.unmatched_predictions = 0
        self.unmatched_truths = 0

    def add_prediction(self, stamp_ns: int, item: P) -> list[Match[P, T]]:
        """Take a prediction; return the pairs that are certain now, in order of time."""
        if self._newest_prediction_ns is not None and stamp_ns < self._newest_prediction_ns:
            self._forget()
        self._newest_prediction_ns = stamp_ns
        self._predictions.append((stamp_ns, item))
        found = self._decide(final=False)
        if len(self._predictions) > self._limit:
            self._predictions.popleft()
            self.unmatched_predictions += 1
        return found

    def add_truth(self, stamp_ns: int, item: T) -> list[Match[P, T]]:
        """Take a ground truth; return the pairs that are certain now, in order of time."""
        if self._newest_truth_ns is not None and stamp_ns < self._newest_truth_ns:
            self._forget()
        self._newest_truth_ns = stamp_ns
        self._truths.append((stamp_ns, item))
        found = self._decide(final=False)
        if len(self._truths) > self._limit:
            self._truths.popleft()
            self.unmatched_truths += 1
        return found

    def flush(self) -> list[Match[P, T]]:
        """Return the remaining pairs: nothing more will come."""
        found = self._decide(final=True)
        self._forget()
        return found

    def _forget(self) -> None:
        """Begin again: time ran back, as when a recording loops."""
        self.unmatched_predictions += len(self._predictions)
        self.unmatched_truths += len(self._truths)
        self._predictions.clear()
        self._truths.clear()
        self._newest_prediction_ns = self._newest_truth_ns = None

    def _decide(self, *, final: bool) -> list[Match[P, T]]:
        found: list[Match[P, T]] = []
        while self._predictions:
            stamp_ns, prediction = self._predictions[0]
            truth = _closest(self._truths, stamp_ns, self._tolerance_ns)
            away_ns = (
                self._tolerance_ns if truth is None else abs(self._truths[truth][0] - stamp_ns)
            )
            if not final and not _reached(self._newest_truth_ns, stamp_ns + away_ns):
                break
            if truth is None:
                self._drop_prediction()
                continue
            truth_ns, value = self._truths[truth]
            if not final and not _reached(self._newest_prediction_ns, truth_ns + away_ns):
                break
            if _closest(self._predictions, truth_ns, self._tolerance_ns) != 0:
                self._drop_prediction()
                continue
            self._predictions.popleft()
            for _ in range(truth):
                self._truths.popleft()
            self.unmatched_truths += truth
            self._truths.popleft()
            found.append(Match(prediction, value, truth_ns, stamp_ns - truth_ns))
        return found

    def _drop_prediction(self) -> None:
        self._predictions.popleft()
        self.unmatched_predictions += 1


def _reached(newest_ns: int | None, stamp_ns: int) -> bool:
    """Whether nothing stamped before `stamp_ns` can come any more."""
    return newest_ns is not None and newest_ns >= stamp_ns


def _closest(items: deque[tuple[int, P]], stamp_ns: int, tolerance_ns: int) -> int | None:
    """Return the index of the first of the closest items, None without one within tolerance."""
    best = min(
        range(len(items)), key=lambda index: (abs(items[index][0] - stamp_ns), index), default=None
    )
    return None if best is None or abs(items[best][0] - stamp_ns) > tolerance_ns else best
