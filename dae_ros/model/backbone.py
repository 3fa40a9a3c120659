"""The DINOv2 vision transformer (Oquab et al. 2023, arXiv:2304.07193), ours, in one file.

Key names and arithmetic are those of the published weights: patch 14, no register tokens,
exact GELU, LayerScale, LayerNorm with eps 1e-6. Attention is PyTorch's fused one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dae_ros.model.configuration import TransformerSize


class PatchEmbedding(nn.Module):
    """Cuts an image into patches: (B, 3, H, W) -> (B, H/patch * W/patch, width), row by row."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, size.width, size.patch_px, stride=size.patch_px)

    def forward(self, image: Tensor) -> Tensor:
        """Return the patch tokens."""
        tokens: Tensor = self.proj(image)
        return tokens.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention, (B, N, width) -> (B, N, width)."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.proj = nn.Linear(size.width, size.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return softmax(q k^T / sqrt(width / heads)) v, projected."""
        batch, count, width = tokens.shape
        # (B, N, 3 width) -> three of (B, heads, N, width / heads)
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, count, width))
        return projected


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between, four times as wide inside."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size.width, 4 * size.width)
        self.fc2 = nn.Linear(4 * size.width, size.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the tokens, transformed one by one."""
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(size.width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens * gamma."""
        return tokens * self.gamma


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width, eps=1e-6)
        self.attn = Attention(size)
        self.ls1 = LayerScale(size)
        self.norm2 = nn.LayerNorm(size.width, eps=1e-6)
        self.mlp = Mlp(size)
        self.ls2 = LayerScale(size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the tokens after attention and MLP."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        out: Tensor = tokens + self.ls2(self.mlp(self.norm2(tokens)))
        return out


class VisionTransformer(nn.Module):
    """DINOv2 as an encoder: (B, 3, H, W) -> four maps of (B, width, H/14, W/14).

    Attributes:
        channels: channels of the four maps.
        strides: px of the image per cell of the four maps; here all 14.
        multiple: what both sides of the image must be multiples of, in px.
        fixed_positions: of `fix_positions`; not there before.
    """

    fixed_positions: Tensor

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.size = size
        self.channels = (size.width,) * 4
        self.strides = (size.patch_px,) * 4
        self.multiple = size.patch_px
        self.patch_embed = PatchEmbedding(size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + size.grid**2, size.width))
        # Part of the published files, used only by DINOv2's own training.
        self.mask_token = nn.Parameter(torch.zeros(1, size.width))
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=1e-6)
        self._positions: tuple[object, Tensor] | None = None
        self._fixed_grid: tuple[int, int] | None = None

    def fix_positions(self, rows: int, columns: int) -> None:
        """Compute the positions of a grid into memory that stays where it is.

        For whoever replays the network by its addresses: a kept positional embedding (see
        `positions`) moves when the weights change. Must be called again after each change.
        """
        with torch.no_grad():
            fresh = self._resized_positions(rows, columns)
        held = self._buffers.get("fixed_positions")
        if held is not None and held.shape == fresh.shape:
            held.copy_(fresh)
        else:
            # No part of a checkpoint: it follows from `pos_embed`.
            self.register_buffer("fixed_positions", fresh, persistent=False)
        self._fixed_grid = (rows, columns)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the positional embedding of a grid, (1, 1 + rows * columns, width).

        Off the trained grid it is resized bicubically with the scale factors
        ((rows + 0.1) / 37, (columns + 0.1) / 37), which also set where samples are taken:
        asking for the size instead moves every position, and the published weights were
        trained with the factors. The result for the last grid is kept, outside training, for
        as long as the weights stay the same; that of `fix_positions` until it is called again.
        """
        side = self.size.grid
        if (rows, columns) == (side, side):
            return self.pos_embed
        if (rows, columns) == self._fixed_grid:
            return self.fixed_positions
        remember = not (
            torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or self.pos_embed.is_inference()
        )
        key: object = None
        if remember:
            held = self.pos_embed
            key = (rows, columns, held.dtype, held.device, held.data_ptr(), held._version)
            if self._positions is not None and self._positions[0] == key:
                return self._positions[1]
        positions = self._resized_positions(rows, columns)
        if remember:
            self._positions = (key, positions)
        return positions

    def _resized_positions(self, rows: int, columns: int) -> Tensor:
        side = self.size.grid
        dtype = self.pos_embed.dtype
        source = self.pos_embed.float()
        cls_position, grid = source[:, :1], source[:, 1:]
        grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(
            grid,
            scale_factor=((rows + 0.1) / side, (columns + 0.1) / side),
            mode="bicubic",
            align_corners=False,
        )
        grid = grid.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat([cls_position, grid], dim=1).to(dtype)

    def as_map(self, patches: Tensor, rows: int, columns: int) -> Tensor:
        """Return patch tokens (B, rows * columns, width) as a map (B, width, rows, columns)."""
        return patches.transpose(1, 2).reshape(len(patches), -1, rows, columns)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode an image whose sides are multiples of the patch (the networks check it).

        Args:
            image: (B, 3, H, W), normalised with the ImageNet mean and deviation.

        Returns:
            The normalised patch tokens of the four tapped blocks as maps, shallowest first.
            The class token takes part in the attention and is then left out.
        """
        batch, _, height, width = image.shape
        patch = self.size.patch_px
        rows, columns = height // patch, width // patch
        tokens = self.patch_embed(image)
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), tokens], dim=1)
        tokens = tokens + self.positions(rows, columns)
        maps: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            for _ in range(self.size.taps.count(index)):
                patches = self.norm(tokens[:, 1:])
                maps.append(self.as_map(patches, rows, columns))
        first, second, third, fourth = maps
        return first, second, third, fourth
