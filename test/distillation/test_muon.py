"""Muon moves matrices along their singular directions, each by the same length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dae_ros.distillation.configuration import TrainingParameters
from dae_ros.distillation.muon import Muon, orthogonal
from dae_ros.distillation.parallel import Workers
from dae_ros.distillation.updates import Updates
from dae_ros.model.configuration import variant
from dae_ros.model.networks import build_network
from test.reference.muon_steps import direction, odd_polynomial, quintic, steps

Settings = Callable[..., TrainingParameters]


def test_the_oracle_by_hand() -> None:
    """The polynomial with a pencil; one singular value alone; one step of one number."""
    # 3.4445 / 2 - 4.7750 / 8 + 2.0315 / 32, then the same polynomial of that.
    assert odd_polynomial(0.5) == pytest.approx(1.188859375)
    assert odd_polynomial(1.0) == pytest.approx(0.701)
    single = direction(np.array([[3.0, 0.0], [0.0, 0.0]]))
    assert single == pytest.approx(np.array([[quintic(1.0), 0.0], [0.0, 0.0]]))
    assert quintic(1.0) == pytest.approx(0.696436, abs=1e-6)
    assert steps(np.array([[2.0]]), [np.array([[5.0]])], 0.1, 0.5) == pytest.approx(
        np.array([[2.0 * 0.95 - 0.1 * 0.2 * quintic(1.0)]])
    )


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31), st.floats(-2, 6))
def test_a_direction_is_that_of_the_singular_values(
    rows: int, columns: int, seed: int, magnitude: float
) -> None:
    """Any shape and any size of gradient gives U f(S) V^T."""
    matrix = np.random.default_rng(seed).normal(size=(rows, columns)) * 10.0**magnitude
    found = orthogonal(torch.from_numpy(matrix)).numpy()
    np.testing.assert_allclose(found, direction(matrix), atol=0.02)


def test_nothing_stays_nothing() -> None:
    """A gradient of zeros moves nothing."""
    assert torch.equal(orthogonal(torch.zeros(3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 3, 3, 3)])
def test_steps_are_those_of_the_reference(shape: tuple[int, ...]) -> None:
    """Momentum, length, decay, and kernels as matrices, over three steps."""
    random = np.random.default_rng(1)
    start = random.normal(size=shape)
    gradients = [random.normal(size=shape) for _ in range(3)]
    weight = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = Muon([weight], lr=0.03, weight_decay=0.1)
    for gradient in gradients:
        weight.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    wanted = steps(
        start.reshape(shape[0], -1), [g.reshape(shape[0], -1) for g in gradients], 0.03, 0.1
    )
    np.testing.assert_allclose(weight.detach().numpy().reshape(shape[0], -1), wanted, atol=1e-6)


def test_what_has_no_gradient_stays() -> None:
    """A weight that the loss does not reach neither moves nor decays."""
    weight = nn.Parameter(torch.ones(3, 3))
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(weight.detach(), torch.ones(3, 3))


def test_every_weight_has_one_optimizer(settings: Settings) -> None:
    """Kernels go to Muon at its rate, the rest to AdamW, none to both, and decay spares biases."""
    network = build_network(variant("micro", input_height=56, input_width=84))
    chosen = settings(muon_rate=0.02, learning_rate=0.01, weight_decay=0.1)
    optimizers = Updates(network, chosen, Workers(0, 1, torch.device("cpu")))._optimizers
    rates: dict[int, tuple[type, float, float]] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                assert id(weight) not in rates
                rates[id(weight)] = (type(optimizer), group["peak"], group["weight_decay"])
    for name, weight in network.named_parameters():
        if weight.ndim == 4 and not name.endswith("output_conv2.2.weight"):
            assert rates[id(weight)] == (Muon, 0.02, 0.1), name
        else:
            decay = 0.1 if weight.ndim > 1 else 0.0
            assert rates[id(weight)] == (torch.optim.AdamW, 0.01, decay), name
