"""A 'network' of three numbers in a JSON file, so that tests of weight changes need no PyTorch.

s = decay * s + gain * image.sum(0), and the output is s, NaN from step `fails_at` on.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from dae_ros.errors import InferenceError, NonFiniteState, WeightsError
from dae_ros.representation.event_image import EventImage, planes_of
from dae_ros.runtime.announcement import Announcement
from dae_ros.runtime.estimator import FloatImage, OutputMeaning


class ReloadableEstimator:
    """`runtime.estimator.ReloadableEstimator` of one line; remembers what it stepped."""

    name, notes, input_channels, warming = "three numbers", (), 3, False

    def __init__(
        self,
        gain: float = 1.0,
        decay: float = 0.5,
        fails_at: int = 0,
        *,
        digest: str = "0" * 64,
        version: int = 0,
        fails_with: type[InferenceError] = NonFiniteState,
    ) -> None:
        self.gain, self.decay, self.fails_at = gain, decay, fails_at
        self.digest, self.weight_version = digest, version
        self.fails_with = fails_with
        self.meaning = OutputMeaning(orientation="depth")
        self.state_age = self.steps = 0
        self._state: FloatImage | None = None

    def estimate(self, image: EventImage) -> FloatImage:
        """Return float32[H, W]."""
        self.steps += 1
        if self.fails_at and self.steps >= self.fails_at:
            raise self.fails_with("broken on purpose")
        total = np.float32(self.gain) * planes_of(image).sum(axis=0, dtype=np.float32)
        self._state = total if self._state is None else np.float32(self.decay) * self._state + total
        self.state_age += 1
        return self._state.copy()

    def reset(self) -> None:
        """Forget the sum."""
        self._state = None
        self.state_age = 0

    def successor(self, path: Path, version: int) -> ReloadableEstimator:
        """Read the three numbers of a file."""
        data = path.read_bytes()
        try:
            values = json.loads(data)
        except ValueError as error:
            raise WeightsError("no three numbers") from error
        if "network" in values:
            raise WeightsError("of another network", refusal="other_network")
        return ReloadableEstimator(
            **values, digest=hashlib.sha256(data).hexdigest(), version=version
        )

    def weight_change(self, other: ReloadableEstimator) -> float:
        """Compare gain and decay."""
        return abs(self.gain - other.gain) / other.gain + abs(self.decay - other.decay)

    def adopt_state(self, other: ReloadableEstimator) -> None:
        """Take the sum of another."""
        self._state, self.state_age = other._state, other.state_age


def announced(
    folder: Path,
    version: int,
    *,
    rollback: bool = False,
    confirmed: bool = False,
    **values: object,
) -> Announcement:
    """Write three numbers and return their announcement."""
    path = folder / f"{version}_{len(list(folder.iterdir()))}.json"
    data = json.dumps(values).encode()
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return Announcement(version, path, digest, len(data), rollback, confirmed)
