"""What onnxruntime and OpenVINO are set to, what they do not have, and what they leave alone."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dae_ros.errors import ConfigurationError, WeightsError
from dae_ros.model.untrained import untrained
from dae_ros.parameters import DepthParameters
from dae_ros.runtime import gpus
from dae_ros.runtime.backends import create_estimator, follow_weights
from dae_ros.runtime.onnx_description import read_description
from dae_ros.runtime.onnx_parity import measure_deviation, moving_edges
from dae_ros.runtime.onnxruntime_graph import OnnxRuntimeGraph, execution_providers
from dae_ros.runtime.onnxruntime_loading import load_onnxruntime
from dae_ros.runtime.openvino_graph import keep_keys_as_rows, openvino_core
from dae_ros.runtime.torch_estimator import TorchEstimator
from test.reference.graph_estimators import HAS_OPENVINO, estimator_of

# Not importorskip: whoever imports onnxruntime first decides about its telemetry.
if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
    pytest.skip("the extra `onnx` is not installed", allow_module_level=True)


@pytest.mark.skipif(not HAS_OPENVINO, reason="the extra `openvino` is not installed")
def test_keys_of_attention_stay_as_rows_on_openvino(tiny_graph: Path) -> None:
    """Each product of queries and keys turns the keys around itself, none before it."""
    model = openvino_core().read_model(str(tiny_graph))

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


@pytest.mark.skipif(not HAS_OPENVINO, reason="the extra `openvino` is not installed")
def test_openvino_in_bfloat16(tiny_graph: Path) -> None:
    """bfloat16 is near float32 and not equal to it, or refused with what the processor has."""
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ConfigurationError, match="no bfloat16"):
            estimator_of(tiny_graph, "openvino", precision="bfloat16")
        return
    graph = estimator_of(tiny_graph, "openvino", precision="bfloat16")
    images = moving_edges("tencode", 3, 60, 80)
    deviation = measure_deviation(TorchEstimator(untrained("tiny")), graph, images)
    assert 1e-4 < deviation.root_mean_square < 0.1
    with pytest.raises(ConfigurationError, match="not in float16"):
        estimator_of(tiny_graph, "openvino", precision="float16")
    with pytest.raises(ConfigurationError, match="runs on the CPU"):
        create_estimator(
            DepthParameters(weights=str(tiny_graph), backend="openvino", device="cuda")
        )


@pytest.mark.skipif(not HAS_OPENVINO, reason="the extra `openvino` is not installed")
def test_ctrl_c_is_survived_after_graphs_have_come_and_gone(tiny_graph: Path) -> None:
    """Graphs that replace each other leave the signal stack whole (on processors with AMX)."""
    code = f"""
import faulthandler, gc, signal
from pathlib import Path
from dae_ros.runtime.onnx_description import read_description
from dae_ros.runtime.openvino_graph import OpenVinoGraph
faulthandler.enable()  # a signal stack that the process had before
path = Path({str(tiny_graph)!r})
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


def test_nothing_is_reported_from_the_machine(tiny_graph: Path, tmp_path: Path) -> None:
    """onnxruntime makes no identifier of the machine, unless somebody wants its telemetry."""
    code = f"""
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.backends import create_estimator
create_estimator(DepthParameters(weights={str(tiny_graph)!r}, backend="onnxruntime"))
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


def test_a_provider_is_believed_where_a_session_has_it() -> None:
    """Where onnxruntime goes on without the provider, the provider cannot be used."""
    assert gpus.provider_loads("CPUExecutionProvider")
    with pytest.warns(UserWarning, match="not in available provider names"):
        assert not gpus.provider_loads("AbsentExecutionProvider")


def test_libraries_of_pip_are_loaded_for_gpus_alone(
    tiny_graph: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the providers are asked for; what onnxruntime prints about it spoils no output."""
    runtime = load_onnxruntime("the test")
    calls: list[str] = []

    def preload() -> None:
        sys.stdout.write("Failed to load libcublas.so")
        calls.append("loaded")

    def listed() -> list[str]:
        calls.append("asked")
        return ["A"]

    monkeypatch.setattr(runtime, "preload_dlls", preload)
    monkeypatch.setattr(runtime, "get_available_providers", listed)
    for device in ("cpu", "cuda"):
        with contextlib.suppress(ConfigurationError):
            OnnxRuntimeGraph(tiny_graph, read_description(tiny_graph), device=device)
    gpus.onnxruntime_providers()
    assert calls == ["asked", *["loaded", "asked"] * 2]
    assert capsys.readouterr().out == ""
    monkeypatch.delattr(runtime, "preload_dlls")
    assert gpus.onnxruntime_providers() == ("A",)


def test_a_backend_refuses_what_it_does_not_have(tiny_graph: Path) -> None:
    """A GPU that is not there, TensorRT without one, and bfloat16 on onnxruntime are told."""
    for values, sentence in (
        ({"backend": "onnxruntime", "precision": "bfloat16"}, "not in bfloat16"),
        ({"backend": "tensorrt", "device": "cpu"}, "needs a GPU"),
        ({"event_encoder": "tencode_voxel", "backend": "torch"}, "PyTorch does not run"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            create_estimator(DepthParameters(weights=str(tiny_graph), **values))
    with pytest.raises(WeightsError, match="there is no ONNX file"):
        create_estimator(DepthParameters(weights="nowhere.onnx", backend="onnxruntime"))
    estimator = estimator_of(tiny_graph)
    with pytest.raises(ConfigurationError, match="cannot change its weights"):
        follow_weights(estimator, DepthParameters(), lambda _: None)
