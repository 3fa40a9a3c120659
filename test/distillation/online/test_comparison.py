"""Three networks on the same clips: which windows count, and what is computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dae_ros.distillation.online.clip_network import ClipNetwork, ClipPrediction
from dae_ros.distillation.online.comparison import Comparison, Trio
from dae_ros.distillation.online.observation import LabelledClip, Observation
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.parameters.distillation import OnlineParameters
from test.reference.online_clips import changed, wedge_clip

Online = Callable[..., OnlineParameters]


@pytest.fixture
def original(student: LoadedModel) -> ClipNetwork:
    return ClipNetwork(student.network.eval().requires_grad_(False), student.meaning)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """End times of the clips that were encoded, in order."""
    calls: list[int] = []
    encode = ClipNetwork.features

    def counted(
        self: ClipNetwork, observation: Observation, first: int, last: int
    ) -> list[torch.Tensor]:
        calls.append(observation.end_ns)
        return encode(self, observation, first, last)

    monkeypatch.setattr(ClipNetwork, "features", counted)
    return calls


def moved(network: ClipNetwork, part: str, by: float = 0.01) -> ClipNetwork:
    """Return the network with other weights of its encoder or its head."""
    weights = network.network.state_dict()
    return network.with_weights(
        {n: w + by if n.startswith(part) and w.ndim > 1 else w for n, w in weights.items()}
    )


def numbers(trio: Trio) -> list[float]:
    return [
        value
        for one in (trio.candidate, trio.published, trio.original)
        for value in (*one.scores.values(), *one.log_median, one.jitter, one.spread, one.saturated)
    ]


def with_wrong_label(clip: LabelledClip, window: int) -> LabelledClip:
    depth = np.array(clip.depth)
    depth[window] *= 3
    return changed(clip, depth=depth)


@pytest.mark.parametrize(("length", "first"), [(5, 3), (9, 0), (4, 2)])
def test_all_windows_of_a_stretch_count(
    original: ClipNetwork, online: Online, length: int, first: int
) -> None:
    """Of a clip the last `unroll`, however short, of a stretch the first ones as well."""
    clip = wedge_clip(3, length=length)

    def error(one: LabelledClip) -> float:
        comparison = Comparison(original, online(), metric=True)
        comparison.begin(original, original, [one])
        trio = comparison.compare(one)
        assert len(trio.candidate.log_median) == length - first
        return trio.candidate.scores["metric_abs_rel"]

    right = error(clip)
    counts = [error(with_wrong_label(clip, window)) != right for window in range(length)]
    assert counts == [False] * first + [True] * (length - first)


def test_an_encoder_that_all_share_says_things_once(
    original: ClipNetwork, online: Online, encoded: list[int]
) -> None:
    """Numbers do not depend on what is kept; another encoder is asked itself."""
    clips = [wedge_clip(seed, length=6) for seed in range(3)]
    published = moved(original, "depth_head.scratch.output_conv")
    candidates = [moved(original, "depth_head", by) for by in (0.002, 0.004)]

    def judged(comparison: Comparison, candidate: ClipNetwork) -> list[list[float]]:
        comparison.begin(candidate, published, clips)
        return [numbers(comparison.compare(clip)) for clip in clips]

    keeping = Comparison(original, online(), metric=True)
    plain = Comparison(original, online(cache_mb=0), metric=True)
    for index, candidate in enumerate(candidates):
        encoded.clear()
        found = judged(keeping, candidate)
        assert len(encoded) == (0 if index else 3)
        encoded.clear()
        assert judged(plain, candidate) == found
        assert len(encoded) == (3 if index else 9)
    encoded.clear()
    judged(keeping, moved(original, "pretrained"))
    assert len(encoded) == 3
    # A clip that is gone makes room, and memory is given back when it is asked for.
    keeping.begin(candidates[0], published, clips[1:])
    keeping.release_memory()
    encoded.clear()
    for candidate in candidates:
        keeping.begin(candidate, published, clips[1:2])
        keeping.compare(clips[1])
    assert encoded == [clips[1].observation.end_ns]


def test_a_candidate_that_is_published_is_known(
    original: ClipNetwork, online: Online, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not rolled again, but through what is new; one that was refused is forgotten."""
    clips = [wedge_clip(seed, length=6) for seed in range(3)]
    first, second, third = (
        moved(original, "depth_head.scratch.output_conv", by) for by in (0.002, 0.004, 0.006)
    )
    rolled: list[ClipNetwork] = []
    predict = ClipNetwork.predict_from

    def counted(self: ClipNetwork, *arguments: Any, **others: Any) -> ClipPrediction:
        rolled.append(self)
        return predict(self, *arguments, **others)

    monkeypatch.setattr(ClipNetwork, "predict_from", counted)
    comparison = Comparison(original, online(), metric=True)

    def judged(
        comparison: Comparison,
        candidate: ClipNetwork,
        published: ClipNetwork,
        chosen: list[LabelledClip],
    ) -> list[list[float]]:
        rolled.clear()
        comparison.begin(candidate, published, chosen)
        return [numbers(comparison.compare(clip)) for clip in chosen]

    judged(comparison, first, original, clips[:2])
    found = judged(comparison, second, first, clips)
    assert [rolled.count(one) for one in (original, first, second)] == [1, 1, 3]
    fresh = Comparison(original, online(), metric=True)
    assert judged(fresh, second, first, clips) == found
    found = judged(comparison, third, first, clips)
    assert [rolled.count(one) for one in (original, first, second, third)] == [0, 0, 0, 3]
    assert judged(fresh, third, first, clips) == found
    # One from before the last candidate is rolled anew, and so told from that.
    found = judged(comparison, first, second, clips)
    assert [rolled.count(one) for one in (original, first, second, third)] == [0, 3, 3, 0]
    assert judged(Comparison(original, online(), metric=True), first, second, clips) == found


def test_what_does_not_fit_is_computed_again(
    original: ClipNetwork, online: Online, encoded: list[int]
) -> None:
    """The first clips are kept, in whatever order they come back; room of those gone is used."""
    clips = [wedge_clip(seed, length=40, height=84, width=126) for seed in range(4)]
    size = sum(t.numel() * 4 for t in original.features(clips[0].observation, 0, 40))
    assert size < 1_500_000 < 2 * size, "the test needs room for one clip of four"
    comparison = Comparison(original, online(cache_mb=3), metric=True)
    candidate = moved(original, "depth_head", 0.002)

    def asked(chosen: list[LabelledClip]) -> list[int]:
        encoded.clear()
        comparison.begin(candidate, original, chosen)
        for clip in chosen:
            comparison.compare(clip)
        return [clips.index(c) for end in encoded for c in clips if c.observation.end_ns == end]

    assert asked(clips) == [0, 1, 1, 2, 2, 3, 3]
    assert asked(clips) == [1, 2, 3]
    assert asked(clips[1:]) == [1, 2, 3]
    assert asked(clips[1:]) == [2, 3]
