"""Which GPUs there are for a runtime that is not PyTorch."""

from __future__ import annotations

import ctypes

from dae_ros.errors import ConfigurationError
from dae_ros.runtime.onnxruntime_loading import load_onnxruntime

CUDA_PROVIDER = "CUDAExecutionProvider"


def driver_gpus() -> int:
    """Return how many GPUs NVIDIA's driver shows to this process; 0 where there is no driver.

    CUDA Driver API, cuInit and cuDeviceGetCount: no context is made, `CUDA_VISIBLE_DEVICES` counts.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def onnxruntime_providers() -> tuple[str, ...]:
    """Return what the installed onnxruntime was built for; nothing where there is none to use."""
    try:
        runtime = load_onnxruntime("a GPU")
    except ConfigurationError:
        # Whoever asks for this backend by name is told; here it is one of several.
        return ()
    return tuple(runtime.get_available_providers())


def onnxruntime_sees_gpu() -> bool:
    """Return whether onnxruntime can use a GPU: its build has CUDA, and there is one."""
    # A build with CUDA lists it on machines without a GPU as well. The driver is asked first:
    # onnxruntime takes long to import.
    return driver_gpus() > 0 and CUDA_PROVIDER in onnxruntime_providers()
