"""What is measured on outputs of two sets of weights, on hand-made maps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dae_ros.runtime.canary import Comparison, Observer, StepFacts, SwapRules

RNG = np.random.default_rng(0)
MS = 1_000_000


def facts(median=2.0, spread=1.0, jitter: float | None = 0.1, duration_ms=10.0) -> StepFacts:
    """What one output is like."""
    return StepFacts(median, spread, jitter, round(duration_ms * MS))


def compare(new: list[StepFacts], old: list[StepFacts], **rules: float) -> Comparison:
    """Return a comparison of rows of facts."""
    comparison = Comparison(SwapRules(**rules))
    for one, other in zip(new, old, strict=True):
        comparison.add(one, other)
    return comparison


def test_an_output_is_described_by_its_median_spread_and_jitter() -> None:
    """On constant 4 px blocks the numbers are those of the small map."""
    first = np.array([[1.0, 2.0], [3.0, 6.0]], np.float32)
    moves = np.array([[1.0, 0.0], [0.0, -1.0]], np.float32)
    maps = [first, first + moves, first + 2 * moves, first + 2 * moves + 3.0]
    observer = Observer()
    seen = [observer.observe(np.kron(one, np.ones((4, 4), np.float32)), 7) for one in maps]
    assert (seen[0].median, seen[0].jitter, seen[0].duration_ns) == (2.5, None, 7)
    assert seen[0].spread == pytest.approx(float(first.std()))
    # What moves evenly does not tremble; 3 - moves does, by 2, 3, 3 and 4.
    assert (seen[1].jitter, seen[2].jitter) == (None, 0.0)
    # The last map is 6, 5, 6 and 7: 0.5 off its median 6 in the mean.
    assert seen[3].jitter == pytest.approx(3.0 / 0.5)
    observer.forget()
    assert observer.observe(maps[0], 7).jitter is None
    small = [observer.observe(np.zeros((8, 8), np.float32), 7).jitter for _ in range(3)]
    assert small == [None, None, 0.0], "another size; a constant does not tremble"


def test_neither_scale_nor_contrast_is_jitter() -> None:
    """Twice the depth, and twice its contrast around the mean, tremble as much as before."""
    maps = RNG.normal(5.0, 1.0, (10, 16, 16)).astype(np.float32)
    sharper = maps.mean() + 2.0 * (maps - maps.mean())
    found = []
    for each in (maps, 2.0 * maps, sharper):
        observer = Observer()
        found.append([observer.observe(one, 1).jitter for one in each][2:])
    assert found[1] == pytest.approx(found[0])
    assert found[2] == pytest.approx(found[0], rel=1e-4)


def test_equal_weights_break_no_limit_and_numbers_need_windows() -> None:
    """Nothing is said about seven windows, everything holds over forty."""
    few = compare([facts()] * 7, [facts()] * 7)
    assert few.numbers() == {"pairs": 7}
    many = compare([facts()] * 40, [facts()] * 40)
    assert many.numbers()["log_scale"] == 0.0
    assert many.numbers()["latency"] == 1.0
    assert many.numbers()["flicker"] == pytest.approx(0.1 / 0.101)
    assert (few.breach(), many.breach()) == (None, None)


@pytest.mark.parametrize(
    ("new", "code", "name", "value"),
    [
        ({"median": 2.0 * math.exp(0.21)}, "scale_step", "log_scale", 0.21),
        ({"median": 2.0 * math.exp(-0.21)}, "scale_step", "log_scale", -0.21),
        ({"median": -2.0}, "scale_step", "log_scale", math.inf),
        ({"median": 0.0}, "scale_step", "log_scale", math.inf),
        ({"spread": 0.29}, "dead_output", "spread", 0.29),
        ({"jitter": 0.16}, "flicker", "flicker", 0.16 / 0.101),
        ({"duration_ms": 21.0}, "slow", "latency", 2.1),
    ],
)
def test_each_limit_is_broken_just_beyond_it(
    new: dict[str, float], code: str, name: str, value: float
) -> None:
    """One number beyond its limit names that limit, with the number in the sentence."""
    comparison = compare([facts(**new)] * 20, [facts()] * 20)
    breach = comparison.breach()
    assert breach is not None
    assert breach.code == code
    assert comparison.numbers()[name] == pytest.approx(value)
    generous = {"scale_step": 1e9, "flicker": 1e9, "spread": 0.0, "latency": 1e9}
    if math.isfinite(value):
        assert compare([facts(**new)] * 20, [facts()] * 20, **generous).breach() is None


def test_a_still_camera_does_not_make_small_changes_a_flicker() -> None:
    """Ten times next to nothing is still next to nothing."""
    comparison = compare([facts(jitter=1e-3)] * 20, [facts(jitter=1e-4)] * 20)
    assert comparison.breach() is None


def test_a_busy_machine_is_not_blamed_on_the_weights() -> None:
    """A tenth of slow steps moves the 95 % quantile and not the median: no breach."""
    durations = [10.0] * 36 + [80.0] * 4
    comparison = compare([facts(duration_ms=ms) for ms in durations], [facts()] * 40)
    assert comparison.breach() is None
    assert comparison.numbers()["latency"] == 1.0
