"""Announced files that nobody foresaw: depth goes on, and says what it found."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch

from dae_ros.model.checkpoint import save_checkpoint
from dae_ros.model.untrained import untrained
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.canary import SwapRules
from dae_ros.runtime.torch_estimator import create_torch_estimator
from dae_ros.runtime.weight_loading import Unusable, load_announced
from dae_ros.runtime.weight_stages import Verdict
from dae_ros.runtime.weight_swap import WeightSwap
from test.reference.damaging import VALUES
from test.reference.reloadable_estimator import ReloadableEstimator as Network
from test.reference.reloadable_estimator import announced
from test.reference.swap_run import images

CONFIG = "dae_ros.config"


def changed(folder: Path, field: str, value: object) -> Announcement:
    """Write the tiny network with a field of its configuration changed, and announce it."""
    path, tiny = folder / "changed.safetensors", untrained("tiny")
    save_checkpoint(path, tiny.network, tiny.meaning)
    with safetensors.safe_open(path, framework="pt") as file:
        texts = file.metadata()
    texts[CONFIG] = json.dumps({**json.loads(texts[CONFIG]), field: value})
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata=texts)
    data = path.read_bytes()
    return Announcement(9, path, hashlib.sha256(data).hexdigest(), len(data))


def test_every_content_of_the_meta_data_has_a_verdict(tmp_path: Path) -> None:
    """Nothing that a whole file can say of itself raises anything."""
    estimator = create_torch_estimator(DepthParameters(weights="untrained:tiny", device="cpu"))
    for field in ("encoder", "features", "reassemble", "activation", "output_scale"):
        for value in VALUES:
            result = load_announced(changed(tmp_path, field, value), estimator)
            if isinstance(result, Unusable):
                assert result.code in ("damaged", "other_network"), (field, value, result)
            else:
                assert (field, value) == ("output_scale", 1)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(
    "error", [AttributeError, RuntimeError, NotImplementedError, RecursionError, MemoryError]
)
def test_whatever_loading_raises_is_a_verdict(
    tmp_path: Path, error: type[Exception], background: bool
) -> None:
    """Depth steps as before, says `damaged` once, and takes the next version."""

    class Surprised(Network):
        def successor(self, path: Path, version: int) -> Network:
            if version == 9:
                raise error("nobody foresaw this")
            return super().successor(path, version)

    said: list[Verdict] = []
    swap = WeightSwap(
        Surprised(), SwapRules(canary_windows=8), judged=said.append, eager=True,
        background=background,
    )  # fmt: skip
    windows, expected = images(60), Network()

    def step(count: int) -> None:
        for window in windows[:count]:
            np.testing.assert_array_equal(swap.estimate(window), expected.estimate(window))

    step(20)
    swap.announce(announced(tmp_path, 9, gain=1.1))
    deadline_s = time.monotonic() + 120.0
    while not said and time.monotonic() < deadline_s:
        step(1)
        time.sleep(0.001)  # the thread that loads has the lowest priority
    step(20)
    assert [(verdict.version, verdict.outcome, verdict.code) for verdict in said] == [
        (9, "refused", "damaged")
    ]
    assert error.__name__ in said[0].reason and "nobody foresaw this" in said[0].reason
    swap.announce(announced(tmp_path, 10, gain=1.0))
    while swap.weight_version != 10 and time.monotonic() < deadline_s:
        swap.estimate(windows[0])
        time.sleep(0.001)
    assert swap.weight_version == 10
