"""The steps of test_torch_step.py on a GPU, recorded and replayed as CUDA graphs."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dae_ros.model.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from dae_ros.model.untrained import untrained
from dae_ros.runtime.background import in_background
from dae_ros.runtime.torch_cameras import CameraBatch
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_runner import GraphRunner, cuda_capture
from dae_ros.runtime.torch_step import Precision, StaticStep, StaticWeights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

SIZE = (60, 80)
# Half precision: kernels may be others while recording. float32: the bits of deterministic ones.
CLOSE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}
NETWORKS = ["tiny", "micro", "vits", "tiny_e2depth", "tiny_ereformer"]


def images(count: int, channels: int = 3, seed: int = 0) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.random((channels, *SIZE), dtype=np.float32) for _ in range(count)]


def event_images(count: int) -> list[NDArray[np.float32]]:
    """Return images of one polarity with an age at each pixel that has an event."""
    made = []
    for noise in images(count):
        on, seen = noise[0] > 0.5, noise[2] > 0.5
        made.append(np.where(seen, np.stack([on, noise[1], ~on]), 0).astype(np.float32))
    return made


def changed(loaded: LoadedModel, folder: Path) -> Path:
    """Write a checkpoint of which every weight is another."""
    network = copy.deepcopy(loaded.network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    path = folder / "changed.safetensors"
    save_checkpoint(path, network, loaded.meaning)
    return path


def made(loaded: LoadedModel, precision: Precision) -> StaticStep:
    return StaticStep(StaticWeights(loaded, torch.device("cuda"), precision), 1, *SIZE)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_replayed_steps_are_the_direct_ones_on_a_gpu(name: str, precision: Precision) -> None:
    """Ten steps with a reset: recorded without a fallback, and what the direct step gives."""
    loaded = untrained(name)
    if (name, precision) == ("tiny_ereformer", "float16"):
        pytest.skip("its attention overflows float16")
    step, other = made(loaded, precision), made(loaded, precision)
    stream = step.weights.stream
    assert stream is not None
    replayed, direct = GraphRunner(step, cuda_capture(stream)), GraphRunner(other, None)
    assert replayed.fallback is None
    for index, image in enumerate(images(10, step.shape[1])):
        if index == 6:
            step.reset()
            other.reset()
        ours, theirs = replayed.run([image])[0], direct.run([image])[0]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=CLOSE[precision] * theirs.max())
    for kept, expected in zip(step.state, other.state, strict=True):
        torch.testing.assert_close(kept, expected, rtol=0, atol=10 * CLOSE[precision])


@pytest.mark.parametrize("name", ["tiny", "micro"])
def test_a_gpu_in_float32_agrees_with_the_cpu(name: str) -> None:
    """Noise and Tencode, which goes over in 16 bits: within 1e-3 of the largest value."""
    here, there = TorchEstimator(untrained(name)), TorchEstimator(untrained(name), device="cuda")
    for image in (*images(3), *event_images(3)):
        expected = here.estimate(image)
        np.testing.assert_allclose(there.estimate(image), expected, atol=1e-3 * expected.max())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_new_weights_need_no_new_graph(tmp_path: Path, precision: Precision) -> None:
    """A slot that is filled again replays the new weights, positions included, bit for bit."""
    first = TorchEstimator(untrained("tiny"), device="cuda", precision=precision)
    path = changed(untrained("tiny"), tmp_path)
    dropped = first.successor(path, 1)
    expected = [dropped.estimate(image) for image in images(3)]
    slot, step = dropped._slot, dropped._slot.step
    del dropped
    second = first.successor(path, 2)
    assert second._slot is slot
    assert second._slot.step is step
    for image, other in zip(images(3), expected, strict=True):
        np.testing.assert_array_equal(second.estimate(image), other)
    fresh = TorchEstimator(load_checkpoint(path), device="cuda", precision=precision)
    np.testing.assert_array_equal(fresh.estimate(images(1)[0]), expected[0])


def test_another_thread_may_use_the_gpu_while_a_step_is_recorded() -> None:
    """Memory that is taken and filled on another thread meanwhile spoils no recording."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            torch.randn(1 << 16, device="cuda").sum().item()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(3):
            step = made(untrained("tiny"), "float32")
            stream = step.weights.stream
            assert stream is not None
            assert GraphRunner(step, cuda_capture(stream)).fallback is None
    finally:
        ended.set()
        thread.join()


def test_new_weights_are_recorded_while_the_present_ones_step(tmp_path: Path) -> None:
    """On the thread that loads: replayed from the first step on, and no step of before is off."""
    first, other = (TorchEstimator(untrained("tiny"), device="cuda") for _ in range(2))
    path, (image,) = changed(untrained("tiny"), tmp_path), images(1)
    for estimator in (first, other):
        estimator.estimate(image)
    work = in_background(lambda: first.successor(path, 1))
    while not work.done():
        np.testing.assert_array_equal(first.estimate(image), other.estimate(image))
    second = work.result()
    runner = second._slot.fit(*SIZE)[1]
    assert isinstance(runner, GraphRunner) and runner.fallback is None
    fresh = TorchEstimator(load_checkpoint(path), device="cuda")
    np.testing.assert_array_equal(second.estimate(image), fresh.estimate(image))
    assert second._slot.fit(*SIZE)[1] is runner


def test_cameras_on_a_gpu_are_single_ones() -> None:
    """Three cameras, one absent at times, as three estimators."""
    together = CameraBatch(untrained("tiny"), 3, device="cuda")
    alone = [TorchEstimator(untrained("tiny"), device="cuda") for _ in range(3)]
    for turn in range(4):
        given = [image if turn != k else None for k, image in enumerate(images(3, seed=turn))]
        for camera, result in enumerate(together.estimate(given)):
            image = given[camera]
            if image is None:
                assert result is None
            else:
                expected = alone[camera].estimate(image)
                assert isinstance(result, np.ndarray)
                np.testing.assert_allclose(result, expected, atol=1e-4 * expected.max())
