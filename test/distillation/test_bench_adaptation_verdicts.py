"""The arithmetic of the adaptation benchmark: from versions and scores to claims and tables."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from benchmarks.adaptation.report import markdown, safety_lines, safety_plot, shift_plot
from benchmarks.adaptation.safety import summary, verdict_on
from benchmarks.adaptation.verdicts import (
    FEWEST_SEEDS,
    gain_share,
    live_at,
    recovery_s,
    seconds_to_share,
    shift_claims,
    summary_of_seed,
    timeline_of,
    worst_excess,
)
from benchmarks.adaptation.wall import wall_plot
from benchmarks.adaptation.way import WAY_PARTS, way_plot
from benchmarks.bench_adaptation import _plain

# Depth had 1, then 2, took 2 back, and later had 3.
SWAPS = [
    {"at_s": 70.0, "version": 2, "live_version": 2, "outcome": "swapped", "code": "replayed"},
    # What depth was started with has no number.
    {"at_s": 71.0, "version": 2, "live_version": 0, "outcome": "rolled_back", "code": "flicker"},
    {"at_s": 80.0, "version": 3, "live_version": 1, "outcome": "refused", "code": "scale_step"},
    {"at_s": 90.0, "version": 4, "live_version": 4, "outcome": "swapped", "code": "replayed"},
    {"at_s": 92.0, "version": 4, "live_version": 4, "outcome": "kept", "code": "canary"},
]
TIMELINE = [(0.0, 1), (70.0, 2), (71.0, 1), (90.0, 4)]
ERRORS = {1: 0.40, 2: 0.44, 4: 0.30}


def test_a_timeline_says_what_depth_had() -> None:
    """A version that was taken back was in use until then; one that was refused never was."""
    assert timeline_of(1, SWAPS) == TIMELINE
    assert [live_at(TIMELINE, s) for s in (0.0, 70.5, 89.9, 90.0, 500.0)] == [1, 2, 1, 4, 4]


def test_a_bad_second_is_not_forgiven() -> None:
    """The worst excess counts every version, however short, but not those of another time."""
    assert worst_excess(TIMELINE, ERRORS, 0.40) == pytest.approx(0.1)
    assert worst_excess(TIMELINE, ERRORS, 0.40, begin_s=71.0) == 0.0
    assert worst_excess(TIMELINE, ERRORS, 0.40, begin_s=95.0) == pytest.approx(-0.25)
    assert worst_excess(TIMELINE, ERRORS, 0.40, end_s=70.0) == 0.0
    assert math.isnan(worst_excess([(0.0, 1)], {1: math.nan}, 0.4))


def test_the_share_of_the_gain() -> None:
    """Half of the way to the bound is 0.5; where nothing can be gained there is no share."""
    assert gain_share(0.40, 0.30, 0.20) == pytest.approx(0.5)
    assert gain_share(0.40, 0.44, 0.20) == pytest.approx(-0.2)
    assert math.isnan(gain_share(0.40, 0.30, 0.40))
    assert seconds_to_share(TIMELINE, ERRORS, 0.40, 0.20, 0.5) == 90.0
    assert seconds_to_share(TIMELINE, ERRORS, 0.40, 0.20, 0.6) is None


def test_claims_are_of_the_worst_seed_and_of_mean_gains() -> None:
    """A claim that nothing was measured of does not hold."""
    seed = {"frozen": 0.4, "adapted": 0.3, "bound": 0.2, "worst_excess": 0.01, "forgetting": 0.0}
    better = {**seed, "adapted": 0.28}
    claims = shift_claims([*[better] * 4, {**better, "adapted": 0.3, "forgetting": 0.03}], 5)
    assert [claim.met for claim in claims] == [True, True, True, False]
    assert claims[1].value == pytest.approx(0.58) and claims[3].value == 0.03
    # Where one of them is unknown, whichever it is.
    unknown = {**seed, "worst_excess": math.nan}
    for seeds in ([*[seed] * 4, unknown], [unknown, *[seed] * 4]):
        assert not shift_claims(seeds, 5)[2].met


def test_no_claim_is_met_with_fewer_seeds_than_declared() -> None:
    """Refused ones are missing like those that are not done; fewer than five are never enough."""
    seed = {"frozen": 0.4, "adapted": 0.2, "bound": 0.2, "worst_excess": 0.0, "forgetting": 0.0}
    assert all(claim.met for claim in shift_claims([seed] * 6, 6))
    for measured, declared in ((5, 6), (1, 1), (FEWEST_SEEDS - 1, 2), (0, 5)):
        claims = shift_claims([seed] * measured, declared)
        assert not any(claim.met for claim in claims)
        assert claims[0].value == measured and claims[0].limit == max(declared, 5)


def test_recovery_is_a_label_and_a_step_after_the_fault() -> None:
    """Steps alone, on labels of before, are none."""
    samples: list[dict[str, Any]] = [
        {"at_s": 10.0, "labels": 5, "steps": 7},
        {"at_s": 20.0, "labels": 5, "steps": 9},
        {"at_s": 30.0, "labels": 6, "steps": 9},
        {"at_s": 40.0, "labels": 6, "steps": 10},
    ]
    assert recovery_s(samples, 15.0) == 25.0
    assert recovery_s(samples, 35.0) is None


def test_a_seed_is_summed_up_where_b_ends() -> None:
    """What is published in A counts for forgetting and for excess, not for the gain.

    What was given up before B was left, nobody had in A: it is told apart.
    """
    scores = {
        "elsewhere": {v: {"aligned_abs_rel": e, "metric_abs_rel": e} for v, e in ERRORS.items()},
        "known": {
            v: {
                "aligned_abs_rel": e,
                "metric_abs_rel": None,
                "places": {
                    place: {"aligned_abs_rel": own, "metric_abs_rel": 0.1}
                    for place, own in {"room": e, "lost": worst}.items()
                },
            }
            for v, e, worst in ((1, 0.2, 0.1), (2, 0.21, 0.4), (4, 0.204, 0.15))
        },
    }
    offline = {"aligned_abs_rel": 0.2, "metric_abs_rel": 0.2}
    found = summary_of_seed(TIMELINE, scores, offline, drive_s=85.0)
    numbers = found["numbers"]["aligned_abs_rel"]
    assert numbers["adapted"] == 0.40 and numbers["gain_share"] == 0.0
    assert numbers["forgetting"] == pytest.approx(0.02) and numbers["known_after_b"] == 0.0
    assert numbers["known_worst"] == pytest.approx(0.05)
    assert numbers["worst_place_excess"] == 0.0
    assert found["versions"] == 2
    assert math.isnan(found["numbers"]["metric_abs_rel"]["forgetting"])


def test_a_place_that_is_lost_is_named() -> None:
    """Not the one with the largest error, but the one whose error rose most; in its own error."""
    errors = {"aligned_abs_rel": 0.2, "metric_abs_rel": 0.3}
    before = {"far": {"aligned_abs_rel": 0.5, "metric_abs_rel": 0.6},
              "lost": {"aligned_abs_rel": 0.1, "metric_abs_rel": 0.2}}  # fmt: skip
    after: dict[str, dict[str, Any]] = {"lost": {"aligned_abs_rel": 0.15, "metric_abs_rel": 0.2},
             "far": {"aligned_abs_rel": 0.55, "metric_abs_rel": 0.66}}  # fmt: skip
    known = {1: {**errors, "places": before}, 4: {**errors, "places": after}}
    scores = {"elsewhere": dict.fromkeys((1, 4), errors), "known": known}
    found = summary_of_seed([(0.0, 1), (90.0, 4)], scores, errors, drive_s=95.0)["numbers"]
    worst = {
        e: (n["worst_place"], pytest.approx(n["worst_place_excess"])) for e, n in found.items()
    }
    assert worst == {"aligned_abs_rel": ("lost", 0.5), "metric_abs_rel": ("far", 0.1)}
    after["lost"]["aligned_abs_rel"] = None
    found = summary_of_seed([(0.0, 1), (90.0, 4)], scores, errors, drive_s=95.0)["numbers"]
    assert found["aligned_abs_rel"]["worst_place"] == "lost"


def test_results_become_a_table_and_pictures() -> None:
    """Also where a seed is refused and a fault never recovered; JSON holds no NaN."""
    number = {"aligned_abs_rel": 0.4, "metric_abs_rel": 0.5, "aligned_delta_1": 0.3}
    scores = {"elsewhere": number, "known": {**number, "places": {"0001_room_2301": number}}}
    found = summary_of_seed(
        TIMELINE,
        {part: dict.fromkeys(ERRORS, scores[part]) for part in ("elsewhere", "known")},
        number,
        85.0,
    )
    shift = {"teacher": scores, "student": scores,
             "lead": {"aligned_abs_rel": 0.05, "metric_abs_rel": None}}  # fmt: skip
    machine = {"cpu": {"model": "a processor", "usable_cores": 2}}
    made = {"date": "2026-11-23T00:00:00+00:00", "commit": "0123456789",
            "uncommitted_changes": False, "machine": machine}  # fmt: skip
    seeds = [
        {"seed": 0, "kind": "street", "made": made, "shift": shift, "timeline": TIMELINE,
         "wall_s": 60.0,
         "work": [[70.0, 10.0], [90.0, 50.0]], "windows": 2000, "depth_s": 40.0,
         "cost": {"learned": 30.0, "judged": 20.0},
         "scores": {str(v): scores for v in ERRORS}, "offline": {**scores, "minutes": 2.0},
         **found},
        {"seed": 1, "kind": "warehouse", "shift": shift,
         "made": {**made, "uncommitted_changes": True}},
    ]  # fmt: skip
    run = {
        "original": 1, "begun_with": 1, "swaps": SWAPS, "seconds": 95.0,
        "cost": {"learned": 2.0}, "depth_s": 1.0,
        "samples": [
            {"at_s": 5.0, "labels": 1, "steps": 1, "state": "active",
             "counts": {"label.noisy": 1, "label.accepted": 3}},
            {"at_s": 70.0, "labels": 1, "steps": 1, "state": "active",
             "counts": {"label.noisy": 5, "label.accepted": 5, "step.accepted": 2}},
        ],
        "versions": [{"at_s": 70.0, "version": 2, "why": "published"}],
        "verdicts": [{"at_s": 70.0, "accepted": True, "refusals": []},
                     {"at_s": 74.0, "accepted": False, "refusals": [{"reason": "no_gain"}]},
                     {"at_s": 80.0, "accepted": False, "refusals": [{"reason": "worse"}]}],
    }  # fmt: skip
    fault = {
        "kind": "late",
        "made": made,
        **summary("noisy", run, dict.fromkeys(ERRORS, scores), 60.0, 75.0),
    }
    assert fault["published"] == {"before": 0, "during": 1, "after": 0}
    assert fault["refused"] == {"label.noisy": 4} and not fault["harmless"]
    assert (fault["labels"], fault["proposed"], fault["accepted"]) == (2, 2, 1)
    assert fault["verdicts"] == {"no_gain": 1}
    claims = {e: [c.to_json() for c in shift_claims([found["numbers"][e]], 2)]
              for e in ("aligned_abs_rel", "metric_abs_rel")}  # fmt: skip
    at = {"aligned_abs_rel": -0.25, "metric_abs_rel": 0.5}
    worst = {"worst_place": {"place": "0001_room_2301", "excess": 0.75}}
    way = {
        "seed": 0,
        "candidate_part": 0.9,
        "made": made,
        "rows": [{"part": part, "elsewhere": at, "known": {**at, **worst}} for part in WAY_PARTS],
    }
    results = _plain(
        {
            "student": {"kinds": ["room"]}, "steps_per_s": 2.5, "refused_seeds": [1],
            "declared_seeds": [0, 1, 2], "claims": claims,
            "lengths": {"drive_s": 85.0, "return_s": 15.0}, "seeds": seeds,
            "safety": [fault], "safety_verdict": verdict_on([fault]), "way": [way],
            "healthy": [{"published_s": 70.0, "seconds": 75.0}],
            "controls": [{"submitted": 1, "accepted": 0, "unjudged": 0, "heldout_blocks": 6,
                          "anchors": 2, "made": made, "rows": [
                              {"kind": "noise", "size": 0.1, "submitted": 1, "accepted": 0,
                               "reasons": {"worse": 1}}]}],
        }
    )  # fmt: skip
    json.dumps(results, allow_nan=False)
    text = markdown(results)
    assert "| 1 | warehouse | aligned | 0.400 | 0.400 | refused" in text
    assert "| 0.5 | not yet: 1 of 5 seeds |" in text
    assert "Seed 1 was refused" in text and "Seed 2 is not done" in text
    assert "| late: noisy | 2, 4 | 2, 1 | no_gain 1 | 0, 1, 0 | 2 |" in text and "never" in text
    assert "Harmful: late_noisy." in text and "early_doubled" in text
    assert "| noise | 0.1 | 1 | 0" in text
    assert "| seed 0 | 2026-11-23T00:00:00+00:00 | 0123456 | a processor, 2 |" in text
    assert "| seed 1 | 2026-11-23T00:00:00+00:00 | 0123456 with changes |" in text
    assert "| late: noisy | 2026" in text and "| weights that are worse on purpose | 2026" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| 0 |")}
    assert widths == {15, 8}  # as many as their headings
    assert "| 0 | 20.0 | 30, 20, 0, 0 | never | never | never | 2.2 min |" in text
    assert "| 0 | **0.9** | -25.0% | +50.0% | -25.0% | +50.0% | +75.0% (0001_room_2301) |" in text
    assert "| way of seed 0 | 2026" in text
    silent = {
        **results,
        "way": [],
        "safety": [],
        "controls": [],
        "healthy": [{"published_s": None, "seconds": 225.0}],
    }
    assert "Nothing was published in 225 s without a fault: none was made" in markdown(silent)
    assert "## Faults" not in markdown({**silent, "healthy": []})
    assert wall_plot(results).shape == (440, 800, 3)
    assert shift_plot(results).shape == (5 * 440, 800, 3)
    assert way_plot(results).shape == (2 * 440, 800, 3)
    assert "The way" not in markdown(silent)
    assert safety_plot(results).shape == (2 * 440, 800, 3)


def test_the_worst_fault_of_each_second_is_drawn() -> None:
    """By hand: in percent above the original, faults apart from what goes well, short ones too."""
    errors = {"1": 0.5, "2": 0.4, "3": 0.6}
    cases: list[dict[str, Any]] = [
        {"fault": "none", "seconds": 3.5, "errors": errors, "timeline": [[0.0, 1], [1.5, 2]]},
        {"fault": "noisy", "seconds": 3.0, "errors": errors,
         "timeline": [[0.0, 1], [0.6, 3], [1.2, 1]]},
        {"fault": "slow", "seconds": 4.0, "errors": {"1": 0.5}, "timeline": [[0.0, 1]]},
    ]  # fmt: skip
    lines = safety_lines(cases)
    assert {seconds[-1] for seconds, _ in lines.values()} == {2.0}
    assert {name: [round(value) for value in values] for name, (_, values) in lines.items()} == {
        "no fault": [0, 0, -20], "worst of 2 faults": [0, 20, 0], "best of 2 faults": [0, 0, 0],
        "limit": [2, 2, 2],
    }  # fmt: skip
    assert list(safety_lines([])) == ["limit"]
