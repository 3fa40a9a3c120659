"""New weights between two windows: loaded beside those in use, rehearsed, watched, taken back.

`WeightSwap` is the estimator of a pipeline that follows a trainer. What happens to a version:

1. `announce`: one that is older, or known to be harmful, is refused.
2. A thread of low priority checks size and sha256 and loads the file.
3. Rehearsal: the new weights replay the last windows, a step at a time when there is time, which
   rebuilds their recurrent state. What they make of these windows is compared with what the
   weights in use made of them. The first window after that is theirs.
4. Canary: for `canary_windows` the old weights go on alongside. Where the new ones break a limit,
   or fail, the old ones take over again with a state that is up to date.

Nothing here waits: `work` does one step of a network, and weights change by a reference. Every
outcome is a `Verdict`. With `background=False` and `eager=True` the same object is deterministic.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from dae_ros.errors import InferenceError, NonFiniteState
from dae_ros.representation.event_image import EventImage
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.canary import LEAST_PAIRS, Breach, Comparison, Observer, SwapRules, failure
from dae_ros.runtime.estimator import ClosableEstimator, FloatImage, ReloadableEstimator
from dae_ros.runtime.weight_loading import LoadedWeights, WeightLoader
from dae_ros.runtime.weight_stages import (
    Canary,
    Candidate,
    HarmfulWeights,
    Outcome,
    Phase,
    Shadow,
    Verdict,
    Window,
)

# So many outputs after a change of weights that cost the state are marked.
WARMING_WINDOWS = 4
# How many windows a replay may take to catch up, in multiples of its own length.
PATIENCE = 2
# So much longer than before a step may take, and still end before the next window comes.
MARGIN = 0.25
# So many windows in a row without numbers bring the weights of before back after the canary too.
BROKEN_WINDOWS = 3
NO_NUMBERS: Mapping[str, float] = {}


class WeightSwap:
    """The weights in use, and whatever is about to replace them; a `DepthEstimator`.

    Not thread-safe: all calls but `close` on the thread that owns the pipeline.

    Args:
        estimator: to begin with.
        rules: of replay and canary.
        judged: called with every verdict.
        eager: do all that waits before each window, however long it takes; otherwise `work` has
            to be called when there is time.
        background: load on a thread; otherwise inside `announce`.
        clock_ns: monotonic time.

    Attributes:
        live: the weights in use; name, digest, notes, weight_version: theirs.
        meaning, input_channels: the same for all weights that are ever in use.
    """

    def __init__(
        self,
        estimator: ReloadableEstimator,
        rules: SwapRules,
        *,
        judged: Callable[[Verdict], None],
        eager: bool,
        background: bool = True,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._use(estimator, Observer())
        self._rules = rules
        self._judged = judged
        self._eager = eager
        self._background = background
        self._clock_ns = clock_ns
        self._ring: deque[Window] = deque(maxlen=rules.replay_windows)
        self._newest = self.weight_version
        self._in_use: Announcement | None = None
        self._harmful = HarmfulWeights()
        self._watched: dict[str, Verdict] = {}
        self._loader: WeightLoader | None = None
        self._next: Announcement | None = None
        self._candidate: Candidate | None = None
        self._canary: Canary | None = None
        self._previous: LoadedWeights | None = None
        self._cost_ns = self._warming = 0
        self._broken = 0  # windows in a row without numbers

    @property
    def state_age(self) -> int:
        """Steps since the state of the weights in use was zero, replayed ones included."""
        return self.live.state_age

    @property
    def warming(self) -> bool:
        """Whether the last output is one of the first after a change that cost the state."""
        return self._warming > 0

    @property
    def can_roll_back(self) -> bool:
        """Whether there are weights of before; those that a way back led from are none."""
        canary = self._canary
        way_back = canary is not None and canary.announcement.rollback
        return (self._previous is not None and not way_back) or self.phase == "returning"

    @property
    def watched(self) -> Verdict | None:
        """The verdict by which a canary kept the weights in use; None where none has."""
        return self._watched.get(self.digest)

    @property
    def phase(self) -> Phase:
        """What is going on; `returning` is on the way back to the weights of before."""
        # Others ask as well, while the owner changes it.
        if (candidate := self._candidate) is not None:
            return "rehearsal" if candidate.breach is None else "returning"
        if self._canary is not None:
            return "canary"
        return "steady" if self._loader is None else "loading"

    def reset(self) -> None:
        """Forget the recurrent state; whatever follows begins anew with it."""
        self.live.reset()
        self._observer.forget()
        self._ring.clear()
        self._warming = 0
        if (shadow := self._shadow()) is not None:
            shadow.begin_again()

    def close(self, timeout_s: float) -> None:
        """End what the weights in use and those beside them do; see `ClosableEstimator`."""
        loader, live = self._loader, self.live
        if isinstance(live, ClosableEstimator):
            live.close(timeout_s)
        if loader is not None:
            loader.join(timeout_s)

    def announce(self, announcement: Announcement) -> None:
        """Take note of a version; what is refused at once has its verdict before this returns."""
        sha256, version = announcement.sha256, announcement.version
        by = f"by version {version}"
        if self._knows(announcement):
            return
        if (version, sha256) == (self.weight_version, self.digest):
            self._give_up(by)
        elif (harm := self._harmful.against(announcement)) is not None:
            self._say(announcement, "refused", "blacklisted", f"it was found harmful: {harm}")
        elif version <= self._newest and not announcement.rollback:
            reason = f"{self._newest} has been in use; announce a lower version as a rollback"
            self._say(
                announcement, "refused", "downgraded", reason, {"newest_version": self._newest}
            )
        elif self.phase in ("loading", "canary", "returning"):
            if self._next is not None:
                self._say(self._next, "refused", "superseded", by)
            self._next = announcement
        else:
            self._give_up(by)
            self._loader = WeightLoader(announcement, self.live, background=self._background)
            self._collect()

    def roll_back(self) -> bool:
        """Go back to the weights of before, as soon as their state is rebuilt.

        Returns:
            False where there are none.
        """
        if self._previous is None or not self.can_roll_back:
            return self.can_roll_back
        self._give_up("by a rollback")
        self._take_back(Breach("requested", "it was asked for"))
        return True

    def work(self, until_ns: int | None) -> bool:
        """Do one step of what waits: of a replay, or of the weights of before.

        Args:
            until_ns: when the next window is due, on `clock_ns`; nothing is begun that may not be
                done by then. None: there is time.

        Returns:
            Whether a step was done.
        """
        self._collect()
        shadow = self._shadow()
        if shadow is None or not shadow.pending:
            return False
        if until_ns is not None and self._clock_ns() + self._cost_ns * (1 + MARGIN) > until_ns:
            return False
        try:
            window, facts = shadow.step(self._clock_ns)
        except InferenceError as error:
            self._shadow_failed(error)
            return True
        # The first half of a replay makes the state; the outputs after it can be compared.
        if shadow.steps > self._rules.replay_windows // 2:
            if self._canary is not None:
                self._canary.comparison.add(window.facts, facts)
                self._judge(self._canary)
            elif self._candidate is not None and self._candidate.breach is None:
                self._candidate.comparison.add(facts, window.facts)
                breach = self._candidate.comparison.breach()
                if breach is not None:
                    self._drop(self._candidate, breach)
        return True

    def estimate(self, image: EventImage) -> FloatImage:
        """Step with the weights in use, after changing them where that is due.

        See `DepthEstimator.estimate`. Where weights on probation fail, those of before take over
        at once and make this window.
        """
        self._collect()
        while self._eager and self.work(None):
            pass
        # All windows where there are less than a replay has.
        needed = min(self._rules.replay_windows, self.live.state_age)
        if self._candidate is not None and self._candidate.is_ready(needed):
            self._change(self._candidate)
        begin_ns = self._clock_ns()
        try:
            prediction = self.live.estimate(image)
        except InferenceError as error:
            if not self._rescue(error):
                raise
            begin_ns = self._clock_ns()
            prediction = self.live.estimate(image)
        self._cost_ns, self._broken = self._clock_ns() - begin_ns, 0
        self._warming = max(0, self._warming - 1)
        self._follow(Window(image, self._observer.observe(prediction, self._cost_ns)))
        return prediction

    def _use(self, estimator: ReloadableEstimator, observer: Observer) -> None:
        self.live, self._observer = estimator, observer
        self.name, self.digest, self.notes = estimator.name, estimator.digest, estimator.notes
        self.weight_version = estimator.weight_version
        self.meaning, self.input_channels = estimator.meaning, estimator.input_channels

    def _shadow(self) -> Shadow | None:
        if self._candidate is not None:
            return self._candidate.shadow
        return None if self._canary is None else self._canary.shadow

    def _knows(self, announcement: Announcement) -> bool:
        others = (one.announcement for one in (self._loader, self._candidate) if one is not None)
        return announcement in (self._next, *others)

    def _collect(self) -> None:
        """Take what has been loaded, and go on with what was announced meanwhile."""
        result = None if self._loader is None else self._loader.take()
        if self._loader is not None and result is not None:
            announcement, self._loader = self._loader.announcement, None
            if self._next is not None:
                self._say(announcement, "refused", "superseded", f"by version {self._next.version}")
            elif isinstance(result, LoadedWeights):
                rules = self._rules.of_a_change(confirmed=announcement.confirmed)
                self._candidate = Candidate(
                    Shadow(result, self._ring), announcement, Comparison(rules)
                )
            else:
                self._say(announcement, "refused", result.code, result.reason)
        if self._next is not None and self.phase == "steady":
            following, self._next = self._next, None
            # Judged anew: what has been in use since may be newer.
            self.announce(following)

    def _change(self, candidate: Candidate) -> None:
        """Let a candidate take over."""
        shadow, announcement, code = candidate.shadow, candidate.announcement, "replayed"
        if candidate.without_replay:
            code = "kept_state" if shadow.goes_on_from(self.live) else "zero_state"
            self._warming = WARMING_WINDOWS + 1 if code == "zero_state" else self._warming
        old, old_observer = self.live, self._observer
        self._use(shadow.estimator, shadow.observer)
        self._candidate = None
        numbers = {**candidate.comparison.numbers(), "replayed": shadow.steps}
        if candidate.breach is not None:
            reason = f"{candidate.breach.reason} ({code}: {shadow.steps} windows)"
            self._say(announcement, "rolled_back", candidate.breach.code, reason, numbers)
            return
        self._in_use = announcement
        self._newest = max(self._newest, announcement.version)
        self._previous = LoadedWeights(old, shadow.change)
        self._canary = Canary(
            announcement,
            Comparison(self._rules.of_a_change(confirmed=announcement.confirmed)),
            Shadow(self._previous, (), old_observer, old.state_age),
            [window.facts for window in self._ring],
        )
        self._say(announcement, "swapped", code, f"after {shadow.steps} replayed windows", numbers)

    def _follow(self, window: Window) -> None:
        """Hand a window that was just stepped to whatever follows."""
        self._ring.append(window)
        shadow = self._shadow()
        if shadow is not None:
            shadow.pending.append(window)
            shadow.waited += 1
        patience = PATIENCE * self._rules.replay_windows
        if self._candidate is not None and self._candidate.shadow.waited > patience:
            self._candidate.fell_behind()
        if self._canary is not None:
            if shadow is not None and len(shadow.pending) > patience:
                shadow.begin_again()
            self._canary.after.append(window.facts)
            self._judge(self._canary)

    def _judge(self, canary: Canary) -> None:
        """Take new weights back as soon as a limit is broken; keep them when the canary is over."""
        comparison, seen = canary.comparison, len(canary.after)
        behind = canary.shadow is not None and bool(canary.shadow.pending)
        over = seen >= self._rules.canary_windows * (2 if behind else 1)
        over = over and canary.fill_up()
        breach = comparison.breach()
        if breach is not None:
            self._take_back(breach)
        elif over:
            self._canary = None
            code, reason = "canary", f"no limit was broken in {seen} windows"
            if len(comparison.pairs) < LEAST_PAIRS:
                code, reason = "not_compared", f"{seen} windows were finite; no others to compare"
            if canary.announcement.rollback:
                self._previous = None  # withdrawn, as all that this leads back from
            self._say(canary.announcement, "kept", code, reason, comparison.numbers())

    def _take_back(self, breach: Breach) -> None:
        """Set out for the weights of before."""
        previous, in_use, canary = self._previous, self._in_use, self._canary
        if previous is None or in_use is None:
            raise RuntimeError("there are no weights to go back to")
        self._harmful.add(in_use.sha256, breach)
        self._previous = self._canary = None
        comparison = Comparison(self._rules) if canary is None else canary.comparison
        shadow = None if canary is None else canary.shadow
        if shadow is None:
            previous.estimator.reset()
            shadow = Shadow(previous, self._ring)
        shadow.waited = 0
        self._candidate = Candidate(shadow, in_use, comparison, breach)

    def _rescue(self, error: InferenceError) -> bool:
        """Put the weights of before in the place of some that failed, at once; False without."""
        self._broken += isinstance(error, NonFiniteState)
        if self._canary is not None:
            self._take_back(failure(error))
        elif self._previous is not None and self._broken >= BROKEN_WINDOWS:
            self._give_up("by a way back")
            self._take_back(failure(error))
        if (candidate := self._candidate) is None or candidate.breach is None:
            return False
        if candidate.shadow.pending:
            # No time for a replay: this window is due.
            candidate.without_replay = True
            candidate.shadow.change = float("inf")
        self._change(candidate)
        return True

    def _shadow_failed(self, error: InferenceError) -> None:
        if self._canary is not None:
            self._canary.shadow = None  # nothing to compare with
        elif self._candidate is not None and self._candidate.breach is not None:
            self._candidate.without_replay = True
        elif self._candidate is not None:
            self._drop(self._candidate, failure(error))

    def _give_up(self, by: str) -> None:
        """Forget what is on its way: something newer counts."""
        loading = None if self._loader is None else self._loader.announcement
        for waiting in filter(None, (loading, self._next)):
            self._say(waiting, "refused", "superseded", by)
        self._loader = self._next = None
        if self._candidate is not None and self._candidate.breach is None:
            self._drop(self._candidate, Breach("superseded", by), harmful=False)

    def _drop(self, candidate: Candidate, why: Breach, *, harmful: bool = True) -> None:
        self._candidate, announcement = None, candidate.announcement
        if harmful:
            self._harmful.add(announcement.sha256, why)
        self._say(announcement, "refused", why.code, why.reason, candidate.comparison.numbers())

    def _say(
        self, announcement: Announcement, outcome: Outcome, code: str, reason: str,
        numbers: Mapping[str, float] = NO_NUMBERS,
    ) -> None:  # fmt: skip
        version, sha256 = announcement.version, announcement.sha256
        live = self.weight_version, self.digest
        verdict = Verdict(version, sha256, outcome, code, reason, *live, numbers)
        if verdict.watched:
            self._watched[sha256] = verdict
        self._judged(verdict)
