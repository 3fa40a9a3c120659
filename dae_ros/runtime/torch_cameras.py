"""Several cameras on one network: stepped together, each with a state of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState
from dae_ros.model.checkpoint import LoadedModel
from dae_ros.model.device import device_of
from dae_ros.representation.event_image import EventImage, size_of
from dae_ros.runtime.estimator import FloatImage, output_meaning
from dae_ros.runtime.graph_estimator import check_image
from dae_ros.runtime.torch_slots import Slot
from dae_ros.runtime.torch_step import Precision


class CameraBatch:
    """A network that steps the windows of several cameras of one size at once.

    Cameras need not all have a window: those without keep their state, bit for bit. A batch pays
    on a GPU, which one camera leaves idle.

    Args:
        loaded: weights and what they mean; copied to the device.
        cameras: how many.
        device, precision: see `TorchEstimator`.

    Attributes:
        cameras: how many.
        meaning, input_channels: see `DepthEstimator`.
        state_ages: per camera, the steps since its state was zero.

    Raises:
        ConfigurationError: for a device that is not there, or no camera.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        cameras: int,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        if cameras < 1:
            raise ConfigurationError(f"{cameras} cannot be a number of cameras; use 1 or more")
        self.cameras = cameras
        self.meaning = output_meaning(loaded.meaning)
        self.input_channels = loaded.config.input_format.channels
        self.state_ages = [0] * cameras
        self._slot = Slot(loaded, device_of(device), precision, cameras)

    def reset(self, camera: int) -> None:
        """Forget the recurrent state of one camera."""
        self._slot.reset(camera)
        self.state_ages[camera] = 0

    def state_arrays(self, camera: int) -> tuple[NDArray[np.float32], ...]:
        """Return a copy of a camera's state, in the order of `initial_state`; () before a step."""
        step = self._slot.step
        return () if step is None or self.state_ages[camera] == 0 else step.state_arrays(camera)

    def estimate(
        self, images: Sequence[EventImage | None]
    ) -> tuple[FloatImage | NonFiniteState | None, ...]:
        """Advance the cameras that have an image by one step.

        Args:
            images: per camera what `TorchEstimator.estimate` takes, all of one size, or None. With
                another size than the last one all states begin anew.

        Returns:
            Per camera the network's number float32[H, W], None without an image, or what is wrong
            with its state: `reset` that camera before going on. The others are not touched by it.

        Raises:
            ConfigurationError: for another number of images, shape or dtype.
            InferenceError: if PyTorch fails; no state has changed.
        """
        given = [image for image in images if image is not None]
        for image in given:
            check_image(image, self.input_channels)
        if len(images) != self.cameras or len({size_of(image) for image in given}) > 1:
            raise ConfigurationError(
                f"{len(images)} images of sizes {[size_of(image) for image in given]} are given; "
                f"give {self.cameras} of one size, None where a camera has none"
            )
        if not given:
            return (None,) * self.cameras
        try:
            before = self._slot.step
            step, runner = self._slot.fit(*size_of(given[0]))
            if step is not before:
                self.state_ages = [0] * self.cameras
            predictions, largest = runner.run(images)
        except RuntimeError as error:
            raise InferenceError(
                f"the network failed for {self.cameras} cameras: {error}. If memory ran out, use "
                "fewer, or bfloat16",
                cameras=self.cameras,
            ) from error
        return tuple(
            None if image is None else self._result(camera, predictions[camera], largest[camera])
            for camera, image in enumerate(images)
        )

    def _result(
        self, camera: int, prediction: FloatImage, largest: np.float32
    ) -> FloatImage | NonFiniteState:
        self.state_ages[camera] += 1
        if math.isfinite(largest):
            return prediction
        return NonFiniteState(
            f"step {self.state_ages[camera]} of camera {camera} since its last reset gave values "
            "that are not finite; reset its state",
            camera=camera,
            state_age=self.state_ages[camera],
        )
