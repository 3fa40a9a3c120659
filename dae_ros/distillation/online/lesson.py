"""From a clip to its loss: which state to begin with, what to compare with, what to remember."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dae_ros.distillation.online.anchor_streams import Excerpt, States
from dae_ros.distillation.online.clip_cache import ClipCache
from dae_ros.distillation.online.clip_network import ClipNetwork, State
from dae_ros.distillation.online.label_maps import label_maps
from dae_ros.distillation.online.objective import ClipLoss, Targets, clip_loss
from dae_ros.distillation.online.observation import GROUND_TRUTH, EventClip, LabelledClip
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
        self, clip: LabelledClip, lineage: Sequence[int], *, anchored: bool
    ) -> ClipLoss | None:
        """Return the loss of a clip; None where the raw copy gives what is not finite.

        Args:
            clip: its last windows are learned from.
            lineage: the version of the weights that the depth node has, and those before it.
            anchored: whether it is an anchor; one without a label teaches what the original says.
        """
        observation = clip.observation
        size = self._raw.size(observation)
        first = len(observation) - self._parameters.unroll
        *shared, original = self._cache.get(observation, self._computed)
        state, begin = self._start(clip, lineage)
        if begin < first:
            with torch.no_grad():
                features = self._features(observation, shared, begin, first)
                _, state = self._raw.roll(features, size, state, wanted=0)
        predictions, _ = self._raw.roll(
            self._features(observation, shared, first, len(observation)), size, state
        )
        if not bool(torch.isfinite(predictions.detach()).all()):
            return None
        targets = self._targets(clip, first, original, anchored=anchored)
        return clip_loss(predictions[0], targets, self._parameters)

    def along(self, excerpts: Sequence[Excerpt]) -> tuple[list[ClipLoss], list[States]] | None:
        """Return the losses of the next windows of some streams, and the states behind them.

        None where the raw copy gives what is not finite.

        Args:
            excerpts: of one store, so that all have one size; they are one batch.
        """
        clips = [excerpt.clip for excerpt in excerpts]
        windows = np.stack([clip.observation.windows for clip in clips])
        size = self._raw.size(clips[0].observation)
        zero = self._raw.zero_state(clips[0].observation)
        states = [excerpt.states or (zero, zero) for excerpt in excerpts]
        own, before = (_joined(parts, zero) for parts in zip(*states, strict=True))
        with torch.no_grad():
            features = self._original.features_of(windows)
            originals, behind = self._original.roll(features, size, before)
        if not self._shared_encoder:
            features = self._raw.features_of(windows)
        predictions, after = self._raw.roll(features, size, own)
        if not bool(torch.isfinite(predictions.detach()).all()):
            return None
        losses = [
            clip_loss(p, self._targets(clip, 0, original, anchored=True), self._parameters)
            for p, clip, original in zip(predictions, clips, originals, strict=True)
        ]
        return losses, [
            tuple(tuple(tensor[at : at + 1] for tensor in state) for state in (after, behind))
            for at in range(len(clips))
        ]

    def release_memory(self) -> None:
        """Give up what can be computed again."""
        self._cache.clear()

    @torch.no_grad()
    def _computed(self, observation: EventClip) -> list[Tensor]:
        """Return the features that both networks share, if they do, and the original's maps."""
        network = self._original
        features = network.features(observation, 0, len(observation))
        unroll = self._parameters.unroll
        kept = network.predict_from(features, network.size(observation), 0, unroll).maps
        return [*features, kept] if self._shared_encoder else [kept]

    def _features(
        self, observation: EventClip, shared: list[Tensor], first: int, last: int
    ) -> list[Tensor]:
        if shared:
            return [level[:, first:last] for level in shared]
        return self._raw.features(observation, first, last)

    def _start(self, clip: LabelledClip, lineage: Sequence[int]) -> tuple[State, int]:
        """Return the state to begin with, and before which window."""
        observation, parameters = clip.observation, self._parameters
        first = len(observation) - parameters.unroll
        zero = self._raw.zero_state(observation)
        if not zero:
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
        depth, weight = (maps.to(device) for maps in label_maps(clip, first, size))
        weight = torch.where(torch.isfinite(depth), weight, 0.0)
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


def _joined(states: Sequence[State], like: State) -> State:
    """Return states as one of a batch, on the device and in the arithmetic of another one."""
    return tuple(
        torch.cat([column.to(one.device, one.dtype) for column in columns])
        for *columns, one in zip(*states, like, strict=True)
    )


def _on(device: torch.device, flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Tensor:
    return torch.from_numpy(np.array(flags)).to(device)
