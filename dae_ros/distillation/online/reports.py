"""What the loop says about itself: after each piece of work, and at any time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from dae_ros.distillation.online.health import Health
from dae_ros.distillation.online.observation import LabelledClip, Refusal
from dae_ros.distillation.online.verdict import Verdict
from dae_ros.events.frame import FrameStamp
from dae_ros.runtime.announcement import Announcement


@dataclass(frozen=True)
class StepReport:
    """What a step did.

    Attributes:
        step: as given.
        accepted: whether the weights moved.
        reason: `accepted`, or why they did not: `no_label`, `contradicted` (every label was refused
            for what the copy says there), `not_finite`, `gradient_jump`.
        intervention: `soft_reset`, `average_restored` or `hard_reset` where the step ended with
            one, else ''.
        loss: mean over clips with a label; NaN without.
        parts: name -> mean value of a term before its weight.
        gradient_norm: before clipping.
        learning_rate: of the head.
        labels: windows whose label was used.
        verdicts: labels by what came of them.
    """

    step: int
    accepted: bool
    reason: str
    intervention: str
    loss: float
    parts: Mapping[str, float]
    gradient_norm: float
    learning_rate: float
    labels: int
    verdicts: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class LabelReport:
    """What came of one clip.

    Attributes:
        clip: with its label; None where the label gate refused it.
        refusal: why the clip is not kept; None where it is.
        split: the side that keeps it, `train` or `heldout`; '' where none does.
        error: Abs Rel of the published weights against the label, before anything is learned from
            it: in metres where both give metres, else after alignment. NaN without a label.
        frame: of the camera, that the clip's last label is of; None without a label.
    """

    clip: LabelledClip | None
    refusal: Refusal | None
    split: str
    error: float
    frame: FrameStamp | None


@dataclass(frozen=True, slots=True, eq=False)
class LoopReport:
    """What one piece of work did.

    Attributes:
        action: `labelled`, `learned` or `judged`.
        label, step, verdict: the result; only that of the action is there.
        part: of a judged candidate: how far it lies from the published weights (0) to what was
            learned (1).
        reset: `published` or `original`, where learning began anew from these; else ''.
        announcement: to be told to depth; None where nothing changed.
    """

    action: Literal["labelled", "learned", "judged"]
    label: LabelReport | None = None
    step: StepReport | None = None
    verdict: Verdict | None = None
    part: float = 1.0
    reset: str = ""
    announcement: Announcement | None = None

    def numbers(self) -> dict[str, float]:
        """Return what a curve can be drawn of, finite numbers only."""
        found: dict[str, float] = {}
        if self.label is not None:
            found = {"error": self.label.error}
        elif self.step is not None:
            found = {
                "loss": self.step.loss,
                "gradient_norm": self.step.gradient_norm,
                "learning_rate": self.step.learning_rate,
                "labels": self.step.labels,
                **{f"loss_{name}": value for name, value in self.step.parts.items()},
            }
        elif self.verdict is not None:
            found = {"accepted": float(self.verdict.accepted), "part": self.part}
            found |= self.verdict.numbers
        return {name: value for name, value in found.items() if math.isfinite(value)}


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """How learning is doing.

    Attributes:
        health: whether it learns, and why not.
        version, sha256: what is published.
        steps, accepted_steps: tried, and those that moved the weights.
        saved_step: accepted steps that a kill does not cost.
        loss: of the last step; NaN before.
        error: Abs Rel of the published weights on the last label; NaN before.
        stride: frames from one label to the next.
        clips, heldout_blocks, anchors: clips to learn from, blocks to judge by, anchors.
        tier: what learns.
        published, verdicts, resets, rollbacks: how often.
        last_verdict: reasons of the last refused candidate, `accepted`, or ''.
        counts: everything that was counted: `frame.<reason>`, `label.<reason>`,
            `replay.<reason>`, `step.<reason>`, `verdict.<reason>`.
        problem: what could not be written last; '' where all was.
    """

    health: Health
    version: int
    sha256: str
    steps: int
    accepted_steps: int
    saved_step: int
    loss: float
    error: float
    stride: int
    clips: int
    heldout_blocks: int
    anchors: int
    tier: int
    published: int
    verdicts: int
    resets: int
    rollbacks: int
    last_verdict: str
    counts: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a number that is none becomes None."""
        values = {**asdict(self), "health": self.health.text, "detail": self.health.detail}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """How live learning is doing.

    Attributes:
        health: of everything: the loop's, or why it may not work.
        loop: None as long as teacher or folder are missing.
        duty: share of the time that learning may take.
        rest_ns: until work may begin; None where nothing says when.
        depth_version: of the weights that depth has; None as long as it has not said.
        depth_verdict: the last one of depth, in words.
        counts: `clock_jump`, `other_clock` (frames that were left out), `abandoned` (pieces of
            work that gave way).
    """

    health: Health
    loop: LoopStatus | None
    duty: float
    rest_ns: int | None
    depth_version: int | None
    depth_verdict: str
    counts: Mapping[str, int]
