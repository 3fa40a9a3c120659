"""Blocks of attention inside of moved windows (Swin: Liu et al. 2021, arXiv:2103.14030).

Tokens are (B, rows * columns, C), row by row. Zeros added to fill the last windows take part in
the attention, as in the published code of EReFormer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WindowAttention(nn.Module):
    """Multi-head attention inside of windows, from one map to itself or to another.

    Args:
        channels, heads: of the tokens.
        window: side of a window in cells.
        shift: cells by which the windows are moved, around the border; tokens from opposite
            borders that share a window do not see each other.
    """

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(channels, channels)
        # A bias per head and per offset (rows, then columns) between two cells of a window.
        self.bias = nn.Parameter(torch.zeros(heads, (2 * window - 1) ** 2))

    def _windows(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """(B, rows * columns, C) -> (B, windows, window^2, C), zeros added right and below."""
        w = self.window
        batch, _, channels = tokens.shape
        grid = tokens.reshape(batch, rows, columns, channels)
        grid = F.pad(grid, (0, 0, 0, -columns % w, 0, -rows % w))
        if self.shift:
            grid = torch.roll(grid, (-self.shift, -self.shift), (1, 2))
        down, right = grid.shape[1] // w, grid.shape[2] // w
        cut = grid.reshape(batch, down, w, right, w, channels).transpose(2, 3)
        return cut.reshape(batch, down * right, w * w, channels)

    def _split_heads(self, tokens: Tensor) -> Tensor:
        """(B, windows, N, C) -> (B, windows, heads, N, C / heads)."""
        batch, count, size, channels = tokens.shape
        split = tokens.reshape(batch, count, size, self.heads, channels // self.heads)
        return split.transpose(2, 3)

    def _bias_and_mask(self, rows: int, columns: int) -> Tensor:
        """Return what is added to the logits, (windows or 1, heads, window^2, window^2)."""
        w, device = self.window, self.bias.device
        cell = torch.arange(w * w, device=device)
        down = (cell // w)[:, None] - (cell // w)[None] + w - 1
        right = (cell % w)[:, None] - (cell % w)[None] + w - 1
        bias: Tensor = self.bias[:, down * (2 * w - 1) + right][None]
        if not self.shift:
            return bias

        def strip(side: int) -> Tensor:
            # 0 for full windows; in the last one 1 before the cells that came around, 2 there.
            position = torch.arange(side, device=device)
            return (position >= side - w).long() + (position >= side - self.shift).long()

        height, width = rows + -rows % w, columns + -columns % w
        region = (3 * strip(height)[:, None] + strip(width)[None]).reshape(
            height // w, w, width // w, w
        )
        region = region.transpose(1, 2).reshape(-1, w * w)
        apart = region[:, None, :] != region[:, :, None]
        return bias - 100.0 * apart[:, None].to(bias.dtype)

    def forward(self, query: Tensor, source: Tensor, rows: int, columns: int) -> Tensor:
        """Return (B, rows * columns, C): the queries' tokens mixed from the source's."""
        batch, _, channels = query.shape
        w = self.window
        from_windows = self._windows(query, rows, columns)
        count = from_windows.shape[1]
        q = self._split_heads(self.query(from_windows))
        keys_values = self.key_value(self._windows(source, rows, columns))
        k, v = (self._split_heads(part) for part in keys_values.chunk(2, dim=3))
        added = self._bias_and_mask(rows, columns).to(q.dtype)
        found = F.scaled_dot_product_attention(
            q, k, v, attn_mask=added.expand(count, -1, -1, -1)[None]
        )
        out: Tensor = self.project(found.transpose(2, 3).reshape(batch, count, w * w, channels))
        down = (rows + -rows % w) // w
        grid = out.reshape(batch, down, count // down, w, w, channels).transpose(2, 3)
        grid = grid.reshape(batch, down * w, -1, channels)
        if self.shift:
            grid = torch.roll(grid, (self.shift, self.shift), (1, 2))
        mixed = grid[:, :rows, :columns]
        return mixed.reshape(batch, rows * columns, channels)


class SwinBlock(nn.Module):
    """Window attention and two linear layers with GELU, pre-norm, both residual.

    With `cross` the keys and values come from another map.
    """

    def __init__(
        self, channels: int, heads: int, window: int, shift: int, ratio: int, cross: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.norm_source = nn.LayerNorm(channels) if cross else None
        self.attention = WindowAttention(channels, heads, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, ratio * channels), nn.GELU(), nn.Linear(ratio * channels, channels)
        )

    def forward(self, x: Tensor, source: Tensor | None, rows: int, columns: int) -> Tensor:
        """Return (B, rows * columns, C)."""
        query = self.norm1(x)
        keys = query if self.norm_source is None else self.norm_source(source)
        x = x + self.attention(query, keys, rows, columns)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class SwinStage(nn.Module):
    """Blocks one after the other, every second one with windows moved by half a window.

    Args:
        channels, heads: of the tokens.
        window: side of a window in cells.
        depth: number of blocks.
        ratio: how much wider the two linear layers are inside.
        cross: whether keys and values come from another map, the same for every block.
    """

    def __init__(
        self, channels: int, heads: int, window: int, depth: int, ratio: int, cross: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(channels, heads, window, window // 2 * (k % 2), ratio, cross)
            for k in range(depth)
        )

    def forward(self, x: Tensor, source: Tensor | None, rows: int, columns: int) -> Tensor:
        """Return (B, rows * columns, C)."""
        for block in self.blocks:
            x = block(x, source, rows, columns)
        return x
