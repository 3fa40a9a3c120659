"""A graph of fixed size as a `DepthEstimator`, whatever runtime it runs on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError, InferenceError, NonFiniteState
from dae_ros.representation.event_image import (
    TENCODE_CHANNELS,
    EventImage,
    is_code,
    planes_of,
    size_of,
)
from dae_ros.runtime.estimator import FloatImage, output_meaning
from dae_ros.runtime.onnx_description import OnnxDescription


class RecurrentGraph(Protocol):
    """An exported graph on a device, with the recurrent state inside."""

    def step(self, image: FloatImage) -> tuple[FloatImage, float]:
        """Run the graph and keep the new state.

        Args:
            image: float32[channels, height, width].

        Returns:
            The prediction, float32[height, width], the caller's own, and the graph's check.

        Raises:
            InferenceError: the runtime failed; the state is as before.
        """

    def reset(self) -> None:
        """Go back to a state of zeros."""

    def state_arrays(self) -> tuple[NDArray[np.float32], ...]:
        """Return a copy of the state."""

    def set_state(self, state: Sequence[NDArray[np.float32]]) -> None:
        """Go on with a copy of this state."""


class GraphEstimator:
    """An exported graph with what its file says; one per camera.

    Args:
        graph: on its device.
        description: of the graph.
        notes: sentences that a user should see beside those of the weights.

    Attributes:
        name, digest, notes, meaning, input_channels, weight_version: see `DepthEstimator`.
        sensor_size: the only (height, width) that a step takes.
        state_age: steps since the state was zero.
        warming: never: it does not change its weights.
    """

    def __init__(
        self, graph: RecurrentGraph, description: OnnxDescription, notes: tuple[str, ...] = ()
    ) -> None:
        self._graph = graph
        self.name = description.name
        self.digest = description.digest
        self.notes = (*description.notes, *notes)
        self.meaning = output_meaning(description.meaning)
        self.input_channels = description.channels
        self.sensor_size = (description.height, description.width)
        self._planes = np.empty((description.channels, *self.sensor_size), np.float32)
        self.weight_version = 0
        self.warming = False
        self.state_age = 0

    def reset(self) -> None:
        """Forget the recurrent state."""
        self._graph.reset()
        self.state_age = 0

    def state_arrays(self) -> tuple[NDArray[np.float32], ...]:
        """Return a copy of the state, in the order of `initial_state`."""
        return self._graph.state_arrays()

    def set_state(self, state: Sequence[NDArray[np.float32]], state_age: int) -> None:
        """Go on with a state that another graph of the same network and size has reached."""
        self._graph.set_state(state)
        self.state_age = state_age

    def estimate(self, image: EventImage) -> FloatImage:
        """Advance by one step; see `DepthEstimator`.

        Raises:
            ConfigurationError: for another number of channels or dtype.
            InferenceError: for a sensor of another size, or if the runtime fails.
            NonFiniteState: if prediction or state holds NaN or infinity; `reset` before going on.
        """
        check_image(image, self.input_channels)
        size = size_of(image)
        if size != self.sensor_size:
            raise InferenceError(
                "the sensor has {2}x{3} px (height x width) and {4} was exported for {0}x{1}; "
                "export the weights with --height {2} --width {3}".format(
                    *self.sensor_size, *size, self.name
                ),
                sensor=size,
                exported=self.sensor_size,
            )
        prediction, check = self._graph.step(planes_of(image, self._planes))
        self.state_age += 1
        if not math.isfinite(check):
            raise NonFiniteState(
                f"step {self.state_age} since the last reset gave values that are not finite; "
                "reset the state. If it comes back, the weights do not fit this precision",
                state_age=self.state_age,
            )
        return prediction


def check_image(image: EventImage, channels: int) -> None:
    """Refuse what is no image of a network.

    Raises:
        ConfigurationError: it is neither float32[channels, height, width] nor, where there are
            three channels, uint16[height, width].
    """
    takes_codes = channels == TENCODE_CHANNELS
    if is_code(image):
        fits = takes_codes and image.ndim == 2
    else:
        fits = image.ndim == 3 and image.shape[0] == channels and image.dtype == np.float32
    if not fits:
        code = " or the code of a Tencode, uint16[height, width]" if takes_codes else ""
        raise ConfigurationError(
            f"the image is {image.dtype}{list(image.shape)}; give "
            f"float32[{channels}, height, width]{code}",
            shape=image.shape,
        )
