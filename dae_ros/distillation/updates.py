"""From gradients to weights: add up over processes, check, clip, step, average."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.distillation.muon import Muon
from dae_ros.distillation.parallel import Workers
from dae_ros.distillation.schedule import average_decay, learning_rate, update_average
from dae_ros.errors import DistillationError
from dae_ros.model.networks import Network

# So many updates in a row without a finite gradient are no accident.
REFUSED_IN_A_ROW = 50
# Rows or columns below which a matrix has too few directions for Muon.
SMALLEST_SIDE = 8
# Dynamic loss scale of float16: halved by a gradient that is not finite, doubled after so many.
FIRST_LOSS_SCALE, GOOD_STEPS = 2.0**14, 2000


class Updates:
    """Owns a network's weights, their running average and the optimizers.

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
        self._optimizers = _optimizers(network, settings)
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
            The gradient's norm before clipping, and AdamW's learning rate.

        Raises:
            DistillationError: `REFUSED_IN_A_ROW` updates were refused.
        """
        settings, count = self._settings, self._workers.count
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        # Untyped in PyTorch.
        (loss * self.loss_scale).backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        self._workers.add_up([*gradients, numbers])
        for gradient in gradients:
            gradient /= count * self.loss_scale
        norm = float(nn.utils.get_total_norm(gradients))
        # Of 1, the peak of each group.
        share = learning_rate(
            step,
            peak=1.0,
            final=settings.final_rate,
            warm_up=settings.warm_up,
            steps=settings.steps,
        )
        rate = settings.learning_rate * share
        if not norm < float("inf"):  # NaN as well
            self._refuse(norm, step)
            return norm, rate
        self.refused_in_a_row = 0
        if settings.clip_norm > 0 and norm > settings.clip_norm:
            for gradient in gradients:
                gradient *= settings.clip_norm / norm
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * share
            # Untyped in PyTorch.
            optimizer.step()  # type: ignore[no-untyped-call]
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
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "loss_scale": self.loss_scale,
            "good_steps": self._good_steps,
            "refused": self.refused,
            "refused_in_a_row": self.refused_in_a_row,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, own in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
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


def _optimizers(network: Network, settings: TrainingParameters) -> list[torch.optim.Optimizer]:
    """Return AdamW, and Muon for matrices and kernels if asked for; biases and scales never decay.

    Each group keeps the peak of its rate as `peak`.
    """
    matrices = [p for p in network.parameters() if _is_matrix(p)] if settings.muon_rate > 0 else []
    taken = {id(p) for p in matrices}
    others = [p for p in network.parameters() if id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1]},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(0.9, settings.beta_2),
        weight_decay=settings.weight_decay,
    )
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [(adam, settings.learning_rate)]
    if matrices:
        muon = Muon(matrices, lr=settings.muon_rate, weight_decay=settings.weight_decay)
        optimizers.append((muon, settings.muon_rate))
    for optimizer, peak in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = peak
    return [optimizer for optimizer, _ in optimizers]


def _is_matrix(weight: Tensor) -> bool:
    """Whether singular directions mean something: not of a position, a scale or the last layer."""
    return weight.ndim in (2, 4) and min(weight.shape[0], weight[0].numel()) >= SMALLEST_SIDE
