"""How often the teacher is asked, and when learning holds for want of gain."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dae_ros.distillation.online.expected_gain import ExpectedGain
from dae_ros.distillation.online.observation import Refusal
from dae_ros.distillation.online.stride import FEWEST_REMEMBERED, LabelStride
from dae_ros.distillation.online.verdict import Verdict
from dae_ros.parameters.distillation import OnlineParameters

PARAMETERS = OnlineParameters(
    shortest_stride=2, longest_stride=16, surprise=1.05, smallest_gain_rate=1e-3, retry_s=60.0
)
SECOND = 1_000_000_000


def known_stride(usual: float = 0.2) -> LabelStride:
    stride = LabelStride(PARAMETERS)
    for _ in range(FEWEST_REMEMBERED):
        stride.scored(usual, heldout=True)
    return stride


def test_every_second_frame_is_labelled_at_first() -> None:
    """As long as nobody knows what is usual, labels come at the shortest stride."""
    stride = LabelStride(PARAMETERS)
    assert stride.stride == 2
    for _ in range(FEWEST_REMEMBERED):
        stride.scored(0.2, heldout=True)
        assert stride.surprised
        assert stride.stride == 2


def test_the_stride_doubles_while_the_student_is_right_and_halves_where_it_is_not() -> None:
    """Within five per cent of the usual error, up to 16 frames, and back."""
    stride = known_stride()
    strides = []
    for error in (0.2, 0.209, 0.1, 0.1, 0.211, 0.3, math.nan, 0.4):
        stride.scored(error, heldout=False)
        strides.append(stride.stride)
    assert strides == [4, 8, 16, 16, 8, 4, 2, 2]
    assert stride.surprised
    stride.scored(0.2, heldout=False)
    assert not stride.surprised
    assert stride.stride == 4


def test_only_what_is_held_out_says_what_is_usual() -> None:
    """Errors on clips that will be learned from fall by learning; they would hide a change."""
    stride = known_stride(0.2)
    for _ in range(100):
        stride.scored(0.02, heldout=False)
    stride.scored(0.2, heldout=False)
    assert not stride.surprised
    for _ in range(100):
        stride.scored(0.4, heldout=True)
    stride.scored(0.41, heldout=False)
    assert not stride.surprised


def test_other_weights_begin_anew() -> None:
    """What was usual for the old ones is not for the new."""
    stride = known_stride()
    stride.scored(0.1, heldout=False)
    stride.forget()
    assert (stride.stride, stride.surprised) == (2, True)
    stride.scored(0.1, heldout=False)
    assert stride.surprised


@given(st.lists(st.tuples(st.floats(), st.booleans()), max_size=60))
def test_the_stride_stays_within_its_bounds(labels: list[tuple[float, bool]]) -> None:
    """Whatever the errors are, not finite ones included."""
    stride = LabelStride(PARAMETERS)
    for error, heldout in labels:
        stride.scored(error, heldout=heldout)
        assert 2 <= stride.stride <= 16


def verdict(gain: float, *, accepted: bool = False) -> Verdict:
    return Verdict(() if accepted else (Refusal("no_gain", "none"),), {"gain": gain})


def judged(gain: ExpectedGain, *gains: float) -> ExpectedGain:
    for value in gains:
        gain.worked(10 * SECOND)
        gain.judged(verdict(value))
    return gain


def test_learning_holds_where_three_verdicts_show_too_little_for_their_work() -> None:
    """0.9 % in 30 s of work is less than the 0.1 % per second asked for; no label surprises."""
    gain = judged(ExpectedGain(PARAMETERS), 0.002, 0.005)
    assert gain.update(0, surprised=False) is None
    judged(gain, 0.009)
    assert gain.rate_per_s == pytest.approx(3e-4)
    refusal = gain.update(0, surprised=False)
    assert refusal is not None
    assert refusal.reason == "small_gain"


def test_it_goes_on_where_there_is_enough_to_gain_or_a_label_surprises() -> None:
    """4 % in 30 s; and a surprise, which nothing measured speaks against."""
    assert judged(ExpectedGain(PARAMETERS), 0.01, 0.03, 0.04).update(0, surprised=False) is None
    assert judged(ExpectedGain(PARAMETERS), 0.0, 0.0, 0.0).update(0, surprised=True) is None


@pytest.mark.parametrize("surprised", [False, True])
def test_a_hold_ends_with_a_surprise_or_after_a_while(surprised: bool) -> None:
    """And three new verdicts are needed before the next."""
    gain = judged(ExpectedGain(PARAMETERS), 0.0, 0.0, 0.0)
    assert gain.update(0, surprised=False) is not None
    assert gain.update(59 * SECOND, surprised=False) is not None
    end_ns = (59 if surprised else 60) * SECOND
    assert gain.update(end_ns, surprised=surprised) is None
    judged(gain, 0.0, 0.0)
    assert gain.update(end_ns, surprised=False) is None
    judged(gain, 0.0)
    assert gain.update(end_ns, surprised=False) is not None


def test_a_publication_begins_a_new_account() -> None:
    """The work before it has paid; verdicts without evidence count nothing."""
    gain = judged(ExpectedGain(PARAMETERS), 0.0, 0.0)
    gain.judged(verdict(0.02, accepted=True))
    judged(gain, 0.0, 0.0)
    gain.judged(Verdict((Refusal("not_enough_evidence", "none"),), {"heldout_blocks": 2}))
    assert gain.update(0, surprised=False) is None
    judged(gain, 0.0)
    assert gain.update(0, surprised=False) is not None
