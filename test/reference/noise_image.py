"""A network's input whose pixels are noise: what tests of backends compare outputs of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def noise_image(seed: int = 0, height: int = 60, width: int = 80) -> NDArray[np.float32]:
    """Return a (3, height, width) image of uniform values in [0, 1), the same for a seed."""
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32)


def code_of_noise(seed: int = 0, height: int = 60, width: int = 80) -> NDArray[np.uint16]:
    """Return a Tencode as its code (height, width), a third of it without events."""
    rng = np.random.default_rng(seed)
    code = rng.integers(2, 2 * (126 * 259 + 2), (height, width))
    return np.where(rng.random((height, width)) < 1 / 3, 0, code).astype(np.uint16)
