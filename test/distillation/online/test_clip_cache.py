"""Tensors of clips that are used again and again."""

from __future__ import annotations

import torch
from torch import Tensor

from dae_ros.distillation.online.clip_cache import ClipCache
from test.reference.online_clips import wedge_clip


def test_the_cache_gives_up_what_was_used_longest_ago() -> None:
    """Bytes are bounded; a tensor that is larger than all of it is not kept."""
    cache = ClipCache(100)
    computed = []

    def tensors(observation: object) -> list[Tensor]:
        computed.append(observation)
        return [torch.zeros(10)]

    first, second, third = (wedge_clip(seed, length=5).observation for seed in range(3))
    for observation in (first, second, first, third, first, second):
        cache.get(observation, tensors)
    assert computed == [first, second, third, second]
    assert cache.get(first, lambda _: [torch.zeros(1000)])[0].numel() == 10
    cache.get(third, lambda _: [torch.zeros(1000)])
    assert cache.get(third, tensors)[0].numel() == 10
