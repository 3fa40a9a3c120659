"""Logarithmic depth in 0..1, the output of E2Depth and EReFormer.

p = 1 + ln(D / D_max) / alpha, clipped to 0..1 (Hidalgo-Carrio et al. 2020, arXiv:2010.08350,
section 3.2): alpha = 3.70378 puts 0 at 1.97 m where D_max is 80 m.
"""

from __future__ import annotations

import torch
from torch import Tensor

ALPHA = 3.70378
MAX_DEPTH_M = 80.0


def to_depth(logits: Tensor, max_depth_m: float) -> Tensor:
    """Return max_depth_m * exp(ALPHA (sigmoid(logits) - 1)), at least float32."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return max_depth_m * torch.exp(ALPHA * (torch.sigmoid(wide) - 1.0))
