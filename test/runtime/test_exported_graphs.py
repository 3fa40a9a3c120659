"""Exported graphs compute what PyTorch computes, step by step, on every runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.untrained import untrained
from dae_ros.representation.tencode_code import unpack_tencode
from dae_ros.runtime.onnx_export import export_onnx
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.warm_up import warm_up
from test.reference.graph_estimators import HAS_OPENVINO, estimator_of, noise
from test.reference.noise_image import code_of_noise

# Not importorskip: whoever imports onnxruntime first decides about its telemetry.
if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
    pytest.skip("the extra `onnx` is not installed", allow_module_level=True)

RUNTIMES = [
    "onnxruntime",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(not HAS_OPENVINO, reason="the extra `openvino` is not installed"),
    ),
]


def compare(path: Path, loaded: LoadedModel, backend: str, height: int, width: int) -> None:
    """Step file and PyTorch from zero, reset, step again; outputs and states agree."""
    graph, torch_estimator = estimator_of(path, backend), TorchEstimator(loaded)
    images = noise(4, graph.input_channels, height, width)
    first = []
    for image in images:
        actual, expected = graph.estimate(image), torch_estimator.estimate(image)
        assert (actual.dtype, actual.shape) == (np.float32, (height, width))
        np.testing.assert_allclose(actual, expected, atol=5e-4 * expected.std(), rtol=1e-4)
        first.append(actual)
    states = torch_estimator.state_arrays()
    assert (len(graph.state_arrays()), graph.state_age) == (len(states), 4)
    for ours, theirs in zip(graph.state_arrays(), states, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3 * theirs.std())
    graph.reset()
    assert graph.state_age == 0
    for image, before in zip(images, first, strict=True):
        np.testing.assert_array_equal(graph.estimate(image), before)


# Odd sides, a side that needs no scaling, tall images, padding by reflection, no memory. With the
# file that most tests use, tiny is compared at six sizes; bench_export_sizes has more.
CASES = [
    ("tiny", 61, 83),
    ("tiny_e2depth", 60, 81),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("tiny", 120, 70),
            ("tiny", 70, 98),
            ("tiny", 180, 240),
            ("tiny", 45, 130),
            ("micro_memoryless", 45, 130),
            ("micro_frames", 100, 64),
        )
    ),
]


@pytest.mark.parametrize(("name", "height", "width"), CASES, ids=str)
def test_exported_graphs_agree_with_pytorch(
    tmp_path: Path, name: str, height: int, width: int
) -> None:
    """Networks and sizes: the parity check passes, and other images agree on each runtime."""
    loaded, path = untrained(name), tmp_path / "x.onnx"
    deviation = export_onnx(loaded, path, height, width)
    assert 0.0 < deviation.root_mean_square < 1e-4
    assert deviation.steps >= 8
    if name == "micro_frames":
        return  # takes camera frames: no events to feed it with
    for backend in ("onnxruntime", *(["openvino"] if HAS_OPENVINO else [])):
        compare(path, loaded, backend, height, width)


@pytest.mark.parametrize("backend", RUNTIMES)
def test_states_are_carried_and_reset(tiny_graph: Path, backend: str) -> None:
    """The recurrent network agrees over steps, remembers, and begins anew after a reset."""
    compare(tiny_graph, untrained("tiny"), backend, 60, 80)
    graph = estimator_of(tiny_graph, backend)
    (image,) = noise(1, 3, 60, 80)
    assert not np.array_equal(graph.estimate(image), graph.estimate(image))


@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_state_may_come_from_elsewhere(tiny_graph: Path, backend: str) -> None:
    """A second graph that is given the state goes on as the first one does."""
    images = noise(3, 3, 60, 80)
    graph, other = estimator_of(tiny_graph, backend), estimator_of(tiny_graph, backend)
    for image in images[:2]:
        graph.estimate(image)
    other.set_state(graph.state_arrays(), graph.state_age)
    np.testing.assert_array_equal(other.estimate(images[2]), graph.estimate(images[2]))
    assert other.state_age == 3


@pytest.mark.parametrize("backend", RUNTIMES)
def test_outputs_belong_to_the_caller(tiny_graph: Path, backend: str) -> None:
    """A step changes neither what the last one returned nor the image, which may be read-only."""
    graph, (image, other) = estimator_of(tiny_graph, backend), noise(2, 3, 60, 80)
    image.flags.writeable = False
    first = graph.estimate(image)
    copy = first.copy()
    graph.estimate(other)
    np.testing.assert_array_equal(first, copy)
    first[:] = 0.0
    strided = np.ascontiguousarray(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    graph.reset()
    np.testing.assert_array_equal(graph.estimate(strided), copy)


@pytest.mark.parametrize("backend", RUNTIMES)
def test_codes_are_stepped_as_the_planes_they_stand_for(tiny_graph: Path, backend: str) -> None:
    """The code of a Tencode, its planes and another code give what planes alone give."""
    graph, expected = estimator_of(tiny_graph, backend), estimator_of(tiny_graph, backend)
    codes = [code_of_noise(seed, 60, 80) for seed in range(3)]
    for turn, code in enumerate(codes):
        given = unpack_tencode(code) if turn == 1 else code
        np.testing.assert_array_equal(
            graph.estimate(given), expected.estimate(unpack_tencode(code))
        )


@pytest.mark.parametrize("backend", RUNTIMES)
def test_values_that_are_not_finite_are_reported(tiny_graph: Path, backend: str) -> None:
    """NaN in the image is reported, NaN in the state is reported, and a reset heals both."""
    graph, (image,) = estimator_of(tiny_graph, backend), noise(1, 3, 60, 80)
    healthy = graph.estimate(image)
    graph.reset()
    bad = image.copy()
    bad[1, 20, 30] = np.nan
    with pytest.raises(NonFiniteState) as caught:
        graph.estimate(bad)
    assert (caught.value.data["state_age"], graph.state_age) == (1, 1)
    graph.reset()
    np.testing.assert_array_equal(graph.estimate(image), healthy)
    for broken in range(len(graph.state_arrays())):
        state = graph.state_arrays()
        state[broken].flat[0] = np.nan
        graph.set_state(state, 5)
        with pytest.raises(NonFiniteState):
            graph.estimate(image)
        graph.reset()
    np.testing.assert_array_equal(graph.estimate(image), healthy)


def test_other_sizes_and_images_are_refused(tiny_graph: Path) -> None:
    """Another sensor names the export that is needed; another array says what an image is."""
    graph = estimator_of(tiny_graph)
    with pytest.raises(InferenceError, match="--height 61 --width 80"):
        graph.estimate(np.zeros((3, 61, 80), np.float32))
    for image in (np.zeros((1, 60, 80), np.float32), np.zeros((3, 60, 80))):
        with pytest.raises(ConfigurationError, match=r"float32\[3, height, width\]"):
            graph.estimate(image.astype(image.dtype))
    warm_up(graph)
    assert graph.state_age == 0
