"""Arithmetic of the adaptation benchmark: from versions and their scores to what is claimed.

A timeline is a list of (second, version), ascending: from that second on depth has that version.
Scores are errors: less is better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeAlias

from benchmarks.adaptation.scores import ERRORS, PLACES

Timeline: TypeAlias = Sequence[tuple[float, int]]

# What is claimed: docs/distillation.md has the table.
SMALLEST_GAIN_SHARE = 0.5
LARGEST_EXCESS = 0.02
LARGEST_FORGETTING = 0.02
FEWEST_SEEDS = 5
# A teacher that is no more than this better than the student has nothing to teach.
SMALLEST_LEAD = 0.1


def timeline_of(original: int, swaps: Sequence[Mapping[str, Any]]) -> list[tuple[float, int]]:
    """Return which version depth had when.

    Args:
        original: the version that it began with; depth, which has no number for what it was
            started with, calls it 0.
        swaps: what depth made of the announced versions (`AdaptationResult.swaps`), in order.
    """
    timeline = [(0.0, original)]
    for swap in swaps:
        live = int(swap["live_version"]) or original
        if swap["outcome"] == "refused":
            live = timeline[-1][1]
        if live != timeline[-1][1]:
            timeline.append((float(swap["at_s"]), live))
    return timeline


def live_at(timeline: Timeline, second: float) -> int:
    """Return the version that depth has at a second."""
    return [version for begin_s, version in timeline if begin_s <= second][-1]


def gain_share(frozen: float, adapted: float, bound: float) -> float:
    """Return which part of the gain that is possible was gained; NaN where none is possible."""
    return (frozen - adapted) / (frozen - bound) if frozen > bound else math.nan


def excess(error: float, frozen: float) -> float:
    """Return by which part an error is above that of the weights that never changed."""
    return error / frozen - 1.0


def worst_excess(
    timeline: Timeline,
    errors: Mapping[int, float],
    frozen: float,
    begin_s: float = 0.0,
    end_s: float = math.inf,
) -> float:
    """Return the largest excess of any version that was in use between two seconds, however short.

    It is 0 at least where the original was among them.
    """
    ends_s = [begin for begin, _ in timeline[1:]] + [math.inf]
    used = [
        version
        for (since_s, version), until_s in zip(timeline, ends_s, strict=True)
        if since_s < end_s and until_s > begin_s
    ]
    return _largest(excess(errors[version], frozen) for version in used)


def seconds_to_share(
    timeline: Timeline, errors: Mapping[int, float], frozen: float, bound: float, share: float
) -> float | None:
    """Return when a share of the gain was reached for the first time; None where it never was."""
    for begin_s, version in timeline:
        if gain_share(frozen, errors[version], bound) >= share:
            return begin_s
    return None


def recovery_s(samples: Sequence[Mapping[str, Any]], end_s: float) -> float | None:
    """Return how long after a fault a label was accepted and then a step made; None where never.

    Args:
        samples: in order of time: `at_s`, and how many `labels` and `steps` there had been.
        end_s: when the fault ended.
    """
    before = [sample for sample in samples if sample["at_s"] <= end_s]
    after = [sample for sample in samples if sample["at_s"] > end_s]
    labels, steps = before[-1]["labels"] if before else 0, None
    for sample in after:
        if steps is None and sample["labels"] > labels:
            steps = sample["steps"]
        elif steps is not None and sample["steps"] > steps:
            return float(sample["at_s"]) - end_s
    return None


@dataclass(frozen=True)
class Claim:
    """One claim with its number.

    Attributes:
        claim: in words.
        value: what was measured; NaN where nothing could be.
        limit: what it is compared with.
        at_least: whether the value must not be below the limit; otherwise not above.
        complete: whether everything was measured that the claim is about.
    """

    claim: str
    value: float
    limit: float
    at_least: bool
    complete: bool = True

    @property
    def met(self) -> bool:
        """Whether it holds; NaN does not, nor what is only partly measured."""
        if not self.complete:
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        value = round(self.value, 4) if math.isfinite(self.value) else None
        return {
            "claim": self.claim,
            "value": value,
            "limit": self.limit,
            "complete": self.complete,
            "met": self.met,
        }


def shift_claims(seeds: Sequence[Mapping[str, Any]], declared: int) -> list[Claim]:
    """Return what the seeds say about domain shift.

    Args:
        seeds: those that were measured: of each `frozen`, `adapted`, `bound` (errors elsewhere at
            the end of the drive), `worst_excess` (elsewhere, over the whole drive) and
            `forgetting` (the worst on places of A, from when the drive leaves B).
        declared: how many were asked for; where fewer were measured, because they were refused or
            are not done, or fewer than `FEWEST_SEEDS` were asked for, no claim is met.
    """
    wanted = max(declared, FEWEST_SEEDS)
    complete = len(seeds) >= wanted
    means = {
        name: fmean(seed[name] for seed in seeds) if seeds else math.nan
        for name in ("frozen", "adapted", "bound")
    }
    return [
        Claim("seeds measured, of those declared", len(seeds), wanted, at_least=True),
        Claim(
            "share of the gain of offline distillation, of means over seeds",
            gain_share(**means),
            SMALLEST_GAIN_SHARE,
            at_least=True,
            complete=complete,
        ),
        Claim(
            "largest excess over frozen weights elsewhere, at any time of any seed",
            _largest(seed["worst_excess"] for seed in seeds),
            LARGEST_EXCESS,
            at_least=False,
            complete=complete,
        ),
        Claim(
            "largest forgetting of A, A to B to A, of any version since B was left, of any seed",
            _largest(seed["forgetting"] for seed in seeds),
            LARGEST_FORGETTING,
            at_least=False,
            complete=complete,
        ),
    ]


def summary_of_seed(
    timeline: Timeline,
    scores: Mapping[str, Mapping[int, Mapping[str, Any]]],
    offline: Mapping[str, float | None],
    drive_s: float,
) -> dict[str, Any]:
    """Return what a seed shows.

    Args:
        timeline: of the drive through B and A afterwards.
        scores: `elsewhere` and `known` -> version -> name -> score, and of `known` also `places`
            -> place -> name -> score.
        offline: name -> score elsewhere, of offline distillation.
        drive_s: when B is over.

    Returns:
        `numbers`: name of an error -> what `shift_claims` takes, the share of the gain, the second
        at which half of it was reached (None: never), the worst excess on known places of any
        version, those that nobody had in A included, the excess there when B and when A were over,
        and which single known place was the worst when B was over, with its excess; `versions`:
        how many depth had beside the original.
    """
    original = timeline[0][1]
    left = live_at(timeline, drive_s)
    numbers: dict[str, dict[str, Any]] = {}
    for error in ERRORS:
        elsewhere, known = (
            {v: _number(found[error]) for v, found in scores[part].items()}
            for part in ("elsewhere", "known")
        )
        frozen, bound = elsewhere[original], _number(offline[error])
        adapted = elsewhere[left]
        before, after = (scores["known"][version][PLACES] for version in (original, left))
        places = {
            place: excess(_number(after[place][error]), _number(before[place][error]))
            for place in before
        }
        # What is unknown is worse than all that is known.
        worst_place = max(places, key=lambda place: (math.isnan(places[place]), places[place]))
        numbers[error] = {
            "frozen": frozen,
            "adapted": adapted,
            "bound": bound,
            "gain_share": gain_share(frozen, adapted, bound),
            "half_gain_s": seconds_to_share(
                timeline, elsewhere, frozen, bound, SMALLEST_GAIN_SHARE
            ),
            "worst_excess": worst_excess(timeline, elsewhere, frozen),
            "forgetting": worst_excess(timeline, known, known[original], begin_s=drive_s),
            "known_worst": worst_excess(timeline, known, known[original]),
            "known_after_b": excess(known[left], known[original]),
            "known_after_a": excess(known[timeline[-1][1]], known[original]),
            "worst_place": worst_place,
            "worst_place_excess": places[worst_place],
        }
    return {"numbers": numbers, "versions": len({v for _, v in timeline}) - 1}


def _largest(values: Iterable[float]) -> float:
    """Return the largest value; NaN where one is, or there is none."""
    found = list(values)
    return math.nan if not found or any(map(math.isnan, found)) else max(found)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
