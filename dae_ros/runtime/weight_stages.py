"""What a version of the weights goes through: rehearsal, canary, and the verdicts on it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from dae_ros.representation.event_image import EventImage
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.canary import LEAST_PAIRS, Breach, Comparison, Observer, StepFacts
from dae_ros.runtime.estimator import ReloadableEstimator
from dae_ros.runtime.weight_loading import LoadedWeights

# Weights that differ by less can go on with each other's state.
SAME_STATE_CHANGE = 1e-3
Outcome: TypeAlias = Literal["refused", "swapped", "kept", "rolled_back"]
Phase: TypeAlias = Literal["steady", "loading", "rehearsal", "canary", "returning"]
# A version was refused for what it does; other codes say that it could not be read or used.
HARMFUL_CODES = frozenset(
    {"blacklisted", "scale_step", "dead_output", "flicker", "slow", "not_finite", "failed"}
)
# What was said against weights by a person, or in a bad hour of the machine.
_PASSING_CODES = frozenset({"requested", "slow"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a version.

    Attributes:
        version, sha256: of the version that was judged.
        outcome: `refused` (never used), `swapped` (in use, watched), `kept` (the canary is over),
            `rolled_back`.
        code: a stable word. Of the announcement: `downgraded`, `blacklisted`, `superseded`. Of the
            file: see `load_announced`. Of the outputs: `not_finite`, `failed`, and those of
            `Breach`. Of a change: `replayed`, `kept_state`, `zero_state`. Else `canary` (kept)
            and `requested` (rolled back).
        reason: a sentence with the numbers.
        numbers: see `Comparison.numbers`; with `downgraded`, `newest_version` has been in use.
        live_version, live_sha256: of the weights in use after it.
    """

    version: int
    sha256: str
    outcome: Outcome
    code: str
    reason: str
    live_version: int
    live_sha256: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def watched(self) -> bool:
        """Whether the version was watched to the end, beside others, and kept."""
        return self.outcome == "kept" and self.code == "canary"

    @property
    def harmful(self) -> bool:
        """Whether the version was taken back, or refused for what it does."""
        refused = self.outcome == "refused" and self.code in HARMFUL_CODES
        return refused or self.outcome == "rolled_back"

    @property
    def newest_version(self) -> int:
        """The highest version that is known to have been in use."""
        newest = self.numbers.get("newest_version", 0.0)
        return max(self.live_version, int(newest) if math.isfinite(newest) else 0)


class HarmfulWeights:
    """Weights that must not be used again, and why."""

    def __init__(self) -> None:
        self._found: dict[str, Breach] = {}

    def add(self, sha256: str, breach: Breach) -> None:
        """Note what weights did."""
        self._found[sha256] = breach

    def against(self, announcement: Announcement) -> str | None:
        """Return what speaks against a version, a sentence; None where nothing does.

        A person's wish of before, or weights that were slow once, do not close a way back to what
        was watched: what is in use now is withdrawn.
        """
        breach = self._found.get(announcement.sha256)
        watched_way_back = announcement.rollback and announcement.confirmed
        if breach is None or (watched_way_back and breach.code in _PASSING_CODES):
            return None
        return breach.reason


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A window that the weights in use have stepped, and what they made of it."""

    image: EventImage
    facts: StepFacts


class Shadow:
    """Weights that follow those in use, window by window, as time allows."""

    def __init__(
        self,
        loaded: LoadedWeights,
        windows: Iterable[Window] = (),
        observer: Observer | None = None,
        steps: int = 0,
    ) -> None:
        self.estimator = loaded.estimator
        self.change = loaded.change
        self.observer = Observer() if observer is None else observer
        self.pending = deque(windows)
        self.steps = steps
        self.waited = 0
        self.alongside = False

    def begin_again(self) -> None:
        """Forget state and past windows, and follow from the next one on."""
        self.estimator.reset()
        self.observer.forget()
        self.pending.clear()
        self.steps = self.waited = 0

    def goes_on_from(self, in_use: ReloadableEstimator) -> bool:
        """Begin with the state of the weights in use; False where it does not fit: with zero."""
        if self.change < SAME_STATE_CHANGE:
            self.estimator.adopt_state(in_use)
            return True
        self.begin_again()
        return False

    def step(self, clock_ns: Callable[[], int]) -> tuple[Window, StepFacts]:
        """Step the oldest window that waits."""
        window = self.pending.popleft()
        begin_ns = clock_ns()
        prediction = self.estimator.estimate(window.image)
        facts = self.observer.observe(prediction, clock_ns() - begin_ns)
        self.steps += 1
        return window, facts


@dataclass(slots=True)
class Candidate:
    """What is to be in use as soon as its state is rebuilt: new weights, or those of before."""

    shadow: Shadow
    announcement: Announcement
    comparison: Comparison
    # Why those of before are to return; None for new weights. The announcement is then of the
    # weights that have to go.
    breach: Breach | None = None
    without_replay: bool = False

    def is_ready(self, needed: int) -> bool:
        """Whether its state is rebuilt from so many windows, or is not to be."""
        behind = bool(self.shadow.pending) or self.shadow.steps < needed
        return self.without_replay or not behind

    def fell_behind(self) -> None:
        """Try another way: the replay does not catch up.

        A step alongside each new window needs less time; where that is too much as well, or where
        there is haste, the state is given up.
        """
        haste = self.breach is not None
        self.without_replay = haste or self.shadow.alongside
        self.shadow.alongside = True
        self.shadow.begin_again()


@dataclass(slots=True)
class Canary:
    """New weights on probation, those of before beside them, unless these have failed."""

    announcement: Announcement
    comparison: Comparison
    shadow: Shadow | None
    before: list[StepFacts]
    after: list[StepFacts] = field(default_factory=list)

    def fill_up(self) -> bool:
        """Compare neighbouring windows where there was no time for the same ones.

        Returns:
            Whether there are enough pairs, or no more will come.
        """
        pairs = self.comparison.pairs
        if len(pairs) >= LEAST_PAIRS:
            return True
        # No time for the old weights: their last windows, and the first of the new ones.
        neighbours = list(zip(self.after, reversed(self.before), strict=False))
        if len(neighbours) < len(pairs):
            return self.shadow is None  # after a start there are no last windows, but more pairs
        pairs[:] = neighbours
        return True
