"""PyTorch at once, a faster backend as soon as its graph is exported: what `auto` is when live."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from dae_ros.errors import DaeError, WeightsError
from dae_ros.runtime.backend_choice import BackendChoice
from dae_ros.runtime.background import in_background
from dae_ros.runtime.estimator import FloatImage
from dae_ros.runtime.exported_estimator import ExportedEstimator
from dae_ros.runtime.torch_estimator import TorchEstimator


class TakeoverEstimator:
    """Weights that step on PyTorch until the same weights are ready on another backend.

    The sensor's size is known with the first window, and its graph may take minutes to export. No
    window waits for it: the other backend takes over between two windows and goes on with the
    recurrent state. Where it cannot be had, PyTorch goes on and `choice` says why.

    Args:
        first: the weights on PyTorch.
        load: makes them on the other backend; called on another thread.
        choice: the other backend, and why it is wanted.

    Attributes:
        name, digest, notes, meaning, input_channels, weight_version: see `DepthEstimator`.
        warming: never: it does not change its weights.
        choice: what runs the network now, and why.
    """

    def __init__(
        self, first: TorchEstimator, load: Callable[[], ExportedEstimator], choice: BackendChoice
    ) -> None:
        self._current: TorchEstimator | ExportedEstimator = first
        self._load = load
        self._wanted = choice
        self._pending: Future[ExportedEstimator] | None = None
        self._over = False
        self.choice = BackendChoice(
            "torch", f"until {choice.backend} has the network for this sensor: {choice.reason}"
        )
        self.name, self.digest, self.notes = first.name, first.digest, first.notes
        self.meaning, self.input_channels = first.meaning, first.input_channels
        self.weight_version = first.weight_version
        self.warming = False

    @property
    def state_age(self) -> int:
        """Steps since the state was zero."""
        return self._current.state_age

    def reset(self) -> None:
        """Forget the recurrent state."""
        self._current.reset()

    def estimate(self, image: FloatImage) -> FloatImage:
        """Advance by one step on what there is; see `DepthEstimator`."""
        if not self._over:
            self._take_over(image.shape[1], image.shape[2])
        return self._current.estimate(image)

    def _take_over(self, height: int, width: int) -> None:
        """Begin to export, or go on with what was exported, if it is time for it."""
        first = self._current
        if self._pending is None:
            # The first step may be of a warm-up, whose size is no camera's.
            if first.state_age:
                self._pending = in_background(lambda: self._ready(height, width))
            return
        if not self._pending.done():
            return
        self._over = True
        try:
            other = self._pending.result()
        except DaeError as error:
            reason = f"{self._wanted.backend} cannot run these weights: {error.message}"
            self.choice = BackendChoice("torch", reason)
            return
        if first.state_age and other.sensor_size == (height, width):
            other.set_state(first.state_arrays(), first.state_age)
        self._current, self.choice = other, self._wanted

    def _ready(self, height: int, width: int) -> ExportedEstimator:
        """Return the other backend, loaded for this size and warm; runs on another thread."""
        other = self._load()
        if other.digest != self.digest:
            raise WeightsError(
                f"{self.name} was replaced while it was exported; start again with the new file",
                digest=other.digest,
                expected=self.digest,
            )
        other.estimate(np.zeros((self.input_channels, height, width), np.float32))
        other.reset()
        return other
