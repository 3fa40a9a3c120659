"""Networks in the form for graphs compute what they computed before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dae_ros.model.backbone import Attention
from dae_ros.model.conv_lstm import ConvLSTM
from dae_ros.model.dpt_head import FusionBlock
from dae_ros.model.graph_form import to_graph_form
from dae_ros.model.untrained import untrained

SIZES = {"tiny": (70, 98), "micro": (42, 56), "tiny_e2depth": (24, 40)}


@pytest.mark.parametrize("name", SIZES)
def test_predictions_and_states_are_those_of_the_network(name: str) -> None:
    """Over four steps, the state carried, all outputs agree up to the rounding of sums."""
    original = untrained(name).network
    rewritten = copy.deepcopy(original)
    to_graph_form(rewritten)
    replaced = (Attention, ConvLSTM, FusionBlock)
    assert any(isinstance(module, replaced) for module in original.modules())
    assert not any(isinstance(module, replaced) for module in rewritten.modules())
    height, width = SIZES[name]
    channels = untrained(name).config.input_format.channels
    images = torch.rand(4, 1, channels, height, width, generator=torch.Generator().manual_seed(1))
    expected_state = state = original.initial_state(1, height, width)
    with torch.inference_mode():
        for image in images:
            expected, expected_state = original(image, expected_state)
            actual, state = rewritten(image, state)
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
            for ours, theirs in zip(state, expected_state, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_state_stays_float32_in_half_precision() -> None:
    """Weights of float16 leave hidden and cell float32, as in the network itself."""
    module = nn.ModuleDict({"cell": ConvLSTM(4)})
    to_graph_form(module)
    module.half()
    state = (torch.zeros(1, 4, 5, 6), torch.full((1, 4, 5, 6), 1000.0))
    hidden, cell = module["cell"](torch.ones(1, 4, 5, 6, dtype=torch.float16), state)
    assert (hidden.dtype, cell.dtype) == (torch.float32, torch.float32)
