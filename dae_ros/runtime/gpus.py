"""Which GPUs there are for a runtime that is not PyTorch."""

from __future__ import annotations

import ctypes
import functools
import re

from dae_ros.errors import ConfigurationError
from dae_ros.runtime.onnxruntime_loading import (
    CUDA_PACKAGES,
    failures_of,
    load_onnxruntime,
    preload_gpu_libraries,
)

CUDA_PROVIDER = "CUDAExecutionProvider"
_TENSORRT = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.9", "libnvinfer.so.8")
# A ModelProto (IR 8, opset 13) whose graph is one Identity, from float "x" of one number to "y".
SMALLEST_MODEL = (
    b"\x08\x08\x3a\x37\x0a\x10\x0a\x01x\x12\x01y\x22\x08Identity\x12\x01g"
    b"\x5a\x0f\x0a\x01x\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01"
    b"\x62\x0f\x0a\x01y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01"
    b"\x42\x02\x10\x0d"
)


def driver_gpus() -> int:
    """Return how many GPUs NVIDIA's driver shows to this process; 0 where there is no driver.

    CUDA Driver API, cuInit and cuDeviceGetCount: no context is made, `CUDA_VISIBLE_DEVICES` counts.
    """
    driver, count = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def gpu_name(index: int) -> str | None:
    """Return what NVIDIA's driver calls a GPU, for file names; None where it shows none."""
    driver, device = _driver(), ctypes.c_int(0)
    text = ctypes.create_string_buffer(256)
    if (
        driver is None
        or driver.cuDeviceGet(ctypes.byref(device), index) != 0
        or driver.cuDeviceGetName(text, len(text), device) != 0
    ):
        return None
    return re.sub(r"[^A-Za-z0-9]+", "-", text.value.decode("ascii", "replace")).strip("-")


def tensorrt_version() -> str | None:
    """Return the number that TensorRT's library gives itself; None where the loader finds none.

    It is no part of onnxruntime, which loads it where this does.
    """
    for name in _TENSORRT:
        try:
            return str(ctypes.CDLL(name).getInferLibVersion())
        except OSError:
            continue
    return None


def _driver() -> ctypes.CDLL | None:
    """Return the CUDA Driver API, ready for use; None where there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None


def onnxruntime_providers() -> tuple[str, ...]:
    """Return what the installed onnxruntime was built for; nothing where there is none to use.

    Where there is a GPU: libraries for it are loaded.
    """
    try:
        runtime = load_onnxruntime("a GPU")
    except ConfigurationError:
        # Whoever asks for this backend by name is told; here it is one of several.
        return ()
    preload_gpu_libraries(runtime)
    return tuple(runtime.get_available_providers())


@functools.cache
def provider_loads(provider: str) -> bool:
    """Return whether onnxruntime can begin to use a provider that its build has, on device 0.

    A build lists what it was built for, also where a library of it is missing, and then goes on
    without: only a session tells. One of a GPU leaves a context there.

    Raises:
        ConfigurationError: there is no onnxruntime.
    """
    runtime = load_onnxruntime("a GPU")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(
            SMALLEST_MODEL, options, providers=[provider], enable_fallback=0
        )
    except failures_of(runtime):
        return False
    return provider in session.get_providers()


def onnxruntime_obstacle() -> str | None:
    """Return why onnxruntime cannot use the first GPU, a clause; None if it can."""
    # A build with CUDA lists it on machines without a GPU as well. The driver is asked first:
    # onnxruntime takes long to import.
    if driver_gpus() == 0:
        return "NVIDIA's driver shows no GPU"
    if CUDA_PROVIDER not in onnxruntime_providers():
        return "onnxruntime has no CUDA for the GPU here: onnxruntime-gpu in its place"
    if not provider_loads(CUDA_PROVIDER):
        return (
            "onnxruntime cannot load its CUDA for the GPU here, as libraries (CUDA, cuDNN) are "
            f"missing or do not fit: {CUDA_PACKAGES}"
        )
    return None
