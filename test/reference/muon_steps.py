"""Muon by singular values: what Newton and Schulz approximate, in numpy and float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def odd_polynomial(value: float) -> float:
    """Return what one round makes of one singular value."""
    return 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5


def quintic(value: float) -> float:
    """Return what five rounds make of one singular value."""
    for _ in range(5):
        value = odd_polynomial(value)
    return value


def direction(matrix: Matrix) -> Matrix:
    """Return U f(S / |S|) V^T of a matrix U S V^T."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    shares = values / np.sqrt((values**2).sum())
    return np.asarray(left @ np.diag([quintic(value) for value in shares]) @ right)


def steps(weight: Matrix, gradients: list[Matrix], rate: float, decay: float) -> Matrix:
    """Return a matrix after one step per gradient."""
    momentum = np.zeros_like(weight)
    for gradient in gradients:
        momentum = 0.95 * momentum + 0.05 * gradient
        ahead = 0.05 * gradient + 0.95 * momentum
        longest = max(weight.shape)
        weight = weight * (1 - rate * decay) - rate * 0.2 * np.sqrt(longest) * direction(ahead)
    return weight
