"""From parameters to an estimator on onnxruntime, TensorRT or OpenVINO."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dae_ros.errors import ConfigurationError
from dae_ros.model.fetch import digest_of
from dae_ros.parameters import DepthParameters
from dae_ros.runtime.accuracy_report import require_accuracy
from dae_ros.runtime.arithmetic import chosen_precision
from dae_ros.runtime.estimator import DepthEstimator
from dae_ros.runtime.gpus import onnxruntime_sees_gpu
from dae_ros.runtime.graph_estimator import GraphEstimator, RecurrentGraph
from dae_ros.runtime.network_settings import check_event_encoder, network_threads
from dae_ros.runtime.onnx_description import OnnxDescription, read_description
from dae_ros.runtime.onnxruntime_graph import OnnxRuntimeGraph
from dae_ros.runtime.onnxruntime_loading import load_onnxruntime
from dae_ros.runtime.openvino_graph import OpenVinoGraph, load_openvino

SUFFIX = ".onnx"


def create_graph_estimator(parameters: DepthParameters, backend: str) -> DepthEstimator:
    """Load the weights that the parameters name: an exported file, or a checkpoint.

    Args:
        parameters: of the node.
        backend: `onnxruntime`, `tensorrt` or `openvino`.

    Raises:
        ConfigurationError: a package is missing, or device and precision are none of the
            backend's.
        WeightsError: the file is missing, damaged or not what it says.
    """
    if backend == "openvino":
        load_openvino()
        device = "cpu"
    else:
        device = runtime_device(parameters.device, backend)
    if backend == "openvino" and parameters.device not in ("auto", "cpu"):
        raise ConfigurationError(
            f"backend openvino runs on the CPU, not on {parameters.device}; use device cpu, or "
            "backend torch or onnxruntime",
            parameter="device",
        )
    exported = parameters.weights.endswith(SUFFIX)
    # What is not int8 in an exported int8 file is float32.
    in_file = exported and parameters.precision == "int8"
    precision = chosen_precision("float32" if in_file else parameters.precision, backend, device)

    def open_graph(path: Path, description: OnnxDescription) -> RecurrentGraph:
        threads = network_threads(parameters)
        if backend == "openvino":
            return OpenVinoGraph(path, description, precision=precision, threads=threads)
        engines = None
        if backend == "tensorrt":
            from dae_ros.runtime.onnx_cache import cache_folder

            engines = cache_folder(f"tensorrt/{digest_of(path)[:16]}")
        return OnnxRuntimeGraph(path, description, device=device, threads=threads, engines=engines)

    if exported:
        path = Path(parameters.weights).expanduser()
        description = read_description(path)
        wanted = parameters.precision
        if "int8" in (wanted, description.precision):
            _require_int8(path, description, backend, wanted)
        elif backend != "openvino" and wanted not in ("auto", description.precision):
            raise ConfigurationError(
                f"{path} was exported in {description.precision}, not in {wanted}; leave precision "
                "at auto, or export the weights again",
                parameter="precision",
            )
        estimator: DepthEstimator = GraphEstimator(open_graph(path, description), description)
    else:
        _require_torch(backend)
        from dae_ros.model.weights import load_weights
        from dae_ros.runtime.exported_estimator import exported_estimator

        loaded = load_weights(parameters.weights)
        stored = "float16" if precision == "float16" else "float32"
        estimator = exported_estimator(parameters.weights, loaded, open_graph, stored)
    check_event_encoder(
        estimator.name, estimator.meaning.event_encoder, estimator.input_channels, parameters
    )
    return estimator


def _require_int8(path: Path, description: OnnxDescription, backend: str, wanted: str) -> None:
    """Refuse int8 unless file, backend and precision are those whose loss was measured."""
    if description.precision != "int8":
        raise ConfigurationError(
            f"{path} was exported in {description.precision}, not in int8; leave precision at "
            "auto, or export the weights with --precision int8 --calibration CLIPS",
            parameter="precision",
        )
    if wanted not in ("auto", "int8"):
        raise ConfigurationError(
            f"{path} is of int8, and what it loses was not measured with precision {wanted} for "
            "the rest; leave precision at auto, or export the weights again",
            parameter="precision",
        )
    if backend != "openvino":
        raise ConfigurationError(
            f"{path} is of int8, and what it loses was measured on OpenVINO alone; use backend "
            "openvino (extra `openvino`)",
            parameter="backend",
        )
    require_accuracy(description.accuracy, path)


def runtime_device(device: str, backend: str) -> str:
    """Return where onnxruntime runs: `auto` is the first GPU where there is one and CUDA for it.

    Raises:
        ConfigurationError: onnxruntime is missing, or TensorRT is asked for on a CPU.
    """
    providers = load_onnxruntime(f"backend {backend}").get_available_providers()
    if device == "auto":
        device = "cuda" if onnxruntime_sees_gpu() else "cpu"
    if backend == "tensorrt" and device == "cpu":
        raise ConfigurationError(
            "backend tensorrt needs a GPU and an onnxruntime with CUDA, and there is none here "
            f"(onnxruntime has {', '.join(providers)}); use backend openvino or onnxruntime",
            parameter="backend",
        )
    return device


def _require_torch(backend: str) -> None:
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError(
            f"backend {backend} needs PyTorch to export a checkpoint, and it is not installed "
            "here: install the extra `cpu`, or run `dae-ros export` on a machine that has it and "
            "give the .onnx file as weights",
            package="torch",
        )
