"""What a backend must offer: one step of the network, with the recurrent state inside."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dae_ros.errors import ConfigurationError
from dae_ros.parameters import DepthParameters

FloatImage: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OutputMeaning:
    """What the number that a network puts out means; a property of its weights.

    Attributes:
        event_encoder: `tencode`, `tencode_voxel` or `voxel_grid`: what the weights were trained on.
        orientation: `depth`, `inverse_depth` or `unknown`.
        metric: True where `scale` and `shift` give metres.
        scale, shift: metres = scale p + shift, or 1 / (scale p + shift) for inverse depth.
    """

    event_encoder: str = "tencode"
    orientation: str = "unknown"
    metric: bool = False
    scale: float = 1.0
    shift: float = 0.0


class DepthEstimator(Protocol):
    """One camera's network: a step takes the event image and moves the state on."""

    name: str
    digest: str
    weight_version: int
    meaning: OutputMeaning
    input_channels: int
    state_age: int

    def estimate(self, image: FloatImage) -> FloatImage:
        """Run one step.

        Args:
            image: float32[C, H, W] at the sensor's size, encoded as `meaning.event_encoder` says.

        Returns:
            float32[H, W], the network's number at the sensor's size.

        Raises:
            InferenceError: the backend failed.
            NonFiniteState: output or state is not finite; the caller resets.
        """

    def reset(self) -> None:
        """Forget the recurrent state; `state_age` becomes 0."""


def create_estimator(parameters: DepthParameters) -> DepthEstimator:
    """Load the weights that the parameters name onto the device that they name.

    Raises:
        ConfigurationError: no weights named, no PyTorch, or a device that is not there.
        WeightsError: the file is missing, damaged or not what it says.
    """
    if not parameters.weights:
        raise ConfigurationError(
            "no weights: set 'weights' to a checkpoint file or to a name that `dae-ros models "
            "list` shows, or to untrained:vits to try the plumbing with random weights",
            parameter="weights",
        )
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError(
            "the network needs PyTorch, which is not installed here: install dae_ros with its "
            "extra `cpu` or `gpu` (pip install '.[cpu]'), or any torch from 2.3 on",
            package="torch",
        )
    # torch is slow to import and not needed by the event half.
    from dae_ros.runtime.torch_estimator import create_torch_estimator

    return create_torch_estimator(parameters)
