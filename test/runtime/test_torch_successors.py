"""Estimators that take the place of another: new weights, their state, and how many there are."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dae_ros.errors import WeightsError
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from dae_ros.model.configuration import variant
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.runtime import torch_slots
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.background import in_background
from dae_ros.runtime.canary import SwapRules
from dae_ros.runtime.estimator import hampered_by
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_runner import GraphRunner, Runner
from dae_ros.runtime.torch_slots import MOST_SLOTS, Slot
from dae_ros.runtime.torch_step import StaticStep
from dae_ros.runtime.weight_stages import Verdict
from dae_ros.runtime.weight_swap import WeightSwap
from test.reference.eager_steps import echo
from test.reference.noise_image import noise_image


@pytest.fixture
def tiny() -> LoadedModel:
    return untrained("tiny")


def saved(folder: Path, version: int, loaded: LoadedModel) -> Announcement:
    """Write a checkpoint as a trainer does and return its announcement."""
    path = folder / f"w_{version:06d}.safetensors"
    digest = save_checkpoint(path, loaded.network, loaded.meaning)
    return Announcement(version, path, digest, path.stat().st_size)


def changed(loaded: LoadedModel, share: float, seed: int = 3) -> LoadedModel:
    """Return a copy whose weights differ by a share of their size."""
    network = copy.deepcopy(loaded.network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += share * parameter.norm() * noise / noise.norm()
    return dataclasses.replace(loaded, network=network)


def test_a_successor_has_other_weights_and_a_state_of_its_own(
    tmp_path: Path, tiny: LoadedModel
) -> None:
    """Loading beside the present weights touches neither their state nor their output."""
    estimator, undisturbed = TorchEstimator(tiny), TorchEstimator(untrained("tiny"))
    first = estimator.estimate(noise_image())
    undisturbed.estimate(noise_image())
    announced = saved(tmp_path, 5, changed(tiny, 0.1))
    successor = estimator.successor(announced.path, 5)
    assert (estimator.weight_version, estimator.digest) == (0, tiny.digest)
    assert (successor.weight_version, successor.digest) == (5, announced.sha256)
    assert (successor.state_age, successor.state_arrays()) == (0, ())
    assert successor.weight_change(estimator) == pytest.approx(0.1, rel=1e-3)
    assert estimator.weight_change(estimator) == 0.0
    other = successor.estimate(noise_image())
    assert not np.array_equal(other, first)
    second = estimator.estimate(noise_image(1))
    np.testing.assert_array_equal(second, undisturbed.estimate(noise_image(1)))
    successor.adopt_state(estimator)
    assert successor.state_age == 2
    for ours, theirs in zip(successor.state_arrays(), estimator.state_arrays(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    before = estimator.state_arrays()
    successor.estimate(noise_image(2))
    for ours, theirs in zip(estimator.state_arrays(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_new_weights_are_ready_to_step_when_they_are_there(
    tmp_path: Path, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What records a step is made where weights are loaded, not where windows wait for it."""
    makers: list[int] = []
    make = torch_slots._runner

    def watched(step: StaticStep) -> Runner:
        makers.append(threading.get_ident())
        return make(step)

    monkeypatch.setattr(torch_slots, "_runner", watched)
    here, path = threading.get_ident(), saved(tmp_path, 1, changed(tiny, 0.1)).path
    estimator = TorchEstimator(tiny)
    early = estimator.successor(path, 1)  # before an image told the size
    assert makers == []
    estimator.estimate(noise_image())
    assert makers == [here]
    work = in_background(lambda: early.successor(path, 2) and estimator.successor(path, 3))
    work.join(60.0)
    ready = work.result()
    assert makers == [here, work.thread.ident]
    fresh = TorchEstimator(load_checkpoint(path)).estimate(noise_image())
    del makers[:]
    np.testing.assert_array_equal(ready.estimate(noise_image()), fresh)
    ready.estimate(noise_image(1))
    assert makers == []
    ready.estimate(noise_image(0, 40, 60))
    assert makers == [here]


def test_steps_that_could_not_be_recorded_are_told(
    tmp_path: Path, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, of the weights in use alone: others may have been recorded."""

    def refused(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("CUDA error: not permitted\nwhen stream is capturing")

    estimator, plain = TorchEstimator(tiny), TorchEstimator(tiny)
    monkeypatch.setattr(torch_slots, "_runner", lambda step: GraphRunner(step, refused))
    assert hampered_by(estimator) == ()
    estimator.estimate(noise_image())
    why = (
        "steps take longer, without CUDA graphs: it cannot be recorded (CUDA error: not permitted "
        "when stream is capturing)"
    )
    assert hampered_by(estimator) == (why,)
    monkeypatch.setattr(torch_slots, "_runner", lambda step: GraphRunner(step, echo))
    path = saved(tmp_path, 1, changed(tiny, 0.1)).path
    assert hampered_by(estimator.successor(path, 1)) == ()
    monkeypatch.undo()
    plain.estimate(noise_image())
    assert hampered_by(plain) == ()


def test_successors_of_another_network_or_meaning_are_refused(
    tmp_path: Path, tiny: LoadedModel
) -> None:
    """Another size, unit or orientation is named; so is a file without weights."""
    estimator = TorchEstimator(tiny)
    network = build_network(variant("tiny", activation="relu"))
    path = saved(tmp_path, 1, dataclasses.replace(tiny, network=network)).path
    with pytest.raises(WeightsError, match="another network") as caught:
        estimator.successor(path, 1)
    assert caught.value.data["refusal"] == "other_network"
    for meaning in (
        dataclasses.replace(tiny.meaning, event_encoder="tencode_voxel"),
        dataclasses.replace(tiny.meaning, orientation="depth"),
        dataclasses.replace(tiny.meaning, orientation="depth", scale="metric"),
    ):
        path = saved(tmp_path, 1, dataclasses.replace(tiny, meaning=meaning)).path
        with pytest.raises(WeightsError, match="means something else") as caught:
            estimator.successor(path, 1)
        assert caught.value.data["refusal"] == "other_meaning"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="damaged"):
        estimator.successor(path, 1)


@pytest.mark.parametrize("how", ["direct", "replayed"])
def test_after_a_change_of_weights_the_network_is_a_fresh_load_with_the_last_windows(
    tmp_path: Path, tiny: LoadedModel, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the swap, and written out with a new estimator: the same bits and the same state.

    Also where a step is replayed, here by a stand-in for the graphs of a GPU.
    """
    direct = torch_slots._runner
    if how == "replayed":
        monkeypatch.setattr(torch_slots, "_runner", lambda step: GraphRunner(step, echo))
    verdicts: list[Verdict] = []
    swap = WeightSwap(
        TorchEstimator(tiny),
        SwapRules(replay_windows=4, canary_windows=8, latency=1e9),
        judged=verdicts.append,
        eager=True,
        background=False,
    )
    windows = [noise_image(seed) for seed in range(20)]
    for window in windows[:6]:
        swap.estimate(window)
    announced = saved(tmp_path, 1, changed(tiny, 1e-2))
    swap.announce(announced)
    outputs = [swap.estimate(window) for window in windows[6:]]
    monkeypatch.setattr(torch_slots, "_runner", direct)
    fresh = TorchEstimator(load_checkpoint(announced.path))
    expected = [fresh.estimate(window) for window in windows[2:]][4:]
    for output, other in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(output, other)
    assert [(v.version, v.outcome) for v in verdicts] == [(1, "swapped"), (1, "kept")]


def test_a_storm_of_weights_needs_three_slots(
    tmp_path: Path, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept, refused and rolled back, one after the other: memory is made thrice, then filled."""
    slots: list[Slot] = []
    make = Slot.__init__

    def counted(self: Slot, *arguments: Any) -> None:
        slots.append(self)
        make(self, *arguments)

    monkeypatch.setattr(Slot, "__init__", counted)
    verdicts: list[Verdict] = []
    rules = SwapRules(replay_windows=16, canary_windows=8, latency=1e9, flicker=1e9)
    swap = WeightSwap(
        TorchEstimator(tiny), rules, judged=verdicts.append, eager=True, background=False
    )
    windows = (noise_image(seed) for seed in range(100))
    for version in range(1, 6):
        for _ in range(16):
            swap.estimate(next(windows))
        share = 2.0 if version in (2, 4) else 1e-2
        announced = saved(tmp_path, version, changed(tiny, share, seed=version))
        swap.announce(announced)
        swap.estimate(next(windows))
        if version == 3:
            assert swap.roll_back()
    swap.estimate(next(windows))
    outcomes = {verdict.outcome for verdict in verdicts}
    assert outcomes == {"swapped", "kept", "refused", "rolled_back"}
    assert len(slots) == MOST_SLOTS
    fresh = TorchEstimator(load_checkpoint(announced.path))
    swap.reset()
    np.testing.assert_array_equal(swap.estimate(noise_image()), fresh.estimate(noise_image()))
    assert (swap.weight_version, swap.digest) == (5, announced.sha256)


def test_estimators_made_in_inference_mode_work_outside_of_it(
    tmp_path: Path, tiny: LoadedModel
) -> None:
    """Steps, resets and new weights in memory that was made within a caller's inference mode."""
    path = saved(tmp_path, 1, changed(tiny, 0.1)).path
    with torch.inference_mode():
        estimator = TorchEstimator(tiny)
        first = estimator.estimate(noise_image())
        estimator.successor(path, 1).estimate(noise_image())
    estimator.reset()
    np.testing.assert_array_equal(estimator.estimate(noise_image()), first)
    again = estimator.successor(path, 2)
    fresh = TorchEstimator(load_checkpoint(path))
    np.testing.assert_array_equal(again.estimate(noise_image()), fresh.estimate(noise_image()))
