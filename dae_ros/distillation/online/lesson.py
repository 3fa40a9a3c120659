"""From a clip to its loss: which state to begin with, what to compare with, what to remember."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dae_ros.distillation.online.anchor_streams import Excerpt
from dae_ros.distillation.online.clip_cache import ClipCache
from dae_ros.distillation.online.clip_network import ClipNetwork, State
from dae_ros.distillation.online.objective import ClipLoss, Targets, clip_loss
from dae_ros.distillation.online.observation import GROUND_TRUTH, LabelledClip, Observation
from dae_ros.distillation.preparation import at_size
from dae_ros.parameters.distillation import OnlineParameters


class Lessons:
    """Gives the loss of one clip at a time.

    Args:
        original: the network from before adaptation.
        raw: the copy that learns, from the same family and configuration.
        parameters: unroll, burn_in, stale_versions, half of cache_mb and the weights of the terms.
        metric: whether the student's number is metres.
        shared_encoder: whether both networks' encoders are equal and stay so; what they say about
            a clip is then computed once.
    """

    def __init__(
        self,
        original: ClipNetwork,
        raw: ClipNetwork,
        parameters: OnlineParameters,
        *,
        metric: bool,
        shared_encoder: bool,
    ) -> None:
        self._original = original
        self._raw = raw
        self._parameters = parameters
        self._metric = metric
        self._shared_encoder = shared_encoder
        self._cache = ClipCache(parameters.cache_mb * 1_000_000 // 2)

    def loss(
        self, clip: LabelledClip, lineage: Sequence[int], *, anchored: bool, cold: bool
    ) -> ClipLoss | None:
        """Return the loss of a clip; None where the raw copy gives what is not finite.

        Args:
            clip: its last windows are learned from.
            lineage: the version of the weights that the depth node has, and those before it.
            anchored: whether it is an anchor; one without a label teaches what the original says.
            cold: whether to begin with a zero state where learning begins.
        """
        observation = clip.observation
        size = self._raw.size(observation)
        first = len(observation) - self._parameters.unroll
        *shared, original = self._cache.get(observation, self._computed)
        state, begin = self._start(clip, lineage, cold=cold)
        if begin < first:
            with torch.no_grad():
                features = self._features(observation, shared, begin, first)
                _, state = self._raw.roll(features, size, state, wanted=0)
        predictions, _ = self._raw.roll(
            self._features(observation, shared, first, len(observation)), size, state
        )
        if not bool(torch.isfinite(predictions.detach()).all()):
            return None
        return clip_loss(
            predictions, self._targets(clip, first, original, anchored=anchored), self._parameters
        )

    def excerpt_loss(self, excerpt: Excerpt) -> tuple[ClipLoss | None, tuple[State, ...]]:
        """Return the loss of the next windows of a stream, and both states behind them.

        None and no states where the raw copy gives what is not finite.
        """
        clip, length = excerpt.clip, len(excerpt.clip.observation)
        size, zero = self._raw.size(clip.observation), self._raw.zero_state(clip.observation)
        own, before = excerpt.states or (zero, zero)
        with torch.no_grad():
            features = self._original.features(clip.observation, 0, length)
            original, behind = self._original.roll(features, size, _like(before, zero))
        if not self._shared_encoder:
            features = self._raw.features(clip.observation, 0, length)
        predictions, state = self._raw.roll(features, size, _like(own, zero))
        if not bool(torch.isfinite(predictions.detach()).all()):
            return None, ()
        targets = self._targets(clip, 0, original, anchored=True)
        return clip_loss(predictions, targets, self._parameters), (state, behind)

    def release_memory(self) -> None:
        """Give up what can be computed again."""
        self._cache.clear()

    @torch.no_grad()
    def _computed(self, observation: Observation) -> list[Tensor]:
        """Return the features that both networks share, if they do, and the original's maps."""
        network = self._original
        features = network.features(observation, 0, len(observation))
        unroll = self._parameters.unroll
        kept = network.predict_from(features, network.size(observation), 0, unroll).maps
        return [*features, kept] if self._shared_encoder else [kept]

    def _features(
        self, observation: Observation, shared: list[Tensor], first: int, last: int
    ) -> list[Tensor]:
        if shared:
            return [level[:, first:last] for level in shared]
        return self._raw.features(observation, first, last)

    def _start(
        self, clip: LabelledClip, lineage: Sequence[int], *, cold: bool
    ) -> tuple[State, int]:
        """Return the state to begin with, and before which window."""
        observation, parameters = clip.observation, self._parameters
        first = len(observation) - parameters.unroll
        zero = self._raw.zero_state(observation)
        if cold or not zero:
            return zero, first
        # What was gone back from is in no lineage, however near its number is.
        if clip.state and clip.state_version in lineage[: parameters.stale_versions + 1]:
            return self._raw.stored_state(observation, clip.state), first - parameters.burn_in
        return zero, 0

    def _targets(
        self, clip: LabelledClip, first: int, original: Tensor, *, anchored: bool
    ) -> Targets:
        observation = clip.observation
        size = self._raw.size(observation)
        device = self._raw.device
        depth = at_size(torch.from_numpy(clip.depth[first:].astype(np.float32)), size).to(device)
        weight = at_size(torch.from_numpy(clip.weight[first:].astype(np.float32)), size).to(device)
        weight = torch.where(torch.isfinite(depth), weight / 255.0, 0.0)
        metric = clip.label_metric and self._metric
        # A pinned clip is of the deployment: what the original says there is to become better.
        held = anchored and clip.teacher == GROUND_TRUTH
        if anchored and not bool((weight > 0).any()):
            depth, weight, metric = original, torch.ones_like(original), self._metric
            held = True
        elif not anchored:
            # Windows without events carry the state on and teach nothing.
            weight = weight * _on(device, observation.supported[first:])[:, None, None]
        pixels = observation.windows.shape[1] * observation.windows.shape[2]
        return Targets(
            depth=depth,
            weight=weight,
            sharp=_on(device, observation.sharp[first:]),
            quiet=_on(
                device, observation.event_counts[first:] < self._parameters.quiet_rate * pixels
            ),
            metric=metric,
            original=original,
            anchored=anchored,
            held=held,
        )


def _like(state: State, zero: State) -> State:
    """Return a state on the network's device and in its arithmetic."""
    return tuple(
        tensor.to(like.device, like.dtype) for tensor, like in zip(state, zero, strict=True)
    )


def _on(device: torch.device, flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Tensor:
    return torch.from_numpy(np.array(flags)).to(device)
