"""Which backend runs a network, and why."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import DepthParameters
from dae_ros.paths import named_path
from dae_ros.runtime.arithmetic import PRECISIONS, int8_needs_a_file
from dae_ros.runtime.gpus import driver_gpus, onnxruntime_obstacle
from dae_ros.runtime.onnx_description import read_description

SUFFIX = ".onnx"
# What OpenVINO needs to run a checkpoint: itself, and what exports it.
OPENVINO_PACKAGES = ("openvino", "onnx", "onnxscript", "onnxruntime")
_FASTEST = "the fastest on a CPU of those that are installed"


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """What runs the network.

    Attributes:
        backend: `torch`, `onnxruntime`, `tensorrt` or `openvino`.
        reason: why, a clause for people.
    """

    backend: str
    reason: str

    def __str__(self) -> str:
        """Return both as one clause."""
        return f"{self.backend} ({self.reason})"


@runtime_checkable
class ChangingBackend(Protocol):
    """An estimator whose backend changes while it runs."""

    @property
    def choice(self) -> BackendChoice:
        """What runs the network now."""


def choose_backend(parameters: DepthParameters) -> BackendChoice:
    """Return what is to run the network; the reason is for whoever wonders about `auto`.

    The device comes first, then what is fastest there of what is installed and has the precision.
    Of checkpoints `auto` leaves PyTorch only where time decides which windows are seen at all:
    live (`overload` latest or merge), with weights that stay. Recordings, evaluation and learning
    agree on PyTorch bit by bit; it needs no export, and changes its weights without one.

    Raises:
        ConfigurationError: PyTorch is asked to run an exported file, there is no such device, or
            nothing that is installed runs these weights there in this precision.
        WeightsError: an exported file is missing, damaged or not what it says.
    """
    exported = parameters.weights.endswith(SUFFIX)
    if parameters.backend == "torch" and exported:
        raise ConfigurationError(
            f"PyTorch does not run {parameters.weights}; use the checkpoint that it was exported "
            "from, or backend onnxruntime or openvino",
            parameter="backend",
        )
    if parameters.backend != "auto":
        return BackendChoice(parameters.backend, "the parameter 'backend' says so")
    if exported:
        return _of_exported_file(parameters)
    return _of_checkpoint(parameters)


def missing_packages(names: tuple[str, ...] = OPENVINO_PACKAGES) -> list[str]:
    """Return those that are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def _of_exported_file(parameters: DepthParameters) -> BackendChoice:
    stored = read_description(named_path(parameters.weights)).precision
    device = parameters.device
    passed: list[str] = []
    if device not in ("auto", "cpu"):
        order = {"onnxruntime": f"the network runs on {device}"}
    else:
        order = {"openvino": _FASTEST, "onnxruntime": "it is installed"}
        if device == "auto" and driver_gpus() > 0:
            # What cannot run the file need not take memory of the GPU to find out.
            left = _obstacle("onnxruntime", parameters.precision, stored) or onnxruntime_obstacle()
            if left is None:
                return BackendChoice("onnxruntime", "the network runs on a GPU")
            passed.append(left)
    for backend, reason in order.items():
        obstacle = _obstacle(backend, parameters.precision, stored)
        if obstacle is None:
            return BackendChoice(backend, "; ".join([reason, *passed]))
        if obstacle not in passed:
            passed.append(obstacle)
    raise ConfigurationError(
        f"nothing that is installed runs {parameters.weights} on device {device} in precision "
        f"{parameters.precision}: {'; '.join(passed)}. Leave precision and device at auto, or "
        "export the weights again",
        parameter="precision",
        device=device,
    )


def _obstacle(backend: str, wanted: str, stored: str) -> str | None:
    """Return why a backend does not run an exported file, a clause; None if it does."""
    if missing_packages((backend,)):
        if backend == "openvino":
            return "OpenVINO, which is faster on CPUs, is not installed: extra `openvino`"
        return "onnxruntime is not installed: extra `onnx`"
    if "int8" in (wanted, stored):
        # Whether both are of int8 is for the one who opens the file.
        return None if backend == "openvino" else "int8 was judged on OpenVINO alone"
    if wanted not in ("auto", *PRECISIONS[backend]):
        return f"{backend} does not compute in {wanted}"
    if backend != "openvino" and wanted not in ("auto", stored):
        return f"{backend} computes in what the file is of, {stored}"
    return None


def _of_checkpoint(parameters: DepthParameters) -> BackendChoice:
    precision = parameters.precision
    if precision == "int8":
        raise int8_needs_a_file()
    if parameters.overload == "queue":
        reason = "no window is skipped (overload queue), and PyTorch is exact to the bit"
        return BackendChoice("torch", reason)
    if parameters.follow_snapshots:
        reason = "weights change while it runs (follow_snapshots), others would export each version"
        return BackendChoice("torch", reason)
    if importlib.util.find_spec("torch") is None:
        return BackendChoice("torch", "a checkpoint needs it")
    from dae_ros.model.device import device_of

    device = parameters.device
    passed: list[str] = []
    # PyTorch, perhaps a build for CPUs, sees none.
    unseen = device.partition(":")[0] in ("auto", "cuda") and device_of("auto").type == "cpu"
    if unseen and driver_gpus() > 0:
        left = _exporting_obstacle(precision) or onnxruntime_obstacle()
        if left is None:
            return BackendChoice(
                "onnxruntime", "there is a GPU that onnxruntime sees and PyTorch does not"
            )
        passed.append(left)
    if device_of(device).type != "cpu":
        return BackendChoice(
            "torch",
            "the network runs on a GPU that PyTorch sees, without an export; whether CUDA of "
            "onnxruntime or TensorRT is faster there was not measured",
        )
    missing = missing_packages()
    backend, reason = "openvino", _FASTEST
    if precision not in ("auto", *PRECISIONS["openvino"]):
        backend, reason = "torch", f"OpenVINO does not compute in {precision}"
    elif missing:
        backend = "torch"
        reason = (
            f"OpenVINO, which is faster on CPUs, needs {', '.join(missing)}: install the extra "
            "`openvino`"
        )
    return BackendChoice(backend, "; ".join([reason, *passed]))


def _exporting_obstacle(precision: str) -> str | None:
    """Return why onnxruntime cannot run a checkpoint, a clause; None if it can."""
    missing = missing_packages(("onnx", "onnxscript", "onnxruntime"))
    if missing:
        return f"onnxruntime would need {', '.join(missing)} for the GPU here: extra `onnx`"
    if precision not in ("auto", *PRECISIONS["onnxruntime"]):
        return f"onnxruntime does not compute in {precision}"
    return None
