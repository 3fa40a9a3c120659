"""Which backend runs a network, and why."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import DepthParameters

SUFFIX = ".onnx"
# What OpenVINO needs to run a checkpoint: itself, and what exports it.
OPENVINO_PACKAGES = ("openvino", "onnx", "onnxscript", "onnxruntime")


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

    Of checkpoints `auto` is the fastest backend installed where time decides which windows are
    seen at all: live (`overload` latest or merge), on a CPU, with weights that stay. Elsewhere it
    is PyTorch, which recordings, evaluation and learning agree on bit by bit, which needs no
    export, and which changes its weights without one.

    Raises:
        ConfigurationError: PyTorch is asked to run an exported file, or there is no such device.
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
    if parameters.device not in ("auto", "cpu"):
        return BackendChoice("onnxruntime", f"the network runs on {parameters.device}")
    if missing_packages(("openvino",)):
        return BackendChoice(
            "onnxruntime", "OpenVINO, which is faster on CPUs, is not installed: extra `openvino`"
        )
    return BackendChoice("openvino", "the fastest on a CPU of those that are installed")


def _of_checkpoint(parameters: DepthParameters) -> BackendChoice:
    if parameters.overload == "queue":
        reason = "no window is skipped (overload queue), and PyTorch is exact to the bit"
        return BackendChoice("torch", reason)
    if parameters.follow_snapshots:
        reason = "weights change while it runs (follow_snapshots), others would export each version"
        return BackendChoice("torch", reason)
    if parameters.precision == "float16":
        return BackendChoice("torch", "OpenVINO does not compute in float16")
    missing = missing_packages()
    if missing:
        return BackendChoice(
            "torch",
            f"OpenVINO, which is faster on CPUs, needs {', '.join(missing)}: install the extra "
            "`openvino`",
        )
    if importlib.util.find_spec("torch") is None:
        return BackendChoice("torch", "a checkpoint needs it")
    from dae_ros.model.device import device_of

    if device_of(parameters.device).type != "cpu":
        return BackendChoice("torch", "the network runs on a GPU")
    return BackendChoice("openvino", "the fastest on a CPU of those that are installed")
