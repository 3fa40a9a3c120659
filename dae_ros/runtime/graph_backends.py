"""From parameters to an estimator on onnxruntime, TensorRT or OpenVINO."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from dae_ros.errors import ConfigurationError
from dae_ros.model.fetch import digest_of
from dae_ros.parameters import DepthParameters
from dae_ros.paths import named_path
from dae_ros.runtime.accuracy_report import AccuracyReport, require_accuracy
from dae_ros.runtime.arithmetic import chosen_precision
from dae_ros.runtime.estimator import DepthEstimator
from dae_ros.runtime.gpus import gpu_name, onnxruntime_obstacle, tensorrt_version
from dae_ros.runtime.graph_estimator import GraphEstimator, RecurrentGraph
from dae_ros.runtime.network_settings import check_event_encoder, network_threads
from dae_ros.runtime.onnx_cache import cache_folder
from dae_ros.runtime.onnx_description import OnnxDescription, read_description
from dae_ros.runtime.onnxruntime_graph import OnnxRuntimeGraph
from dae_ros.runtime.onnxruntime_loading import load_onnxruntime
from dae_ros.runtime.openvino_graph import OpenVinoGraph, has_bfloat16, load_openvino
from dae_ros.runtime.parity_on_load import kept_parity, require_parity
from dae_ros.runtime.processor import int8_instructions

SUFFIX = ".onnx"


@dataclass(frozen=True, slots=True)
class GraphRuntime:
    """What runs graphs, and how.

    Attributes:
        backend: `onnxruntime`, `tensorrt` or `openvino`.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: of OpenVINO's arithmetic; on the others it is that of the file.
        threads: CPU threads.
    """

    backend: str
    device: str
    precision: str
    threads: int

    @property
    def name(self) -> str:
        """Of the runtime, its version and what of it computes; part of file names.

        With the GPU, and with TensorRT's own version: what was measured or built on one says
        nothing of another.
        """
        if self.backend == "openvino":
            return f"openvino-{version('openvino')}-cpu"
        runtime = load_onnxruntime(f"backend {self.backend}")
        kind, _, index = self.device.partition(":")
        place = f"tensorrt-{tensorrt_version()}" if self.backend == "tensorrt" else kind
        gpu = "" if kind == "cpu" else f"-{gpu_name(int(index or 0))}"
        return f"onnxruntime-{runtime.__version__}-{place}{gpu}"

    def open(self, path: Path, description: OnnxDescription, folder: Path | None) -> GraphEstimator:
        """Put a graph onto the device, and compare it with PyTorch there; see `require_parity`.

        Args:
            path: of the file.
            description: of it.
            folder: for what is made of this graph: TensorRT's engines, and how far it is from
                PyTorch. None keeps nothing.

        Raises:
            ConfigurationError: the runtime does not have the device or precision, or is off.
            WeightsError: the runtime does not take the file.
        """
        estimator = GraphEstimator(self._graph(path, description, folder), description)
        # What int8 loses was judged by depth, on held-out clips.
        if description.precision != "int8":
            in_file = self.backend != "openvino"
            require_parity(
                estimator,
                path,
                description,
                runtime=self.name,
                precision=description.precision if in_file else self.precision,
                folder=folder,
            )
        return estimator

    def _graph(
        self, path: Path, description: OnnxDescription, folder: Path | None
    ) -> RecurrentGraph:
        if self.backend == "openvino":
            return OpenVinoGraph(path, description, precision=self.precision, threads=self.threads)
        engines = None
        if self.backend == "tensorrt":
            # They take minutes to build, so there has to be a place for them.
            engines = self._engines(path, folder or cache_folder("onnx"))
            engines.mkdir(parents=True, exist_ok=True)
        return OnnxRuntimeGraph(
            path, description, device=self.device, threads=self.threads, engines=engines
        )

    def has_opened(self, path: Path, precision: str, folder: Path) -> bool:
        """Return whether a graph was opened and compared before, so that nothing is built again.

        Args:
            path: of the file, which need not be there.
            precision: of the arithmetic.
            folder: as `open` was given.
        """
        if not path.is_file() or not kept_parity(path, self.name, precision, folder).is_file():
            return False
        return self.backend != "tensorrt" or any(self._engines(path, folder).glob("*.engine"))

    def _engines(self, path: Path, folder: Path) -> Path:
        # TensorRT refuses engines of another version of itself.
        return folder / "tensorrt" / f"{digest_of(path)[:16]}-{self.name}"


def create_graph_estimator(parameters: DepthParameters, backend: str) -> DepthEstimator:
    """Load the weights that the parameters name: an exported file, or a checkpoint.

    Args:
        parameters: of the node.
        backend: `onnxruntime`, `tensorrt` or `openvino`.

    Raises:
        ConfigurationError: a package is missing, device and precision are none of the backend's,
            or an exported file is off PyTorch on it.
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
    # What is not int8 in an exported int8 file is computed as its report says.
    in_file = exported and parameters.precision == "int8"
    precision = chosen_precision("auto" if in_file else parameters.precision, backend, device)
    runtime = GraphRuntime(backend, device, precision, network_threads(parameters))
    if exported:
        path = named_path(parameters.weights)
        description = read_description(path)
        wanted = parameters.precision
        if "int8" in (wanted, description.precision):
            report = _require_int8(path, description, backend, wanted)
            runtime = replace(runtime, precision=_remainder(report))
        elif backend != "openvino" and wanted not in ("auto", description.precision):
            raise ConfigurationError(
                f"{path} was exported in {description.precision}, not in {wanted}; leave precision "
                "at auto, or export the weights again",
                parameter="precision",
            )
        folder = None if description.precision == "int8" else _folder_beside()
        estimator: DepthEstimator = runtime.open(path, description, folder)
    else:
        _require_torch(backend)
        from dae_ros.model.weights import load_weights
        from dae_ros.runtime.exported_estimator import exported_estimator

        loaded = load_weights(parameters.weights)
        stored = "float16" if precision == "float16" else "float32"
        estimator = exported_estimator(parameters.weights, loaded, runtime.open, stored)
    check_event_encoder(
        estimator.name, estimator.meaning.event_encoder, estimator.input_channels, parameters
    )
    return estimator


def _folder_beside() -> Path | None:
    """Return the folder for what is made of files that lie elsewhere, None where nothing keeps."""
    try:
        return cache_folder("onnx")
    except ConfigurationError:
        # A robot whose disk is read-only compares at each start, in a second or two.
        return None


def _require_int8(
    path: Path, description: OnnxDescription, backend: str, wanted: str
) -> AccuracyReport:
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
    report = require_accuracy(description.accuracy, path)
    here = int8_instructions()
    if report.instructions != here:
        raise ConfigurationError(
            f"{path} is of int8, and what it loses was measured with {report.instructions}; this "
            f"processor has {here}, with which OpenVINO gives other values. Export the checkpoint "
            "on a processor like this one",
            measured=report.instructions,
            instructions=here,
        )
    installed = version("openvino")
    if report.openvino != installed:
        raise ConfigurationError(
            f"{path} is of int8, and what it loses was measured with OpenVINO {report.openvino}; "
            f"here is {installed}, which may compute otherwise. Install that one, or export the "
            "checkpoint again",
            measured=report.openvino,
            openvino=installed,
        )
    return report


def _remainder(report: AccuracyReport) -> str:
    """Return the precision of what is not int8: that of the report, or the finer one here."""
    return report.remainder if has_bfloat16() else "float32"


def runtime_device(device: str, backend: str) -> str:
    """Return where onnxruntime runs: `auto` is the first GPU where there is one and CUDA for it.

    Raises:
        ConfigurationError: onnxruntime is missing, or TensorRT is asked for on a CPU.
    """
    providers = load_onnxruntime(f"backend {backend}").get_available_providers()
    if device == "auto":
        device = "cuda" if onnxruntime_obstacle() is None else "cpu"
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
