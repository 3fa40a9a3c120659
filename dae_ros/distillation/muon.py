"""Muon: momentum whose direction has the same length along every singular direction.

Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with the
step length of J. Liu et al., "Muon is Scalable for LLM Training" (arXiv:2502.16982, equation 4).
`torch.optim.Muon` takes matrices alone; the recurrent networks here are half convolutions, whose
kernels count as matrices (filters, everything else).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
ITERATIONS = 5
# Of the quintic: not to converge to 1 but to bring any singular value above about 0.002 into
# 0.7..1.2 within five iterations (Jordan 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
# Root mean square of a step relative to the rate, as that of AdamW (Liu 2025).
STEP_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay.

    Args:
        parameters: matrices or kernels, at least two dimensions each.
        lr: learning rate, of the size that AdamW takes.
        weight_decay: of the weights, times the rate.
    """

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 - theirs
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state: dict[str, Any] = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                ahead = weight.grad.lerp(state["momentum"], MOMENTUM).flatten(1)
                length = rate * STEP_RMS * max(ahead.shape) ** 0.5
                weight.mul_(1 - rate * decay)
                weight.sub_(orthogonal(ahead).reshape(weight.shape), alpha=length)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return U V^T of a matrix U S V^T, with singular values of about 0.7..1.2 instead of 1.

    Args:
        matrix: float (m, n); zeros stay zeros.

    Returns:
        Of its shape.
    """
    a, b, c = QUINTIC
    upright = matrix.shape[0] > matrix.shape[1]
    result: Tensor = matrix.T if upright else matrix
    result = result / (result.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = result @ result.T
        result = a * result + (b * gram + c * gram @ gram) @ result
    return result.T if upright else result
