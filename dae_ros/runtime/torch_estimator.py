"""One step of a PyTorch network, from an event image to a prediction of the sensor's size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.device import device_of
from dae_ros.model.networks import NetworkConfig
from dae_ros.model.weights import load_weights
from dae_ros.parameters import DepthParameters
from dae_ros.representation.geometry import network_size
from dae_ros.runtime.estimator import FloatImage, output_meaning
from dae_ros.runtime.network_settings import check_event_encoder, network_threads
from dae_ros.runtime.successor import load_successor, weight_change

Precision = Literal["float32", "bfloat16", "float16"]
_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Lower goes first on CUDA, and 0 is last.
STEP_PRIORITY = -1


class Fitting:
    """Brings images of the sensor's size into a network, and its predictions back.

    Args:
        config: of the network; its `input_format` decides.
        multiple: what both sides of the network's input must be multiples of, in px.
        device: of the images.
    """

    def __init__(self, config: NetworkConfig, multiple: int, device: torch.device) -> None:
        self.format = config.input_format
        self._multiple = multiple
        shape = (1, self.format.channels, 1, 1)
        self._mean = torch.tensor(self.format.mean, device=device).reshape(shape)
        self._deviation = torch.tensor(self.format.deviation, device=device).reshape(shape)

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the network's input for a sensor, in px."""
        if self.format.at_least is None:
            return (height + -height % self._multiple, width + -width % self._multiple)
        return network_size(height, width, *self.format.at_least, self._multiple)

    def prepare(self, images: Tensor) -> Tensor:
        """Scale or pad, and normalise.

        Args:
            images: float32 (B, C, height, width), at the sensor's size.

        Returns:
            (B, C, *network_size(height, width)).
        """
        height, width = images.shape[2:]
        target = self.network_size(height, width)
        if target != (height, width):
            if self.format.at_least is None:
                images = F.pad(images, self._margins(height, width), mode="reflect")
            else:
                # Overshoot beyond 0..1 stays, as in the published code.
                images = F.interpolate(images, size=target, mode="bicubic", align_corners=False)
        return (images - self._mean) / self._deviation

    def restore(self, predictions: Tensor, height: int, width: int) -> Tensor:
        """Bring predictions (B, 1, h, w) to float32 (B, 1, height, width)."""
        if self.format.at_least is None:
            left, _, top, _ = self._margins(height, width)
            return predictions.float()[:, :, top : top + height, left : left + width]
        return F.interpolate(
            predictions.float(),
            size=(height, width),
            mode="bilinear",
            align_corners=self.format.align_corners,
        )

    def _margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return left, right, top and bottom in px; the odd one left and above, as published."""
        down, right = -height % self._multiple, -width % self._multiple
        return (right - right // 2, right // 2, down - down // 2, down // 2)


class TorchEstimator:
    """A network on a device, with its recurrent state inside; one per camera.

    Args:
        loaded: weights and what they mean; the network is moved to the device.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: of the arithmetic. Weights, state and the sums between layers stay float32;
            `bfloat16` and `float16` round inside convolutions and matrix products (mean error
            0.02 and 0.003 where the output's deviation is 1).
        threads: CPU threads of PyTorch, a setting of the whole process; None leaves it.
        weight_version: number of the weights.

    Attributes:
        name, digest, notes, meaning: of the weights.
        weight_version: 0 for those that a node began with, see `successor`.
        state_age: steps since the state was zero.
        warming: never: it does not change its weights.
        input_channels: of the image that a step takes: 3, or the bins of a voxel grid, or 1.

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
        weight_version: int = 0,
    ) -> None:
        if precision not in ("float32", *_AUTOCAST):
            raise ConfigurationError(
                f"there is no precision '{precision}'; use float32, bfloat16 or float16"
            )
        if threads is not None:
            if threads < 1:
                raise ConfigurationError(f"{threads} threads cannot run a network; use 1 or more")
            torch.set_num_threads(threads)
        self._device = device_of(device)
        self._precision = precision
        self.weight_version = weight_version
        self.name = loaded.name
        self.digest = loaded.digest
        self.notes = loaded.notes
        self.meaning = output_meaning(loaded.meaning)
        self.warming = False
        self._loaded_meaning = loaded.meaning
        self._network = loaded.network.to(self._device).eval()
        self._fitting = Fitting(loaded.config, self._network.multiple, self._device)
        self.input_channels = self._fitting.format.channels
        self._stream: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            # Weights came over on the thread's own stream.
            torch.cuda.current_stream(self._device).synchronize()
            # Steps go ahead of what learns in the same process. Untyped in PyTorch.
            self._stream = torch.cuda.Stream(  # type: ignore[no-untyped-call]
                self._device, priority=STEP_PRIORITY
            )
        self._sensor_size: tuple[int, int] | None = None
        self._state: tuple[Tensor, ...] | None = None
        self.state_age = 0

    def successor(self, path: Path, version: int) -> TorchEstimator:
        """Load other weights of the same network onto the same device; see `ReloadableEstimator`.

        What these weights do is not touched: a step may run on another thread meanwhile.
        """
        loaded = load_successor(path, self._network.config, self._loaded_meaning)
        try:
            return TorchEstimator(
                loaded,
                device=str(self._device),
                precision=self._precision,
                weight_version=version,
            )
        except RuntimeError as error:
            raise InferenceError(
                f"{path} does not fit beside the present weights on {self._device}: {error}",
                device=str(self._device),
            ) from error

    def weight_change(self, other: TorchEstimator) -> float:
        """Return |w - w_other| / |w_other| over all weights, in float32."""
        return weight_change(self._network, other._network)

    def adopt_state(self, other: TorchEstimator) -> None:
        """Go on with the recurrent state of other weights; no step changes a state in place."""
        self._state = other._state
        self._sensor_size = other._sensor_size
        self.state_age = other.state_age

    def reset(self) -> None:
        """Forget the recurrent state."""
        self._state = None
        self.state_age = 0

    def state_arrays(self) -> tuple[NDArray[np.float32], ...]:
        """Return a copy of the state, in the order of `initial_state`; empty before a step."""
        return tuple(tensor.float().cpu().numpy().copy() for tensor in self._state or ())

    def estimate(self, image: FloatImage) -> FloatImage:
        """Advance by one step.

        Args:
            image: float32[input_channels, H, W] at the sensor's size: Tencode in 0..1, a
                normalised voxel grid, or a camera frame in 0..1, as `meaning.event_encoder`
                says. With another size than the last one the state begins anew.

        Returns:
            float32[H, W], the network's number.

        Raises:
            ConfigurationError: for another shape or dtype.
            InferenceError: if PyTorch fails, out of memory for instance.
            NonFiniteState: if prediction or state holds NaN or infinity; `reset` before going on.
        """
        if image.ndim != 3 or image.shape[0] != self.input_channels or image.dtype != np.float32:
            raise ConfigurationError(
                f"the image is {image.dtype}{list(image.shape)}; give "
                f"float32[{self.input_channels}, height, width]",
                shape=image.shape,
            )
        size = (image.shape[1], image.shape[2])
        if size != self._sensor_size:
            self._sensor_size = size
            self.reset()
        try:
            with torch.inference_mode(), self._arithmetic():
                prediction, state = self._step(self._prepare(image))
                restored = self._fitting.restore(prediction, *size)[0, 0]
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
        return self._fitting.prepare(torch.from_numpy(owned).to(self._device)[None])

    def _step(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        state = self._state
        if state is None:
            state = self._network.initial_state(1, pixels.shape[2], pixels.shape[3])
        prediction, state = self._network(pixels, state)
        return prediction, state

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self._stream is not None:
                # Each step waits for its own end, so that states may change their stream.
                stack.enter_context(torch.cuda.stream(self._stream))
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


def create_torch_estimator(parameters: DepthParameters) -> TorchEstimator:
    """Load the weights that the parameters name onto the device that they name.

    Raises:
        ConfigurationError: for a device that is not there, or weights that take camera frames.
        WeightsError: if the file is missing, damaged or not what it says.
    """
    precision = parameters.precision
    if precision == "auto":
        precision = "float32" if device_of(parameters.device).type == "cpu" else "bfloat16"
    loaded = load_weights(parameters.weights)
    check_event_encoder(
        loaded.name,
        loaded.meaning.event_encoder,
        loaded.config.input_format.channels,
        parameters,
    )
    return TorchEstimator(
        loaded,
        device=parameters.device,
        precision=cast("Precision", precision),
        threads=network_threads(parameters),
    )
