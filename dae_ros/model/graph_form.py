"""The same networks, written so that a runtime of exported graphs needs fewer and cheaper nodes.

What PyTorch runs best is not what a graph runs best. One product that makes queries, keys and
values is cut apart and turned around in memory by every runtime, and so is one convolution that
makes all gates of a recurrent cell; the cut is not fused with what comes before or after. Weights
and outputs are those of the network, up to the rounding of sums.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dae_ros.model.backbone import Attention, VisionTransformer
from dae_ros.model.conv_lstm import ConvLSTM
from dae_ros.model.dpt_head import FusionBlock

# Gates of a ConvLSTM, in the order of its channels: enter, forget, leave, candidate.
_GATES = 4


def to_graph_form(network: nn.Module) -> None:
    """Replace the modules of a network, in place, by others that compute the same.

    Args:
        network: in float32; no longer of use for training, and its keys are others.
    """
    with torch.no_grad():
        for module in list(network.modules()):
            if isinstance(module, VisionTransformer):
                vars(module)["as_map"] = _as_map
            for name, child in list(module.named_children()):
                if isinstance(child, Attention):
                    setattr(module, name, _Attention(child))
                elif isinstance(child, ConvLSTM):
                    setattr(module, name, _ConvLSTM(child))
                elif isinstance(child, FusionBlock):
                    setattr(module, name, _FusionBlock(child))


def _as_map(patches: Tensor, rows: int, columns: int) -> Tensor:
    """`VisionTransformer.as_map`, the channels last until then: nothing moves in memory."""
    return patches.reshape(len(patches), rows, columns, -1).permute(0, 3, 1, 2)


class _Attention(nn.Module):
    """`Attention` with a product each for queries, keys and values.

    Permutations, product, softmax and product are what OpenVINO makes one node of.
    """

    def __init__(self, original: Attention) -> None:
        super().__init__()
        self.heads = original.heads
        query, key, value = original.qkv.weight.chunk(3)
        query_bias, key_bias, value_bias = original.qkv.bias.chunk(3)
        scale = 1.0 / math.sqrt(query.shape[1] // self.heads)
        self.query = _linear(query * scale, query_bias * scale)
        self.key, self.value = _linear(key, key_bias), _linear(value, value_bias)
        self.proj = copy.deepcopy(original.proj)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return softmax(q k^T / sqrt(width / heads)) v, projected: (B, N, width)."""
        batch, count, width = tokens.shape
        shape = (batch, count, self.heads, width // self.heads)
        query = self.query(tokens).reshape(shape).permute(0, 2, 1, 3)
        key = self.key(tokens).reshape(shape).permute(0, 2, 3, 1)
        value = self.value(tokens).reshape(shape).permute(0, 2, 1, 3)
        mixed = torch.softmax(query @ key, dim=-1) @ value
        out: Tensor = self.proj(mixed.permute(0, 2, 1, 3).reshape(batch, count, width))
        return out


class _ConvLSTM(nn.Module):
    """`ConvLSTM` with a convolution each for its gates."""

    tensors = ConvLSTM.tensors

    def __init__(self, original: ConvLSTM) -> None:
        super().__init__()
        channels, given = original.Gates.out_channels // _GATES, original.Gates.in_channels
        self.gates = nn.ModuleList(nn.Conv2d(given, channels, 3, padding=1) for _ in range(_GATES))
        parts = {key: value.chunk(_GATES) for key, value in original.Gates.state_dict().items()}
        for index, gate in enumerate(self.gates):
            gate.load_state_dict({key: chunks[index] for key, chunks in parts.items()})

    def forward(self, y: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Advance by one step; see `ConvLSTM.forward`."""
        hidden, cell = state
        both = torch.cat([y, hidden.to(y.dtype)], dim=1)
        enter, forget, leave, candidate = [gate(both).to(cell.dtype) for gate in self.gates]
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
        return torch.sigmoid(leave) * torch.tanh(cell), cell


class _FusionBlock(nn.Module):
    """`FusionBlock` that convolves before it resizes, on a quarter of the cells.

    A 1x1 convolution mixes channels and bilinear resizing mixes cells with weights that add up to
    one, so their order makes no difference.
    """

    def __init__(self, original: FusionBlock) -> None:
        super().__init__()
        self.out_conv = original.out_conv
        self.resConfUnit1 = original.resConfUnit1
        self.resConfUnit2 = original.resConfUnit2

    def forward(self, coarse: Tensor | None, level: Tensor, size: Sequence[int]) -> Tensor:
        """Return (B, C, *size)."""
        fused = level if coarse is None else coarse + self.resConfUnit1(level)
        fused = self.out_conv(self.resConfUnit2(fused))
        return F.interpolate(fused, size=tuple(size), mode="bilinear", align_corners=True)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer
