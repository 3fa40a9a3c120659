"""What a version of the weights goes through: rehearsal, canary, and the verdicts on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.canary import LEAST_PAIRS, Breach, Comparison, Observer, StepFacts
from dae_ros.runtime.estimator import FloatImage
from dae_ros.runtime.weight_loading import LoadedWeights

Outcome: TypeAlias = Literal["refused", "swapped", "kept", "rolled_back"]
Phase: TypeAlias = Literal["steady", "loading", "rehearsal", "canary", "returning"]


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
        numbers: see `Comparison.numbers`.
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


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A window that the weights in use have stepped, and what they made of it."""

    image: FloatImage
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


@dataclass(slots=True)
class Canary:
    """New weights on probation, those of before beside them, unless these have failed."""

    announcement: Announcement
    comparison: Comparison
    shadow: Shadow | None
    before: list[StepFacts]
    after: list[StepFacts] = field(default_factory=list)

    def compared_or_never(self) -> bool:
        """Whether there are enough pairs, or no more will come."""
        pairs = self.comparison.pairs
        if len(pairs) >= LEAST_PAIRS:
            return True
        # No time for the old weights: their last windows, and the first of the new ones.
        neighbours = list(zip(self.after, reversed(self.before), strict=False))
        if len(neighbours) < len(pairs):
            return self.shadow is None  # after a start there are no last windows, but more pairs
        pairs[:] = neighbours
        return True
