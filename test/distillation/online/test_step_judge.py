"""Which steps are broken, and when a copy is given up."""

from __future__ import annotations

import math

from dae_ros.distillation.online.step_judge import StepJudge


def test_jumps_of_the_gradient_are_refused_until_they_are_usual() -> None:
    """Ten times the running median is a jump; after half a window of them it is the median."""
    judge = StepJudge(10.0)
    assert [judge.gradient(norm) for norm in [1e6, *[1.0] * 9]] == ["accepted"] * 10
    assert judge.gradient(10.1) == "gradient_jump" and judge.gradient(9.9) == "accepted"
    assert judge.gradient(math.nan) == judge.gradient(math.inf) == "not_finite"
    refused = 0
    while judge.gradient(50.0) != "accepted":
        refused += 1
    assert 5 < refused < 60


def test_divergence_is_seen_in_losses_and_in_refusals() -> None:
    """Losses three times those before, or twenty broken steps in a row; not one bad loss."""
    judge = StepJudge(10.0)
    assert not any(judge.diverges("accepted", 1.0) for _ in range(60))
    assert not judge.diverges("accepted", 30.0)
    assert any(judge.diverges("accepted", 4.0) for _ in range(20))
    judge.forget_losses()
    assert not any(judge.diverges("not_finite", math.nan) for _ in range(19))
    assert not any(judge.diverges("no_label", math.nan) for _ in range(5))
    copied = StepJudge(10.0)
    copied.restore(judge.state())
    assert copied.diverges("not_finite", math.nan) and judge.diverges("gradient_jump", 1.0)
