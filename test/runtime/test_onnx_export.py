"""Exported graphs compute what PyTorch computes, on every runtime, or they are not written."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dae_ros.cli.main import main
from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState, WeightsError
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.untrained import untrained
from dae_ros.parameters import DepthParameters
from dae_ros.runtime import onnx_export
from dae_ros.runtime.backends import create_estimator, follow_weights
from dae_ros.runtime.graph_estimator import GraphEstimator
from dae_ros.runtime.onnx_description import read_description
from dae_ros.runtime.onnx_export import export_onnx
from dae_ros.runtime.onnx_parity import measure_deviation, moving_edges
from dae_ros.runtime.onnxruntime_graph import OnnxRuntimeGraph, execution_providers
from dae_ros.runtime.openvino_graph import keep_keys_as_rows, openvino_core
from dae_ros.runtime.torch_estimator import TorchEstimator
from dae_ros.runtime.warm_up import warm_up

# Not importorskip: whoever imports onnxruntime first decides about its telemetry.
if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
    pytest.skip("the extra `onnx` is not installed", allow_module_level=True)

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
RUNTIMES = [
    "onnxruntime",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(not HAS_OPENVINO, reason="the extra `openvino` is not installed"),
    ),
]
Images = list[NDArray[np.float32]]


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    export_onnx(untrained("tiny"), path, 60, 80)
    return path


def estimator_of(path: Path, backend: str = "onnxruntime", **others: str) -> GraphEstimator:
    parameters = DepthParameters(
        weights=str(path), backend=backend, device="cpu", threads=1, **others
    )
    estimator = create_estimator(parameters)
    assert isinstance(estimator, GraphEstimator)
    return estimator


def noise(count: int, channels: int, height: int, width: int) -> Images:
    """Other images than those that an export compares on."""
    rng = np.random.default_rng(3)
    return [rng.random((channels, height, width), dtype=np.float32) for _ in range(count)]


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
def test_states_are_carried_and_reset(tiny_file: Path, backend: str) -> None:
    """The recurrent network agrees over steps, remembers, and begins anew after a reset."""
    compare(tiny_file, untrained("tiny"), backend, 60, 80)
    graph = estimator_of(tiny_file, backend)
    (image,) = noise(1, 3, 60, 80)
    assert not np.array_equal(graph.estimate(image), graph.estimate(image))


def test_gates_queries_keys_and_values_are_no_pieces_of_one_output(tiny_file: Path) -> None:
    """Nothing is cut apart, and heads are one axis of four: no runtime fuses what is otherwise."""
    nodes = importlib.import_module("onnx").load(tiny_file).graph.node
    kinds = {node.op_type for node in nodes}
    assert {"Softmax", "Tanh", "Conv"} <= kinds
    assert kinds.isdisjoint({"Split", "SplitToSequence"})
    axes = [len(node.attribute[0].ints) for node in nodes if node.op_type == "Transpose"]
    assert max(axes) == 4


@pytest.mark.skipif(not HAS_OPENVINO, reason="the extra `openvino` is not installed")
def test_keys_of_attention_stay_as_rows_on_openvino(tiny_file: Path) -> None:
    """Each product of queries and keys turns the keys around itself, none before it."""
    model = openvino_core().read_model(str(tiny_file))

    def with_columns_and_rows() -> tuple[int, int]:
        products = [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]
        turned = [
            (product.get_attributes()["transpose_b"], list(order.get_node().data))
            for product in products
            for keys in [product.input_value(1).get_node()]
            if keys.get_type_name() == "Transpose"
            for order in [keys.input_value(1)]
        ]
        return turned.count((False, [0, 2, 3, 1])), turned.count((True, [0, 2, 1, 3]))

    blocks, none = with_columns_and_rows()
    assert (blocks > 0, none) == (True, 0)
    keep_keys_as_rows(model)
    assert with_columns_and_rows() == (0, blocks)


@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_state_may_come_from_elsewhere(tiny_file: Path, backend: str) -> None:
    """A second graph that is given the state goes on as the first one does."""
    images = noise(3, 3, 60, 80)
    graph, other = estimator_of(tiny_file, backend), estimator_of(tiny_file, backend)
    for image in images[:2]:
        graph.estimate(image)
    other.set_state(graph.state_arrays(), graph.state_age)
    np.testing.assert_array_equal(other.estimate(images[2]), graph.estimate(images[2]))
    assert other.state_age == 3


@pytest.mark.parametrize("backend", RUNTIMES)
def test_outputs_belong_to_the_caller(tiny_file: Path, backend: str) -> None:
    """A step changes neither what the last one returned nor the image, which may be read-only."""
    graph, (image, other) = estimator_of(tiny_file, backend), noise(2, 3, 60, 80)
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
def test_values_that_are_not_finite_are_reported(tiny_file: Path, backend: str) -> None:
    """NaN in the image is reported, NaN in the state is reported, and a reset heals both."""
    graph, (image,) = estimator_of(tiny_file, backend), noise(1, 3, 60, 80)
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


def test_other_sizes_and_images_are_refused(tiny_file: Path) -> None:
    """Another sensor names the export that is needed; another array says what an image is."""
    graph = estimator_of(tiny_file)
    with pytest.raises(InferenceError, match="--height 61 --width 80"):
        graph.estimate(np.zeros((3, 61, 80), np.float32))
    for image in (np.zeros((1, 60, 80), np.float32), np.zeros((3, 60, 80))):
        with pytest.raises(ConfigurationError, match=r"float32\[3, height, width\]"):
            graph.estimate(image.astype(image.dtype))
    warm_up(graph)
    assert graph.state_age == 0


def test_a_file_says_what_its_weights_say(tiny_file: Path) -> None:
    """Name, digest, notes and meaning of the checkpoint reach the estimator through the file."""
    loaded, graph = untrained("tiny"), estimator_of(tiny_file)
    reference = TorchEstimator(loaded)
    for attribute in ("name", "digest", "notes", "meaning", "input_channels", "weight_version"):
        assert getattr(graph, attribute) == getattr(reference, attribute)
    said = read_description(tiny_file)
    assert (said.height, said.width, said.precision, said.opset) == (60, 80, "float32", 18)
    assert 0.0 < said.deviation < 1e-4
    assert [list(s) for s in said.states] == [
        list(tensor.shape) for tensor in loaded.network.initial_state(1, 70, 98)
    ]


def test_the_graph_is_plain(tiny_file: Path) -> None:
    """Normalisations are single operators, names are ours, and no source file is named in it."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(tiny_file)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    # Two per block, and one for each of the four taps, of which two share their input.
    assert kinds.count("LayerNormalization") >= 5
    assert "ReduceMean" not in kinds and "Cast" not in kinds
    assert [item.domain for item in model.opset_import] == [""]
    states = range(8)
    assert [i.name for i in model.graph.input] == ["image", *(f"state_{k}_in" for k in states)]
    assert [o.name for o in model.graph.output] == [
        "prediction", *(f"state_{k}_out" for k in states), "check",
    ]  # fmt: skip
    content = tiny_file.read_bytes()
    assert b".py" not in content and b"stack_trace" not in content


def test_half_precision_files(tmp_path: Path, tiny_file: Path) -> None:
    """float16 halves the weights, stays within a hundredth, and keeps float32 at its borders."""
    loaded, path = untrained("tiny"), tmp_path / "half.onnx"
    deviation = export_onnx(loaded, path, 60, 80, precision="float16")
    assert 1e-5 < deviation.root_mean_square < 1e-2
    assert path.stat().st_size < 0.75 * tiny_file.stat().st_size
    graph = estimator_of(path, precision="float16")
    assert all(state.dtype == np.float32 for state in graph.state_arrays())
    images = noise(8, 3, 60, 80)
    assert measure_deviation(TorchEstimator(loaded), graph, images).root_mean_square < 1e-2
    with pytest.raises(ConfigurationError, match="exported in float16"):
        estimator_of(path, precision="float32")


def test_what_is_off_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph beyond the tolerance is refused with the numbers, and the former file stays."""
    path = tmp_path / "x.onnx"
    path.write_bytes(b"former")
    prepare = onnx_export.Fitting.prepare
    broken = [False]

    def shifted(self: onnx_export.Fitting, images: torch.Tensor) -> torch.Tensor:
        return prepare(self, images) + (0.01 if broken[0] else 0.0)

    trace: Callable[..., bytes] = onnx_export._traced

    def traced(*arguments: object) -> bytes:
        broken[0] = True
        try:
            return trace(*arguments)
        finally:
            broken[0] = False

    monkeypatch.setattr(onnx_export.Fitting, "prepare", shifted)
    monkeypatch.setattr(onnx_export, "_traced", traced)
    with pytest.raises(WeightsError, match="is not written: over 10 steps") as caught:
        export_onnx(untrained("tiny"), path, 60, 80)
    assert float(str(caught.value.data["root_mean_square"])) > 1e-4
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def test_the_deviation_sees_other_weights_and_lost_states(tiny_file: Path) -> None:
    """Other weights, and a state that is not carried, are far beyond the tolerance."""
    images = moving_edges("tencode", 3, 60, 80)
    graph = estimator_of(tiny_file)
    same = measure_deviation(TorchEstimator(untrained("tiny")), graph, images)
    assert same.root_mean_square < 1e-4 and same.largest >= same.root_mean_square
    other = measure_deviation(TorchEstimator(untrained("tiny", seed=1)), graph, images)
    assert other.root_mean_square > 0.1

    class Forgetful(GraphEstimator):
        def estimate(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
            self.reset()
            return super().estimate(image)

    said = read_description(tiny_file)
    forgetful = Forgetful(OnnxRuntimeGraph(tiny_file, said), said)
    lost = measure_deviation(TorchEstimator(untrained("tiny")), forgetful, images)
    assert lost.root_mean_square > 1e-2


def test_edges_look_like_events() -> None:
    """The images are those of the encoder that is named, change over time, and are sparse."""
    images = moving_edges("tencode", 3, 60, 80)
    assert len(images) >= 8
    for image in images:
        touched = image[0] + image[2]
        assert set(np.unique(touched)) == {0.0, 1.0}
        assert 0.05 < touched.mean() < 0.5
    assert not np.array_equal(images[0], images[1])
    np.testing.assert_array_equal(moving_edges("tencode", 3, 60, 80)[3], images[3])
    grid = moving_edges("voxel_grid", 5, 60, 80, steps=1)[0]
    assert grid.shape == (5, 60, 80) and grid.min() < 0 < grid.max()


def test_what_cannot_be_exported_says_so(tmp_path: Path) -> None:
    """Constant outputs and bad options are told."""
    path = tmp_path / "x.onnx"
    with pytest.raises(ConfigurationError, match="no precision 'int8'"):
        export_onnx(untrained("tiny"), path, 60, 80, precision="int8")
    dead = untrained("tiny")
    with torch.no_grad():
        for parameter in dead.network.parameters():
            parameter.zero_()
    with pytest.raises(WeightsError, match="the same number everywhere"):
        measure_deviation(
            TorchEstimator(dead), TorchEstimator(dead), moving_edges("tencode", 3, 60, 80)
        )
    assert not path.exists()


@pytest.mark.slow
def test_networks_without_onnx_operators_say_so(tmp_path: Path) -> None:
    """Attention over windows, which PyTorch cannot write, names the network and the way out."""
    with pytest.raises(WeightsError, match=r"EReFormer.*cannot be exported.*run it with PyTorch"):
        export_onnx(untrained("tiny_ereformer"), tmp_path / "x.onnx", 60, 80)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not HAS_OPENVINO, reason="the extra `openvino` is not installed")
def test_openvino_in_bfloat16(tiny_file: Path) -> None:
    """bfloat16 is near float32 and not equal to it, or refused with what the processor has."""
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ConfigurationError, match="no bfloat16"):
            estimator_of(tiny_file, "openvino", precision="bfloat16")
        return
    graph = estimator_of(tiny_file, "openvino", precision="bfloat16")
    images = moving_edges("tencode", 3, 60, 80)
    deviation = measure_deviation(TorchEstimator(untrained("tiny")), graph, images)
    assert 1e-4 < deviation.root_mean_square < 0.1
    with pytest.raises(ConfigurationError, match="not in float16"):
        estimator_of(tiny_file, "openvino", precision="float16")
    with pytest.raises(ConfigurationError, match="runs on the CPU"):
        create_estimator(DepthParameters(weights=str(tiny_file), backend="openvino", device="cuda"))


@pytest.mark.skipif(not HAS_OPENVINO, reason="the extra `openvino` is not installed")
def test_ctrl_c_is_survived_after_graphs_have_come_and_gone(tiny_file: Path) -> None:
    """Graphs that replace each other leave the signal stack whole (on processors with AMX)."""
    code = f"""
import faulthandler, gc, signal
from pathlib import Path
from dae_ros.runtime.onnx_description import read_description
from dae_ros.runtime.openvino_graph import OpenVinoGraph
faulthandler.enable()  # a signal stack that the process had before
path = Path({str(tiny_file)!r})
graph = OpenVinoGraph(path, read_description(path))
for _ in range(20):
    graph = OpenVinoGraph(path, read_description(path))
    gc.collect()
del graph
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("ended by Ctrl-C")
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=800, check=False
    )
    assert (run.returncode, run.stdout) == (0, "ended by Ctrl-C\n"), run.stderr


def test_nothing_is_reported_from_the_machine(tiny_file: Path, tmp_path: Path) -> None:
    """onnxruntime makes no identifier of the machine, unless somebody wants its telemetry."""
    code = f"""
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator
create_estimator(DepthParameters(weights={str(tiny_file)!r}, backend="onnxruntime"))
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=800)
    # What was measured of the graph is ours.
    assert [path.name for path in tmp_path.iterdir()] == ["dae_ros"]


def test_providers_of_onnxruntime(tmp_path: Path) -> None:
    """CUDA and TensorRT come before the CPU, with device and engine folder, and never silently."""
    gpu = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    cpu = ("CPUExecutionProvider", {})
    assert execution_providers("cpu", gpu, None) == [cpu]
    assert execution_providers("cuda:1", gpu, None) == [
        ("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"}), cpu,
    ]  # fmt: skip
    (name, options), cuda, last = execution_providers("cuda", gpu, tmp_path)
    assert (name, cuda[0], last) == (gpu[0], gpu[1], cpu)
    assert (options["trt_engine_cache_path"], options["trt_fp16_enable"]) == (str(tmp_path), "0")
    assert execution_providers("cuda", gpu, tmp_path, half=True)[0][1]["trt_fp16_enable"] == "1"
    for device, engines in (("cuda", None), ("cuda", tmp_path), ("tpu", None)):
        with pytest.raises(ConfigurationError, match="use device cpu"):
            execution_providers(device, gpu[2:], engines)


def test_a_backend_refuses_what_it_does_not_have(tiny_file: Path) -> None:
    """A GPU that is not there, TensorRT without one, and bfloat16 on onnxruntime are told."""
    for values, sentence in (
        ({"backend": "onnxruntime", "precision": "bfloat16"}, "not in bfloat16"),
        ({"backend": "tensorrt", "device": "cpu"}, "needs a GPU"),
        ({"event_encoder": "tencode_voxel", "backend": "torch"}, "PyTorch does not run"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            create_estimator(DepthParameters(weights=str(tiny_file), **values))
    with pytest.raises(WeightsError, match="there is no ONNX file"):
        create_estimator(DepthParameters(weights="nowhere.onnx", backend="onnxruntime"))
    estimator = estimator_of(tiny_file)
    with pytest.raises(ConfigurationError, match="cannot change its weights"):
        follow_weights(estimator, DepthParameters(), lambda _: None)


def test_the_verb_refuses_before_it_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sizes, names, folders and opsets that cannot be are wrong usage; nothing is written."""
    good = {"--height": "60", "--width": "80", "--out": str(tmp_path / "x.onnx")}
    for option, value, said in (
        ("--height", "0", "1 to 16384"),
        ("--out", str(tmp_path / "x.pt"), "end in .onnx"),
        ("--opset", "12", "18 or more"),
        ("--out", str(tmp_path / "no" / "x.onnx"), "no folder"),
    ):
        options = [word for pair in {**good, option: value}.items() for word in pair]
        assert main(["export", "untrained:tiny", *options]) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
