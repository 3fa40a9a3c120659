"""Pairing predictions with ground truth by their stamps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dae_ros.errors import ConfigurationError
from dae_ros.evaluation.stamp_matcher import Match, StampMatcher

stamps = st.lists(st.integers(0, 300), unique=True, max_size=25).map(sorted)


def run(predictions, truths, order, tolerance_ns):
    """Feed both streams in the order of the choices; return (prediction, truth) pairs."""
    matcher = StampMatcher(tolerance_ns)
    left, right = list(predictions), list(truths)
    found = []
    for first in [*order, *[True] * 60]:
        if left and (first or not right):
            stamp = left.pop(0)
            found += matcher.add_prediction(stamp, stamp)
        elif right:
            stamp = right.pop(0)
            found += matcher.add_truth(stamp, stamp)
    found += matcher.flush()
    return found, matcher


def oracle(predictions, truths, tolerance):
    """With everything known: one prediction after another takes its truth if it is the nearest."""
    pairs = []
    free = sorted(truths)
    waiting = sorted(predictions)
    while waiting:
        p = waiting[0]
        near = sorted((abs(t - p), t) for t in free if abs(t - p) <= tolerance)
        if near:
            t = near[0][1]
            if sorted((abs(q - t), q) for q in waiting)[0][1] == p:
                pairs.append((p, t))
                free = [other for other in free if other > t]
        waiting = waiting[1:]
    return pairs


def test_the_closest_truth_within_tolerance_is_taken() -> None:
    """Hand-made stamps: exact, late, early, too far; offsets are prediction minus truth."""
    found, matcher = run([100, 205, 290, 400, 480], [100, 200, 300, 440], [True] * 9, 10)
    assert found == [Match(100, 100, 100, 0), Match(205, 200, 200, 5), Match(290, 300, 300, -10)]
    assert (matcher.unmatched_predictions, matcher.unmatched_truths) == (2, 1)


def test_a_truth_goes_to_the_nearer_of_two_predictions() -> None:
    """With predictions every 10 and truths every 50, each truth has one, the nearest."""
    predictions = list(range(0, 200, 10))
    found, _ = run(predictions, [3, 54, 105, 156], [False] * 4, 25)
    assert [(m.prediction, m.truth) for m in found] == [(0, 3), (50, 54), (100, 105), (160, 156)]


def test_an_exact_pair_comes_out_at_once() -> None:
    """Live, a prediction and a truth of one stamp are scored when the second of them arrives."""
    matcher: StampMatcher[str, str] = StampMatcher(50)
    assert matcher.add_truth(1000, "t") == []
    assert matcher.add_prediction(1000, "p") == [Match("p", "t", 1000, 0)]
    assert matcher.add_prediction(1100, "q") == []
    assert matcher.add_truth(1100, "u") == [Match("q", "u", 1100, 0)]


@given(stamps, stamps, st.lists(st.booleans(), max_size=50), st.integers(0, 40))
def test_pairs_do_not_depend_on_which_stream_comes_first(predictions, truths, order, tolerance):
    """Any interleaving gives the pairs of a search over everything; counts add up."""
    found, matcher = run(predictions, truths, order, tolerance)
    assert [(m.prediction, m.truth) for m in found] == oracle(predictions, truths, tolerance)
    assert matcher.unmatched_predictions == len(predictions) - len(found)
    assert matcher.unmatched_truths == len(truths) - len(found)


def test_a_stream_that_stays_alone_is_bounded() -> None:
    """Without predictions truths do not pile up; a later pair is still found."""
    matcher: StampMatcher[int, int] = StampMatcher(5, limit=3)
    for stamp in range(0, 1000, 10):
        assert matcher.add_truth(stamp, stamp) == []
    assert matcher.unmatched_truths == 97
    assert matcher.add_prediction(980, 980) == [Match(980, 980, 980, 0)]


def test_time_that_runs_back_begins_again() -> None:
    """When a recording loops, what waited is given up and the second pass is matched."""
    matcher: StampMatcher[int, int] = StampMatcher(5)
    matcher.add_truth(900, 900)
    assert matcher.add_truth(100, 100) == []
    assert matcher.add_prediction(100, 100) == [Match(100, 100, 100, 0)]
    assert matcher.unmatched_truths == 1


def test_nonsense_is_refused() -> None:
    """A negative tolerance and no room are errors."""
    for tolerance, limit in ((-1, 5), (5, 0)):
        with pytest.raises(ConfigurationError, match="tolerance"):
            StampMatcher(tolerance, limit)
