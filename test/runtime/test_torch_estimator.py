"""The estimator: sizes, state between steps, swaps, and what it refuses."""

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
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState, WeightsError
from dae_ros.model.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from dae_ros.model.configuration import variant
from dae_ros.model.dae_r import DepthAnyEventR
from dae_ros.model.dav2 import METRIC, metric_config
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.runtime import torch_slots
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.background import in_background
from dae_ros.runtime.canary import SwapRules
from dae_ros.runtime.estimator import hampered_by
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_fitting import Fitting
from dae_ros.runtime.torch_runner import GraphRunner, Runner
from dae_ros.runtime.torch_slots import MOST_SLOTS, Slot
from dae_ros.runtime.torch_step import StaticStep
from dae_ros.runtime.weight_stages import Verdict
from dae_ros.runtime.weight_swap import WeightSwap
from test.reference.eager_steps import echo
from test.reference.noise_image import code_of_noise, noise_image


@pytest.fixture
def tiny() -> LoadedModel:
    return untrained("tiny")


def test_steps_are_the_network_with_its_state(tiny: LoadedModel) -> None:
    """Two steps equal resize, normalise, network and resize written out, state carried."""
    estimator = TorchEstimator(tiny)
    network = tiny.network
    assert isinstance(network, DepthAnyEventR)
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    state = network.initial_state(1, 70, 98)
    for step in range(2):
        pixels = torch.from_numpy(noise_image(step))[None]
        resized = torch.nn.functional.interpolate(
            pixels, size=(70, 98), mode="bicubic", align_corners=False, antialias=False
        )
        with torch.no_grad():
            prediction, state = network((resized - mean) / deviation, state)
        expected = torch.nn.functional.interpolate(
            prediction, size=(60, 80), mode="bilinear", align_corners=False
        )
        actual = estimator.estimate(noise_image(step))
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected[0, 0].numpy(), atol=1e-5)
    assert estimator.state_age == 2
    for kept, tensor in zip(estimator.state_arrays(), state, strict=True):
        np.testing.assert_allclose(kept, tensor.numpy(), atol=1e-5)


def test_reset_and_size_changes_begin_anew(tiny: LoadedModel) -> None:
    """After reset, and with another sensor size, the step is a first step, bit for bit."""
    estimator = TorchEstimator(tiny)
    first = estimator.estimate(noise_image())
    second = estimator.estimate(noise_image())
    assert not np.array_equal(first, second)
    estimator.reset()
    assert (estimator.state_age, estimator.state_arrays()) == (0, ())
    np.testing.assert_array_equal(estimator.estimate(noise_image()), first)
    other = estimator.estimate(noise_image(1, 61, 83))
    assert other.shape == (61, 83)
    assert estimator.state_age == 1
    np.testing.assert_array_equal(
        TorchEstimator(untrained("tiny")).estimate(noise_image(1, 61, 83)), other
    )


def test_image_is_only_read(tiny: LoadedModel) -> None:
    """Read-only and strided images are taken, and no image is written to."""
    image = noise_image()
    before = image.copy()
    expected = TorchEstimator(tiny).estimate(image)
    np.testing.assert_array_equal(image, before)
    image.flags.writeable = False
    np.testing.assert_array_equal(TorchEstimator(tiny).estimate(image), expected)
    strided = np.ascontiguousarray(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    np.testing.assert_array_equal(TorchEstimator(tiny).estimate(strided), expected)


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


def test_values_that_are_not_finite_are_reported(tiny: LoadedModel) -> None:
    """A NaN that entered the state is reported at that step, and a reset heals it."""
    estimator = TorchEstimator(tiny)
    healthy = estimator.estimate(noise_image())
    estimator.reset()
    image = noise_image()
    image[1, 20, 30] = np.nan
    with pytest.raises(NonFiniteState) as caught:
        estimator.estimate(image)
    assert caught.value.data["state_age"] == 1
    with pytest.raises(NonFiniteState):
        estimator.estimate(noise_image())
    estimator.reset()
    np.testing.assert_array_equal(estimator.estimate(noise_image()), healthy)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_keeps_a_float32_state(tiny: LoadedModel, precision: str) -> None:
    """Half precision comes close to float32 and returns float32."""
    expected = TorchEstimator(tiny).estimate(noise_image())
    estimator = TorchEstimator(tiny, precision=precision)
    actual = estimator.estimate(noise_image())
    assert actual.dtype == np.float32
    assert 0 < np.abs(actual - expected).mean() < 0.03
    assert all(array.dtype == np.float32 for array in estimator.state_arrays())


def test_frames_network_aligns_corners_both_ways() -> None:
    """Depth Anything V2 has no state and is brought back to the sensor with aligned corners."""
    config = dataclasses.replace(metric_config("tiny", 20.0), input_height=70, input_width=98)
    torch.manual_seed(0)
    network = build_network(config).eval()
    estimator = TorchEstimator(LoadedModel("d", network, config, METRIC, "0" * 64))
    depth = estimator.estimate(noise_image())
    assert estimator.state_arrays() == ()
    np.testing.assert_array_equal(estimator.estimate(noise_image()), depth)
    with torch.no_grad():
        fitting = Fitting(config, network.multiple, torch.device("cpu"))
        prediction, _ = network(fitting.prepare(torch.from_numpy(noise_image())[None]))
    assert depth[0, 0] == pytest.approx(float(prediction[0, 0, 0, 0]), abs=1e-5)
    assert depth[-1, -1] == pytest.approx(float(prediction[0, 0, -1, -1]), abs=1e-5)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((60, 80, 3), np.float32),
        np.zeros((3, 60, 80), np.float64),
        np.zeros((3, 60, 80), np.uint8),
        np.zeros((1, 3, 60, 80), np.float32),
        np.zeros((3, 60, 80), np.uint16),
        np.zeros((60, 80), np.float32),
    ],
)
def test_wrong_images_are_refused_by_the_estimator(
    tiny: LoadedModel, image: NDArray[np.float32]
) -> None:
    """Only float32[3, height, width] and the code uint16[height, width] are images."""
    with pytest.raises(ConfigurationError, match=r"float32\[3, height, width\] or .* uint16\[h"):
        TorchEstimator(tiny).estimate(image)


def test_networks_of_other_channels_take_no_codes() -> None:
    """A code is three planes; a network of voxel grids has five."""
    estimator = TorchEstimator(untrained("tiny_e2depth"))
    with pytest.raises(ConfigurationError, match=r"float32\[5, height, width\]$"):
        estimator.estimate(code_of_noise())
    assert estimator.state_age == 0


def test_failures_of_pytorch_are_inference_errors(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A RuntimeError inside the network arrives as InferenceError, and the state is untouched."""
    estimator = TorchEstimator(tiny)
    estimator.estimate(noise_image())
    with monkeypatch.context() as patch:
        weight = estimator._slot.weights.network.depth_head.scratch.output_conv1
        patch.setattr(weight, "padding", (-5, -5))
        with pytest.raises(InferenceError, match="failed on cpu"):
            estimator.estimate(noise_image())
    assert estimator.state_age == 1
    estimator.estimate(noise_image())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees_with_cpu(tiny: LoadedModel) -> None:
    """float32 on a GPU is float32: within 1e-4 of the CPU, and the same bits twice."""
    expected = TorchEstimator(tiny).estimate(noise_image())
    actual = TorchEstimator(untrained("tiny"), device="cuda").estimate(noise_image())
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    again = TorchEstimator(untrained("tiny"), device="cuda").estimate(noise_image())
    np.testing.assert_array_equal(again, actual)
