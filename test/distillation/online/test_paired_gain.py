"""How sure a gain is: the bootstrap over blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dae_ros.distillation.online.paired_gain import RESAMPLES, paired_gain
from dae_ros.errors import DistillationError

errors = st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)), min_size=2, max_size=12)


def test_the_interval_is_that_of_all_possible_draws() -> None:
    """With four blocks the 256 draws can be written down; random ones come near their quantiles."""
    better, before = np.array([0.1, 0.18, 0.33, 0.2]), np.array([0.2, 0.2, 0.3, 0.25])
    every = sorted(
        1 - sum(better[i] for i in draw) / sum(before[i] for i in draw)
        for draw in itertools.product(range(4), repeat=4)
    )
    gain = paired_gain(better, before, 0.9, 0)
    assert gain.mean == pytest.approx(1 - 0.81 / 0.95)
    assert gain.lower == pytest.approx(every[int(0.05 * 256)], abs=0.02)
    assert gain.upper == pytest.approx(every[int(0.95 * 256)], abs=0.02)


@settings(max_examples=30, deadline=None)
@given(errors, st.integers(0, 100))
def test_the_interval_holds_the_mean_and_the_blocks_hold_the_interval(
    pairs: list[tuple[float, float]], seed: int
) -> None:
    """No draw is better than the best block alone or worse than the worst."""
    better, before = np.array(pairs).T
    gain = paired_gain(better, before, 0.9, seed)
    blocks = 1 - better / before
    assert blocks.min() - 1e-9 <= gain.lower <= gain.upper <= blocks.max() + 1e-9
    assert gain == paired_gain(better, before, 0.9, seed)


@pytest.mark.parametrize("blocks", [6, 12])
def test_without_a_difference_one_in_ten_passes_at_most(blocks: int) -> None:
    """Two networks with equal expected errors, 600 times; the bound is two deviations above."""
    passed = 0
    for seed in range(600):
        random = np.random.default_rng(seed)
        scene = random.lognormal(-1.5, 0.4, blocks)
        one, other = scene * random.lognormal(0.0, 0.1, (2, blocks))
        gain = paired_gain(one, other, 0.9, seed)
        passed += gain.lower > 0 and gain.mean >= 0.01
    assert passed <= 600 * 0.1 + 2 * (600 * 0.1 * 0.9) ** 0.5


def test_what_blocks_have_in_common_cancels() -> None:
    """Scenes differ by a hundred times, the gain does not: pairs keep it beyond doubt."""
    before = np.array([0.01, 0.03, 0.1, 0.3, 0.6, 1.0])
    gain = paired_gain(0.97 * before, before, 0.9, 0)
    assert (gain.lower, gain.mean, gain.upper) == pytest.approx((0.03, 0.03, 0.03))


def test_a_draw_without_a_reference_shows_no_gain() -> None:
    """Where the reference makes no error on most blocks, nothing is beyond doubt."""
    gain = paired_gain(np.array([0.0, 0.0, 0.1]), np.array([0.0, 0.0, 0.2]), 0.9, 0)
    assert gain.mean == 0.5
    assert gain.lower == -np.inf
    assert RESAMPLES * (2 / 3) ** 3 > 0.05 * RESAMPLES


@pytest.mark.parametrize(
    ("first", "second"),
    [([], []), ([0.1], [0.1, 0.2]), ([np.nan], [0.1]), ([0.1], [np.inf]), ([0.1], [0.0])],
)
def test_errors_that_cannot_be_compared_are_refused(
    first: list[float], second: list[float]
) -> None:
    """Nothing is guessed."""
    with pytest.raises(DistillationError):
        paired_gain(np.array(first), np.array(second), 0.9, 0)
