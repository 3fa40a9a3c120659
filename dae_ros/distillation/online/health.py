"""How learning is doing, as a value for the status, and whether what comes in can be trusted."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from dae_ros.distillation.online.observation import Refusal
from dae_ros.parameters.distillation import OnlineParameters

State: TypeAlias = Literal["active", "holding", "degraded"]
Gate: TypeAlias = Literal["frame", "label"]
GATES: tuple[Gate, ...] = get_args(Gate)

BIN_NS = 1_000_000_000
# Fewer answers of a gate say nothing about a share.
FEWEST_ANSWERS = 5
# What is degraded stays so until the share is less by this much, or 0, or it would come and go.
HYSTERESIS = 0.2


@dataclass(frozen=True, slots=True)
class Health:
    """Whether it learns.

    Attributes:
        state: `active`; `holding`: nothing to do, or not allowed; `degraded`: what comes in cannot
            be trusted.
        reason: a stable word; empty while active.
        detail: a sentence with the numbers; empty while active.
    """

    state: State
    reason: str = ""
    detail: str = ""

    @property
    def text(self) -> str:
        """State and reason in one word, `holding:no_frames`."""
        return f"{self.state}:{self.reason}" if self.reason else self.state


# Somebody asked for it, whatever is known of what came in before.
STOPPED = Health("holding", "stopped", "learning was stopped; start it")


@dataclass(slots=True)
class _Bin:
    """Answers of one second."""

    number: int
    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class RefusalMonitor:
    """Counts what gates say, each gate apart: frames are many and labels few.

    What the replay buffer refuses is no sign of trouble and not counted here.

    Args:
        parameters: degraded_share, degraded_s.

    Attributes:
        passed: gate -> how often since the beginning.
        refused: gate -> reason -> how often since the beginning.
    """

    def __init__(self, parameters: OnlineParameters) -> None:
        self._parameters = parameters
        self.passed: Counter[Gate] = Counter()
        self.refused: dict[Gate, Counter[str]] = {gate: Counter() for gate in GATES}
        self._bins: dict[Gate, deque[_Bin]] = {gate: deque() for gate in GATES}
        self._since: dict[Gate, int | None] = dict.fromkeys(GATES)
        self._degraded: dict[Gate, bool] = dict.fromkeys(GATES, False)

    def answered(self, gate: Gate, refusal: Refusal | None, now_ns: int) -> None:
        """Count an answer of a gate: None where it let something pass."""
        second = self._bin(gate, now_ns)
        if refusal is None:
            self.passed[gate] += 1
            second.passed += 1
        else:
            self.refused[gate][refusal.reason] += 1
            second.refused[refusal.reason] += 1

    def health(self, now_ns: int, holds: Sequence[Refusal]) -> Health:
        """Return how learning is doing.

        Args:
            now_ns: the clock of `answered`.
            holds: reasons to hold that others have, the most important first.
        """
        for gate in GATES:
            detail, reason = self._judge(gate, now_ns)
            if self._degraded[gate] and reason == "uncorrelated":
                return Health(
                    "holding",
                    "poor_student",
                    f"{detail}: labels cannot be checked by a student that sees so little of the "
                    "place, so nothing is judged either. Go back to the original where that saw "
                    "more (~/reset_to_anchor); else train it offline first (dae-ros distill), or "
                    "mend the teacher",
                )
            if self._degraded[gate]:
                return Health("degraded", reason, detail)
        if holds:
            return Health("holding", holds[0].reason, holds[0].detail)
        return Health("active")

    def _judge(self, gate: Gate, now_ns: int) -> tuple[str, str]:
        """Decide whether a gate is degraded; return a sentence and the commonest reason."""
        bins, oldest = self._bins[gate], self._forget(gate, now_ns)
        refused: Counter[str] = sum((second.refused for second in bins), Counter())
        answers = refused.total() + sum(second.passed for second in bins)
        since = self._since[gate]
        # After silence the share says nothing before it is about the whole time again.
        if not answers:
            self._since[gate] = None
        whole = since is not None and since <= oldest
        if answers < FEWEST_ANSWERS or not (whole or self._degraded[gate]):
            self._degraded[gate] = False
            return "", ""
        share = refused.total() / answers
        limit = self._parameters.degraded_share
        self._degraded[gate] = share > max(limit - HYSTERESIS * self._degraded[gate], 0.0)
        reason = min(refused, key=lambda word: (-refused[word], word)) if refused else ""
        return (
            f"{share:.0%} of {answers} answers about {gate}s were refusals, mostly {reason}",
            reason,
        )

    def _forget(self, gate: Gate, now_ns: int) -> int:
        """Drop what lies too far back; return the number of the oldest bin that counts."""
        oldest = now_ns // BIN_NS - round(self._parameters.degraded_s * 1e9 / BIN_NS)
        while self._bins[gate] and self._bins[gate][0].number < oldest:
            self._bins[gate].popleft()
        return oldest

    def _bin(self, gate: Gate, now_ns: int) -> _Bin:
        self._forget(gate, now_ns)
        bins, number = self._bins[gate], now_ns // BIN_NS
        if self._since[gate] is None:
            self._since[gate] = number
        if not bins or bins[-1].number != number:
            bins.append(_Bin(number))
        return bins[-1]
