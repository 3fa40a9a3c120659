"""What a candidate forgot: errors on anchors beside the original's, whatever was published since.

Little is forgotten everywhere, or much in few places: a room becomes several times too far, while
the mean over sixty hardly rises. So the mean is limited, and what becomes of each place.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dae_ros.distillation.online.comparison import Trio, aligned_error, deciding_error, ratio
from dae_ros.distillation.online.observation import GROUND_TRUTH, LabelledClip, Refusal
from dae_ros.distillation.online.verdict import note_fit
from dae_ros.parameters.distillation import OnlineParameters


def forgetting(
    anchors: Sequence[tuple[LabelledClip, Trio]],
    limits: OnlineParameters,
    numbers: dict[str, float],
) -> list[Refusal]:
    """Return a refusal if more is forgotten than the limits allow.

    Args:
        anchors: each with what three networks make of it.
        limits: those of forgetting.
        numbers: gets what is measured, and `fits`.
    """
    groups: dict[str, list[Trio]] = {"true": [], "taught": [], "unlabelled": []}
    for clip, trio in anchors:
        taught = "true" if clip.teacher == GROUND_TRUTH else "taught"
        groups[taught if trio.labelled else "unlabelled"].append(trio)
    found: list[str] = []
    if groups["true"]:
        found += _mean_rises(groups["true"], "true", limits.largest_true_forgetting, numbers)
        found += _place_is_lost(groups["true"], limits.largest_place_forgetting, numbers)
    if groups["taught"]:
        # Clips of the deployment, by a teacher's word: one of them says little.
        found += _mean_rises(groups["taught"], "taught", limits.largest_forgetting, numbers)
    if groups["unlabelled"]:
        found += _departs(groups["unlabelled"], limits, numbers)
    return [Refusal("forgetting", "; ".join(found))] if found else []


def _mean_rises(
    trios: list[Trio], name: str, limit: float, numbers: dict[str, float]
) -> Iterator[str]:
    """Compare mean errors, in metres and in shape."""
    found = []
    for kind, score in (("", deciding_error), ("aligned_", aligned_error)):
        errors = {
            who: statistics.fmean(score(trio, who) for trio in trios)
            for who in ("candidate", "published", "original")
        }
        numbers |= {f"anchor_{name}_{kind}abs_rel_{who}": error for who, error in errors.items()}
        worse = ratio(errors["candidate"], errors["original"]) - 1.0
        numbers[f"anchor_{name}_{kind}worsening"] = worse
        note_fit(limit, worse, ratio(errors["published"], errors["original"]) - 1.0, numbers)
        found.append(worse)
    if not all(worse <= limit for worse in found):
        yield (
            f"the error on anchors with {name} depth is {found[0]:+.2%} off the original's "
            f"({found[1]:+.2%} in shape), and {limit:.2%} is allowed"
        )


def _place_is_lost(trios: list[Trio], limit: float, numbers: dict[str, float]) -> Iterator[str]:
    """Compare the errors of each place, in metres and in shape."""
    found = []
    for kind, score in (("", deciding_error), ("aligned_", aligned_error)):
        worst = _worst(trios, partial(_rise, score), limit, numbers)
        numbers[f"anchor_true_{kind}worst"] = worst
        found.append(worst)
    if not all(worst <= limit for worst in found):
        yield (
            f"the error in one of {len(trios)} places with true depth is {found[0]:+.1%} off the "
            f"original's (in one {found[1]:+.1%} in shape), and {limit:.1%} is allowed"
        )


def _departs(
    trios: list[Trio], limits: OnlineParameters, numbers: dict[str, float]
) -> Iterator[str]:
    """Compare depth with the original's, which is the label where there is none."""
    departure = statistics.fmean(_departure(trio, "candidate") for trio in trios)
    before = statistics.fmean(_departure(trio, "published") for trio in trios)
    numbers["anchor_departure"] = departure
    note_fit(limits.largest_departure, departure, before, numbers)
    if not departure <= limits.largest_departure:
        yield (
            f"depth on anchors without a label is {departure:.2%} off the original's, and "
            f"{limits.largest_departure:.2%} is allowed"
        )
    worst = _worst(trios, _departure, limits.largest_place_forgetting, numbers)
    numbers["anchor_departure_worst"] = worst
    if not worst <= limits.largest_place_forgetting:
        yield (
            f"depth in one of {len(trios)} places without a label is {worst:.1%} off the "
            f"original's, and {limits.largest_place_forgetting:.1%} is allowed"
        )


def _worst(
    trios: list[Trio],
    lost: Callable[[Trio, str], float],
    limit: float,
    numbers: dict[str, float],
) -> float:
    """Return the largest of what the candidate lost in one place; a NaN is larger than all."""
    values = [(lost(trio, "candidate"), lost(trio, "published")) for trio in trios]
    for value, before in values:
        note_fit(limit, value, before, numbers)
    return max((value for value, _ in values), key=lambda value: (value != value, value))


def _rise(score: Callable[[Trio, str], float], trio: Trio, who: str) -> float:
    """Return by which part of the original's error that of another network is above it."""
    return ratio(score(trio, who), score(trio, "original")) - 1.0


def _departure(trio: Trio, who: str) -> float:
    """Return the error against the original, which has none of its own."""
    return 0.0 if getattr(trio, who) is trio.original else deciding_error(trio, who)
