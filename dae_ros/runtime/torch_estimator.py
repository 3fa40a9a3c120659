"""One step of a PyTorch network, from an event image to a prediction of the sensor's size."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.configuration import Meaning
from dae_ros.model.dae_r import DepthAnyEventR
from dae_ros.model.weights import load_weights
from dae_ros.parameters import DepthParameters
from dae_ros.representation.geometry import network_size
from dae_ros.runtime.estimator import FloatImage, OutputMeaning

Precision = Literal["float32", "bfloat16", "float16"]
_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class TorchEstimator:
    """A network on a device, with its recurrent state inside; one per camera.

    Args:
        loaded: weights and what they mean; the network is moved to the device.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: of the arithmetic. Weights, state and the sums between layers stay float32;
            `bfloat16` and `float16` round inside convolutions and matrix products (mean error
            0.02 and 0.003 where the output's deviation is 1).
        threads: CPU threads of PyTorch, a setting of the whole process; None leaves it.

    Attributes:
        name, digest, meaning: of the present weights.
        weight_version: 0, and one more with each `load`.
        state_age: steps since the state was zero.

    Raises:
        ConfigurationError: for a device that is not there, or a bad thread count.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        threads: int | None = None,
    ) -> None:
        if precision not in ("float32", *_AUTOCAST):
            raise ConfigurationError(
                f"there is no precision '{precision}'; use float32, bfloat16 or float16"
            )
        if threads is not None:
            if threads < 1:
                raise ConfigurationError(f"{threads} threads cannot run a network; use 1 or more")
            torch.set_num_threads(threads)
        self._device = _device(device)
        self._precision = precision
        self._mean = torch.tensor(_IMAGENET_MEAN, device=self._device).reshape(1, 3, 1, 1)
        self._deviation = torch.tensor(_IMAGENET_DEVIATION, device=self._device).reshape(1, 3, 1, 1)
        self.weight_version = 0
        self._take(loaded)

    def load(self, loaded: LoadedModel) -> None:
        """Go on with other weights: the state is forgotten, `weight_version` grows by one."""
        self._take(loaded)
        self.weight_version += 1

    def _take(self, loaded: LoadedModel) -> None:
        self.name = loaded.name
        self.digest = loaded.digest
        self.meaning = output_meaning(loaded.meaning)
        self._config = loaded.config
        self._network = loaded.network.to(self._device).eval()
        self._multiple = max(self._network.strides)
        self._sensor_size: tuple[int, int] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the recurrent state."""
        self._state: tuple[Tensor, ...] | None = None
        self.state_age = 0

    def state_arrays(self) -> tuple[NDArray[np.float32], ...]:
        """Return a copy of the state, in the order of `initial_state`; empty before a step."""
        return tuple(tensor.float().cpu().numpy().copy() for tensor in self._state or ())

    def estimate(self, image: FloatImage) -> FloatImage:
        """Advance by one step.

        Args:
            image: float32[3, H, W] in 0..1 at the sensor's size, Tencode (or RGB / 255). With
                another size than the last one the state begins anew.

        Returns:
            float32[H, W], the network's number.

        Raises:
            ConfigurationError: for another shape or dtype.
            InferenceError: if PyTorch fails, out of memory for instance.
            NonFiniteState: if prediction or state holds NaN or infinity; `reset` before going on.
        """
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != np.float32:
            raise ConfigurationError(
                f"the image is {image.dtype}{list(image.shape)}; give float32[3, height, width]",
                shape=image.shape,
            )
        size = (image.shape[1], image.shape[2])
        if size != self._sensor_size:
            self._sensor_size = size
            self.reset()
        try:
            with torch.inference_mode(), self._arithmetic():
                prediction, state = self._step(self._prepare(image))
                restored = F.interpolate(
                    prediction.float(),
                    size=size,
                    mode="bilinear",
                    align_corners=self._config.head_align_corners,
                )[0, 0]
                checks = [torch.isfinite(tensor).all() for tensor in (restored, *state)]
                finite = bool(torch.stack(checks).all())
                result = cast("FloatImage", restored.cpu().numpy())
        except RuntimeError as error:
            raise InferenceError(
                f"the network failed on {self._device}: {error}. If memory ran out, use a "
                "smaller network, or bfloat16",
                device=str(self._device),
            ) from error
        self._state = state
        self.state_age += 1
        if not finite:
            raise NonFiniteState(
                f"step {self.state_age} since the last reset gave values that are not finite; "
                "reset the state. If it comes back, the weights do not fit this precision",
                state_age=self.state_age,
            )
        return result

    def _prepare(self, image: FloatImage) -> Tensor:
        # PyTorch warns about memory that it could write to and must not.
        owned = image if image.flags.writeable else image.copy()
        pixels = torch.from_numpy(owned).to(self._device)[None]
        target = network_size(
            image.shape[1],
            image.shape[2],
            self._config.input_height,
            self._config.input_width,
            self._multiple,
        )
        if target != tuple(pixels.shape[2:]):
            # Overshoot beyond 0..1 stays, as in the published code.
            pixels = F.interpolate(pixels, size=target, mode="bicubic", align_corners=False)
        return (pixels - self._mean) / self._deviation

    def _step(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        network = self._network
        if not isinstance(network, DepthAnyEventR):
            return network(pixels), ()
        state = self._state
        if state is None:
            state = network.initial_state(1, pixels.shape[2], pixels.shape[3])
        prediction, state = network(pixels, state)
        return prediction, state

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self._device.type == "cuda":
                # float32 means float32, and the same input gives the same bits.
                stack.enter_context(
                    torch.backends.cudnn.flags(
                        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
                    )
                )
            if self._precision != "float32":
                stack.enter_context(
                    torch.autocast(self._device.type, dtype=_AUTOCAST[self._precision])
                )
            yield


def output_meaning(meaning: Meaning) -> OutputMeaning:
    """Return what a checkpoint's meaning is for the pipeline."""
    measured = meaning.metres_scale is not None and meaning.metres_shift is not None
    return OutputMeaning(
        event_encoder=meaning.event_encoder,
        orientation=meaning.orientation,
        metric=meaning.scale == "metric" or measured,
        scale=1.0 if meaning.metres_scale is None else meaning.metres_scale,
        shift=0.0 if meaning.metres_shift is None else meaning.metres_shift,
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(
            f"there is no device '{name}'; use auto, cpu, cuda or cuda:N", device=name
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(
            f"device '{name}' is not supported; use auto, cpu, cuda or cuda:N", device=name
        )
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= count):
        raise ConfigurationError(
            f"device '{name}' is not there: PyTorch {torch.__version__} sees "
            f"{count if torch.cuda.is_available() else 0} CUDA devices. Use device cpu, or "
            "install a CUDA build of PyTorch and the driver",
            device=name,
        )
    return device


def create_torch_estimator(parameters: DepthParameters) -> TorchEstimator:
    """Load the weights that the parameters name onto the device that they name.

    Raises:
        ConfigurationError: for a device that is not there, or weights that take camera frames.
        WeightsError: if the file is missing, damaged or not what it says.
    """
    device = parameters.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = parameters.precision
    if precision == "auto":
        precision = "float32" if _device(device).type == "cpu" else "bfloat16"
    # Fewer than cpu_count in a container or under taskset; not every system can tell.
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    loaded = load_weights(parameters.weights)
    if loaded.meaning.event_encoder == "rgb" and parameters.event_encoder == "checkpoint":
        raise ConfigurationError(
            f"{loaded.name} takes camera frames, not events. Use weights of DepthAnyEvent(-R), "
            "or set event_encoder to tencode to feed it event images all the same",
            weights=parameters.weights,
        )
    return TorchEstimator(
        loaded,
        device=device,
        precision=cast("Precision", precision),
        threads=parameters.threads or max(1, (available or 1) - 1),
    )
