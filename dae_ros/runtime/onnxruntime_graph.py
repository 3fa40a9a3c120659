"""An exported graph on onnxruntime: CPU, CUDA or TensorRT, its state bound to the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, InferenceError, WeightsError
from dae_ros.runtime.estimator import FloatImage
from dae_ros.runtime.onnx_description import CHECK, IMAGE, PREDICTION, OnnxDescription
from dae_ros.runtime.onnxruntime_loading import (
    CUDA_PACKAGES,
    EXTRA,
    failures_of,
    load_onnxruntime,
    preload_gpu_libraries,
)


class OnnxRuntimeGraph:
    """A `RecurrentGraph` on onnxruntime.

    The state lives in two sets of tensors on the device that take turns as input and output.

    Args:
        path: of the file.
        description: of it.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads.
        engines: folder where TensorRT keeps what it built of this very file; None runs CUDA
            kernels.

    Raises:
        ConfigurationError: onnxruntime is missing, or has no provider for the device.
        WeightsError: onnxruntime does not take the file.
    """

    def __init__(
        self,
        path: Path,
        description: OnnxDescription,
        *,
        device: str = "cpu",
        threads: int = 1,
        engines: Path | None = None,
    ) -> None:
        runtime = load_onnxruntime("the backend")
        kind, _, index = device.partition(":")
        self._place = (kind, int(index or 0))
        self._runtime = runtime
        state = runtime.capi.onnxruntime_pybind11_state
        self._failures = failures_of(runtime)
        if kind != "cpu":
            # It may list its providers only then.
            preload_gpu_libraries(runtime)
        half = description.precision == "float16"
        providers = execution_providers(
            device, runtime.get_available_providers(), engines, half=half
        )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        # 3 = errors; its warnings are about its own choice of kernels.
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=providers)
        except (*self._failures, state.InvalidProtobuf, state.InvalidGraph) as error:
            raise WeightsError(
                f"onnxruntime does not take {path}: {error}", path=str(path)
            ) from error
        wanted = providers[0][0]
        # onnxruntime goes on without a provider whose libraries it cannot load.
        if wanted not in self._session.get_providers():
            raise ConfigurationError(
                f"onnxruntime cannot use {wanted} here: its libraries are missing or do not fit "
                f"(CUDA, cuDNN, TensorRT; {CUDA_PACKAGES}); use device cpu, or backend torch",
                provider=wanted,
                device=device,
            )
        self._size = (description.height, description.width)
        self._states = tuple(
            tuple(self._on_device(np.zeros(shape, np.float32)) for shape in description.states)
            for _ in ("in", "out")
        )
        self._shapes = description.states
        self.reset()

    def step(self, image: FloatImage) -> tuple[FloatImage, float]:
        """See `RecurrentGraph`."""
        before, after = self._states
        pixels = np.ascontiguousarray(image)[None]
        prediction, check = np.empty(self._size, np.float32), np.empty((), np.float32)
        try:
            binding = self._session.io_binding()
            binding.bind_cpu_input(IMAGE, pixels)
            for index, (old, new) in enumerate(zip(before, after, strict=True)):
                binding.bind_ortvalue_input(f"state_{index}_in", old)
                binding.bind_ortvalue_output(f"state_{index}_out", new)
            for name, array in ((PREDICTION, prediction), (CHECK, check)):
                binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            self._session.run_with_iobinding(binding)
        except self._failures as error:
            raise InferenceError(
                f"onnxruntime failed on {':'.join(map(str, self._place))}: {error}",
                device=self._place[0],
            ) from error
        self._states = (after, before)
        return prediction, float(check)

    def reset(self) -> None:
        """See `RecurrentGraph`."""
        self.set_state([np.zeros(shape, np.float32) for shape in self._shapes])

    def state_arrays(self) -> tuple[NDArray[np.float32], ...]:
        """See `RecurrentGraph`."""
        return tuple(value.numpy().copy() for value in self._states[0])

    def set_state(self, state: Sequence[NDArray[np.float32]]) -> None:
        """See `RecurrentGraph`."""
        for value, array in zip(self._states[0], state, strict=True):
            value.update_inplace(np.ascontiguousarray(array))

    def _on_device(self, array: NDArray[np.float32]) -> Any:
        return self._runtime.OrtValue.ortvalue_from_numpy(array, *self._place)


def execution_providers(
    device: str, available: Sequence[str], engines: Path | None, *, half: bool = False
) -> list[tuple[str, dict[str, str]]]:
    """Return the providers that onnxruntime is given, best first, with their options.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        available: what this build of onnxruntime has.
        engines: folder for TensorRT's engines; None for no TensorRT.
        half: whether the graph is float16, which TensorRT has to be allowed.

    Raises:
        ConfigurationError: the build has no provider for the device.
    """
    kind, _, index = device.partition(":")
    cpu: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    if kind == "cpu" and engines is None:
        return [cpu]
    number = {"device_id": index or "0"}
    # TF32 has the 10 bits of float16: who wants that exports in float16.
    wanted = [("CUDAExecutionProvider", {**number, "use_tf32": "0"}), cpu]
    if engines is not None:
        options = {
            **number,
            "trt_fp16_enable": "1" if half else "0",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(engines),
        }
        wanted = [("TensorrtExecutionProvider", options), *wanted]
    if kind != "cuda" or wanted[0][0] not in available:
        raise ConfigurationError(
            f"onnxruntime has no {wanted[0][0]} for device {device} here, only "
            f"{', '.join(available)}; use device cpu, or install {EXTRA}",
            device=device,
            providers=list(available),
        )
    return wanted
