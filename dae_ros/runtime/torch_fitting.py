"""From the sensor's size to a network's input, and from its prediction back, as tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dae_ros.model.networks import NetworkConfig
from dae_ros.representation.geometry import network_size


class Fitting:
    """Brings images of the sensor's size into a network, and its predictions back.

    Args:
        config: of the network; its `input_format` decides.
        multiple: what both sides of the network's input must be multiples of, in px.
        device: of the images.
    """

    def __init__(self, config: NetworkConfig, multiple: int, device: torch.device) -> None:
        self.format = config.input_format
        self._multiple = multiple
        shape = (1, self.format.channels, 1, 1)
        self._mean = torch.tensor(self.format.mean, device=device).reshape(shape)
        self._deviation = torch.tensor(self.format.deviation, device=device).reshape(shape)

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the network's input for a sensor, in px."""
        if self.format.at_least is None:
            return (height + -height % self._multiple, width + -width % self._multiple)
        return network_size(height, width, *self.format.at_least, self._multiple)

    def prepare(self, images: Tensor) -> Tensor:
        """Scale or pad, and normalise.

        Args:
            images: float32 (B, C, height, width), at the sensor's size.

        Returns:
            (B, C, *network_size(height, width)).
        """
        height, width = images.shape[2:]
        target = self.network_size(height, width)
        if target != (height, width):
            if self.format.at_least is None:
                images = F.pad(images, self._margins(height, width), mode="reflect")
            else:
                # Overshoot beyond 0..1 stays, as in the published code.
                images = F.interpolate(images, size=target, mode="bicubic", align_corners=False)
        return (images - self._mean) / self._deviation

    def restore(self, predictions: Tensor, height: int, width: int) -> Tensor:
        """Bring predictions (B, 1, h, w) to float32 (B, 1, height, width)."""
        if self.format.at_least is None:
            left, _, top, _ = self._margins(height, width)
            return predictions.float()[:, :, top : top + height, left : left + width]
        return F.interpolate(
            predictions.float(),
            size=(height, width),
            mode="bilinear",
            align_corners=self.format.align_corners,
        )

    def _margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return left, right, top and bottom in px; the odd one left and above, as published."""
        down, right = -height % self._multiple, -width % self._multiple
        return (right - right // 2, right // 2, down - down // 2, down // 2)
