"""The windows that contenders of `bench_gpu` step: moving edges, in host memory that stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dae_ros.representation.tencode_code import pack_tencode
from dae_ros.runtime.onnx_parity import moving_edges


@dataclass(frozen=True, eq=False)
class Frame:
    """One window in host memory that stays in place, in both forms that contenders take.

    Attributes:
        code: uint16[H, W], the Tencode as the pipeline hands it on.
        planes: float32[3, H, W], the same as an image.
    """

    code: NDArray[np.uint16]
    planes: NDArray[np.float32]


def frames(height: int, width: int, count: int, *, pinned: bool) -> list[Frame]:
    """Return windows of moving edges, the same on every machine."""
    found = []
    for image in moving_edges("tencode", 3, height, width, count):
        code = torch.zeros(height, width, dtype=torch.int16, pin_memory=pinned)
        planes = torch.zeros(image.shape, pin_memory=pinned)
        seen = Frame(code.numpy().view(np.uint16), planes.numpy())
        seen.planes[:] = image
        if not pack_tencode(image, seen.code):
            raise ValueError("the image is no Tencode")
        found.append(seen)
    return found
