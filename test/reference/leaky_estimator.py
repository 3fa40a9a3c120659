"""A recurrent 'network' of one line, so that pipeline tests need no weights: s = s / 2 + image."""

from __future__ import annotations

import numpy as np

from dae_ros.errors import NonFiniteState
from dae_ros.representation.event_image import EventImage, planes_of
from dae_ros.runtime.estimator import FloatImage, OutputMeaning


class LeakyEstimator:
    """Depth is the leaky sum of the three channels; it remembers every step and reset."""

    def __init__(self, meaning: OutputMeaning | None = None) -> None:
        self.name = "leaky"
        self.digest = "0" * 64
        self.notes: tuple[str, ...] = ()
        self.weight_version = 0
        self.meaning = meaning if meaning is not None else OutputMeaning(orientation="depth")
        self.input_channels = 3
        self.state_age = 0
        self.warming = False
        self.poison_at: int | None = None
        self.steps = 0
        self._state: FloatImage | None = None

    def estimate(self, image: EventImage) -> FloatImage:
        """Return float32[H, W]; NonFiniteState at step number `poison_at`."""
        self.steps += 1
        if self.steps == self.poison_at:
            raise NonFiniteState("the state holds NaN", step=self.steps)
        total = planes_of(image).sum(axis=0, dtype=np.float32)
        self._state = total if self._state is None else self._state * np.float32(0.5) + total
        self.state_age += 1
        return self._state.copy()

    def reset(self) -> None:
        """Forget the sum."""
        self._state = None
        self.state_age = 0
