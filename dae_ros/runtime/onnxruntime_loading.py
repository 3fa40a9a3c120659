"""The one place where onnxruntime is imported: it sends nothing from the machine."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

from dae_ros.errors import ConfigurationError

# From 1.29 on the builds for Linux report names and digests of models to their makers unless this
# is set before the import (Privacy.md of the package); who sets it to something else is heard.
TELEMETRY_OFF = "ORT_DISABLE_TELEMETRY"
EXTRA = "the extra `onnx`; for CUDA and TensorRT put onnxruntime-gpu in the place of onnxruntime"


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
