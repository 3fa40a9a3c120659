"""What follows from the verdicts about candidates, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from dae_ros.distillation.online.verdict import Verdict

# A candidate that went too far is tried again at this much of the part of its way where all limits
# would hold if what they limit grew evenly; at most at `LARGEST_SHARE` of the last try.
MARGIN, LARGEST_SHARE = 0.9, 0.75
# What is less of the whole way is not worth a judgement.
SMALLEST_PART = 0.1
# Harmful candidates after which learning begins anew from the published weights, or from the
# original where that has happened without a publication. What is merely no better between them is
# no excuse: only a publication, or a new beginning, starts the count anew.
HARMFUL_VERDICTS = 3

Consequence: TypeAlias = Literal[
    "publish", "take_back", "smaller_step", "begin_at_published", "begin_at_original", "go_on"
]


class Consequences:
    """Decides what follows from a verdict, and remembers harm.

    Attributes:
        part: how far the next candidate to judge lies from the published weights (0) to what was
            learned (1).
    """

    def __init__(self) -> None:
        self.part = 1.0
        self._forgets = False  # whether what is tried in parts forgot too much as a whole
        self._harmful = self._resets = 0

    def of(self, verdict: Verdict) -> Consequence:
        """Return what follows from the verdict about the candidate at `part`.

        Returns:
            `publish` it; `take_back` the published weights, which are worse than the original;
            judge a `smaller_step` of the same way; `begin_at_published` weights or
            `begin_at_original` to learn anew; or `go_on`.
        """
        part, forgets = self.part, self._forgets or "forgetting" in verdict.reasons
        self.part, self._forgets = 1.0, False
        if verdict.accepted:
            return "publish"
        if verdict.published_worse:
            return "take_back"
        smaller = part * min(LARGEST_SHARE, MARGIN * verdict.fits)
        if verdict.too_far and smaller >= SMALLEST_PART:
            self.part, self._forgets = smaller, forgets
            return "smaller_step"
        if not (verdict.harmful or forgets):
            return "go_on"
        self._harmful += 1
        if self._harmful < HARMFUL_VERDICTS and not verdict.forgotten:
            return "go_on"
        self._harmful = 0
        self._resets += 1
        return "begin_at_original" if self._resets > 1 else "begin_at_published"

    def published(self) -> None:
        """Begin to count anew: a candidate is published."""
        self._harmful = self._resets = 0

    def went_back(self) -> None:
        """Begin anew: an earlier version is published, and learned from."""
        self.part, self._forgets, self._harmful = 1.0, False, 0

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs; a way that is tried in parts will be judged anew."""
        return {"harmful": self._harmful, "resets": self._resets}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._harmful, self._resets = state["harmful"], state["resets"]
