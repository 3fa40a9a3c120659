"""A network stepped as one would at a prompt: new tensors at each step, autocast for half."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dae_ros.model.checkpoint import LoadedModel
from dae_ros.runtime.torch_fitting import Fitting


class EagerSteps:
    """One camera's network with its state, on the CPU; the network is only read."""

    def __init__(self, loaded: LoadedModel, precision: str = "float32") -> None:
        self.network = loaded.network
        self.fitting = Fitting(loaded.config, loaded.network.multiple, torch.device("cpu"))
        self.half = None if precision == "float32" else getattr(torch, precision)
        self.state: tuple[Tensor, ...] | None = None

    def reset(self) -> None:
        self.state = None

    def step(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the prediction of float32[C, H, W] at its size."""
        rounding = (
            contextlib.nullcontext()
            if self.half is None
            else torch.autocast("cpu", dtype=self.half)
        )
        with torch.no_grad(), rounding:
            pixels = self.fitting.prepare(torch.from_numpy(image)[None])
            if self.state is None:
                self.state = self.network.initial_state(1, *pixels.shape[2:])
            prediction, self.state = self.network(pixels, self.state)
            return self.fitting.restore(prediction, *image.shape[1:])[0, 0].numpy()


def echo(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Stand in for a CUDA graph: the function again, its result in the memory of the first time."""
    output = function()

    def replay() -> Tensor:
        output.copy_(function())
        return output

    return replay
