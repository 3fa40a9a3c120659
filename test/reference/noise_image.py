"""A network's input whose pixels are noise: what tests of backends compare outputs of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def noise_image(seed: int = 0, height: int = 60, width: int = 80) -> NDArray[np.float32]:
    """Return a (3, height, width) image of uniform values in [0, 1), the same for a seed."""
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32)
