"""The estimator: sizes, state between steps, swaps, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState, WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import Meaning, variant
from dae_ros.model.dae_r import DepthAnyEventR
from dae_ros.model.dav2 import METRIC, RELATIVE, metric_config
from dae_ros.model.networks import build_network
from dae_ros.model.untrained import NAMES, untrained
from dae_ros.nodes.launch_arguments import ARGUMENTS
from dae_ros.parameters import DepthParameters, declarations
from dae_ros.runtime.torch_estimator import TorchEstimator, create_torch_estimator, output_meaning


@pytest.fixture
def tiny() -> LoadedModel:
    return untrained("tiny")


def event_image(seed: int = 0, height: int = 60, width: int = 80) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.random((3, height, width), dtype=np.float32)


def test_steps_are_the_network_with_its_state(tiny: LoadedModel) -> None:
    """Two steps equal resize, normalise, network and resize written out, state carried."""
    estimator = TorchEstimator(tiny)
    network = tiny.network
    assert isinstance(network, DepthAnyEventR)
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    state = network.initial_state(1, 70, 98)
    for step in range(2):
        pixels = torch.from_numpy(event_image(step))[None]
        resized = torch.nn.functional.interpolate(
            pixels, size=(70, 98), mode="bicubic", align_corners=False, antialias=False
        )
        with torch.no_grad():
            prediction, state = network((resized - mean) / deviation, state)
        expected = torch.nn.functional.interpolate(
            prediction, size=(60, 80), mode="bilinear", align_corners=False
        )
        actual = estimator.estimate(event_image(step))
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected[0, 0].numpy(), atol=1e-5)
    assert estimator.state_age == 2
    for kept, tensor in zip(estimator.state_arrays(), state, strict=True):
        np.testing.assert_allclose(kept, tensor.numpy(), atol=1e-5)


def test_reset_and_size_changes_begin_anew(tiny: LoadedModel) -> None:
    """After reset, and with another sensor size, the step is a first step, bit for bit."""
    estimator = TorchEstimator(tiny)
    first = estimator.estimate(event_image())
    second = estimator.estimate(event_image())
    assert not np.array_equal(first, second)
    estimator.reset()
    assert (estimator.state_age, estimator.state_arrays()) == (0, ())
    np.testing.assert_array_equal(estimator.estimate(event_image()), first)
    other = estimator.estimate(event_image(1, 61, 83))
    assert other.shape == (61, 83)
    assert estimator.state_age == 1
    np.testing.assert_array_equal(
        TorchEstimator(untrained("tiny")).estimate(event_image(1, 61, 83)), other
    )


def test_image_is_only_read(tiny: LoadedModel) -> None:
    """Read-only and strided images are taken, and no image is written to."""
    image = event_image()
    before = image.copy()
    expected = TorchEstimator(tiny).estimate(image)
    np.testing.assert_array_equal(image, before)
    image.flags.writeable = False
    np.testing.assert_array_equal(TorchEstimator(tiny).estimate(image), expected)
    strided = np.ascontiguousarray(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    np.testing.assert_array_equal(TorchEstimator(tiny).estimate(strided), expected)


def test_weights_are_swapped_between_steps(tiny: LoadedModel) -> None:
    """Loading other weights changes name, digest and version, and begins a new state."""
    estimator = TorchEstimator(tiny)
    first = estimator.estimate(event_image())
    assert (estimator.weight_version, estimator.digest) == (0, tiny.digest)
    other = dataclasses.replace(untrained("tiny", seed=1), name="other")
    estimator.load(other)
    assert (estimator.weight_version, estimator.state_age) == (1, 0)
    assert (estimator.name, estimator.digest) == ("other", other.digest)
    assert not np.array_equal(estimator.estimate(event_image()), first)
    estimator.load(tiny)
    assert estimator.weight_version == 2
    np.testing.assert_array_equal(estimator.estimate(event_image()), first)


def test_values_that_are_not_finite_are_reported(tiny: LoadedModel) -> None:
    """A NaN that entered the state is reported at that step, and a reset heals it."""
    estimator = TorchEstimator(tiny)
    healthy = estimator.estimate(event_image())
    estimator.reset()
    image = event_image()
    image[1, 20, 30] = np.nan
    with pytest.raises(NonFiniteState) as caught:
        estimator.estimate(image)
    assert caught.value.data["state_age"] == 1
    with pytest.raises(NonFiniteState):
        estimator.estimate(event_image())
    estimator.reset()
    np.testing.assert_array_equal(estimator.estimate(event_image()), healthy)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_keeps_a_float32_state(tiny: LoadedModel, precision: str) -> None:
    """Half precision comes close to float32 and returns float32."""
    expected = TorchEstimator(tiny).estimate(event_image())
    estimator = TorchEstimator(tiny, precision=precision)
    actual = estimator.estimate(event_image())
    assert actual.dtype == np.float32
    assert 0 < np.abs(actual - expected).mean() < 0.03
    assert all(array.dtype == np.float32 for array in estimator.state_arrays())


def test_frames_network_aligns_corners_both_ways() -> None:
    """Depth Anything V2 has no state and is brought back to the sensor with aligned corners."""
    config = dataclasses.replace(metric_config("tiny", 20.0), input_height=70, input_width=98)
    torch.manual_seed(0)
    network = build_network(config).eval()
    estimator = TorchEstimator(LoadedModel("d", network, config, METRIC, "0" * 64))
    depth = estimator.estimate(event_image())
    assert estimator.state_arrays() == ()
    np.testing.assert_array_equal(estimator.estimate(event_image()), depth)
    with torch.no_grad():
        prediction, _ = network(estimator._prepare(event_image()))
    assert depth[0, 0] == pytest.approx(float(prediction[0, 0, 0, 0]), abs=1e-5)
    assert depth[-1, -1] == pytest.approx(float(prediction[0, 0, -1, -1]), abs=1e-5)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((60, 80, 3), np.float32),
        np.zeros((3, 60, 80), np.float64),
        np.zeros((3, 60, 80), np.uint8),
        np.zeros((1, 3, 60, 80), np.float32),
    ],
)
def test_wrong_images_are_refused_by_the_estimator(
    tiny: LoadedModel, image: NDArray[np.float32]
) -> None:
    """Only float32[3, height, width] is an image."""
    with pytest.raises(ConfigurationError, match=r"float32\[3, height, width\]"):
        TorchEstimator(tiny).estimate(image)


def test_failures_of_pytorch_are_inference_errors(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A RuntimeError inside the network arrives as InferenceError, and the state is untouched."""
    estimator = TorchEstimator(tiny)
    estimator.estimate(event_image())
    with monkeypatch.context() as patch:
        weight = estimator._network.depth_head.scratch.output_conv1
        patch.setattr(weight, "padding", (-5, -5))
        with pytest.raises(InferenceError, match="failed on cpu"):
            estimator.estimate(event_image())
    assert estimator.state_age == 1
    estimator.estimate(event_image())


def test_meaning_reaches_the_pipeline() -> None:
    """Metric, measured and relative checkpoints become what the pipeline publishes."""
    assert output_meaning(METRIC).metric
    assert not output_meaning(RELATIVE).metric
    assert output_meaning(Meaning()).orientation == "unknown"
    measured = output_meaning(
        Meaning(orientation="inverse_depth", metres_scale=0.5, metres_shift=0.25)
    )
    assert (measured.metric, measured.scale, measured.shift) == (True, 0.5, 0.25)


def test_estimator_from_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters choose weights, device and threads; what cannot be had is explained."""
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    estimator = create_torch_estimator(DepthParameters(weights="untrained:tiny", threads=3))
    assert estimator.name == "untrained:tiny"
    assert estimator.estimate(event_image()).shape == (60, 80)
    create_torch_estimator(DepthParameters(weights="untrained:tiny"))
    assert threads[0] == 3
    assert threads[1] >= 1
    for device in ("cuda", "cuda:9", "tpu", "meta"):
        with pytest.raises(ConfigurationError, match=device):
            create_torch_estimator(DepthParameters(weights="untrained:tiny", device=device))
    with pytest.raises(WeightsError):
        create_torch_estimator(DepthParameters(weights="no/such/file.pth"))


def test_frame_weights_need_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights for camera frames are not fed with events unless the user asks for it."""
    config = variant("tiny", recurrence=None)
    frames = LoadedModel("frames", build_network(config), config, RELATIVE, "0" * 64)
    monkeypatch.setattr("dae_ros.runtime.torch_estimator.load_weights", lambda _: frames)
    with pytest.raises(ConfigurationError, match="camera frames"):
        create_torch_estimator(DepthParameters(weights="x"))
    create_torch_estimator(DepthParameters(weights="x", event_encoder="tencode"))


@pytest.mark.parametrize("weights", ["tiny_e2depth", "micro_frames"])
def test_event_images_of_other_channels_are_refused_at_the_start(weights: str) -> None:
    """A network of five bins or of grey frames cannot be fed Tencode, and says so when loaded."""
    with pytest.raises(ConfigurationError, match="Leave event_encoder at checkpoint"):
        create_torch_estimator(
            DepthParameters(weights=f"untrained:{weights}", event_encoder="tencode")
        )
    estimator = create_torch_estimator(DepthParameters(weights="untrained:tiny_e2depth"))
    assert (estimator.meaning.event_encoder, estimator.input_channels) == ("voxel_grid", 5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees_with_cpu(tiny: LoadedModel) -> None:
    """float32 on a GPU is float32: within 1e-4 of the CPU, and the same bits twice."""
    expected = TorchEstimator(tiny).estimate(event_image())
    actual = TorchEstimator(untrained("tiny"), device="cuda").estimate(event_image())
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    again = TorchEstimator(untrained("tiny"), device="cuda").estimate(event_image())
    np.testing.assert_array_equal(again, actual)


def test_the_untrained_networks_that_are_offered_are_those_that_take_events() -> None:
    """The list in the description of `weights` is every untrained network but that of frames."""
    description = declarations(DepthParameters)["weights"][1].description
    offered = description[description.rindex("(") + 1 : description.rindex(")")].split(", ")
    assert offered == [name for name in NAMES if name != "micro_frames"]
    with pytest.raises(ConfigurationError, match="camera frames"):
        create_torch_estimator(DepthParameters(weights="untrained:micro_frames", device="cpu"))
    texts = [argument.description for argument in ARGUMENTS if argument.name == "weights"]
    assert all(f"({', '.join(offered)})" in text for text in texts)
