"""What three networks make of the same clips: the candidate, the published and the original one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.measures import (
    JITTER_WINDOWS,
    ClipMeasure,
    Label,
    label_of,
    measure,
)
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.parameters.distillation import OnlineParameters


@dataclass(frozen=True, slots=True, eq=False)
class Trio:
    """What three networks make of one clip.

    Attributes:
        candidate, published, original: their measures.
        labelled: whether the clip has a label; without one the original's depth stands for it.
    """

    candidate: ClipMeasure
    published: ClipMeasure
    original: ClipMeasure
    labelled: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What a network that does not change makes of a clip.

    Attributes:
        clip: kept, so that its id stays its own.
        measure: the network's.
        maps: the original's, where they stand for a label; None elsewhere.
    """

    clip: LabelledClip
    measure: ClipMeasure
    maps: Tensor | None


class Comparison:
    """Rolls networks through clips, those that do not change once for each clip.

    Of a clip of the deployment the last `unroll` windows count. Of what is longer, a stretch of an
    anchor, all do: what was known must be known from the first window after a restart on.

    Args:
        original: from before adaptation.
        parameters: lead, burn_in, unroll, trim and cache_mb, of which half is for what the
            encoder says of the clips.
        metric: whether the networks give metres.
    """

    def __init__(
        self, original: ClipNetwork, parameters: OnlineParameters, *, metric: bool
    ) -> None:
        self._original = original
        self._parameters = parameters
        self._metric = metric
        self._candidate = self._published = original
        self._of_original: dict[int, _Known] = {}
        self._of_published: dict[int, _Known] = {}
        self._of_candidate: dict[int, _Known] = {}
        # What the original's encoder says of a clip: what is first is kept, because all clips come
        # back in the same order, of which the least recently used is always the next.
        self._encoded: dict[int, list[Tensor]] = {}
        self._room = parameters.cache_mb * 1_000_000 // 2
        self._alike: set[ClipNetwork] = {original}

    def begin(
        self, candidate: ClipNetwork, published: ClipNetwork, clips: Iterable[LabelledClip]
    ) -> None:
        """Say what is compared next; what is known of other clips and weights is forgotten.

        Args:
            candidate: with weights of its own.
            published: the same object as long as its weights are, and as it was a candidate.
            clips: all that will be compared.
        """
        if published is not self._published:
            # Most often it is the last candidate, of which most is known by now.
            known = self._of_candidate if published is self._candidate else {}
            self._published, self._of_published = published, known
        self._candidate, self._of_candidate = candidate, {}
        self._alike = {
            network
            for network in (candidate, published, self._original)
            if network.same_encoder(self._original)
        }
        present = {id(clip) for clip in clips}
        for known in (self._of_original, self._of_published):
            for key in known.keys() - present:
                del known[key]
        for key in self._encoded.keys() - present:
            self._room += _byte_count(self._encoded.pop(key))

    def release_memory(self) -> None:
        """Give up what can be computed again."""
        self._room += sum(map(_byte_count, self._encoded.values()))
        self._encoded = {}

    def labelled(self, clip: LabelledClip) -> bool:
        """Say whether a clip has enough of a label."""
        return self._label(clip) is not None

    def compare(self, clip: LabelledClip) -> Trio:
        """Roll the candidate through a clip, and the other two where that is not known yet."""
        label = self._label(clip)
        original = self._known(self._of_original, self._original, clip, label)
        if original.maps is not None:
            label = Label(original.maps, (original.maps > 0).float(), self._metric)
        published = original
        if self._published is not self._original:
            published = self._known(self._of_published, self._published, clip, label)
        return Trio(
            self._known(self._of_candidate, self._candidate, clip, label).measure,
            published.measure,
            original.measure,
            original.maps is None,
        )

    def _label(self, clip: LabelledClip) -> Label | None:
        size = self._original.size(clip.observation)
        return label_of(clip, size, self._scored(clip), self._original.device, metric=self._metric)

    def _scored(self, clip: LabelledClip) -> int:
        """Return how many of a clip's last windows count."""
        length = len(clip.observation)
        return length if length > self._parameters.windows_per_clip else self._parameters.unroll

    def _known(
        self,
        known: dict[int, _Known],
        network: ClipNetwork,
        clip: LabelledClip,
        label: Label | None,
    ) -> _Known:
        if id(clip) not in known:
            known[id(clip)] = self._measure(network, clip, label)
        return known[id(clip)]

    def _measure(self, network: ClipNetwork, clip: LabelledClip, label: Label | None) -> _Known:
        """Measure a network; without a label keep what it says."""
        scored = self._scored(clip)
        wanted = min(max(scored, JITTER_WINDOWS), len(clip.observation))
        features, size = self._features(network, clip), network.size(clip.observation)
        maps = network.predict_from(features, size, 0, wanted).maps
        said = maps[-scored:].clone() if label is None else None
        return _Known(clip, measure(maps, scored, label, self._parameters.trim), said)

    @torch.no_grad()
    def _features(self, network: ClipNetwork, clip: LabelledClip) -> list[Tensor]:
        """Return what a network's encoder says of a clip, which all know whose encoder is alike."""
        alike = network in self._alike
        if alike and id(clip) in self._encoded:
            return self._encoded[id(clip)]
        features = network.features(clip.observation, 0, len(clip.observation))
        if alike and self._room >= _byte_count(features):
            self._encoded[id(clip)] = features
            self._room -= _byte_count(features)
        return features


def _byte_count(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def of_blocks(held: list[list[Trio]], who: str, score: str) -> np.ndarray[Any, Any]:
    """Return the mean of a score over the clips of each block, float64[blocks]."""
    return np.array(
        [statistics.fmean(getattr(trio, who).scores[score] for trio in block) for block in held]
    )


def deciding_error(trio: Trio, who: str) -> float:
    """Return Abs Rel in metres where that can be, else after alignment."""
    scores: Mapping[str, float] = getattr(trio, who).scores
    return scores["metric_abs_rel" if "metric_abs_rel" in scores else "aligned_abs_rel"]


def aligned_error(trio: Trio, who: str) -> float:
    """Return Abs Rel after alignment."""
    return float(getattr(trio, who).scores["aligned_abs_rel"])


def log_ratio(trios: list[Trio], reference: str) -> float:
    """Return the median over windows of ln(median depth / the reference's); NaN of a dead one."""
    with np.errstate(invalid="ignore"):
        ratios = [trio.candidate.log_median - getattr(trio, reference).log_median for trio in trios]
    return float(np.median(np.concatenate(ratios)))


def ratio(value: float, reference: float) -> float:
    """Return value / reference; 1 where both are 0, infinity where the reference alone is."""
    if reference == 0:
        return 1.0 if value == 0 else math.inf
    return value / reference
