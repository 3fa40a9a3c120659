"""PyTorch at once, a faster backend as soon as its graph is exported: what `auto` is when live."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from dae_ros.errors import DaeError, InferenceError, NonFiniteState, WeightsError
from dae_ros.representation.event_image import EventImage, size_of
from dae_ros.runtime.backend_choice import BackendChoice
from dae_ros.runtime.background import BackgroundWork, in_background
from dae_ros.runtime.estimator import FloatImage
from dae_ros.runtime.exported_estimator import ExportedEstimator
from dae_ros.runtime.torch_estimator import TorchEstimator

Size = tuple[int, int]


class TakeoverEstimator:
    """Weights that step on PyTorch until the same weights are ready on another backend.

    The sensor's size is known with the first window, and its graph may take minutes to export. No
    window waits for it: the other backend takes over between two windows and goes on with the
    recurrent state. PyTorch stays at hand: it goes on where the other backend cannot be had or
    fails, whatever the reason, and for a sensor of another size until its graph is there.

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
        self._first = first
        self._other: ExportedEstimator | None = None
        self._load = load
        self._wanted = choice
        self._until = BackendChoice(
            "torch", f"until {choice.backend} has the network for this sensor: {choice.reason}"
        )
        self._pending: BackgroundWork[ExportedEstimator] | None = None
        self._pending_size: Size = (0, 0)
        self._refused: set[Size] = set()
        self._loading: ExportedEstimator | None = None
        self._closed = threading.Event()
        self.choice = self._until
        self.name, self.digest, self.notes = first.name, first.digest, first.notes
        self.meaning, self.input_channels = first.meaning, first.input_channels
        self.weight_version = first.weight_version
        self.warming = False

    @property
    def state_age(self) -> int:
        """Steps since the state was zero."""
        return (self._other or self._first).state_age

    def reset(self) -> None:
        """Forget the recurrent state."""
        (self._other or self._first).reset()

    def close(self, timeout_s: float) -> None:
        """End what goes on in the background, from any thread; nothing further begins.

        An export is a process and ends at once, what is in native code when it comes back from it.
        """
        self._closed.set()
        # Whoever steps may change either at any time.
        loading, pending = self._loading, self._pending
        if loading is not None:
            loading.close()
        if pending is not None:
            pending.join(timeout_s)

    def estimate(self, image: EventImage) -> FloatImage:
        """Advance by one step on what there is; see `DepthEstimator`."""
        size = size_of(image)
        if self._other is None:
            self._take_over(size)
        elif self._other.sensor_size != size:
            self._go_back(self._until)
        if self._other is None:
            return self._first.estimate(image)
        try:
            return self._other.estimate(image)
        except NonFiniteState:
            # That is the weights' doing, or the input's.
            raise
        except InferenceError as error:
            self._refused.add(size)
            self._go_back(BackendChoice("torch", f"{self._wanted.backend} failed: {error.message}"))
            return self._first.estimate(image)

    def _go_back(self, choice: BackendChoice) -> None:
        """Go on with PyTorch, whose state begins anew."""
        self._other = None
        self._first.reset()
        self.choice = choice

    def _take_over(self, size: Size) -> None:
        """Begin to export, or go on with what was exported, if it is time for it."""
        if self._pending is None:
            # The first step may be of a warm-up, whose size is no camera's.
            wanted = size not in self._refused and not self._closed.is_set()
            if wanted and self._first.state_age:
                self._pending_size = size
                self._pending = in_background(lambda: self._ready(*size))
            return
        if not self._pending.done():
            return
        ready, self._pending = self._pending, None
        self._loading = None  # what failed is not kept
        try:
            other = ready.result()
        except Exception as error:  # noqa: BLE001 - whatever it is, PyTorch goes on and says so
            said = (
                error.message if isinstance(error, DaeError) else f"{type(error).__name__}: {error}"
            )
            self._refused.add(self._pending_size)
            self.choice = BackendChoice(
                "torch", f"{self._wanted.backend} cannot run these weights: {said}"
            )
            return
        if self._pending_size != size:
            # Of a sensor that is no longer there; that of this one comes next.
            return
        if self._first.state_age:
            other.set_state(self._first.state_arrays(), self._first.state_age)
        self._other, self.choice = other, self._wanted

    def _ready(self, height: int, width: int) -> ExportedEstimator:
        """Return the other backend, loaded for this size and warm; runs on another thread."""
        other = self._loading = self._load()
        if self._closed.is_set():
            other.close()
        if other.digest != self.digest:
            raise WeightsError(
                f"{self.name} was replaced while it was exported; start again with the new file",
                digest=other.digest,
                expected=self.digest,
            )
        other.estimate(np.zeros((self.input_channels, height, width), np.float32))
        other.reset()
        return other
