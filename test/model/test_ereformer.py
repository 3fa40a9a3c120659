"""EReFormer: windows against cell-by-cell attention, the gate against the written formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dae_ros.errors import ConfigurationError
from dae_ros.model.ereformer import EReFormer, RecurrentAttention
from dae_ros.model.swin import WindowAttention
from dae_ros.model.untrained import untrained
from test.reference import swin_windows


def test_reference_windows_are_pinned() -> None:
    """The oracle's windows on five cells filled up to six, moved by one."""
    assert swin_windows.windows(5, 3, 0) == [[0, 1, 2], [3, 4, 5]]
    assert swin_windows.windows(5, 3, 1) == [[1, 2, 3], [4, 5, 0]]
    even = swin_windows.softmax(np.array([1.0, 1.0]))
    assert even.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("shift", [0, 1])
def test_window_attention_is_who_sees_whom(shift: int) -> None:
    """Filled up, moved and masked windows agree with attention written cell by cell."""
    rows, columns, channels, window = 5, 7, 4, 3
    torch.manual_seed(0)
    attention = WindowAttention(channels, 1, window, shift).double()
    with torch.no_grad():
        for weight in attention.parameters():
            weight.normal_()
        attention.project.weight.copy_(torch.eye(channels))
        attention.project.bias.zero_()
        query, source = torch.randn(2, 1, rows * columns, channels, dtype=torch.float64)
        actual = attention(query, source, rows, columns)[0].reshape(rows, columns, channels)
        full = torch.zeros(6, 9, channels, dtype=torch.float64)
        full[:rows, :columns] = source[0].reshape(rows, columns, channels)
        key, value = attention.key_value(full).chunk(2, dim=2)
        expected = swin_windows.attend(
            attention.query(query)[0].reshape(rows, columns, channels).numpy(),
            key.numpy(),
            value.numpy(),
            attention.bias[0].reshape(2 * window - 1, 2 * window - 1).numpy(),
            window,
            shift,
        )
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-12)


def test_memory_is_the_published_formula() -> None:
    """Linear attention over tokens and state without denominator, and the gated new state."""
    torch.manual_seed(0)
    unit = RecurrentAttention(4, 2).double()
    x, state, positions = torch.randn(3, 1, 6, 4, dtype=torch.float64)
    with torch.no_grad():
        out, new_state = unit(x, state, positions)
        placed = x + positions
        qkv = unit.qkv_input(unit.norm_input(placed)) + unit.qkv_state(unit.norm_state(state))
        mixed = torch.zeros(6, 4, dtype=torch.float64)
        for head in range(2):
            part = slice(2 * head, 2 * head + 2)
            q, k, v = (qkv[0, :, 4 * n : 4 * n + 4][:, part] for n in range(3))
            for i in range(6):
                for j in range(6):
                    weight = ((torch.nn.functional.elu(q[i]) + 1)
                              * (torch.nn.functional.elu(k[j]) + 1)).sum()  # fmt: skip
                    mixed[i, part] += weight * v[j]
        found = unit.project(mixed)
        update = torch.sigmoid(unit.update(torch.cat([x, state], dim=2)))
        torch.testing.assert_close(new_state, (1 - update) * state + update * found)
        seen = placed + found
        torch.testing.assert_close(out, seen + unit.mlp(unit.norm_mlp(seen)))


def test_state_is_one_map_of_tokens_per_stage() -> None:
    """Stages at strides 4, 8, 16 and 32 with doubling channels; depth within its range."""
    network = untrained("tiny_ereformer").network
    assert isinstance(network, EReFormer)
    state = network.initial_state(1, 64, 96)
    assert [tuple(t.shape[1:]) for t in state] == [(384, 8), (96, 16), (24, 32), (6, 64)]
    with torch.inference_mode():
        depth, _ = network(torch.randn(1, 5, 64, 96), state)
    assert 1.97 < float(depth.min()) < float(depth.max()) < 80.0
    with pytest.raises(ConfigurationError, match="keeps 4"):
        network(torch.randn(1, 5, 64, 96), state[:2])
    with pytest.raises(ConfigurationError, match="multiples of 32"):
        network.initial_state(1, 64, 80)
