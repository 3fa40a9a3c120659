"""What a backend must offer: one step of the network, with the recurrent state inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

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
    """One camera's network: a step takes the event image and moves the state on.

    Attributes:
        name, digest, meaning: of the present weights.
        notes: sentences about them that a user should see.
        weight_version: grows when others are loaded.
        input_channels: of the image that a step takes.
        state_age: steps since the state was zero.
    """

    name: str
    digest: str
    notes: tuple[str, ...]
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
