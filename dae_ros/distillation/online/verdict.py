"""What came of a candidate, and what that asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dae_ros.distillation.online.observation import Refusal

# Of the published weights, beside the reasons against a candidate that cannot take their place.
PUBLISHED_WORSE = "published_worse"
# Reasons that say nothing against a candidate but that it is no better, or that nobody knows.
HARMLESS = frozenset(
    {"not_enough_evidence", "nothing_to_compare", "no_gain", "worse_than_original", PUBLISHED_WORSE}
)
# Reasons that a step half as large may not have.
STEPS = frozenset({"scale_step", "flicker", "forgetting"})
# Anchors that are so much worse than with the original are not mended by a smaller step.
FORGOTTEN = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a candidate.

    Attributes:
        refusals: every limit that is broken, with the numbers; none where it is accepted.
        numbers: name -> everything that was measured; see docs/online.md.
    """

    refusals: tuple[Refusal, ...]
    numbers: Mapping[str, float]

    @property
    def accepted(self) -> bool:
        """Whether the candidate may be published."""
        return not self.refusals

    @property
    def reasons(self) -> tuple[str, ...]:
        """Stable words: why not."""
        return tuple(refusal.reason for refusal in self.refusals)

    @property
    def too_far(self) -> bool:
        """Whether it is better beyond doubt and nothing is against it but how far it went.

        What lies between the published weights and these may pass.
        """
        against = set(self.reasons) - {PUBLISHED_WORSE}
        return bool(against) and against <= STEPS and not self.forgotten

    @property
    def fits(self) -> float:
        """At which part of its way it would break no limit if what they limit grew evenly."""
        return self.numbers.get("fits", 1.0)

    @property
    def forgotten(self) -> bool:
        """Whether anchors are worse by so much that learning must begin anew."""
        worsening = [v for name, v in self.numbers.items() if name.endswith("_worsening")]
        return any(not value <= FORGOTTEN for value in worsening)

    @property
    def published_worse(self) -> bool:
        """Whether the published weights are worse than the original, and these no way out."""
        return PUBLISHED_WORSE in self.reasons

    @property
    def harmful(self) -> bool:
        """Whether the candidate would have done harm, which asks for a reset if it repeats."""
        return not self.too_far and not HARMLESS.issuperset(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a number that is none becomes None."""
        return {
            "accepted": self.accepted,
            "harmful": self.harmful,
            "too_far": self.too_far,
            "refusals": [{"reason": r.reason, "detail": r.detail} for r in self.refusals],
            "numbers": {
                name: value if math.isfinite(value) else None
                for name, value in self.numbers.items()
            },
        }


def note_fit(limit: float, value: float, before: float, numbers: dict[str, float]) -> None:
    """Note (`fits`) at which part of the way a limit would hold if what it limits grew evenly.

    Args:
        limit: of the value.
        value: of the candidate, at 1.
        before: of the published weights, at 0.
        numbers: whose `fits` is lowered.
    """
    if not value <= limit:
        part = 0.0 if before >= limit else (limit - before) / (value - before)
        numbers["fits"] = min(numbers.get("fits", 1.0), part)
