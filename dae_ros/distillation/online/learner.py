"""Learns on a copy of the student, one bounded step at a time; nothing here publishes.

A step takes clips and anchors and moves the raw copy; its running average is the candidate that a
guard compares with what is published.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dae_ros.distillation.online.anchor_streams import Excerpt
from dae_ros.distillation.online.clip_network import ClipNetwork, ClipPrediction
from dae_ros.distillation.online.known_inputs import Protection, input_moments
from dae_ros.distillation.online.lesson import Lessons
from dae_ros.distillation.online.objective import ClipLoss, mean_parts
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.reports import StepReport
from dae_ros.distillation.online.step_judge import StepJudge
from dae_ros.distillation.online.tiers import ChangingWeights, changing_weights
from dae_ros.distillation.schedule import learning_rate, update_average
from dae_ros.errors import ConfigurationError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.parameters.distillation import OnlineParameters

LOGGER = logging.getLogger(__name__)
# Rates of parameter learning_rate 0, by encoder; others have the one of the transformers.
LEARNING_RATES = {"micro": 1.25e-4}
TRANSFORMER_RATE = 5e-5
# Steps of which most is taken out (`known_inputs.py`) are so many times as long.
PROTECTED_RATE = 60.0
# Of the low-rank factors, relative to the head's rate.
ENCODER_RATE = 0.2
BETAS = (0.9, 0.99)


class Learner:
    """Owns the raw copy, its running average and the original weights.

    Args:
        loaded: the original: what adaptation began with, and what holds it. It is copied.
        parameters: of the learning.
        device: where to learn.
        known: gives clips from before adaptation, whose inputs of layers are protected from change;
            asked once, by the first step.

    Attributes:
        accepted_steps: steps that moved the weights.
        lineage: the version of the weights that the depth node has, which states stored with clips
            carry, and those that it was trained from, newest first.
        tier: what changes at present; see `tiers.py`.
        interventions: soft resets, hard resets and restored averages so far.

    Raises:
        ConfigurationError: a network that does not learn online.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        parameters: OnlineParameters,
        device: torch.device,
        known: Callable[[], Iterable[LabelledClip]] = tuple,
    ) -> None:
        self._parameters = parameters
        self._known = known
        self._protection: Protection | None = None
        self._digest = loaded.digest
        original = copy.deepcopy(loaded.network).to(device).eval().requires_grad_(False)
        # See `rollout.py`; the stubs of PyTorch do not know this form.
        original.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._original = ClipNetwork(original, loaded.meaning, parameters.precision)
        self.accepted_steps = 0
        self.lineage: tuple[int, ...] = (0,)
        self.interventions: Counter[str] = Counter()
        self._judge = StepJudge(parameters.largest_norm_ratio)
        self._restored_at = -1  # accepted steps when the average was restored last
        self._begin(parameters.tier, original.state_dict())

    @property
    def original(self) -> ClipNetwork:
        """The weights from before adaptation; not to be changed."""
        return self._original

    @property
    def lead(self) -> int:
        """Before which window of a clip a state is stored."""
        return self._parameters.lead

    @property
    def learning_rate(self) -> float:
        """The head's rate after warm-up."""
        rates = LEARNING_RATES
        own = rates.get(self._original.network.config.encoder, TRANSFORMER_RATE)
        return self._parameters.learning_rate or own * (PROTECTED_RATE if self._protection else 1.0)

    def candidate(self) -> ClipNetwork:
        """Return plain weights, what a guard judges and a file holds.

        They lie `candidate_part` of the way from the original to the averaged weights (WiSE-FT,
        Wortsman et al. 2022, arXiv:2109.01903): most that was learned is there by then, and what
        the last of the way breaks is not broken.
        """
        whole = self._original.with_weights({**self._weights.merged(), **self._average})
        return whole.between(self._original, self._parameters.candidate_part)

    def remember(self, clip: LabelledClip, prediction: ClipPrediction) -> LabelledClip:
        """Return the clip with the state that the published weights had before its burn-in.

        Args:
            clip: from the cameras.
            prediction: over it, with these weights and this learner's `lead`.
        """
        version = self.lineage[0] if prediction.state else -1
        return dataclasses.replace(clip, state=prediction.state, state_version=version)

    def step(
        self,
        clips: Sequence[LabelledClip],
        anchors: Sequence[LabelledClip | Excerpt],
        step: int,
        pause: Callable[[], None] = lambda: None,
    ) -> StepReport:
        """Learn from clips, one after the other, and move the weights once.

        Args:
            clips: from the cameras.
            anchors: that keep what was known, pinned clips or excerpts of streams; where there is
                no label, what the original says is learned.
            step: its number.
            pause: called after each clip (by the first step known ones as well), and after all
                excerpts, where a loop may give way to others. What it raises leaves weights and
                streams where they were.
        """
        protection = self._protection
        if protection is None:
            protection = self._protection = self._protect(pause)
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._learn(clips, anchors, pause)
        used = [loss for loss in losses or () if loss.labels]
        norm = math.nan
        reason = "not_finite" if losses is None else "no_label"
        if losses and not used and any(loss.verdicts for loss in losses):
            reason = "contradicted"
        if used:
            norm = self._gradient(len(used))
            reason = self._judge.gradient(norm)
        # Constant after warm-up: nobody knows when adaptation ends.
        peak, warm_up = self.learning_rate, self._parameters.warm_up
        rate = learning_rate(self._since_reset, peak=peak, final=1.0, warm_up=warm_up, steps=1)
        if reason == "accepted":
            self._move(norm, rate, protection)
        mean = statistics.fmean(float(loss.total.detach()) for loss in used) if used else math.nan
        return StepReport(
            step=step,
            accepted=reason == "accepted",
            reason=reason,
            intervention=self._intervene(reason, mean),
            loss=mean,
            parts=mean_parts(used),
            gradient_norm=norm,
            learning_rate=rate,
            labels=sum(loss.labels for loss in used),
            verdicts=sum((loss.verdicts for loss in losses or ()), Counter()),
        )

    def reset(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Go on at other weights at once: raw copy and average alike, moments forgotten.

        Args:
            weights: what the candidate is then, a network's state under plain names, a published
                version's for instance; None for the original's.
        """
        self.interventions["hard_reset"] += 1
        self._restored_at = -1
        original, part = self._original, self._parameters.candidate_part
        if weights is None:
            weights = original.network.state_dict()
        else:
            behind = original.with_weights(weights).between(original, 1.0 / part)
            weights = behind.network.state_dict()
        self._begin(self.tier, weights)

    def release_memory(self) -> None:
        """Give up what can be computed again, and the gradients of the last step."""
        self._lessons.release_memory()
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Return what the next step needs: tensors and plain values, none of them shared."""
        return copy.deepcopy(
            {
                "original": self._digest,
                "tier": self.tier,
                "rank": self._parameters.lora_rank,
                "raw": self._weights.state(),
                "frozen": {} if self._shared_encoder else self._weights.merged(),
                "average": self._average,
                "optimizer": self._optimizer.state_dict(),
                "since_reset": self._since_reset,
                "accepted_steps": self.accepted_steps,
                "restored_at": self._restored_at,
                "lineage": list(self.lineage),
                "interventions": dict(self.interventions),
                "judge": self._judge.state(),
            }
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; the next step gives the same bits.

        Where another tier learned, it gives way to that of the parameters: what learns goes on
        from raw weights and average as they are, and the moments are forgotten.

        Raises:
            ConfigurationError: it is of another original or another rank.
        """
        own = {"original": self._digest, "rank": self._parameters.lora_rank}
        other = [name for name, value in own.items() if state[name] != value]
        if other:
            raise ConfigurationError(
                "the saved state is of a learner with another "
                f"{' and another '.join(other)}; name another folder, or begin anew there",
                **{name: state[name] for name in other},
            )
        self._begin(state["tier"], state["frozen"] or self._original.network.state_dict())
        self._weights.restore(state["raw"])
        for name, tensor in self._average.items():
            tensor.copy_(state["average"][name])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._since_reset = state["since_reset"]
        self.accepted_steps, self._restored_at = state["accepted_steps"], state["restored_at"]
        self.lineage = tuple(state["lineage"])
        self.interventions = Counter(state["interventions"])
        self._judge.restore(state["judge"])
        if self.tier != self._parameters.tier:
            LOGGER.warning(
                "tier %d has learned so far and 'tier' is %d: that goes on, from the same weights",
                self.tier,
                self._parameters.tier,
            )
            raw = self._weights.merged()
            average = {**raw, **self._average}
            # What does not learn any more stays at its average, of which a candidate consists.
            learning = changing_weights(self._original.network, self._parameters.tier)
            self._begin(
                self._parameters.tier, {**average, **{name: raw[name] for name in learning}}
            )
            for name, tensor in self._average.items():
                tensor.copy_(average[name])

    def _begin(self, tier: int, weights: Mapping[str, Tensor]) -> None:
        """Take on weights with nothing learned about gradients and losses."""
        raw = self._original.with_weights(weights)
        network = raw.network
        original = self._original.network.state_dict()
        # Equal encoders give equal features, which are worth keeping.
        shared = tier < 3 and raw.same_encoder(self._original)
        self._weights = ChangingWeights(
            network, original, tier, self._parameters.lora_rank, self._parameters.seed
        )
        self._lessons = Lessons(
            self._original,
            raw,
            self._parameters,
            metric=self._original.meaning.scale == "metric",
            shared_encoder=shared,
        )
        self._average = {name: value.clone() for name, value in self._weights.values().items()}
        self.tier = tier
        self._shared_encoder = shared
        self._forget()

    def _forget(self) -> None:
        """Clear the moments; the rate warms up again."""
        self._optimizer = torch.optim.AdamW(
            [
                {"params": params, "factor": factor}
                for params, factor in (
                    (self._weights.head, 1.0),
                    (self._weights.encoder, ENCODER_RATE),
                )
                if params
            ],
            betas=BETAS,
            weight_decay=0.0,  # `pull` decays towards the original instead
        )
        self._since_reset = 0
        self._judge.forget_losses()

    def _learn(
        self,
        clips: Sequence[LabelledClip],
        anchors: Sequence[LabelledClip | Excerpt],
        pause: Callable[[], None],
    ) -> list[ClipLoss] | None:
        """Sum up gradients; return the losses, None where one is not finite."""
        pinned = [anchor for anchor in anchors if isinstance(anchor, LabelledClip)]
        excerpts = [anchor for anchor in anchors if isinstance(anchor, Excerpt)]
        losses: list[ClipLoss] = []
        for index, clip in enumerate([*clips, *pinned]):
            loss = self._lessons.loss(clip, self.lineage, anchored=index >= len(clips))
            if loss is None or not _summed([loss]):
                return None
            losses.append(loss)
            pause()
        if excerpts:
            found = self._lessons.along(excerpts)
            if found is not None and not _summed(found[0]):
                found = None
            pause()
            # From here on the step is done, whatever comes of it.
            for index, excerpt in enumerate(excerpts):
                excerpt.go_on(() if found is None else found[1][index])
            if found is None:
                return None
            losses += found[0]
        return losses

    def _protect(self, pause: Callable[[], None]) -> Protection:
        """Look at what layers of the original see in known clips."""
        parameters, moments = self._parameters, {}
        if parameters.protection:
            moments = input_moments(
                self._original, self._known(), self._weights.names, parameters.seed, pause
            )
        return Protection(moments, parameters.protection, self._original.device)

    def _gradient(self, clips: int) -> float:
        """Turn sums over clips into means; return the norm."""
        gradients = [
            parameter.grad
            for group in self._optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        for gradient in gradients:
            gradient /= clips
        return float(nn.utils.get_total_norm(gradients))

    def _move(self, norm: float, rate: float, protection: Protection) -> None:
        limit = self._parameters.clip_norm
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
            for parameter in group["params"]:
                if parameter.grad is not None and norm > limit:
                    parameter.grad *= limit / norm
        with protection.around(self._weights.network):
            self._optimizer.step()
        self._weights.pull(self._parameters.pull)
        update_average(self._average, self._weights.values(), self._parameters.average_decay)
        self.accepted_steps += 1
        self._since_reset += 1

    def _intervene(self, reason: str, loss: float) -> str:
        """Do what is due after a step; return its name."""
        name = ""
        if self._judge.diverges(reason, loss):
            if self.accepted_steps == self._restored_at:
                self.reset()  # the average, from which no step led away, is no better
                return "hard_reset"
            name, self._restored_at = "average_restored", self.accepted_steps
            self._weights.take_on(self._average)
            self._forget()
        elif reason == "accepted" and self.accepted_steps % self._parameters.soft_reset_steps == 0:
            name = "soft_reset"
            self._weights.pull(0.5)
            self._pull_average(0.5)
            self._forget()
        if name:
            self.interventions[name] += 1
        return name

    def _pull_average(self, fraction: float) -> None:
        original = self._original.network.state_dict()
        update_average(
            self._average, {name: original[name] for name in self._average}, 1.0 - fraction
        )


def _summed(losses: Sequence[ClipLoss]) -> bool:
    """Sum up the gradients of losses that have labels; return whether all are finite."""
    if not all(bool(torch.isfinite(loss.total)) for loss in losses):
        return False
    labelled = [loss.total for loss in losses if loss.labels]
    if labelled:
        torch.autograd.backward(torch.stack(labelled).sum())
    return True
