"""What follows from verdicts: parts of a way, new beginnings, versions.

A guard that says what a test wants stands in for the real one, because sequences of verdicts are
what is tested here; everything else is real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dae_ros.distillation.online.loop import OnlineDistiller
from dae_ros.distillation.online.observation import Refusal
from dae_ros.distillation.online.reports import LoopReport
from dae_ros.distillation.online.verdict import Verdict
from dae_ros.model.checkpoint import LoadedModel
from test.reference.wall_deployment import EchoTeacher, deployment

Judged = Callable[..., list[LoopReport]]
ACCEPTED: tuple[str, ...] = ()


class Saying:
    """Says what it is told to, one verdict after the other."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    def judge(self, *_: Any) -> Verdict:
        return self.verdicts.pop(0)


@pytest.fixture
def distiller(student: LoadedModel, tmp_path: Path) -> Iterator[OnlineDistiller]:
    distiller = deployment(student, EchoTeacher(student, (), 1.2), tmp_path)
    yield distiller
    distiller.close()


@pytest.fixture
def judged(distiller: OnlineDistiller) -> Judged:
    """Let the loop judge, with these reasons one after the other; return its reports."""
    guard = Saying()
    distiller._guard = guard  # type: ignore[assignment]

    def judge(
        *verdicts: tuple[str, ...], worsening: float = 0.0, fits: float = 0.5
    ) -> list[LoopReport]:
        guard.verdicts += [
            Verdict(
                tuple(Refusal(reason, "so") for reason in reasons),
                {"gain": 0.1, "anchor_true_worsening": worsening, "fits": fits},
            )
            for reasons in verdicts
        ]
        return [distiller._judge(index) for index in range(len(verdicts))]

    return judge


def test_harm_counts_until_something_is_published(
    distiller: OnlineDistiller, judged: Judged
) -> None:
    """What is no better between harmful candidates excuses nothing; a publication does."""
    harm, none = ("worse",), ("no_gain",)
    assert [report.reset for report in judged(harm, none, harm, ACCEPTED, harm, harm)] == [""] * 6
    assert distiller.announcement.version == 2
    assert [report.reset for report in judged(none, harm)] == ["", "published"]
    # Without a publication since, the next beginning is from the original.
    assert [report.reset for report in judged(harm, harm, none, harm)][-1] == "original"


def test_harm_is_not_forgotten_by_a_kill(
    distiller: OnlineDistiller, judged: Judged, student: LoadedModel, tmp_path: Path
) -> None:
    """Two harmful verdicts before it and one after it are three."""
    judged(("worse",), ("worse",))
    distiller.close()  # without saving, as a kill does
    again = deployment(student, EchoTeacher(student, (), 1.2), tmp_path)
    assert again._consequences.state()["harmful"] == 2
    again.close()


def test_part_of_a_way_that_forgets_less_is_published(
    distiller: OnlineDistiller, judged: Judged
) -> None:
    """Nine tenths of what fits, three quarters at most; what passes is no harm."""
    forgets = ("forgetting",)
    reports = judged(forgets, forgets, ACCEPTED, worsening=0.03)
    assert [report.part for report in reports] == pytest.approx([1.0, 0.45, 0.45**2])
    assert distiller.announcement.version == 2
    assert [report.part for report in judged(("no_gain",))] == [1.0]
    reports = judged(("scale_step",), ("scale_step",), ACCEPTED, fits=0.99)
    assert [report.part for report in reports] == pytest.approx([1.0, 0.75, 0.75**2])
    # Nothing on the way would fit.
    assert [report.part for report in judged(("scale_step",), ACCEPTED, fits=0.1)] == [1.0, 1.0]


@pytest.mark.parametrize("last", ["forgetting", "no_gain"])
def test_a_way_that_forgets_on_all_its_length_is_harm(judged: Judged, last: str) -> None:
    """Where no part passes, that it forgot counts once; a step that is merely too far does not."""
    parts = [("forgetting",)] * 2 + [(last,)]
    assert [r.reset for r in judged(*parts, *parts, worsening=0.03)] == [""] * 6
    steps = judged(*[("scale_step",)] * 3)
    assert [r.part for r in steps] == pytest.approx([1.0, 0.45, 0.45**2])
    assert [r.reset for r in steps] == [""] * 3
    assert [r.reset for r in judged(*parts, worsening=0.03)] == [""] * 2 + ["published"]


def test_anchors_that_are_far_worse_begin_learning_anew_at_once(judged: Judged) -> None:
    """Five per cent are no matter of a step's length."""
    assert [(r.part, r.reset) for r in judged(("forgetting",), worsening=0.06)] == [
        (1.0, "published")
    ]
