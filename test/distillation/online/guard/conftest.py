"""What the tests of the guard share: six held-out blocks, two anchors, three networks."""

from __future__ import annotations

import numpy as np
import pytest

from dae_ros.distillation.online.clip_network import ClipNetwork
from dae_ros.distillation.online.guard import Guard
from dae_ros.distillation.online.observation import LabelledClip
from dae_ros.distillation.online.replay import HeldoutBlock
from test.reference.noisy_original import (
    ORIGINAL,
    PARAMETERS,
    TRUTH,
    Judge,
    at,
    blocks_of,
    labelled,
    network_of,
)
from test.reference.online_clips import changed


@pytest.fixture(scope="module")
def held() -> list[HeldoutBlock]:
    return blocks_of([labelled(seed, TRUTH) for seed in range(6)])


@pytest.fixture(scope="module")
def relative(held: list[HeldoutBlock]) -> list[HeldoutBlock]:
    """The same labels with another scale and shift."""
    return blocks_of(
        [
            changed(clip, depth=(3.0 * clip.depth + 2.0).astype(np.float16), label_metric=False)
            for block in held
            for clip in block.clips
        ]
    )


@pytest.fixture(scope="module")
def anchors() -> list[LabelledClip]:
    return [labelled(seed, TRUTH, "ground_truth") for seed in (50, 51)]


@pytest.fixture(scope="module")
def published() -> ClipNetwork:
    return network_of(at(0.2))


@pytest.fixture(scope="module")
def original() -> ClipNetwork:
    return network_of(ORIGINAL)


@pytest.fixture(scope="module")
def guard(original: ClipNetwork) -> Guard:
    return Guard(original, PARAMETERS, metric=True)


@pytest.fixture(scope="module")
def judge(
    guard: Guard,
    published: ClipNetwork,
    held: list[HeldoutBlock],
    anchors: list[LabelledClip],
) -> Judge:
    return lambda weights: guard.judge(network_of(weights), published, held, anchors)
