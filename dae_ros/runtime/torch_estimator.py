"""One step of a PyTorch network, from an event image to a prediction of the sensor's size."""

from __future__ import annotations

import dataclasses
import math
import weakref
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.device import device_of
from dae_ros.model.weights import load_weights
from dae_ros.parameters import DepthParameters
from dae_ros.representation.event_image import EventImage, size_of
from dae_ros.runtime.estimator import FloatImage, output_meaning
from dae_ros.runtime.graph_estimator import check_image
from dae_ros.runtime.network_settings import check_event_encoder, network_threads
from dae_ros.runtime.successor import load_successor, weight_change
from dae_ros.runtime.torch_precision import precision_note, usual_torch_precision
from dae_ros.runtime.torch_slots import SlotPool
from dae_ros.runtime.torch_step import HALF, Precision


class TorchEstimator:
    """A network on a device, with its recurrent state inside; one per camera.

    Args:
        loaded: weights and what they mean; copied to the device.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: of the arithmetic. State and the sums between layers stay float32; `bfloat16`
            and `float16` round what goes into convolutions and matrix products, and their
            results (bfloat16: an error of 0.02 to 0.03 where the output's deviation is 1;
            benchmarks/results/backends.json).
        threads: CPU threads of PyTorch, a setting of the whole process; None leaves it.
        weight_version: number of the weights.
        pool: of the estimator whose weights these follow; they take over memory, and graphs of
            CUDA, that nobody uses any more.

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
        pool: SlotPool | None = None,
    ) -> None:
        if precision not in ("float32", *HALF):
            raise ConfigurationError(
                f"there is no precision '{precision}'; use float32, bfloat16 or float16"
            )
        if threads is not None:
            if threads < 1:
                raise ConfigurationError(f"{threads} threads cannot run a network; use 1 or more")
            torch.set_num_threads(threads)
        self._device = device_of(device)
        self._precision: Precision = precision
        self.weight_version = weight_version
        self.name = loaded.name
        self.digest = loaded.digest
        self.notes = loaded.notes
        self.meaning = output_meaning(loaded.meaning)
        self.warming = False
        self.state_age = 0
        self._loaded_meaning = loaded.meaning
        self._pool = SlotPool(self._device, precision) if pool is None else pool
        self._slot = self._pool.take(loaded)
        # At the end of the process there is nothing to give back to.
        weakref.finalize(self, self._pool.give_back, self._slot).atexit = False
        # Rounded weights cannot tell how far others are from these.
        rounded = precision != "float32"
        self._network = loaded.network if rounded else self._slot.weights.network
        self.input_channels = loaded.config.input_format.channels

    @property
    def hampered(self) -> str | None:
        """Why steps take longer than they could; see `HamperedEstimator`."""
        fallback = self._slot.fallback
        if fallback is None:
            return None
        # Errors of CUDA have several lines.
        return f"steps take longer, without CUDA graphs: {' '.join(fallback.split())}"

    def successor(self, path: Path, version: int) -> TorchEstimator:
        """Load other weights of the same network onto the same device; see `ReloadableEstimator`.

        They are ready to step images of the present size. What these weights do is not touched: a
        step may run on another thread meanwhile.
        """
        loaded = load_successor(path, self._network.config, self._loaded_meaning)
        try:
            other = TorchEstimator(
                loaded,
                device=str(self._device),
                precision=self._precision,
                weight_version=version,
                pool=self._pool,
            )
            # Recording takes many steps' time, which no window is to wait for.
            if (step := self._slot.step) is not None:
                other._slot.fit(*step.shape[2:])
            return other
        except RuntimeError as error:
            raise InferenceError(
                f"{path} does not fit beside the present weights on {self._device}: {error}",
                device=str(self._device),
            ) from error

    def weight_change(self, other: TorchEstimator) -> float:
        """Return |w - w_other| / |w_other| over all weights, in float32."""
        return weight_change(self._network, other._network)

    def adopt_state(self, other: TorchEstimator) -> None:
        """Go on with the recurrent state of other weights, which keep it."""
        theirs = other._slot.step
        if theirs is None:
            self.reset()
            return
        step, _ = self._slot.fit(*theirs.shape[2:])
        step.adopt(theirs)
        self.state_age = other.state_age

    def reset(self) -> None:
        """Forget the recurrent state."""
        self._slot.reset()
        self.state_age = 0

    def state_arrays(self) -> tuple[NDArray[np.float32], ...]:
        """Return a copy of the state, in the order of `initial_state`; empty before a step."""
        step = self._slot.step
        if step is None or self.state_age == 0:
            return ()
        return tuple(array[None] for array in step.state_arrays(0))

    def estimate(self, image: EventImage) -> FloatImage:
        """Advance by one step.

        Args:
            image: at the sensor's size, as `meaning.event_encoder` says: the code uint16[H, W] of a
                Tencode, or float32[input_channels, H, W]: Tencode in 0..1, a normalised voxel
                grid, or a camera frame in 0..1. With another size than the last one the state
                begins anew.

        Returns:
            float32[H, W], the network's number.

        Raises:
            ConfigurationError: for another shape or dtype.
            InferenceError: if PyTorch fails, out of memory for instance.
            NonFiniteState: if prediction or state holds NaN or infinity; `reset` before going on.
        """
        check_image(image, self.input_channels)
        height, width = size_of(image)
        try:
            before = self._slot.step
            step, runner = self._slot.fit(height, width)
            if step is not before:
                self.state_age = 0
            predictions, largest = runner.run([image])
        except RuntimeError as error:
            raise InferenceError(
                f"the network failed on {self._device}: {error}. If memory ran out, use a "
                "smaller network, or bfloat16",
                device=str(self._device),
            ) from error
        self.state_age += 1
        if not math.isfinite(largest[0]):
            raise NonFiniteState(
                f"step {self.state_age} since the last reset gave values that are not finite; "
                "reset the state. If it comes back, the weights do not fit this precision",
                state_age=self.state_age,
            )
        return cast("FloatImage", predictions[0])


def create_torch_estimator(parameters: DepthParameters) -> TorchEstimator:
    """Load the weights that the parameters name onto the device that they name.

    Raises:
        ConfigurationError: for a device that is not there, or weights that take camera frames.
        WeightsError: if the file is missing, damaged or not what it says.
    """
    precision = parameters.precision
    loaded = load_weights(parameters.weights)
    if precision == "auto":
        device = device_of(parameters.device)
        precision = usual_torch_precision(device, loaded.config)
        notes = (*loaded.notes, *precision_note(device, precision))
        loaded = dataclasses.replace(loaded, notes=notes)
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
