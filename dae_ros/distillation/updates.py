"""From gradients to weights: add up over processes, check, clip, step, average."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.distillation.parallel import Workers
from dae_ros.distillation.schedule import average_decay, learning_rate, update_average
from dae_ros.errors import DistillationError
from dae_ros.model.networks import Network

# So many updates in a row without a finite gradient are no accident.
REFUSED_IN_A_ROW = 50
# Dynamic loss scale of float16: halved by a gradient that is not finite, doubled after so many.
FIRST_LOSS_SCALE, GOOD_STEPS = 2.0**14, 2000


class Updates:
    """Owns a network's weights, their running average and the optimizer.

    Args:
        network: on the device of `workers`.
        settings: of the run.
        workers: the processes that train it.

    Attributes:
        network: in training mode.
        average: a copy with the averaged weights, in eval mode.
        loss_scale: what a loss is multiplied with before it is propagated back.
        refused, refused_in_a_row: updates whose gradient was not finite.
    """

    def __init__(self, network: Network, settings: TrainingParameters, workers: Workers) -> None:
        # See `rollout.py`; the stubs of PyTorch do not know this form.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.train().requires_grad_(True)
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self._settings = settings
        self._workers = workers
        self._optimizer = _optimizer(network, settings)
        self._float16 = settings.precision == "float16"
        self.loss_scale = FIRST_LOSS_SCALE if self._float16 else 1.0
        self._good_steps = 0
        self.refused = 0
        self.refused_in_a_row = 0

    def apply(self, loss: Tensor, step: int, numbers: Tensor) -> tuple[float, float]:
        """Propagate a loss back and step; weights stay as they are where it is not finite.

        Args:
            loss: of this process' clips.
            step: of the update.
            numbers: float32, summed over the processes in place, with the same message.

        Returns:
            The gradient's norm before clipping, and the learning rate.

        Raises:
            DistillationError: `REFUSED_IN_A_ROW` updates were refused.
        """
        settings, count = self._settings, self._workers.count
        self._optimizer.zero_grad(set_to_none=True)
        # Untyped in PyTorch.
        (loss * self.loss_scale).backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        self._workers.add_up([*gradients, numbers])
        for gradient in gradients:
            gradient /= count * self.loss_scale
        norm = float(nn.utils.get_total_norm(gradients))
        rate = learning_rate(
            step,
            peak=settings.learning_rate,
            final=settings.final_rate,
            warm_up=settings.warm_up,
            steps=settings.steps,
        )
        if not norm < float("inf"):  # NaN as well
            self._refuse(norm, step)
            return norm, rate
        self.refused_in_a_row = 0
        if settings.clip_norm > 0 and norm > settings.clip_norm:
            for gradient in gradients:
                gradient *= settings.clip_norm / norm
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        update_average(
            self.average.state_dict(), self.network.state_dict(), average_decay(step, settings.ema)
        )
        self._good_steps += 1
        if self._float16 and self._good_steps == GOOD_STEPS:
            self.loss_scale *= 2
            self._good_steps = 0
        return norm, rate

    def state(self) -> dict[str, Any]:
        """Return what the next update needs, tensors as they are."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "loss_scale": self.loss_scale,
            "good_steps": self._good_steps,
            "refused": self.refused,
            "refused_in_a_row": self.refused_in_a_row,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.loss_scale = state["loss_scale"]
        self._good_steps = state["good_steps"]
        self.refused = state["refused"]
        self.refused_in_a_row = state["refused_in_a_row"]

    def _refuse(self, norm: float, step: int) -> None:
        """Leave the weights as they are; give up where that does not help."""
        self.refused += 1
        self.refused_in_a_row += 1
        self._good_steps = 0
        if self._float16:
            self.loss_scale /= 2
        if self.refused_in_a_row >= REFUSED_IN_A_ROW:
            raise DistillationError(
                f"{REFUSED_IN_A_ROW} updates in a row had a gradient that is not finite ({norm}); "
                "the weights before them are kept. Lower 'learning_rate', use 'precision' "
                "float32, or check the clips with dae-ros clips --verify",
                step=step,
            )


def _optimizer(network: Network, settings: TrainingParameters) -> torch.optim.AdamW:
    """Return AdamW with decay on matrices and kernels, none on biases, norms and scales."""
    parameters = list(network.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(0.9, settings.beta_2),
        weight_decay=settings.weight_decay,
    )
