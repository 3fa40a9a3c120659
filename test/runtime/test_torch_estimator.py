"""The estimator: sizes, state between steps, swaps, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.dae_r import DepthAnyEventR
from dae_ros.model.dav2 import METRIC, metric_config
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import untrained
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.torch_fitting import Fitting
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
