"""What a backend must offer: one step of the network, with the recurrent state inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dae_ros.model.configuration import Meaning
from dae_ros.representation.event_image import EventImage

FloatImage: TypeAlias = NDArray[np.float32]
Estimator = TypeVar("Estimator", bound="ReloadableEstimator")


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


class DepthEstimator(Protocol):
    """One camera's network: a step takes the event image and moves the state on."""

    @property
    def name(self) -> str:
        """What the weights are called."""

    @property
    def digest(self) -> str:
        """Sha256 of the weights, 64 hex digits."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the weights that a user should see."""

    @property
    def weight_version(self) -> int:
        """0 for the weights that it began with; see `snapshots.Announcement.version`."""

    @property
    def meaning(self) -> OutputMeaning:
        """What the network's number means."""

    @property
    def input_channels(self) -> int:
        """Channels of the image that a step takes."""

    @property
    def state_age(self) -> int:
        """Steps since the recurrent state was zero."""

    @property
    def warming(self) -> bool:
        """Whether a change of weights has just cost the state, see `WeightSwap`."""

    def estimate(self, image: EventImage) -> FloatImage:
        """Run one step.

        Args:
            image: at the sensor's size, encoded as `meaning.event_encoder` says: float32[C, H, W],
                or the code uint16[H, W] of a Tencode (`representation.tencode_code`). It may be
                kept, to be stepped again, so that nobody is to change it afterwards.

        Returns:
            float32[H, W], the network's number at the sensor's size; the caller's own.

        Raises:
            InferenceError: the backend failed.
            NonFiniteState: output or state is not finite; the caller resets.
        """

    def reset(self) -> None:
        """Forget the recurrent state; `state_age` becomes 0."""


@runtime_checkable
class SizedEstimator(Protocol):
    """A backend whose network is built for one size of the sensor."""

    @property
    def sensor_size(self) -> tuple[int, int] | None:
        """(height, width) in px that a step is ready for; None before the first image."""


@runtime_checkable
class ClosableEstimator(Protocol):
    """A backend that has work going on beside its steps."""

    def close(self, timeout_s: float) -> None:
        """End that work, from any thread, and wait for its end so long; none begins any more."""


@runtime_checkable
class HamperedEstimator(Protocol):
    """A backend that may have to do without something that makes its steps fast."""

    @property
    def hampered(self) -> str | None:
        """Why steps take longer than they could, a clause; None where they do not."""


def hampered_by(estimator: DepthEstimator | None) -> tuple[str, ...]:
    """Return why its steps take longer than they could, where they do: one clause or none."""
    why = estimator.hampered if isinstance(estimator, HamperedEstimator) else None
    return () if why is None else (why,)


@runtime_checkable
class ReloadableEstimator(DepthEstimator, Protocol):
    """A backend that can hold other weights of the same network beside the present ones."""

    def successor(self: Estimator, path: Path, version: int) -> Estimator:
        """Load other weights, with a state of their own; may be called on another thread.

        Where this backend is a `ClosableEstimator`, they are closed together.

        Args:
            path: of a checkpoint.
            version: its `weight_version`.

        Raises:
            WeightsError: the file is missing or damaged, or of another network or meaning; then
                `.data["refusal"]` is `other_network` or `other_meaning`, or `backend` where this
                backend cannot run them.
            InferenceError: there is no memory for them.
        """

    def weight_change(self: Estimator, other: Estimator) -> float:
        """Return |w - w_other| / |w_other| over all weights."""

    def adopt_state(self: Estimator, other: Estimator) -> None:
        """Go on with the recurrent state of other weights."""
