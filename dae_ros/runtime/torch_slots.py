"""Room for the sets of weights that are in use at one time: made once, then filled again."""

from __future__ import annotations

import threading

import torch

from dae_ros.model.checkpoint import LoadedModel
from dae_ros.runtime.torch_runner import DirectRunner, GraphRunner, Runner, cuda_capture
from dae_ros.runtime.torch_step import Precision, StaticStep, StaticWeights

# Weights in use, those of before, and those that are to come; see `WeightSwap`.
MOST_SLOTS = 3


class Slot:
    """One set of weights with the states and, on CUDA, the graphs of its steps.

    Attributes:
        weights: what it holds now.
    """

    def __init__(
        self, loaded: LoadedModel, device: torch.device, precision: Precision, cameras: int = 1
    ) -> None:
        # Tensors made inside of a caller's inference mode could not be changed outside of it.
        with torch.inference_mode(False):
            self.weights = StaticWeights(loaded, device, precision)
        self._cameras = cameras
        self._ready: tuple[StaticStep, Runner] | None = None

    @property
    def step(self) -> StaticStep | None:
        """The step for the present sensor; None before there is one."""
        return None if self._ready is None else self._ready[0]

    @property
    def fallback(self) -> str | None:
        """Why that step is not replayed although it was to be; None where nothing is the matter."""
        return None if self._ready is None else self._ready[1].fallback

    def fit(self, height: int, width: int) -> tuple[StaticStep, Runner]:
        """Return the step for a sensor and what runs it; made anew where the size is another one.

        Raises:
            ConfigurationError: the sensor is too small for the network.
        """
        if self._ready is None or self._ready[0].shape[2:] != (height, width):
            # Of the two sizes only one has room, and either may fail.
            self._ready = None
            with torch.inference_mode(False):
                step = StaticStep(self.weights, self._cameras, height, width)
                self._ready = (step, _runner(step))
        return self._ready

    def reset(self, camera: int | None = None) -> None:
        """Forget the state of a camera, or of all."""
        if self._ready is not None:
            self._ready[0].reset(camera)


class SlotPool:
    """The slots of weights that follow one another on a device.

    Thread-safe: weights are loaded on another thread than the one that steps.

    Args:
        device, precision: of all of them.
    """

    def __init__(self, device: torch.device, precision: Precision) -> None:
        self.device, self.precision = device, precision
        self._free: list[Slot] = []
        self._taken = 0
        # Slots come back when their owner is collected, which may be at any line.
        self._lock = threading.RLock()

    def take(self, loaded: LoadedModel) -> Slot:
        """Return a slot with these weights and no state; to be given back."""
        with self._lock:
            slot = self._free.pop() if self._free else None
            self._taken += 1
        try:
            if slot is None:
                return Slot(loaded, self.device, self.precision)
            slot.weights.load(loaded.network)
            slot.reset()
            return slot
        except BaseException:
            # What is half filled goes.
            with self._lock:
                self._taken -= 1
            raise

    def give_back(self, slot: Slot) -> None:
        """Keep a slot that nobody uses any more for the next weights, or let it go."""
        with self._lock:
            self._taken -= 1
            if self._taken + len(self._free) < MOST_SLOTS:
                self._free.append(slot)


def _runner(step: StaticStep) -> Runner:
    stream = step.weights.stream
    return DirectRunner(step) if stream is None else GraphRunner(step, cuda_capture(stream))
