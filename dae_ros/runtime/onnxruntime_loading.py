"""The one place where onnxruntime is imported: it sends nothing from the machine."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from typing import Any

from dae_ros.errors import ConfigurationError

# From 1.29 on the builds for Linux report names and digests of models to their makers unless this
# is set before the import (Privacy.md of the package); who sets it to something else is heard.
TELEMETRY_OFF = "ORT_DISABLE_TELEMETRY"
EXTRA = "the extra `onnx`; for CUDA and TensorRT put onnxruntime-gpu in the place of onnxruntime"
# With CUDA and cuDNN of the versions that the build wants, as packages of pip.
CUDA_PACKAGES = "pip install 'onnxruntime-gpu[cuda,cudnn]'"


def load_onnxruntime(reason: str) -> Any:
    """Import onnxruntime, which has no types, with its telemetry off.

    Args:
        reason: what needs it, the beginning of the sentence that says so.

    Raises:
        ConfigurationError: it is not installed, or cannot be imported.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise ConfigurationError(
            f"{reason} needs onnxruntime, which is not installed here; install {EXTRA}",
            package="onnxruntime",
        )
    os.environ.setdefault(TELEMETRY_OFF, "1")
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ConfigurationError(
            f"onnxruntime is installed and cannot be imported ({error}); install it again: {EXTRA}",
            package="onnxruntime",
        ) from error


def preload_gpu_libraries(runtime: Any) -> None:
    """Load CUDA and cuDNN where packages of pip have them, which no search path leads to.

    To be called before onnxruntime loads a provider for GPUs, or is asked which ones it has.
    PyTorch with CUDA loads them as well, but need not be there, nor be imported before.

    Args:
        runtime: the module; before 1.21 it cannot, and finds what the loader of the system finds.
    """
    preload = getattr(runtime, "preload_dlls", None)
    if preload is not None:
        # What it could not load it prints; the output of a command stays what it is.
        with contextlib.redirect_stdout(sys.stderr):
            preload()


def failures_of(runtime: Any) -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises where a session or a step fails; not where a file is bad."""
    state = runtime.capi.onnxruntime_pybind11_state
    return (
        state.Fail, state.InvalidArgument, state.RuntimeException, state.EPFail,
        state.NotImplemented, RuntimeError,
    )  # fmt: skip
