"""The recurrent units of DepthAnyEvent-R, one per level of the head.

Bartolomei et al. 2025 (arXiv:2509.15224); ConvLSTM: Shi et al. 2015 (arXiv:1506.04214);
ConvGRU: Ballas et al. 2016 (arXiv:1511.06432). Key names are those of the published files,
where the layers are called gru_layer even though they are LSTMs.

State is an argument and a result. It stays float32 when the weights are of half precision:
the cell may grow by one per step, and bfloat16 no longer counts beyond 256.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dae_ros.model.configuration import Recurrence


class ConvLSTM(nn.Module):
    """A convolutional LSTM cell: no peepholes, no norm, no bias on the forget gate."""

    tensors = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def forward(self, y: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Advance by one step.

        Args:
            y: (B, C, h, w), the input of this step.
            state: hidden and cell, each (B, C, h, w).

        Returns:
            The new hidden and cell, in the dtype of `state`.
        """
        hidden, cell = state
        gates = self.Gates(torch.cat([y, hidden.to(y.dtype)], dim=1)).to(cell.dtype)
        enter, forget, leave, candidate = gates.chunk(4, dim=1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
        return torch.sigmoid(leave) * torch.tanh(cell), cell


class ConvGRU(nn.Module):
    """A convolutional GRU cell."""

    tensors = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reset_gate = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.update_gate = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.out_gate = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, y: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Advance by one step; as `ConvLSTM.forward`, with the hidden state alone."""
        (hidden,) = state
        both = torch.cat([y, hidden.to(y.dtype)], dim=1)
        reset = torch.sigmoid(self.reset_gate(both))
        update = torch.sigmoid(self.update_gate(both)).to(hidden.dtype)
        candidate = torch.tanh(self.out_gate(torch.cat([y, reset * hidden.to(y.dtype)], dim=1))).to(
            hidden.dtype
        )
        return ((1 - update) * hidden + update * candidate,)


class _Convolution(nn.Module):
    """A 3x3 convolution under the key that the published files use."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        # Without padding a level loses one cell on every side. The published weights were
        # trained so; padding there would change the output everywhere.
        self.conv2d = nn.Conv2d(channels, channels, 3, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, h - 2, w - 2), with padding (B, C, h, w)."""
        out: Tensor = self.conv2d(x)
        return out


class RecurrentLayer(nn.Module):
    """Remembers one level of the head: (B, C, h, w) and state -> (B, C, h', w') and state.

    h' = h - 2 + 2 padding, as w'. The state has that size too.
    """

    def __init__(self, channels: int, recurrence: Recurrence, padding: int = 0) -> None:
        super().__init__()
        self.conv = _Convolution(channels, padding)
        self.recurrent_block: ConvLSTM | ConvGRU = (
            ConvLSTM(channels) if recurrence == "convlstm" else ConvGRU(channels)
        )

    @property
    def tensors(self) -> int:
        """How many tensors the state has: 2 (hidden, cell) or 1 (hidden)."""
        return self.recurrent_block.tensors

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the level's feature, which is the new hidden state, and the new state."""
        y = torch.relu(self.conv(x))
        state = self.recurrent_block(y, state)
        return state[0].to(y.dtype), state
