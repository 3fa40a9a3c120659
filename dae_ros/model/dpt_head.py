"""The head: four encoder maps to one dense prediction, with or without memory.

DPT (Ranftl et al. 2021, arXiv:2103.13413) as in Depth Anything V2, plus one recurrent unit
per level before the fusion for DepthAnyEvent-R (Bartolomei et al. 2025, arXiv:2509.15224).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dae_ros.errors import ConfigurationError
from dae_ros.model.configuration import ModelConfig
from dae_ros.model.conv_lstm import RecurrentLayer

State = tuple[Tensor, ...]


class ResidualConvUnit(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3, same size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        out: Tensor = x + self.conv2(torch.relu(self.conv1(torch.relu(x))))
        return out


class FusionBlock(nn.Module):
    """Adds a finer level to what came from the coarser ones, and brings it to the next size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, 1)
        # The coarsest block has no coarser input; its first unit is only there because the
        # published files hold its weights.
        self.resConfUnit1 = ResidualConvUnit(channels)
        self.resConfUnit2 = ResidualConvUnit(channels)

    def forward(self, coarse: Tensor | None, level: Tensor, size: Sequence[int]) -> Tensor:
        """Return (B, C, *size)."""
        fused = level if coarse is None else coarse + self.resConfUnit1(level)
        fused = self.resConfUnit2(fused)
        fused = F.interpolate(fused, size=tuple(size), mode="bilinear", align_corners=True)
        out: Tensor = self.out_conv(fused)
        return out


class Scratch(nn.Module):
    """Projection of the four levels to F channels, their fusion, and the output convolutions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        f, (c1, c2, c3, c4) = config.features, config.reassemble
        self.layer1_rn = nn.Conv2d(c1, f, 3, padding=1, bias=False)
        self.layer2_rn = nn.Conv2d(c2, f, 3, padding=1, bias=False)
        self.layer3_rn = nn.Conv2d(c3, f, 3, padding=1, bias=False)
        self.layer4_rn = nn.Conv2d(c4, f, 3, padding=1, bias=False)
        self.refinenet1 = FusionBlock(f)
        self.refinenet2 = FusionBlock(f)
        self.refinenet3 = FusionBlock(f)
        self.refinenet4 = FusionBlock(f)
        self.output_conv1 = nn.Conv2d(f, f // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(f // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1)
        )

    def project(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Bring the four levels, finest first, to F channels."""
        layers = (self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn)
        return [layer(level) for layer, level in zip(layers, levels, strict=True)]

    def fuse(self, levels: Sequence[Tensor]) -> Tensor:
        """Fuse the four levels, finest first, into (B, F/2, 2 h1, 2 w1)."""
        l1, l2, l3, l4 = levels
        path = self.refinenet4(None, l4, l3.shape[2:])
        path = self.refinenet3(path, l3, l2.shape[2:])
        path = self.refinenet2(path, l2, l1.shape[2:])
        path = self.refinenet1(path, l1, (2 * l1.shape[2], 2 * l1.shape[3]))
        out: Tensor = self.output_conv1(path)
        return out


class DPTHead(nn.Module):
    """Four encoder maps and the state of the last step -> prediction and new state.

    Args:
        config: channels, recurrence, activation.
        channels, strides: of the encoder's maps, see `extractor.Encoder`.
    """

    def __init__(
        self, config: ModelConfig, channels: Sequence[int], strides: Sequence[int]
    ) -> None:
        super().__init__()
        if len(channels) != 4 or len(strides) != 4:
            raise ConfigurationError(
                f"the encoder gives {len(channels)} maps; the head needs four",
                channels=tuple(channels),
            )
        self.config = config
        self.strides = tuple(strides)
        self.one_scale = len(set(strides)) == 1
        c1, c2, _, c4 = config.reassemble
        self.projects = nn.ModuleList(
            nn.Conv2d(given, wanted, 1)
            for given, wanted in zip(channels, config.reassemble, strict=True)
        )
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(c1, c1, 4, stride=4),
                nn.ConvTranspose2d(c2, c2, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(c4, c4, 3, stride=2, padding=1),
            ]
            if self.one_scale
            else [nn.Identity() for _ in range(4)]
        )
        self.scratch = Scratch(config)
        if config.recurrence is not None:
            padding = config.recurrent_padding
            self.gru_layer_1 = RecurrentLayer(config.features, config.recurrence, padding)
            self.gru_layer_2 = RecurrentLayer(config.features, config.recurrence, padding)
            self.gru_layer_3 = RecurrentLayer(config.features, config.recurrence, padding)
            self.gru_layer_4 = RecurrentLayer(config.features, config.recurrence, padding)

    def level_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return (rows, columns) of the four levels before the recurrence, finest first.

        Args:
            height, width: of the network's input in px.
        """

        def cells(side: int) -> list[int]:
            h = [-(-side // stride) for stride in self.strides]
            return [4 * h[0], 2 * h[1], h[2], (h[3] + 1) // 2] if self.one_scale else h

        return list(zip(cells(height), cells(width), strict=True))

    def state_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Return (channels, rows, columns) of each tensor of the state, without the batch.

        Coarsest level first; per level hidden and cell (convlstm) or hidden alone (convgru);
        empty without recurrence.

        Raises:
            ConfigurationError: if the input is too small: without padding the recurrence takes
                one cell off every side of every level, so 5 patches per side are the least for
                a ViT.
        """
        if self.config.recurrence is None:
            return []
        shapes = []
        lost = 2 - 2 * self.config.recurrent_padding
        for rows, columns in reversed(self.level_sizes(height, width)):
            if rows <= lost or columns <= lost:
                raise ConfigurationError(
                    f"the network's input {height}x{width} is too small for the recurrence: its "
                    f"coarsest level has {rows}x{columns} cells and needs {lost + 1}x{lost + 1}",
                    height=height,
                    width=width,
                )
            size = (self.config.features, rows - lost, columns - lost)
            shapes += [size] * self.gru_layer_1.tensors
        return shapes

    def forward(
        self, maps: Sequence[Tensor], size: tuple[int, int], state: State
    ) -> tuple[Tensor, State]:
        """Predict.

        Args:
            maps: the encoder's four maps.
            size: height and width of the prediction in px.
            state: of the last step, see `state_shapes`; `()` without recurrence.

        Returns:
            The prediction (B, 1, *size) and the new state.
        """
        levels, state = self.remember(self.project(maps), state)
        return self.decode(levels, size), state

    def project(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Bring the encoder's four maps to F channels and the sizes of the levels, finest first."""
        return self.scratch.project(
            [
                resize(project(level))
                for project, resize, level in zip(
                    self.projects, self.resize_layers, maps, strict=True
                )
            ]
        )

    def remember(self, levels: Sequence[Tensor], state: State) -> tuple[list[Tensor], State]:
        """Advance the memory by one step: the only part of the head that needs the last step.

        Args:
            levels: of `project`.
            state: of the last step; `()` without recurrence, where the levels stay as they are.

        Returns:
            What `decode` takes, and the new state.

        Raises:
            ConfigurationError: the state of another network.
        """
        recurrent = self.config.recurrence is not None
        layers = (
            (self.gru_layer_4, self.gru_layer_3, self.gru_layer_2, self.gru_layer_1)
            if recurrent
            else ()
        )
        count = layers[0].tensors if layers else 0
        if len(state) != 4 * count:
            raise ConfigurationError(
                f"the state has {len(state)} tensors; this network keeps {4 * count or 'none'}"
                + (". Begin with initial_state(batch, height, width)" if recurrent else ""),
                tensors=len(state),
            )
        if not layers:
            return list(levels), ()
        remembered: list[Tensor] = []
        new_state: list[Tensor] = []
        for index, (layer, level) in enumerate(zip(layers, reversed(levels), strict=True)):
            feature, tensors = layer(level, state[index * count : (index + 1) * count])
            remembered.append(feature)
            new_state += tensors
        return remembered[::-1], tuple(new_state)

    def decode(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return the prediction (B, 1, *size) of levels that `remember` gave."""
        features = F.interpolate(
            self.scratch.fuse(levels),
            size=size,
            mode="bilinear",
            align_corners=self.config.head_align_corners,
        )
        return self._activate(self.scratch.output_conv2(features))

    def _activate(self, x: Tensor) -> Tensor:
        config = self.config
        if config.activation == "relu":
            x = torch.relu(x)
            x = 1.0 / (x + 1e-6) if config.inv_prediction else x
        elif config.activation == "sigmoid":
            x = torch.sigmoid(x)
            x = 1.0 - x if config.inv_prediction else x
        elif config.activation == "softplus":
            x = F.softplus(x)
        else:
            # In float32 also under half precision: 65504 is not far for an exponential.
            x = torch.exp(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x)
        return x if config.output_scale == 1.0 else x * config.output_scale
